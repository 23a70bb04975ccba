"""Sealed values, with the KMS of the embedded environment."""

from __future__ import annotations

import base64
import json
import uuid
from functools import partial

import pytest

from rotation.errors import KeyServiceError, KeyturnError, StoreError, Unauthorized
from rotation.keys.aws_kms import AwsKms
from rotation.sealing import FORMAT, is_sealed, reseal, seal, unseal
from rotation.secret_value import SecretValue
from tests.contracts.staging import CANARY, told_by
from tests.fixtures.aws import AwsApi

VALUE = SecretValue(f'{{"password": "{CANARY} é \U0001f511"}}')
NAME = "orders/db"


@pytest.fixture
def service(aws_environment: AwsApi) -> AwsKms:
    return AwsKms({})


@pytest.fixture
def key(aws_environment: AwsApi) -> str:
    kms = aws_environment.client("kms")
    alias = f"alias/keyturn-sealing-{uuid.uuid4()}"
    kms.create_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    return alias


@pytest.fixture
def sealed(service: AwsKms, key: str) -> SecretValue:
    return seal(VALUE, name=NAME, generation=42, key=key, service=service)


def altered(sealed: SecretValue, **fields: object) -> SecretValue:
    return SecretValue(json.dumps(json.loads(sealed.reveal()) | fields))


def test_a_sealed_value_opens_for_its_own_name_and_generation(sealed: SecretValue, service: AwsKms) -> None:
    assert unseal(sealed, name=NAME, generation=42, service=service) == VALUE


def test_a_sealed_value_shows_nothing_of_the_value(sealed: SecretValue, key: str) -> None:
    envelope = json.loads(sealed.reveal())
    assert envelope.keys() == {"keyturn", "key", "wrapped", "nonce", "ciphertext"}
    assert (envelope["keyturn"], envelope["key"]) == (FORMAT, key)
    assert CANARY not in sealed.reveal()
    assert CANARY.encode() not in base64.b64decode(envelope["ciphertext"])
    assert len(base64.b64decode(envelope["nonce"])) == 12


def test_each_sealing_has_its_own_data_key_and_nonce(service: AwsKms, key: str) -> None:
    envelopes = [json.loads(seal(VALUE, name=NAME, generation=42, key=key, service=service).reveal()) for _ in range(3)]
    for field in ("wrapped", "nonce", "ciphertext"):
        assert len({envelope[field] for envelope in envelopes}) == 3


@pytest.mark.parametrize(("name", "generation"), [("orders/other", 42), (NAME, 43), (NAME, 4), ("orders", 42)])
def test_a_sealed_value_does_not_open_for_another_name_or_generation(
    sealed: SecretValue, service: AwsKms, name: str, generation: int
) -> None:
    with pytest.raises(KeyServiceError):
        unseal(sealed, name=name, generation=generation, service=service)


def test_an_envelope_is_bound_by_itself_and_not_only_by_its_wrapped_key(
    sealed: SecretValue, service: AwsKms, key: str
) -> None:
    other = json.loads(seal(VALUE, name=NAME, generation=43, key=key, service=service).reveal())
    mixed = altered(sealed, wrapped=other["wrapped"])
    with pytest.raises(StoreError, match="altered"):
        unseal(mixed, name=NAME, generation=43, service=service)


@pytest.mark.parametrize("field", ["wrapped", "nonce", "ciphertext"])
@pytest.mark.parametrize("place", [0, -1])
def test_an_altered_byte_anywhere_is_noticed(sealed: SecretValue, service: AwsKms, field: str, place: int) -> None:
    data = bytearray(base64.b64decode(json.loads(sealed.reveal())[field]))
    data[place] ^= 1
    # A wrapped key names the key that wrapped it: another name may be that of a key which the runner may not use.
    with pytest.raises((KeyServiceError, StoreError, Unauthorized)):
        unseal(altered(sealed, **{field: base64.b64encode(data).decode()}), name=NAME, generation=42, service=service)


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA"])
@pytest.mark.parametrize("field", ["nonce", "ciphertext"])
def test_a_damaged_field_is_refused(sealed: SecretValue, service: AwsKms, field: str, text: str) -> None:
    with pytest.raises(StoreError):
        unseal(altered(sealed, **{field: text}), name=NAME, generation=42, service=service)


def test_another_name_for_the_same_key_is_noticed(
    sealed: SecretValue, service: AwsKms, key: str, aws_environment: AwsApi
) -> None:
    key_id = aws_environment.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyId"]
    with pytest.raises(StoreError, match="altered"):
        unseal(altered(sealed, key=key_id), name=NAME, generation=42, service=service)


def test_a_resealed_value_is_the_same_value_in_another_envelope(sealed: SecretValue, service: AwsKms, key: str) -> None:
    service.rotate(key)
    again = reseal(sealed, name=NAME, generation=42, key=key, service=service)
    assert json.loads(again.reveal())["wrapped"] != json.loads(sealed.reveal())["wrapped"]
    for envelope in (sealed, again):
        assert unseal(envelope, name=NAME, generation=42, service=service) == VALUE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "null",
        "[]",
        "42",
        '{"keyturn": "sealed/1"}',
        '{"keyturn": "sealed/2", "key": "", "wrapped": "", "nonce": "", "ciphertext": ""}',
        '{"keyturn": "sealed/1", "key": 1, "wrapped": "", "nonce": "", "ciphertext": ""}',
        '{"keyturn": "sealed/1", "key": "", "wrapped": "", "nonce": "", "ciphertext": "", "more": ""}',
    ],
)
def test_what_is_no_envelope_is_not_sealed_and_does_not_open(service: AwsKms, text: str) -> None:
    assert not is_sealed(SecretValue(text))
    with pytest.raises(StoreError, match="not a sealed value"):
        unseal(SecretValue(text), name=NAME, generation=42, service=service)


def test_an_envelope_is_sealed(sealed: SecretValue) -> None:
    assert is_sealed(sealed)


def test_no_error_tells_a_value_that_was_not_sealed_or_does_not_open(sealed: SecretValue, service: AwsKms) -> None:
    texts = (CANARY, f'{{"password": "{CANARY}"', f'{{"{CANARY}": 1}}', altered(sealed, nonce="AAAA").reveal())
    for text in texts:
        told = told_by(partial(unseal, SecretValue(text), name=NAME, generation=42, service=service))
        assert CANARY not in told
        assert json.loads(sealed.reveal())["ciphertext"] not in told


def test_an_unavailable_key_service_is_told_as_such(sealed: SecretValue, aws_environment: AwsApi) -> None:
    aws_environment.faults("kms", "Decrypt", "deny")
    with pytest.raises(KeyturnError, match="unwrap a data key"):
        unseal(sealed, name=NAME, generation=42, service=AwsKms({}))
