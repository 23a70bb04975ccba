"""AWS KMS, against the AWS API of the embedded environment."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from rotation.errors import KeyServiceError
from rotation.keys.aws_kms import AwsKms
from tests.contracts.key_service import CONTEXT, KeyServiceContract
from tests.contracts.staging import Trouble
from tests.fixtures.aws import AwsApi

_FAULTS = {
    Trouble.THROTTLED: "throttle",
    Trouble.BROKEN: "error",
    Trouble.DROPPED: "drop",
    Trouble.LOST_REPLY: "lost_reply",
    Trouble.DENIED: "deny",
}


class TestAwsKms(KeyServiceContract):
    @pytest.fixture(autouse=True)
    def server(self, aws_environment: AwsApi) -> None:
        self.api = aws_environment
        self.raw: Any = aws_environment.client("kms")

    def open(self) -> AwsKms:
        return AwsKms({})

    def key(self) -> str:
        alias = f"alias/keyturn-tests-{uuid.uuid4()}"
        self.raw.create_alias(AliasName=alias, TargetKeyId=self.raw.create_key()["KeyMetadata"]["KeyId"])
        return alias

    def key_id(self, key: str) -> str:
        key_id: str = self.raw.describe_key(KeyId=key)["KeyMetadata"]["KeyId"]
        return key_id

    def disable(self, key: str) -> None:
        self.raw.disable_key(KeyId=self.key_id(key))

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        self.api.faults("kms", "*", _FAULTS[kind], times=times, after=after)

    def rotations(self, key: str) -> int:
        return len(self.raw.list_key_rotations(KeyId=self.key_id(key))["Rotations"])

    def test_an_arn_and_an_id_name_a_key_as_well(self) -> None:
        service, key = self.open(), self.key()
        wrapped = service.data_key(key, CONTEXT)
        for reference in (self.key_id(key), self.raw.describe_key(KeyId=key)["KeyMetadata"]["Arn"]):
            assert service.unwrap(reference, wrapped.wrapped, CONTEXT) == wrapped.plaintext
            service.rotate(reference)
            assert service.observe([reference])[reference].rotated_at is not None

    def test_automatic_rotation_is_seen(self) -> None:
        service, key = self.open(), self.key()
        self.raw.enable_key_rotation(KeyId=self.key_id(key))
        assert service.observe([key])[key].automatic

    def test_a_key_that_is_about_to_be_deleted_exists_and_is_not_enabled(self) -> None:
        service, key = self.open(), self.key()
        self.raw.schedule_key_deletion(KeyId=self.key_id(key), PendingWindowInDays=7)
        view = service.observe([key])[key]
        assert (view.exists, view.enabled) == (True, False)

    def test_a_key_of_a_sort_that_never_rotates_is_observed_without_rotations(self) -> None:
        service = self.open()
        key = self.raw.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        view = service.observe([key])[key]
        assert (view.exists, view.enabled, view.automatic, view.rotated_at) == (True, True, False, None)
        with pytest.raises(KeyServiceError):
            service.rotate(key)

    def test_after_25_rotations_on_demand_it_says_what_to_do(self) -> None:
        service, key = self.open(), self.key()
        for _ in range(25):
            self.raw.rotate_key_on_demand(KeyId=self.key_id(key))
        with pytest.raises(KeyServiceError) as refused:
            service.rotate(key)
        assert "new key" in refused.value.remedy

    def test_many_keys_are_observed_at_once(self) -> None:
        service, keys = self.open(), [self.key() for _ in range(12)]
        self.api.forget_calls()
        assert list(service.observe(keys)) == keys
        assert self.api.calls() == {
            "kms.DescribeKey": 12,
            "kms.GetKeyRotationStatus": 12,
            "kms.ListKeyRotations": 12,
        }
