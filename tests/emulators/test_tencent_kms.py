"""The emulated Key Management Service of Tencent Cloud, by the official SDK."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.fixtures.tencent import TencentCloud, ask, refused, running_tencent

DAY = 86400
CONTEXT = '{"secret":"orders/db"}'


@pytest.fixture
def kms(tencent: TencentCloud) -> Any:
    return tencent.client("kms")


@pytest.fixture
def key(tencent: TencentCloud, kms: Any) -> str:
    """The ID of a key."""
    found: str = ask(kms, "CreateKey", Alias=tencent.name("key")).KeyId
    return found


def described(client: Any, key: str) -> Any:
    return ask(client, "DescribeKey", KeyId=key).KeyMetadata


def test_a_data_key_is_unwrapped_under_its_own_context_only(kms: Any, key: str) -> None:
    made = ask(kms, "GenerateDataKey", KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    assert len(base64.b64decode(made.Plaintext)) == 32
    opened = ask(kms, "Decrypt", CiphertextBlob=made.CiphertextBlob, EncryptionContext=CONTEXT)
    assert (opened.Plaintext, opened.KeyId) == (made.Plaintext, key)
    for other in ("", '{"secret":"orders/other"}', '{"secret": "orders/db"}'):
        with refused("FailedOperation.DecryptError"):
            ask(kms, "Decrypt", CiphertextBlob=made.CiphertextBlob, EncryptionContext=other)


@pytest.mark.parametrize(
    ("asked", "size"), [({"KeySpec": "AES_128"}, 16), ({"KeySpec": "AES_128", "NumberOfBytes": 7}, 7)]
)
def test_a_data_key_is_as_long_as_it_was_asked_for(kms: Any, key: str, asked: dict[str, Any], size: int) -> None:
    assert len(base64.b64decode(ask(kms, "GenerateDataKey", KeyId=key, **asked).Plaintext)) == size


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "InvalidParameter"),
        ({"NumberOfBytes": 1025}, "InvalidParameterValue"),
        ({"KeySpec": "AES_192"}, "InvalidParameterValue"),
        ({"KeySpec": "AES_256", "EncryptionContext": "no json"}, "InvalidParameterValue"),
        ({"KeySpec": "AES_256", "EncryptionContext": '{"a":1}'}, "InvalidParameterValue"),
        ({"KeySpec": "AES_256", "EncryptionContext": '{"a":"%s"}' % ("x" * 1017)}, "InvalidParameterValue"),
    ],
)
def test_a_data_key_that_cannot_be_is_refused(kms: Any, key: str, asked: dict[str, Any], code: str) -> None:
    with refused(code):
        ask(kms, "GenerateDataKey", KeyId=key, **asked)


def test_4096_bytes_can_be_encrypted_and_not_one_more(kms: Any, key: str) -> None:
    text = base64.b64encode(bytes(4096)).decode()
    sealed = ask(kms, "Encrypt", KeyId=key, Plaintext=text).CiphertextBlob
    assert ask(kms, "Decrypt", CiphertextBlob=sealed).Plaintext == text
    for bad in (base64.b64encode(bytes(4097)).decode(), "no base64!", ""):
        with refused("InvalidParameterValue.InvalidPlaintext"):
            ask(kms, "Encrypt", KeyId=key, Plaintext=bad)


def test_a_ciphertext_that_was_changed_is_not_decrypted(kms: Any, key: str) -> None:
    sealed = bytearray(base64.b64decode(ask(kms, "Encrypt", KeyId=key, Plaintext="YQ==").CiphertextBlob))
    sealed[-1] ^= 1
    with refused("FailedOperation.DecryptError"):
        ask(kms, "Decrypt", CiphertextBlob=base64.b64encode(sealed).decode())
    with refused("InvalidParameterValue.InvalidCiphertext"):
        ask(kms, "Decrypt", CiphertextBlob="YQ==")


def test_a_key_has_an_alias_of_its_own(tencent: TencentCloud, kms: Any, key: str) -> None:
    alias = described(kms, key).Alias
    with refused("InvalidParameterValue.AliasAlreadyExists"):
        ask(kms, "CreateKey", Alias=alias)
    for bad in ("kms-mine", "_a", "a" * 61, ""):
        with refused("InvalidParameterValue.InvalidAlias"):
            ask(kms, "CreateKey", Alias=bad)
    another = tencent.name("key")
    ask(kms, "UpdateAlias", KeyId=key, Alias=another)
    assert described(kms, key).Alias == another


def test_a_disabled_key_neither_encrypts_nor_decrypts(kms: Any, key: str) -> None:
    sealed = ask(kms, "Encrypt", KeyId=key, Plaintext="YQ==").CiphertextBlob
    ask(kms, "DisableKey", KeyId=key)
    for action, asked in (
        ("Encrypt", {"KeyId": key, "Plaintext": "YQ=="}),
        ("Decrypt", {"CiphertextBlob": sealed}),
        ("GenerateDataKey", {"KeyId": key, "KeySpec": "AES_256"}),
        ("RotateKey", {"KeyId": key}),
    ):
        with refused("ResourceUnavailable.CmkDisabled"):
            ask(kms, action, **asked)
    ask(kms, "EnableKey", KeyId=key)
    assert ask(kms, "Decrypt", CiphertextBlob=sealed).Plaintext == "YQ=="


def test_an_unknown_key_is_told_from_a_malformed_id(kms: Any) -> None:
    with refused("ResourceUnavailable.CmkNotFound"):
        described(kms, "00000000-0000-0000-0000-00000000dead")
    with refused("InvalidParameterValue.InvalidKeyId"):
        described(kms, "orders")


def test_a_key_is_deleted_in_7_to_30_days_after_it_was_disabled(tencent: TencentCloud, kms: Any, key: str) -> None:
    with refused("ResourceUnavailable.CmkShouldBeDisabled"):
        ask(kms, "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    ask(kms, "DisableKey", KeyId=key)
    for days in (6, 31):
        with refused("InvalidParameter.InvalidPendingWindowInDays"):
            ask(kms, "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=days)
    ask(kms, "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    with refused("ResourceUnavailable.CmkStateNotSupport"):
        ask(kms, "EnableKey", KeyId=key)
    ask(kms, "CancelKeyDeletion", KeyId=key)
    assert described(kms, key).KeyState == "Disabled"
    with refused("ResourceUnavailable.CmkNotPendingDelete"):
        ask(kms, "CancelKeyDeletion", KeyId=key)
    ask(kms, "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    tencent.clock.advance(7 * DAY + 1)
    tencent.clock.run()
    with refused("ResourceUnavailable.CmkNotFound"):
        described(kms, key)


@pytest.fixture
def turning(tencent: TencentCloud, kms: Any, key: str) -> str:
    """The ID of a key whose rotation is enabled."""
    ask(kms, "EnableKeyRotation", KeyId=key, RotateDays=30)
    return key


def rotate(tencent: TencentCloud, client: Any, key: str) -> None:
    ask(client, "RotateKey", KeyId=key)
    tencent.clock.advance(1)
    tencent.clock.run()


def test_a_rotation_is_done_later_and_what_was_wrapped_before_still_opens(
    tencent: TencentCloud, kms: Any, turning: str
) -> None:
    sealed = ask(kms, "Encrypt", KeyId=turning, Plaintext="YQ==").CiphertextBlob
    tencent.clock.stop()
    tencent.cloud.tasks.seconds = 60
    assert ask(kms, "RotateKey", KeyId=turning).TaskId
    with refused("FailedOperation.RotateTaskRunning"):
        ask(kms, "RotateKey", KeyId=turning)
    tencent.clock.advance(59)
    assert described(kms, turning).LastRotateTime == 0
    tencent.clock.advance(1)
    assert described(kms, turning).LastRotateTime == int(tencent.clock.now())
    tencent.clock.run()
    assert ask(kms, "Decrypt", CiphertextBlob=sealed).Plaintext == "YQ=="


def test_a_rotation_that_fails_leaves_the_time_of_the_last_one(tencent: TencentCloud, kms: Any, turning: str) -> None:
    tencent.cloud.tasks.fail()
    rotate(tencent, kms, turning)
    assert described(kms, turning).LastRotateTime == 0
    rotate(tencent, kms, turning)
    assert described(kms, turning).LastRotateTime > 0


def test_a_key_is_rotated_once_a_day_and_only_if_its_rotation_is_enabled(
    tencent: TencentCloud, kms: Any, turning: str
) -> None:
    rotate(tencent, kms, turning)
    with refused("RequestLimitExceeded.RotateRateLimited"):
        ask(kms, "RotateKey", KeyId=turning)
    ask(kms, "DisableKeyRotation", KeyId=turning)
    assert ask(kms, "GetKeyRotationStatus", KeyId=turning).KeyRotationEnabled is False
    with refused("UnsupportedOperation.RotateNotSupported"):
        ask(kms, "RotateKey", KeyId=turning)


def test_a_key_rotates_by_itself_when_its_days_are_over(tencent: TencentCloud, kms: Any, turning: str) -> None:
    due = described(kms, turning).NextRotateTime
    tencent.clock.advance(30 * DAY + 1)
    tencent.clock.run()
    assert described(kms, turning).LastRotateTime >= due
    for days in (6, 366):
        with refused("InvalidParameterValue"):
            ask(kms, "EnableKeyRotation", KeyId=turning, RotateDays=days)


def test_a_ciphertext_is_encrypted_again_only_after_a_rotation(tencent: TencentCloud, kms: Any, turning: str) -> None:
    sealed = ask(kms, "Encrypt", KeyId=turning, Plaintext="YQ==", EncryptionContext=CONTEXT).CiphertextBlob
    contexts = {"SourceEncryptionContext": CONTEXT, "DestinationEncryptionContext": CONTEXT}
    same = ask(kms, "ReEncrypt", CiphertextBlob=sealed, **contexts)
    assert (same.ReEncrypted, same.CiphertextBlob) == (False, sealed)
    rotate(tencent, kms, turning)
    fresh = ask(kms, "ReEncrypt", CiphertextBlob=sealed, **contexts)
    assert (fresh.ReEncrypted, fresh.SourceKeyId, fresh.KeyId) == (True, turning, turning)
    assert fresh.CiphertextBlob != sealed
    opened = ask(kms, "Decrypt", CiphertextBlob=fresh.CiphertextBlob, EncryptionContext=CONTEXT)
    assert opened.Plaintext == "YQ=="
    with refused("FailedOperation.DecryptError"):
        ask(kms, "ReEncrypt", CiphertextBlob=sealed)


def test_keys_and_what_they_wrapped_outlive_a_restart(tmp_path: Any) -> None:
    with running_tencent(tmp_path / "cloud.sqlite") as before:
        kms = before.client("kms")
        key = ask(kms, "CreateKey", Alias="kept").KeyId
        made = ask(kms, "GenerateDataKey", KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    with running_tencent(tmp_path / "cloud.sqlite") as after:
        opened = ask(after.client("kms"), "Decrypt", CiphertextBlob=made.CiphertextBlob, EncryptionContext=CONTEXT)
    assert opened.Plaintext == made.Plaintext
