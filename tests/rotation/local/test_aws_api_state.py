"""What the embedded AWS API answered, it still knows after a restart and after a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

from tests.fixtures.aws import AwsApi, running_aws_api

POLICY = '{"Version": "2012-10-17", "Statement": []}'
KEPT = "a value that is kept"


def fill(api: AwsApi) -> dict[str, Any]:
    """Put something into each service; return what is needed to ask for it again."""
    kms, s3, iam = api.client("kms"), api.client("s3"), api.client("iam")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/kept", TargetKeyId=key)
    wrapped = kms.generate_data_key(KeyId="alias/kept", KeySpec="AES_256", EncryptionContext={"secret": "a"})
    kms.rotate_key_on_demand(KeyId=key)
    signing = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    signed = kms.sign(KeyId=signing, Message=b"plan", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
    # The last call to KMS: it makes the key that it uses, though it is no change by its name.
    managed = kms.encrypt(KeyId="alias/aws/secretsmanager", Plaintext=b"under a key of AWS's own")
    s3.create_bucket(Bucket="kept-bucket")
    s3.put_bucket_versioning(Bucket="kept-bucket", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="kept-bucket", Key="config/orders.yaml", Body=b"first")
    s3.put_object(Bucket="kept-bucket", Key="config/orders.yaml", Body=b"second")
    api.client("ssm").put_parameter(Name="/kept", Value="1", Type="String", Tags=[{"Key": "a", "Value": "b"}])
    iam.create_role(RoleName="runner", AssumeRolePolicyDocument=POLICY)
    iam.create_open_id_connect_provider(Url="https://ci.example.com", ThumbprintList=["a" * 40])
    api.client("events").put_rule(Name="due", ScheduleExpression="rate(1 hour)")
    api.client("logs").create_log_group(logGroupName="kept")
    secret = api.client("secretsmanager").create_secret(Name="kept", SecretString=KEPT)
    return {"key": key, "wrapped": wrapped, "managed": managed, "signing": signing, "signed": signed, "secret": secret}


def check(api: AwsApi, filled: dict[str, Any]) -> None:
    kms, s3, iam = api.client("kms"), api.client("s3"), api.client("iam")
    wrapped = filled["wrapped"]
    opened = kms.decrypt(CiphertextBlob=wrapped["CiphertextBlob"], EncryptionContext={"secret": "a"})
    assert opened["Plaintext"] == wrapped["Plaintext"]
    assert len(kms.list_key_rotations(KeyId=filled["key"])["Rotations"]) == 1
    assert kms.decrypt(CiphertextBlob=filled["managed"]["CiphertextBlob"])["Plaintext"] == b"under a key of AWS's own"
    signed = {"KeyId": filled["signing"], "Message": b"plan", "SigningAlgorithm": "ECDSA_SHA_256"}
    assert kms.verify(**signed, Signature=filled["signed"])["SignatureValid"]
    assert s3.get_object(Bucket="kept-bucket", Key="config/orders.yaml")["Body"].read() == b"second"
    assert len(s3.list_object_versions(Bucket="kept-bucket")["Versions"]) == 2
    assert api.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "1"
    tags = api.client("ssm").list_tags_for_resource(ResourceType="Parameter", ResourceId="/kept")["TagList"]
    assert tags == [{"Key": "a", "Value": "b"}]
    assert iam.get_role(RoleName="runner")["Role"]["RoleName"] == "runner"
    assert len(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]) == 1
    assert api.client("events").describe_rule(Name="due")["ScheduleExpression"] == "rate(1 hour)"
    assert api.client("logs").describe_log_groups()["logGroups"][0]["logGroupName"] == "kept"
    kept = api.client("secretsmanager").get_secret_value(SecretId=filled["secret"]["ARN"])
    assert (kept["SecretString"], kept["VersionId"]) == (KEPT, filled["secret"]["VersionId"])


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_keeps_all_that_was_answered(tmp_path: Path, ending: signal.Signals) -> None:
    with running_aws_api(tmp_path) as api:
        filled = fill(api)
        if ending is signal.SIGKILL:  # the block ends with SIGTERM; a second one could meet Python without its handlers
            os.kill(api.process_id, ending)
    with running_aws_api(tmp_path) as again:
        check(again, filled)
        again.client("secretsmanager").put_secret_value(SecretId="kept", SecretString="and goes on")
    with running_aws_api(tmp_path) as once_more:
        assert once_more.client("secretsmanager").get_secret_value(SecretId="kept")["SecretString"] == "and goes on"


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_the_server_well(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "rotation.local.aws", "--port", "0", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(ending)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_the_server_ends_with_the_process_that_holds_its_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rotation.local.aws", "--port", "0", "--folder", str(tmp_path)]
    command.append("--until-input-ends")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_a_kill_under_load_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    answered: dict[str, str] = {}
    many = threading.Event()

    def write(api: AwsApi, worker: int) -> None:
        client = api.client("secretsmanager")
        for number in range(10_000):
            name = f"{worker}/{number}"
            try:
                answered[client.create_secret(Name=name, SecretString=name)["ARN"]] = name
            except BotoCoreError:
                return
            if len(answered) > 100:
                many.set()

    with running_aws_api(tmp_path) as api, ThreadPoolExecutor(6) as pool:
        for worker in range(6):
            pool.submit(write, api, worker)
        assert many.wait(60)
        os.kill(api.process_id, signal.SIGKILL)
    with running_aws_api(tmp_path) as again:
        client = again.client("secretsmanager")
        for arn, name in answered.items():
            assert client.get_secret_value(SecretId=arn)["SecretString"] == name


def test_the_state_is_for_the_owner_only(tmp_path: Path) -> None:
    with running_aws_api(tmp_path) as api:
        api.client("secretsmanager").create_secret(Name="kept", SecretString=KEPT)
        state = tmp_path / "state"
        assert state.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in state.iterdir()] == [0o600]


def test_the_log_names_operations_and_no_values(tmp_path: Path) -> None:
    with running_aws_api(tmp_path) as api:
        api.client("secretsmanager").create_secret(Name="kept", SecretString=KEPT)
        with pytest.raises(Exception, match="ResourceExistsException"):
            api.client("secretsmanager").create_secret(Name="kept", SecretString=KEPT)
        api.client("ssm").put_parameter(Name="/kept", Value=KEPT, Type="SecureString")
    log = (tmp_path / "log").read_text()
    assert "secretsmanager.CreateSecret 200" in log
    assert "secretsmanager.CreateSecret 400" in log
    assert KEPT not in log
    assert "Traceback" not in log


def test_state_that_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "secretsmanager.state").write_bytes(b"torn")
    command = [sys.executable, "-m", "rotation.local.aws", "--port", "0", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "secretsmanager.state cannot be read" in done.stderr
    assert "start afresh" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_an_error_that_names_it(aws_api: AwsApi, tmp_path: Path) -> None:
    port = aws_api.endpoint.rpartition(":")[2]
    command = [sys.executable, "-m", "rotation.local.aws", "--port", port, "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_reset_forgets_data_in_memory_and_on_disk(tmp_path: Path) -> None:
    with running_aws_api(tmp_path) as api:
        fill(api)
        api.reset()
        assert api.client("secretsmanager").list_secrets()["SecretList"] == []
        assert api.client("s3").list_buckets()["Buckets"] == []
    with running_aws_api(tmp_path) as again:
        assert again.client("secretsmanager").list_secrets()["SecretList"] == []
        assert again.client("kms").list_keys()["Keys"] == []
