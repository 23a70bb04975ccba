"""The embedded AWS API serves what Terraform asks for, counts calls, and fails on demand."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from werkzeug.test import Client

from rotation.local.aws.api import Application
from rotation.local.aws.snapshot import Snapshot
from tests.fixtures.aws import AwsApi

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Resource": "*"}]}'


@pytest.fixture
def api(aws_api: AwsApi) -> Iterator[AwsApi]:
    """The API without data, faults and counts, before and after."""
    aws_api.reset()
    yield aws_api
    aws_api.reset()


@pytest.fixture
def client(api: AwsApi) -> Any:
    """A Secrets Manager client; the secret "orders" has the value "one"."""
    client = api.client("secretsmanager")
    client.create_secret(Name="orders", SecretString="one")
    api.forget_calls()
    return client


def value(client: Any) -> str:
    return str(client.get_secret_value(SecretId="orders")["SecretString"])


# What Terraform and the SDKs ask for


def test_a_slot_gets_its_policy_and_tags_before_it_has_a_value(api: AwsApi) -> None:
    client = api.client("secretsmanager")
    client.create_secret(Name="slot", KmsKeyId="alias/orders", Tags=[{"Key": "owner", "Value": "orders"}])
    client.put_resource_policy(SecretId="slot", ResourcePolicy=POLICY, BlockPublicPolicy=True)
    client.tag_resource(SecretId="slot", Tags=[{"Key": "rotated-by", "Value": "keyturn"}])
    client.untag_resource(SecretId="slot", TagKeys=["owner"])
    described = client.describe_secret(SecretId="slot")
    assert described["Tags"] == [{"Key": "rotated-by", "Value": "keyturn"}]
    assert "VersionIdsToStages" not in described
    assert client.get_resource_policy(SecretId="slot")["ResourcePolicy"] == POLICY
    client.delete_resource_policy(SecretId="slot")
    assert "ResourcePolicy" not in client.get_resource_policy(SecretId="slot")
    client.delete_secret(SecretId="slot", ForceDeleteWithoutRecovery=True)
    assert client.list_secrets()["SecretList"] == []


def test_a_key_gets_an_alias_tags_and_rotation(api: AwsApi) -> None:
    client = api.client("kms")
    key = client.create_key(Policy=POLICY, Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]["KeyId"]
    client.create_alias(AliasName="alias/orders", TargetKeyId=key)
    client.enable_key_rotation(KeyId=key)
    assert client.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True
    assert client.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "a", "TagValue": "b"}]
    aliases = [alias["AliasName"] for alias in client.list_aliases(KeyId=key)["Aliases"]]
    assert aliases == ["alias/orders"]


def test_a_bucket_holds_versions_of_an_object_and_locks_state(api: AwsApi) -> None:
    client = api.client("s3")
    client.create_bucket(Bucket="keyturn-config")
    client.put_bucket_versioning(Bucket="keyturn-config", VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket="keyturn-config", Key="orders.yaml", Body=b"generation: 1")
    client.put_object(Bucket="keyturn-config", Key="orders.yaml", Body=b"generation: 2")
    old = client.get_object(Bucket="keyturn-config", Key="orders.yaml", VersionId=first["VersionId"])
    assert old["Body"].read() == b"generation: 1"
    client.put_object(Bucket="keyturn-config", Key="state.tflock", Body=b"{}", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="keyturn-config", Key="state.tflock", Body=b"{}", IfNoneMatch="*")


def test_a_runner_identity_is_made_of_role_policy_and_oidc_provider(api: AwsApi) -> None:
    client = api.client("iam")
    provider = client.create_open_id_connect_provider(
        Url="https://ci.example.com", ClientIDList=["sts.amazonaws.com"], ThumbprintList=["a" * 40]
    )["OpenIDConnectProviderArn"]
    client.create_role(RoleName="runner", AssumeRolePolicyDocument=POLICY)
    policy = client.create_policy(PolicyName="rotate", PolicyDocument=POLICY)["Policy"]["Arn"]
    client.attach_role_policy(RoleName="runner", PolicyArn=policy)
    client.put_role_policy(RoleName="runner", PolicyName="inline", PolicyDocument=POLICY)
    assert client.list_attached_role_policies(RoleName="runner")["AttachedPolicies"][0]["PolicyArn"] == policy
    assert client.get_open_id_connect_provider(OpenIDConnectProviderArn=provider)["Url"] == "ci.example.com"
    assert api.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_what_is_not_implemented_is_refused_and_the_server_goes_on(api: AwsApi, client: Any) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        api.client("kms").describe_custom_key_stores()
    assert value(client) == "one"


def test_code_that_makes_its_own_clients_finds_the_api_through_the_environment(aws_environment: AwsApi) -> None:
    assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert aws_environment.calls()["sts.GetCallerIdentity"] >= 1


def test_an_object_is_only_overwritten_or_removed_by_who_knows_what_it_is(api: AwsApi) -> None:
    """S3 User Guide, "How to prevent object overwrites with conditional writes" and "… conditional deletes"."""
    s3 = api.client("s3", max_pool_connections=8)
    s3.create_bucket(Bucket="conditions")
    place = {"Bucket": "conditions", "Key": "one"}

    def refusal(call: Any, **condition: str) -> tuple[int, str]:
        with pytest.raises(ClientError) as refused:
            call(**place, **condition)
        answer = refused.value.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]

    def make(number: int) -> bool:
        try:
            s3.put_object(**place, Body=str(number), IfNoneMatch="*")
        except ClientError:
            return False
        return True

    assert refusal(s3.put_object, IfMatch='"0123"') == (404, "NoSuchKey")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1
    assert refusal(s3.put_object, IfNoneMatch="*") == (412, "PreconditionFailed")
    first = s3.head_object(**place)["ETag"]
    second = s3.put_object(**place, Body="two", IfMatch=first)["ETag"]
    assert refusal(s3.put_object, IfMatch=first) == (412, "PreconditionFailed")
    assert refusal(s3.delete_object, IfMatch=first) == (412, "PreconditionFailed")
    assert s3.get_object(**place)["Body"].read() == b"two"
    s3.delete_object(**place, IfMatch=second)
    assert s3.put_object(**place, Body="three", IfNoneMatch="*")


# Counting


def test_calls_are_counted_by_service_and_operation(api: AwsApi, client: Any) -> None:
    value(client)
    value(client)
    s3 = api.client("s3")
    s3.create_bucket(Bucket="counted")
    s3.put_object(Bucket="counted", Key="a/b", Body=b"")
    api.client("iam").list_roles()
    assert api.calls() == {
        "secretsmanager.GetSecretValue": 2,
        "s3.CreateBucket": 1,
        "s3.PutObject": 1,
        "iam.ListRoles": 1,
    }
    api.forget_calls()
    assert api.calls() == {}


# Failing on demand


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("throttle", 400, "ThrottlingException"),
        ("error", 500, "InternalServiceError"),
        ("unavailable", 503, "ServiceUnavailable"),
        ("deny", 400, "AccessDeniedException"),
    ],
)
def test_the_next_calls_are_refused_and_the_one_after_them_is_not(
    api: AwsApi, client: Any, kind: str, status: int, code: str
) -> None:
    api.faults("secretsmanager", "GetSecretValue", kind, times=2)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            value(client)
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert value(client) == "one"
    assert api.calls() == {"secretsmanager.GetSecretValue": 3}


@pytest.mark.parametrize(
    ("kind", "s3_code", "iam_code"),
    [
        ("throttle", "SlowDown", "Throttling"),
        ("error", "InternalError", "ServiceFailure"),
        ("deny", *["AccessDenied"] * 2),
    ],
)
def test_services_refuse_in_their_own_words(api: AwsApi, kind: str, s3_code: str, iam_code: str) -> None:
    api.faults("s3", "ListBuckets", kind)
    api.faults("iam", "ListRoles", kind)
    with pytest.raises(ClientError) as of_s3:
        api.client("s3").list_buckets()
    with pytest.raises(ClientError) as of_iam:
        api.client("iam").list_roles()
    assert of_s3.value.response["Error"]["Code"] == s3_code
    assert of_iam.value.response["Error"]["Code"] == iam_code


def test_a_lost_reply_leaves_the_change_applied(api: AwsApi, client: Any) -> None:
    api.faults("secretsmanager", "PutSecretValue", "lost_reply")
    with pytest.raises(ConnectionClosedError):
        client.put_secret_value(SecretId="orders", SecretString="two")
    assert value(client) == "two"


def test_a_dropped_call_is_not_applied(api: AwsApi, client: Any) -> None:
    api.faults("secretsmanager", "PutSecretValue", "drop")
    with pytest.raises(ConnectionClosedError):
        client.put_secret_value(SecretId="orders", SecretString="two")
    assert value(client) == "one"


def test_a_delayed_call_is_late_and_others_are_not(api: AwsApi, client: Any) -> None:
    api.faults("secretsmanager", "GetSecretValue", "delay", seconds=0.3)
    client.describe_secret(SecretId="orders")  # the delay is still to come
    started = time.monotonic()
    assert value(client) == "one"
    assert time.monotonic() - started >= 0.3


def test_a_fault_can_wait_for_a_later_call_and_mean_any_operation(api: AwsApi, client: Any) -> None:
    api.faults("secretsmanager", "*", "throttle", after=2)
    assert value(client) == "one"
    client.describe_secret(SecretId="orders")
    with pytest.raises(ClientError, match="ThrottlingException"):
        client.list_secrets()
    assert value(client) == "one"


def test_an_unknown_fault_is_refused(api: AwsApi) -> None:
    with pytest.raises(AssertionError, match="explode"):
        api.faults("secretsmanager", "*", "explode")


# The clock


def date_of(client: Any) -> float:
    headers = client.describe_secret(SecretId="orders")["ResponseMetadata"]["HTTPHeaders"]
    return parsedate_to_datetime(headers["date"]).timestamp()


def test_the_date_header_shows_the_servers_clock(api: AwsApi, client: Any) -> None:
    assert abs(date_of(client) - time.time()) < 5
    api.set_clock(-240)
    assert abs(date_of(client) - time.time() + 240) < 5


@pytest.mark.parametrize(("offset", "text"), [(3600, "Signature expired"), (-3600, "Signature not yet current")])
def test_a_signature_far_from_the_servers_clock_is_refused_and_the_answer_shows_that_clock(
    api: AwsApi, client: Any, offset: int, text: str
) -> None:
    api.set_clock(offset)
    with pytest.raises(ClientError, match=text) as caught:
        value(client)
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    date = parsedate_to_datetime(caught.value.response["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert abs(date.timestamp() - time.time() - offset) < 5
    with pytest.raises(ClientError) as of_s3:
        api.client("s3").list_buckets()
    assert of_s3.value.response["Error"]["Code"] == "RequestTimeTooSkewed"


# One at a time


def test_requests_are_applied_one_at_a_time(tmp_path: Path) -> None:
    inside = Lock()
    overlaps = []

    def moto(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        overlaps.append(not inside.acquire(blocking=False))
        time.sleep(0.02)
        inside.release()
        start_response("200 OK", [])
        return []

    client = Client(Application(moto, Snapshot(tmp_path)))
    with ThreadPoolExecutor(4) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: client.get("/"), range(4))]
    assert statuses == [200] * 4
    assert overlaps == [False] * 4


# The control routes


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "ready", 200), ("GET", "absent", 404), ("PUT", "settings", 400)]
)
def test_control_routes_answer_in_json(aws_api: AwsApi, method: str, path: str, status: int) -> None:
    connection = HTTPConnection(urlsplit(aws_api.endpoint).netloc, timeout=10)
    connection.request(method, f"/keyturn/{path}", json.dumps({str(uuid.uuid4()): 1}))
    answer = connection.getresponse()
    assert answer.status == status
    assert json.loads(answer.read())
    connection.close()
