"""The embedded Secrets Manager does what AWS documents.

Source: the Secrets Manager API reference, the page of the operation that a test calls.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rotation.local.aws.staging_labels import Versions, deprecated
from tests.fixtures.aws import AwsApi

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:keyturn"


@pytest.fixture(scope="module")
def client(aws_api: AwsApi) -> Any:
    return aws_api.client("secretsmanager")


@pytest.fixture
def name(client: Any) -> str:
    """A secret without a value."""
    name = f"orders/{uuid.uuid4()}"
    client.create_secret(Name=name)
    return name


@pytest.fixture
def first(client: Any, name: str) -> str:
    """The id of that secret's first version, whose value is "one"."""
    return put(client, name, "one")


def token() -> str:
    return str(uuid.uuid4())


def put(client: Any, name: str, value: str, *labels: str, version: str | None = None) -> str:
    """Put a version with labels (AWSCURRENT if there are none); return its id."""
    stages = {"VersionStages": list(labels)} if labels else {}
    answer = client.put_secret_value(SecretId=name, SecretString=value, ClientRequestToken=version or token(), **stages)
    version_id: str = answer["VersionId"]
    return version_id


def move(client: Any, name: str, label: str, **versions: str) -> None:
    """``remove`` and ``to`` are version ids."""
    named = {"remove": "RemoveFromVersionId", "to": "MoveToVersionId"}
    client.update_secret_version_stage(
        SecretId=name, VersionStage=label, **{named[key]: value for key, value in versions.items()}
    )


def labels(client: Any, name: str) -> dict[str, list[str]]:
    stages: dict[str, list[str]] = client.describe_secret(SecretId=name).get("VersionIdsToStages", {})
    return stages


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


# Values and versions


def test_the_same_token_with_another_value_is_refused_and_the_first_value_stays(
    client: Any, name: str, first: str
) -> None:
    with refused("ResourceExistsException"):
        put(client, name, "another", version=first)
    assert client.get_secret_value(SecretId=name, VersionId=first)["SecretString"] == "one"


def test_the_same_token_with_the_same_value_changes_no_labels(client: Any, name: str, first: str) -> None:
    second = put(client, name, "two", "AWSPENDING")
    move(client, name, "AWSCURRENT", remove=first, to=second)
    move(client, name, "AWSPENDING", remove=second)
    before = labels(client, name)
    assert put(client, name, "two", "AWSPENDING", "EXTRA", version=second) == second
    assert labels(client, name) == before == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}


def test_the_first_version_of_a_secret_gets_awscurrent_whatever_labels_were_asked_for(client: Any, name: str) -> None:
    version = put(client, name, "one", "AWSPENDING")
    assert labels(client, name) == {version: ["AWSCURRENT", "AWSPENDING"]}


def test_a_pending_version_does_not_touch_current(client: Any, name: str, first: str) -> None:
    second = put(client, name, "two", "AWSPENDING", "KEYTURN_OPEN")
    assert labels(client, name) == {first: ["AWSCURRENT"], second: ["AWSPENDING", "KEYTURN_OPEN"]}
    assert client.get_secret_value(SecretId=name)["SecretString"] == "one"
    assert client.get_secret_value(SecretId=name, VersionStage="KEYTURN_OPEN")["SecretString"] == "two"


def test_putting_a_label_takes_it_off_the_version_that_had_it(client: Any, name: str, first: str) -> None:
    second = put(client, name, "two", "one", "two", "three")
    third = put(client, name, "three", "one", "two", "four")
    assert labels(client, name) == {first: ["AWSCURRENT"], second: ["three"], third: ["four", "one", "two"]}


def test_putting_awscurrent_moves_awsprevious_along_and_drops_the_pending_label(
    client: Any, name: str, first: str
) -> None:
    second = put(client, name, "two", "AWSPENDING")
    move(client, name, "AWSCURRENT", remove=first, to=second)
    third = put(client, name, "three")
    assert labels(client, name) == {second: ["AWSPREVIOUS"], third: ["AWSCURRENT"]}


@pytest.mark.parametrize("value", ["x" * 65_536, "é" * 32_768])
def test_a_value_of_65536_bytes_is_stored(client: Any, name: str, value: str) -> None:
    put(client, name, value)
    assert client.get_secret_value(SecretId=name)["SecretString"] == value


@pytest.mark.parametrize("value", ["x" * 65_537, "é" * 32_769])
def test_a_value_over_65536_bytes_is_refused_without_being_quoted(client: Any, name: str, value: str) -> None:
    with pytest.raises(ClientError, match="ValidationException") as caught:
        put(client, name, value)
    assert value[:20] not in str(caught.value)
    assert labels(client, name) == {}


def test_a_binary_value_is_kept_and_limited_by_its_own_bytes(client: Any, name: str) -> None:
    client.put_secret_value(SecretId=name, SecretBinary=b"\x00" * 65_536, ClientRequestToken=token())
    assert client.get_secret_value(SecretId=name)["SecretBinary"] == b"\x00" * 65_536
    with refused("ValidationException"):
        client.put_secret_value(SecretId=name, SecretBinary=b"\x00" * 65_537, ClientRequestToken=token())


def test_a_token_over_64_characters_is_refused(client: Any, name: str) -> None:
    with refused("InvalidParameterException"):
        put(client, name, "one", version="t" * 65)
    assert put(client, name, "one", version="t" * 64) == "t" * 64


def test_a_call_names_at_most_20_labels_and_a_secret_has_at_most_20(client: Any, name: str, first: str) -> None:
    with refused("ValidationException"):
        put(client, name, "two", *(f"L{number}" for number in range(21)))
    second = put(client, name, "two", *(f"L{number}" for number in range(19)))
    with refused("LimitExceededException"):
        put(client, name, "three", "ONE_MORE")
    with refused("LimitExceededException"):
        move(client, name, "ONE_MORE", to=first)
    assert len(labels(client, name)) == 2
    assert len(labels(client, name)[second]) == 19


# Moving labels


def test_moving_awscurrent_moves_awsprevious_to_where_it_was(client: Any, name: str, first: str) -> None:
    second = put(client, name, "two", "AWSPENDING", "PUT1")
    move(client, name, "AWSCURRENT", remove=first, to=second)
    assert labels(client, name) == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT", "AWSPENDING", "PUT1"]}
    move(client, name, "AWSCURRENT", remove=second, to=first)
    assert labels(client, name) == {first: ["AWSCURRENT"], second: ["AWSPENDING", "AWSPREVIOUS", "PUT1"]}


@pytest.mark.parametrize("label", ["AWSCURRENT", "MINE"])
def test_a_label_that_sits_elsewhere_moves_only_when_that_place_is_named(
    client: Any, name: str, first: str, label: str
) -> None:
    second = put(client, name, "two", "AWSPENDING")
    third = put(client, name, "three", "OTHER")
    if label == "MINE":
        move(client, name, "MINE", to=first)
    before = labels(client, name)
    with refused("InvalidParameterException"):
        move(client, name, label, to=second)
    with refused("InvalidParameterException"):
        move(client, name, label, remove=third, to=second)
    with refused("InvalidParameterException"):
        move(client, name, label, remove=first, to=token())
    with refused("InvalidParameterException"):
        move(client, name, label, remove=token(), to=second)
    assert labels(client, name) == before


def test_awscurrent_cannot_be_removed(client: Any, name: str, first: str) -> None:
    with refused("InvalidParameterException"):
        move(client, name, "AWSCURRENT", remove=first)
    assert labels(client, name) == {first: ["AWSCURRENT"]}


def test_removing_a_label_that_is_not_there_is_refused(client: Any, name: str, first: str) -> None:
    with refused("InvalidParameterException"):
        move(client, name, "MINE", remove=first)


def test_attaching_a_label_where_it_already_is_changes_nothing(client: Any, name: str, first: str) -> None:
    move(client, name, "AWSCURRENT", to=first)
    assert labels(client, name) == {first: ["AWSCURRENT"]}


def test_of_many_that_move_awscurrent_away_from_the_same_version_one_wins(
    aws_api: AwsApi, client: Any, name: str, first: str
) -> None:
    candidates = [put(client, name, f"value {number}", f"C{number}") for number in range(8)]

    def promote(version: str) -> str:
        try:
            move(aws_api.client("secretsmanager"), name, "AWSCURRENT", remove=first, to=version)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return version

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(promote, candidates))
    (winner,) = set(outcomes) - {"InvalidParameterException"}
    assert outcomes.count("InvalidParameterException") == 7
    after = labels(client, name)
    assert [version for version, stages in after.items() if "AWSCURRENT" in stages] == [winner]
    assert after[first] == ["AWSPREVIOUS"]


def test_of_many_that_put_different_values_under_one_token_one_wins(aws_api: AwsApi, client: Any, name: str) -> None:
    version = token()

    def stage(value: str) -> str:
        try:
            put(aws_api.client("secretsmanager"), name, value, "AWSPENDING", version=version)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return value

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(stage, [f"value {number}" for number in range(8)]))
    (winner,) = set(outcomes) - {"ResourceExistsException"}
    assert outcomes.count("ResourceExistsException") == 7
    assert client.get_secret_value(SecretId=name, VersionId=version)["SecretString"] == winner


# Reading and listing


def test_reading_says_which_version_is_not_there(client: Any, name: str, first: str) -> None:
    with refused("ResourceNotFoundException"):
        client.get_secret_value(SecretId=f"{name}-absent")
    with refused("ResourceNotFoundException"):
        client.get_secret_value(SecretId=name, VersionId=token())
    with refused("ResourceNotFoundException"):
        client.get_secret_value(SecretId=name, VersionStage="AWSPENDING")
    with refused("InvalidRequestException"):
        client.get_secret_value(SecretId=name, VersionId=first, VersionStage="AWSPENDING")


def test_a_secret_without_a_value_is_there_but_cannot_be_read(client: Any, name: str) -> None:
    assert "VersionIdsToStages" not in client.describe_secret(SecretId=name)
    with refused("ResourceNotFoundException"):
        client.get_secret_value(SecretId=name)


def test_a_version_without_labels_is_hidden_but_can_be_read_by_its_id(client: Any, name: str, first: str) -> None:
    second = put(client, name, "two", "AWSPENDING")
    move(client, name, "AWSPENDING", remove=second)
    listed = client.list_secret_version_ids(SecretId=name)
    everything = client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)
    assert [version["VersionId"] for version in listed["Versions"]] == [first]
    assert [version["VersionId"] for version in everything["Versions"]] == [first, second]
    assert "NextToken" not in listed
    assert labels(client, name) == {first: ["AWSCURRENT"]}
    assert client.get_secret_value(SecretId=name, VersionId=second)["SecretString"] == "two"
    assert put(client, name, "two", "AWSPENDING", version=second) == second
    assert labels(client, name) == {first: ["AWSCURRENT"]}, "a token is spent, also without labels"


def test_versions_are_listed_in_pages(client: Any, name: str, first: str) -> None:
    others = {put(client, name, f"value {number}", f"L{number}") for number in range(4)}
    pages = [client.list_secret_version_ids(SecretId=name, MaxResults=2)]
    while following := pages[-1].get("NextToken"):
        pages.append(client.list_secret_version_ids(SecretId=name, MaxResults=2, NextToken=following))
    assert [len(page["Versions"]) for page in pages] == [2, 2, 1]
    assert {version["VersionId"] for page in pages for version in page["Versions"]} == {first, *others}


def test_a_secret_is_found_by_name_arn_and_arn_without_its_suffix(client: Any, name: str, first: str) -> None:
    arn = client.describe_secret(SecretId=name)["ARN"]
    assert arn.rpartition("-")[0].endswith(f":secret:{name}")
    for known_as in (name, arn, arn[:-7]):
        assert client.get_secret_value(SecretId=known_as)["VersionId"] == first
    with refused("ResourceNotFoundException"):
        client.get_secret_value(SecretId=f"{arn[:-6]}WRONGX")


def test_250_secrets_are_listed_with_their_labels_in_three_pages(aws_api: AwsApi, client: Any) -> None:
    prefix = f"many-{uuid.uuid4()}/"
    for number in range(250):
        client.create_secret(Name=f"{prefix}{number}", SecretString="one")
    second = put(client, f"{prefix}0", "two", "AWSPENDING")
    move(client, f"{prefix}0", "AWSPENDING", remove=second)
    aws_api.forget_calls()
    pages = list(client.get_paginator("list_secrets").paginate(Filters=[{"Key": "name", "Values": [prefix]}]))
    assert [len(page["SecretList"]) for page in pages] == [100, 100, 50]
    assert aws_api.calls() == {"secretsmanager.ListSecrets": 3}
    secrets = {secret["Name"]: secret for page in pages for secret in page["SecretList"]}
    assert len(secrets) == 250
    assert all(list(secret["SecretVersionsToStages"].values()) == [["AWSCURRENT"]] for secret in secrets.values())


def test_a_wrong_page_token_is_refused(client: Any) -> None:
    with refused("InvalidNextTokenException"):
        client.list_secrets(NextToken="no token of ours")


# The life of a secret


def test_a_secret_marked_for_deletion_refuses_values_until_it_is_restored(client: Any, name: str, first: str) -> None:
    client.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    with refused("InvalidRequestException"):
        client.get_secret_value(SecretId=name)
    with refused("InvalidRequestException"):
        put(client, name, "two")
    with refused("InvalidRequestException"):
        client.create_secret(Name=name)
    assert client.describe_secret(SecretId=name)["DeletedDate"]
    client.restore_secret(SecretId=name)
    assert client.get_secret_value(SecretId=name)["SecretString"] == "one"


def test_creating_a_secret_again_is_accepted_only_with_the_same_token_and_value(client: Any) -> None:
    name, version = token(), token()
    client.create_secret(Name=name, SecretString="one", ClientRequestToken=version)
    assert client.create_secret(Name=name, SecretString="one", ClientRequestToken=version)["VersionId"] == version
    with refused("ResourceExistsException"):
        client.create_secret(Name=name, SecretString="two", ClientRequestToken=version)
    with refused("ResourceExistsException"):
        client.create_secret(Name=name)


def test_a_name_with_a_space_is_refused(client: Any) -> None:
    with refused("ValidationException"):
        client.create_secret(Name="orders db")


def test_update_secret_changes_the_description_alone_or_makes_a_current_version(
    client: Any, name: str, first: str
) -> None:
    assert "VersionId" not in client.update_secret(SecretId=name, Description="the orders' database")
    assert labels(client, name) == {first: ["AWSCURRENT"]}
    second = client.update_secret(SecretId=name, SecretString="two")["VersionId"]
    assert labels(client, name) == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}
    assert client.describe_secret(SecretId=name)["Description"] == "the orders' database"


def test_rotation_without_a_function_is_refused_and_changes_nothing(client: Any, name: str, first: str) -> None:
    with refused("InvalidRequestException"):
        client.rotate_secret(SecretId=name)
    assert labels(client, name) == {first: ["AWSCURRENT"]}


def test_rotation_makes_a_pending_version_without_a_value(client: Any, name: str, first: str) -> None:
    asked = {"SecretId": name, "ClientRequestToken": token(), "RotationLambdaARN": FUNCTION}
    assert client.rotate_secret(**asked)["VersionId"] == asked["ClientRequestToken"]
    assert labels(client, name) == {first: ["AWSCURRENT"], asked["ClientRequestToken"]: ["AWSPENDING"]}
    with refused("ResourceNotFoundException"):
        client.get_secret_value(SecretId=name, VersionId=asked["ClientRequestToken"])
    client.put_secret_value(SecretId=name, ClientRequestToken=asked["ClientRequestToken"], SecretString="two")
    assert client.get_secret_value(SecretId=name, VersionId=asked["ClientRequestToken"])["SecretString"] == "two"


def test_a_rotation_in_progress_is_repeated_and_refuses_another_one(client: Any, name: str, first: str) -> None:
    asked = {"SecretId": name, "ClientRequestToken": token(), "RotationLambdaARN": FUNCTION}
    for _ in range(2):
        client.rotate_secret(**asked)
    with refused("InvalidRequestException"):
        client.rotate_secret(SecretId=name, ClientRequestToken=token())
    assert labels(client, name) == {first: ["AWSCURRENT"], asked["ClientRequestToken"]: ["AWSPENDING"]}


def test_a_rotation_that_is_not_to_begin_at_once_leaves_no_pending_version(client: Any, name: str, first: str) -> None:
    client.rotate_secret(SecretId=name, RotationLambdaARN=FUNCTION, RotateImmediately=False)
    assert labels(client, name) == {first: ["AWSCURRENT"]}
    assert client.describe_secret(SecretId=name)["RotationLambdaARN"] == FUNCTION


def test_a_secret_takes_a_key_by_its_alias(client: Any) -> None:
    name = token()
    client.create_secret(Name=name, KmsKeyId="alias/orders", SecretString="one")
    assert client.describe_secret(SecretId=name)["KmsKeyId"] == "alias/orders"


# Deletion of deprecated versions, which takes a day


def versions(*, unlabelled: int, age_hours: float) -> Versions:
    created = time.time() - age_hours * 3600
    plain = {f"old-{number:03}": {"createdate": created + number, "version_stages": []} for number in range(unlabelled)}
    return plain | {"current": {"createdate": created, "version_stages": ["AWSCURRENT"]}}


def test_the_oldest_versions_without_labels_go_when_there_are_more_than_100() -> None:
    assert deprecated(versions(unlabelled=102, age_hours=25), time.time()) == ["old-000", "old-001", "old-002"]


def test_up_to_100_versions_stay() -> None:
    assert deprecated(versions(unlabelled=99, age_hours=25), time.time()) == []


def test_versions_younger_than_a_day_stay() -> None:
    assert deprecated(versions(unlabelled=150, age_hours=23), time.time()) == []


def test_more_than_100_young_versions_all_stay_readable(client: Any, name: str, first: str) -> None:
    for number in range(105):
        put(client, name, f"value {number}")
    assert client.get_secret_value(SecretId=name, VersionId=first)["SecretString"] == "one"
