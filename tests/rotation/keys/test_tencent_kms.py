"""Tencent Cloud KMS, against the emulated cloud."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from rotation import plugins
from rotation.errors import DeclarationError, KeyServiceError, Unavailable
from rotation.keys import KeyService, KeyView, Wrapped
from rotation.keys.tencent_kms import TencentKms
from rotation.sealing import Placed, rewrap, seal, unseal
from rotation.secret_value import SecretValue
from rotation.tencentcloud import Cloud
from tests.contracts.key_service import CONTEXT, KeyServiceContract
from tests.contracts.staging import Trouble
from tests.fixtures.scf import eventually
from tests.fixtures.tencent import REGION, TencentCloud, ask

_FAULTS = {
    Trouble.THROTTLED: "throttle",
    Trouble.BROKEN: "internal",
    Trouble.DROPPED: "drop",
    Trouble.LOST_REPLY: "lost_reply",
    Trouble.DENIED: "deny",
}
_DAY = 24 * 60 * 60


class TestTencentKms(KeyServiceContract):
    @pytest.fixture(autouse=True)
    def server(self, tencent: TencentCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tencent = tencent
        self.raw = tencent.client("kms")
        monkeypatch.setattr(tencent.cloud.tasks, "seconds", 0.05)

    def open(self) -> TencentKms:
        return TencentKms(self.tencent.options)

    def key(self) -> str:
        alias = self.tencent.name("key")
        made = ask(self.raw, "CreateKey", Alias=alias)
        ask(self.raw, "EnableKeyRotation", KeyId=made.KeyId)
        return alias

    def key_id(self, key: str) -> str:
        found = ask(self.raw, "ListKeyDetail", SearchKeyAlias=key, Limit=200).KeyMetadatas
        key_id: str = next(one.KeyId for one in found if one.Alias == key)
        return key_id

    def disable(self, key: str) -> None:
        ask(self.raw, "DisableKey", KeyId=self.key_id(key))

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        self.tencent.faults.plan("kms.*", _FAULTS[kind], times=times, after=after)

    def rotations(self, key: str) -> int:
        return int(ask(self.raw, "DescribeKey", KeyId=self.key_id(key)).KeyMetadata.LastRotateTime > 0)

    def test_observing_shows_the_last_rotation(self) -> None:
        """KMS rotates once in 24 hours, and only a key whose rotation is enabled."""
        service, key = self.open(), self.key()
        assert service.observe([key]) == {key: KeyView(key, automatic=True)}
        service.rotate(key)
        first = service.observe([key])[key].rotated_at
        with pytest.raises(KeyServiceError, match="RotateRateLimited") as refused:
            service.rotate(key)
        assert "24 hours" in refused.value.remedy
        self.tencent.clock.run(_DAY + 10)
        service._cloud = Cloud(REGION, self.tencent.options["endpoint"], clock=self.tencent.clock.now)
        service.rotate(key)
        second = service.observe([key])[key].rotated_at
        assert first is not None
        assert second is not None
        assert datetime.now(UTC) - timedelta(minutes=5) < first < second

    def test_an_id_names_a_key_as_well_and_an_alias_that_only_begins_alike_does_not(self) -> None:
        service, key = self.open(), self.key()
        ask(self.raw, "CreateKey", Alias=f"{key}-2")
        made = service.data_key(key, CONTEXT)
        assert service.unwrap(self.key_id(key), made.wrapped, CONTEXT) == made.plaintext
        assert not service.observe([key[:-1]])[key[:-1]].exists
        with pytest.raises(KeyServiceError, match="no key has that alias"):
            service.data_key(key[:-1], CONTEXT)

    def test_a_rotation_that_fails_is_unavailable_and_the_next_one_is_made(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rotation.keys.tencent_kms.SHOWS_AFTER", 0.3)
        service, key = self.open(), self.key()
        self.tencent.cloud.tasks.fail()
        with pytest.raises(Unavailable, match="does not show"):
            service.rotate(key)
        assert service.observe([key])[key].rotated_at is None
        monkeypatch.setattr("rotation.keys.tencent_kms.SHOWS_AFTER", 60)
        service.rotate(key)
        assert self.rotations(key) == 1

    def test_a_rotation_that_is_under_way_is_joined(self) -> None:
        """It is not over before it was asked to be: the cloud's clock stands until then."""
        service, key = self.open(), self.key()
        self.tencent.clock.stop()
        try:
            self.tencent.faults.forget_calls()
            ask(self.raw, "RotateKey", KeyId=self.key_id(key))
            with ThreadPoolExecutor(1) as pool:
                joined = pool.submit(service.rotate, key)
                eventually(lambda: self.tencent.faults.calls()["kms.RotateKey"] == 2)
                self.tencent.clock.run()
                joined.result()
        finally:
            self.tencent.clock.run()
        assert self.rotations(key) == 1

    def test_a_key_whose_rotation_is_not_enabled_is_refused_with_what_to_do(self) -> None:
        alias = self.tencent.name("key")
        ask(self.raw, "CreateKey", Alias=alias)
        with pytest.raises(KeyServiceError) as refused:
            self.open().rotate(alias)
        assert "EnableKeyRotation" in refused.value.remedy

    def test_a_data_key_is_wrapped_anew_without_being_shown(self) -> None:
        service, key = self.open(), self.key()
        made = service.data_key(key, CONTEXT)
        wrapped = Wrapped(made.wrapped, CONTEXT)
        assert service.rewrap(key, [wrapped]) == [made.wrapped]
        service.rotate(key)
        self.tencent.faults.forget_calls()
        (anew,) = service.rewrap(key, [wrapped])
        assert self.tencent.faults.calls() == {"kms.ReEncrypt": 1}
        assert anew != made.wrapped
        assert service.unwrap(key, anew, CONTEXT) == made.plaintext

    def test_what_another_key_wrapped_is_not_wrapped_anew(self) -> None:
        service, key, other = self.open(), self.key(), self.key()
        wrapped = Wrapped(service.data_key(other, CONTEXT).wrapped, CONTEXT)
        with pytest.raises(KeyServiceError, match="another key"):
            service.rewrap(key, [wrapped])
        with pytest.raises(KeyServiceError, match="Tencent Cloud"):
            service.rewrap(key, [Wrapped(bytes([255]), CONTEXT)])

    def test_sealed_values_get_new_envelopes_after_a_rotation(self) -> None:
        service, key = self.open(), self.key()
        sealed = [
            Placed(
                seal(SecretValue(f"value {number}"), name="a", generation=number, key=key, service=service), "a", number
            )
            for number in range(1, 10)
        ]
        service.rotate(key)
        anew = rewrap(sealed, key=key, service=service)
        for each, fresh in zip(sealed, anew, strict=True):
            assert fresh != each.stored
            opened = unseal(fresh, name="a", generation=each.generation, service=service)
            assert opened == SecretValue(f"value {each.generation}")


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(KeyService, "tencent_kms") is TencentKms


def test_a_wrong_option_is_refused_by_its_name() -> None:
    with pytest.raises(DeclarationError, match="colour"):
        TencentKms({"colour": "red"})
