"""What every credential kind keeps to. A kind's test class builds the objects and inherits one of these suites."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rotation.credentials import CredentialKind
from rotation.errors import DeclarationError, KeyturnError, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy
from rotation.secret_value import SecretValue

SECRET = "orders/db"
Make = Callable[[Strategy], CredentialKind]


def issued(kind: CredentialKind, generation: int, current: Credential | None = None) -> Credential:
    return Credential(SECRET, generation, kind.issue(current))


def installed(kind: CredentialKind, generation: int, current: Credential | None = None) -> Credential:
    credential = issued(kind, generation, current)
    kind.install(credential, current)
    return credential


def texts_of(error: BaseException | None) -> Iterator[str]:
    """All that can be read from an error and those that led to it, the attributes of their attributes included."""
    while error is not None:
        yield "".join(traceback.format_exception(error))
        for name in dir(error):
            found = getattr(error, name)
            yield repr(found)
            yield repr(getattr(found, "__dict__", None))
        error = error.__cause__ or error.__context__


class CredentialKindContract:
    """For every kind. ``make`` builds one for a strategy, ``kind`` is the one under test."""

    strategies: frozenset[Strategy]

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    @pytest.fixture
    def kind(self) -> CredentialKind:
        raise NotImplementedError

    def test_it_makes_a_first_value(self, kind: CredentialKind) -> None:
        assert isinstance(kind.issue(None), SecretValue)

    def test_it_never_makes_the_same_value_twice(self, kind: CredentialKind) -> None:
        current = issued(kind, 1)
        assert len({kind.issue(current).reveal() for _ in range(20)} | {current.value.reveal()}) == 21

    def test_what_is_installed_is_accepted(self, kind: CredentialKind) -> None:
        assert kind.check(installed(kind, 1)) is Acceptance.ACCEPTED

    def test_installing_again_changes_nothing(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.install(second, first)
        assert kind.check(second) is Acceptance.ACCEPTED

    def test_two_runners_install_the_same_generation_at_once(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = issued(kind, 2, first)
        with ThreadPoolExecutor(4) as runners:
            for done in [runners.submit(kind.install, second, first) for _ in range(4)]:
                done.result()
        assert kind.check(second) is Acceptance.ACCEPTED

    def test_revoking_the_old_one_leaves_the_current_one_accepted(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        kind.revoke(first, second)
        assert kind.check(second) is Acceptance.ACCEPTED

    def test_the_current_one_is_not_revoked_even_when_asked(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        kind.revoke(first, first)
        assert kind.check(first) is Acceptance.ACCEPTED

    @pytest.mark.parametrize("strategy", Strategy)
    def test_it_is_made_for_its_own_strategies_only(self, make: Make, strategy: Strategy) -> None:
        if strategy in self.strategies:
            assert strategy in make(strategy).strategies
        else:
            with pytest.raises(DeclarationError, match=strategy):
                make(strategy)

    def test_its_repr_shows_no_value(self, kind: CredentialKind) -> None:
        credential = installed(kind, 1)
        assert credential.value.reveal() not in repr(kind) + repr(credential) + repr(vars(kind))


class OverlapContract(CredentialKindContract):
    """For every strategy but "single": the old one works on."""

    def test_the_old_one_stays_accepted_when_a_new_one_is_installed(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        installed(kind, 2, first)
        assert kind.check(first) is Acceptance.ACCEPTED


class TargetContract(CredentialKindContract):
    """For kinds with a target that remembers. ``unreachable`` has a target at a dead port, ``unauthorized`` an
    administrator whom the target refuses."""

    @pytest.fixture
    def unreachable(self) -> CredentialKind:
        raise NotImplementedError

    @pytest.fixture
    def unauthorized(self) -> CredentialKind:
        raise NotImplementedError

    def hidden_part(self, value: SecretValue) -> str:
        """The part of a value that nobody may see."""
        raise NotImplementedError

    @pytest.fixture
    def administrator(self) -> SecretValue:
        """The administrator's own value."""
        raise NotImplementedError

    @pytest.fixture
    def target_log(self) -> Callable[[], str]:
        """Gives all that the target itself has logged so far."""
        raise NotImplementedError

    def test_issuing_does_not_touch_the_target(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        assert kind.check(issued(kind, 2, first)) is Acceptance.DENIED
        assert kind.check(first) is Acceptance.ACCEPTED

    def test_a_revoked_candidate_is_denied_and_cannot_come_back(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.install(first, second)  # what "single" needs, and others do not mind
        kind.revoke(second, first)
        assert (kind.check(second), kind.check(first)) == (Acceptance.DENIED, Acceptance.ACCEPTED)
        with pytest.raises(TargetError, match="superseded"):
            kind.install(second, first)

    def test_a_candidate_turned_down_before_it_was_installed_cannot_be_installed_late(
        self, kind: CredentialKind
    ) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        third = issued(kind, 3, second)
        kind.revoke(third, second)
        with pytest.raises(TargetError, match="superseded"):
            kind.install(third, second)
        assert kind.check(second) is Acceptance.ACCEPTED

    def test_a_runner_that_slept_cannot_install_an_older_generation(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        late = issued(kind, 2, first)
        newer = installed(kind, 3, first)
        with pytest.raises(TargetError, match="superseded"):
            kind.install(late, first)
        assert kind.check(newer) is Acceptance.ACCEPTED

    def test_a_runner_that_slept_cannot_revoke_what_took_its_place(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        third = installed(kind, 3, second)
        kind.revoke(first, second)
        assert kind.check(third) is Acceptance.ACCEPTED

    def test_a_runner_that_slept_cannot_restore_what_was_current_long_ago(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        third = installed(kind, 3, second)
        with pytest.raises(TargetError, match="superseded"):
            kind.install(first, second)
        assert kind.check(third) is Acceptance.ACCEPTED

    def test_an_undone_promotion_goes_back_to_the_old_value_under_a_new_generation(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        third = Credential(SECRET, 3, first.value)
        kind.install(third, second)
        kind.revoke(second, third)
        kind.revoke(first, third)
        assert (kind.check(third), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.DENIED)

    def test_a_runner_that_slept_cannot_revoke_a_value_that_came_back(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        third = Credential(SECRET, 3, first.value)
        kind.install(third, second)
        kind.revoke(first, second)
        assert kind.check(third) is Acceptance.ACCEPTED

    def test_a_dead_target_is_unknown_to_check_and_unavailable_to_the_rest(
        self, kind: CredentialKind, unreachable: CredentialKind
    ) -> None:
        first = issued(unreachable, 1)
        assert unreachable.check(first) is Acceptance.UNKNOWN
        with pytest.raises(Unavailable):
            unreachable.install(first, None)
        with pytest.raises(Unavailable):
            unreachable.revoke(first, None)

    def test_a_refused_administrator_is_unauthorized_and_changes_nothing(
        self, kind: CredentialKind, unauthorized: CredentialKind
    ) -> None:
        first = installed(kind, 1)
        second = issued(kind, 2, first)
        with pytest.raises(Unauthorized):
            unauthorized.install(second, first)
        with pytest.raises(Unauthorized):
            unauthorized.revoke(first, second)
        assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.DENIED)

    def test_no_value_gets_into_errors_or_logs(
        self,
        kind: CredentialKind,
        unreachable: CredentialKind,
        unauthorized: CredentialKind,
        administrator: SecretValue,
        target_log: Callable[[], str],
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.check(issued(kind, 3, second))
        dead = issued(unreachable, 4)
        unreachable.check(dead)
        errors = [
            self._error_of(lambda: kind.install(Credential(SECRET, 1, second.value), None)),
            self._error_of(lambda: unreachable.install(dead, None)),
            self._error_of(lambda: unauthorized.install(second, first)),
            self._error_of(lambda: kind.check(Credential(SECRET, 5, SecretValue(second.value.reveal()[:-1])))),
        ]
        kind.revoke(first, second, end_sessions=True)
        output = capfd.readouterr()
        seen = "\n".join([*(text for e in errors for text in texts_of(e)), caplog.text, *output, target_log()])
        assert "superseded" in seen
        for value in (first.value, second.value, dead.value, administrator):
            assert self.hidden_part(value) not in seen

    @staticmethod
    def _error_of(act: Callable[[], object]) -> KeyturnError:
        with pytest.raises(KeyturnError) as caught:
            act()
        return caught.value


class InPlaceContract(TargetContract):
    """For a kind with the strategy "single"."""

    def test_the_old_one_is_denied_when_the_new_one_is_installed(self, kind: CredentialKind) -> None:
        first = installed(kind, 1)
        installed(kind, 2, first)
        assert kind.check(first) is Acceptance.DENIED

    def test_the_current_value_is_restored_by_naming_the_candidate_that_took_its_place(
        self, kind: CredentialKind
    ) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.install(first, second)
        kind.install(first, second)
        assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.DENIED)
        with pytest.raises(TargetError, match="superseded"):
            kind.install(second, first)
        assert kind.check(installed(kind, 3, first)) is Acceptance.ACCEPTED
