"""The embedded KMS does what AWS documents.

Source: the KMS API reference, the page of the operation that a test calls.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.aws import AwsApi

CONTEXT = {"secret": "orders/db", "generation": "7"}


@pytest.fixture(scope="module")
def client(aws_api: AwsApi) -> Any:
    return aws_api.client("kms")


@pytest.fixture
def key(client: Any) -> Any:
    """The metadata of a symmetric key."""
    return client.create_key(Description="for tests")["KeyMetadata"]


@pytest.fixture
def alias(client: Any, key: Any) -> str:
    name = f"alias/{uuid.uuid4()}"
    client.create_alias(AliasName=name, TargetKeyId=key["KeyId"])
    return name


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def test_a_data_key_is_unwrapped_only_with_its_own_context(client: Any, key: Any) -> None:
    data_key = client.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=CONTEXT)
    assert len(data_key["Plaintext"]) == 32
    assert data_key["KeyId"] == key["Arn"]
    blob = data_key["CiphertextBlob"]
    assert client.decrypt(CiphertextBlob=blob, EncryptionContext=CONTEXT)["Plaintext"] == data_key["Plaintext"]
    for other in ({}, {"secret": "orders/db"}, CONTEXT | {"generation": "8"}, CONTEXT | {"more": ""}):
        with pytest.raises(ClientError) as caught:
            client.decrypt(CiphertextBlob=blob, EncryptionContext=other)
        assert code_of(caught) == "InvalidCiphertextException"


def test_contexts_that_read_the_same_when_joined_are_different(client: Any, key: Any) -> None:
    blob = client.encrypt(KeyId=key["KeyId"], Plaintext=b"plain", EncryptionContext={"a": "bc"})["CiphertextBlob"]
    with pytest.raises(ClientError) as caught:
        client.decrypt(CiphertextBlob=blob, EncryptionContext={"ab": "c"})
    assert code_of(caught) == "InvalidCiphertextException"


@pytest.mark.parametrize("position", [0, 10, 40, 75, -1])
def test_a_ciphertext_with_a_changed_byte_is_refused(client: Any, key: Any, position: int) -> None:
    blob = bytearray(client.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")["CiphertextBlob"])
    blob[position] ^= 1
    with pytest.raises(ClientError) as caught:
        client.decrypt(CiphertextBlob=bytes(blob))
    assert code_of(caught) in ("InvalidCiphertextException", "AccessDeniedException")


def test_a_ciphertext_from_before_a_rotation_still_decrypts_and_new_ones_use_new_material(
    client: Any, key: Any
) -> None:
    before = client.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=CONTEXT)
    for _ in range(3):
        client.rotate_key_on_demand(KeyId=key["KeyId"])
    after = client.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=CONTEXT)
    for data_key in (before, after):
        opened = client.decrypt(CiphertextBlob=data_key["CiphertextBlob"], EncryptionContext=CONTEXT)
        assert opened["Plaintext"] == data_key["Plaintext"]
        assert opened["KeyMaterialId"] == data_key["KeyMaterialId"]
    assert before["KeyMaterialId"] != after["KeyMaterialId"]


def test_rotations_are_listed_with_the_material_that_each_made_current(client: Any, key: Any) -> None:
    assert client.list_key_rotations(KeyId=key["KeyId"])["Rotations"] == []
    first = client.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")
    client.rotate_key_on_demand(KeyId=key["Arn"])
    client.rotate_key_on_demand(KeyId=key["KeyId"])
    rotations = client.list_key_rotations(KeyId=key["Arn"])["Rotations"]
    assert [rotation["KeyMaterialState"] for rotation in rotations] == ["NON_CURRENT", "CURRENT"]
    assert {rotation["RotationType"] for rotation in rotations} == {"ON_DEMAND"}
    assert rotations[0]["RotationDate"] <= rotations[1]["RotationDate"]
    everything = client.list_key_rotations(KeyId=key["KeyId"], IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]
    opened = client.decrypt(CiphertextBlob=first["CiphertextBlob"])
    assert everything[0]["KeyMaterialId"] == opened["KeyMaterialId"]
    assert everything[1:] == rotations


def test_rotations_are_listed_in_pages(client: Any, key: Any) -> None:
    for _ in range(5):
        client.rotate_key_on_demand(KeyId=key["KeyId"])
    pages = client.get_paginator("list_key_rotations").paginate(KeyId=key["KeyId"], PaginationConfig={"PageSize": 2})
    assert [len(page["Rotations"]) for page in pages] == [2, 2, 1]


def test_a_key_is_rotated_on_demand_at_most_25_times(client: Any, key: Any) -> None:
    for _ in range(25):
        client.rotate_key_on_demand(KeyId=key["KeyId"])
    with pytest.raises(ClientError) as caught:
        client.rotate_key_on_demand(KeyId=key["KeyId"])
    assert code_of(caught) == "LimitExceededException"


def test_rotation_status_tells_the_period_and_the_next_date(client: Any, key: Any) -> None:
    assert client.get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"] is False
    client.enable_key_rotation(KeyId=key["KeyId"], RotationPeriodInDays=90)
    status = client.get_key_rotation_status(KeyId=key["Arn"])
    assert status["KeyRotationEnabled"] is True
    assert status["RotationPeriodInDays"] == 90
    assert abs(status["NextRotationDate"] - key["CreationDate"] - timedelta(days=90)) < timedelta(minutes=5)
    client.disable_key_rotation(KeyId=key["KeyId"])
    assert client.get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"] is False


def test_an_alias_and_its_arn_stand_for_the_key_wherever_a_key_is_used(client: Any, key: Any, alias: str) -> None:
    alias_arn = f"{key['Arn'].rpartition(':')[0]}:{alias}"
    for known_as in (alias, alias_arn, key["KeyId"], key["Arn"]):
        assert client.describe_key(KeyId=known_as)["KeyMetadata"]["KeyId"] == key["KeyId"]
        data_key = client.generate_data_key(KeyId=known_as, KeySpec="AES_256")
        blob = data_key["CiphertextBlob"]
        assert client.decrypt(KeyId=known_as, CiphertextBlob=blob)["Plaintext"] == data_key["Plaintext"]


def test_an_alias_does_not_stand_for_the_key_where_a_key_is_administered(client: Any, alias: str) -> None:
    calls = (
        client.rotate_key_on_demand,
        client.list_key_rotations,
        client.get_key_rotation_status,
        client.enable_key_rotation,
    )
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call(KeyId=alias)
        assert code_of(caught) == "NotFoundException"


def test_an_alias_moves_to_another_key_and_old_ciphertexts_still_decrypt(client: Any, key: Any, alias: str) -> None:
    blob = client.encrypt(KeyId=alias, Plaintext=b"plain")["CiphertextBlob"]
    other = client.create_key()["KeyMetadata"]
    client.update_alias(AliasName=alias, TargetKeyId=other["KeyId"])
    assert client.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"] == other["KeyId"]
    assert client.decrypt(CiphertextBlob=blob)["KeyId"] == key["Arn"]
    with pytest.raises(ClientError) as caught:
        client.decrypt(KeyId=alias, CiphertextBlob=blob)
    assert code_of(caught) == "IncorrectKeyException"


@pytest.mark.parametrize("absent", ["alias/absent", "5d310d31-d1f8-42ba-b619-82313d24c873"])
def test_an_absent_key_is_not_found(client: Any, absent: str) -> None:
    with pytest.raises(ClientError) as caught:
        client.generate_data_key(KeyId=absent, KeySpec="AES_256")
    assert code_of(caught) == "NotFoundException"


def test_a_disabled_key_neither_encrypts_nor_decrypts_until_it_is_enabled(client: Any, key: Any) -> None:
    blob = client.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")["CiphertextBlob"]
    client.disable_key(KeyId=key["KeyId"])
    for call, arguments in (
        (client.encrypt, {"KeyId": key["KeyId"], "Plaintext": b"plain"}),
        (client.decrypt, {"CiphertextBlob": blob}),
        (client.rotate_key_on_demand, {"KeyId": key["KeyId"]}),
    ):
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        assert code_of(caught) == "DisabledException"
    client.enable_key(KeyId=key["KeyId"])
    assert client.decrypt(CiphertextBlob=blob)["Plaintext"] == b"plain"


def test_a_key_pending_deletion_does_not_decrypt(client: Any, key: Any) -> None:
    blob = client.encrypt(KeyId=key["KeyId"], Plaintext=b"plain")["CiphertextBlob"]
    client.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
    with pytest.raises(ClientError) as caught:
        client.decrypt(CiphertextBlob=blob)
    assert code_of(caught) == "KMSInvalidStateException"


def test_a_key_policy_is_stored(client: Any, key: Any) -> None:
    policy = '{"Version": "2012-10-17", "Statement": []}'
    client.put_key_policy(KeyId=key["KeyId"], PolicyName="default", Policy=policy)
    assert client.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"] == policy


def test_an_asymmetric_key_signs_but_is_not_rotated(client: Any) -> None:
    key = client.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    signing = {"KeyId": key, "Message": b"plan", "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
    assert client.verify(**signing, Signature=client.sign(**signing)["Signature"])["SignatureValid"]
    with pytest.raises(ClientError) as caught:
        client.rotate_key_on_demand(KeyId=key)
    assert code_of(caught) == "UnsupportedOperationException"
