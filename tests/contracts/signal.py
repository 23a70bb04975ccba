"""What every signal keeps. A plugin's test gives a :class:`Source` as the fixture ``source`` and inherits the suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta

from rotation.model import Health
from rotation.signals import Signal

SECRET, OTHER = "orders/db", "orders/api-token"
SINCE = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
NOW = SINCE + timedelta(minutes=10)
CANARY = "hunter2-CANARY-0123456789abcdef"


class Source(ABC):
    """Where a signal reads, and what stands there. ``report`` adds up; times are between SINCE and NOW."""

    @abstractmethod
    def signal(self) -> Signal:
        """A signal that reads here."""

    @abstractmethod
    def unreadable(self) -> list[Signal]:
        """Signals whose source cannot be read: one for each way in which that can be."""

    @abstractmethod
    def report(self, secret: str, generation: int, *, well: bool, remark: str = "") -> None:
        """The ring has been doing well or badly with this generation of this secret; the remark is told with it."""


class SignalContract:
    def test_a_source_that_cannot_be_read_is_unknown_and_says_why(self, source: Source) -> None:
        for signal in source.unreadable():
            verdict = signal.read(SECRET, 42, SINCE, NOW)
            assert verdict.health is Health.UNKNOWN
            assert verdict.evidence

    def test_a_source_that_says_nothing_of_the_secret_is_unknown(self, source: Source) -> None:
        source.report(OTHER, 7, well=True)
        assert source.signal().read(SECRET, 42, SINCE, NOW).health is Health.UNKNOWN

    def test_doing_well_is_good_with_evidence(self, source: Source) -> None:
        source.report(SECRET, 42, well=True)
        verdict = source.signal().read(SECRET, 42, SINCE, NOW)
        assert verdict.health is Health.GOOD
        assert "42" in " ".join(verdict.evidence)

    def test_doing_badly_is_bad_with_evidence(self, source: Source) -> None:
        source.report(SECRET, 42, well=False)
        verdict = source.signal().read(SECRET, 42, SINCE, NOW)
        assert verdict.health is Health.BAD
        assert "42" in " ".join(verdict.evidence)

    def test_errors_of_the_old_generation_never_blame_the_new_one(self, source: Source) -> None:
        source.report(SECRET, 41, well=False)
        assert source.signal().read(SECRET, 42, SINCE, NOW).health is Health.UNKNOWN

    def test_errors_of_another_secret_never_blame_this_one(self, source: Source) -> None:
        source.report(OTHER, 42, well=False)
        assert source.signal().read(SECRET, 42, SINCE, NOW).health is Health.UNKNOWN

    def test_asked_again_it_answers_the_same(self, source: Source) -> None:
        source.report(SECRET, 42, well=False)
        signal = source.signal()
        assert signal.read(SECRET, 42, SINCE, NOW) == signal.read(SECRET, 42, SINCE, NOW)
        assert source.signal().read(SECRET, 42, SINCE, NOW) == signal.read(SECRET, 42, SINCE, NOW)

    def test_evidence_holds_no_credential(self, source: Source) -> None:
        source.report(SECRET, 42, well=False, remark=f"postgresql://orders_app:{CANARY}@db/orders password={CANARY}")
        verdict = source.signal().read(SECRET, 42, SINCE, NOW)
        assert verdict.health is Health.BAD
        assert CANARY not in " ".join(verdict.evidence)
