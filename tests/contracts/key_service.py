"""What every key service must do: rotation/keys/__init__.py, sentence by sentence."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import stamina

from rotation.errors import KeyServiceError, Unauthorized, Unavailable
from rotation.keys import KeyService, KeyView
from tests.contracts.staging import ATTEMPTS, Trouble, told_by

CONTEXT = {"keyturn:secret": "orders/db", "keyturn:generation": "42"}


class DataKeyContract(ABC):
    """What data keys must be, wherever a key service runs. Inherit this and say how to make what it needs."""

    @abstractmethod
    def open(self) -> KeyService: ...

    @abstractmethod
    def key(self) -> str:
        """The reference of a key that can be used, and another one each time."""

    def test_a_data_key_is_fresh_and_can_be_unwrapped(self) -> None:
        service, key = self.open(), self.key()
        one, other = service.data_key(key, CONTEXT), service.data_key(key, CONTEXT)
        assert len(one.plaintext) == 32
        assert one.plaintext != other.plaintext
        assert one.plaintext not in one.wrapped
        assert self.open().unwrap(key, one.wrapped, CONTEXT) == one.plaintext

    def test_another_context_does_not_unwrap(self) -> None:
        service, key = self.open(), self.key()
        wrapped = service.data_key(key, CONTEXT).wrapped
        for context in ({}, CONTEXT | {"keyturn:generation": "43"}, CONTEXT | {"more": "of it"}):
            with pytest.raises(KeyServiceError):
                service.unwrap(key, wrapped, context)

    def test_another_key_does_not_unwrap(self) -> None:
        service, key = self.open(), self.key()
        wrapped = service.data_key(key, CONTEXT).wrapped
        with pytest.raises(KeyServiceError):
            service.unwrap(self.key(), wrapped, CONTEXT)

    def test_an_altered_wrapped_key_does_not_unwrap(self) -> None:
        service, key = self.open(), self.key()
        wrapped = bytearray(service.data_key(key, CONTEXT).wrapped)
        wrapped[-1] ^= 1
        with pytest.raises(KeyServiceError):
            service.unwrap(key, bytes(wrapped), CONTEXT)


class KeyServiceContract(DataKeyContract):
    """For a service whose server can be told to misbehave, and whose keys, all of them new, can be rotated."""

    @abstractmethod
    def disable(self, key: str) -> None: ...

    @abstractmethod
    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        """The service's server misbehaves for so many calls, once so many have passed."""

    @abstractmethod
    def rotations(self, key: str) -> int:
        """How often the server says that the key's material was rotated."""

    @pytest.fixture(autouse=True)
    def without_pauses(self) -> Iterator[None]:
        with stamina.set_testing(True, attempts=ATTEMPTS):
            yield

    def test_a_rotated_key_still_unwraps_what_its_old_material_wrapped(self) -> None:
        service, key = self.open(), self.key()
        before = service.data_key(key, CONTEXT)
        service.rotate(key)
        after = service.data_key(key, CONTEXT)
        assert service.unwrap(key, before.wrapped, CONTEXT) == before.plaintext
        assert service.unwrap(key, after.wrapped, CONTEXT) == after.plaintext

    def test_observing_shows_the_last_rotation(self) -> None:
        service, key = self.open(), self.key()
        assert service.observe([key]) == {key: KeyView(key)}
        service.rotate(key)
        first = service.observe([key])[key].rotated_at
        service.rotate(key)
        second = service.observe([key])[key].rotated_at
        assert first is not None
        assert second is not None
        assert datetime.now(UTC) - timedelta(minutes=5) < first < second

    def test_observing_shows_absent_and_disabled_keys_among_others(self) -> None:
        service, usable, disabled = self.open(), self.key(), self.key()
        absent = f"{usable}-is-not-there"
        self.disable(disabled)
        views = service.observe([usable, disabled, absent, usable])
        assert {key: (view.exists, view.enabled) for key, view in views.items()} == {
            usable: (True, True),
            disabled: (True, False),
            absent: (False, False),
        }

    def test_a_disabled_key_neither_wraps_nor_unwraps(self) -> None:
        service, key = self.open(), self.key()
        wrapped = service.data_key(key, CONTEXT).wrapped
        self.disable(key)
        with pytest.raises(KeyServiceError):
            service.data_key(key, CONTEXT)
        with pytest.raises(KeyServiceError):
            service.unwrap(key, wrapped, CONTEXT)

    def test_an_absent_key_is_refused(self) -> None:
        service, absent = self.open(), f"{self.key()}-is-not-there"
        acts: list[Callable[[], object]] = [lambda: service.rotate(absent), lambda: service.data_key(absent, CONTEXT)]
        for act in acts:
            with pytest.raises(KeyServiceError):
                act()

    @pytest.mark.parametrize("trouble", [t for t in Trouble if t is not Trouble.DENIED], ids=lambda t: t.value)
    def test_a_passing_trouble_at_any_remote_call_rotates_exactly_once(self, trouble: Trouble) -> None:
        service = self.open()
        for after in range(6):
            key = self.key()
            self.trouble(trouble, times=1, after=after)
            service.rotate(key)
            service.observe([key])  # takes up a trouble that the rotation did not meet
            service.observe([key])
            assert self.rotations(key) == 1, f"{trouble.value} at call {after + 1}"

    @pytest.mark.parametrize("trouble", [Trouble.THROTTLED, Trouble.BROKEN, Trouble.DROPPED], ids=lambda t: t.value)
    def test_a_lasting_trouble_is_unavailable(self, trouble: Trouble) -> None:
        for act in self.every_act():
            self.trouble(trouble, times=ATTEMPTS)
            with pytest.raises(Unavailable):
                act()

    def test_a_refused_runner_is_unauthorized_at_once(self) -> None:
        for act in self.every_act():
            self.trouble(Trouble.DENIED, times=1)
            with pytest.raises(Unauthorized):
                act()

    def every_act(self) -> list[Callable[[], object]]:
        service, key = self.open(), self.key()
        wrapped = service.data_key(key, CONTEXT).wrapped
        return [
            lambda: service.observe([key]),
            lambda: service.rotate(key),
            lambda: service.data_key(key, CONTEXT),
            lambda: service.unwrap(key, wrapped, CONTEXT),
        ]

    def test_no_error_and_no_log_tells_a_data_key(self, caplog: pytest.LogCaptureFixture) -> None:
        service, key = self.open(), self.key()
        with caplog.at_level(logging.DEBUG):
            made = service.data_key(key, CONTEXT)
            service.unwrap(key, made.wrapped, CONTEXT)
            told = told_by(lambda: service.unwrap(key, made.wrapped, {}))
        for text in (repr(made.plaintext), made.plaintext.hex()):
            assert text not in caplog.text + told + repr(made) + str(made)
