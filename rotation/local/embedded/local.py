"""``local``: secrets and keys in the AWS API that holds the configuration, too."""

# ruff: noqa: ARG002 (its values are in no files)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.errors import LocalError
from rotation.local.embedded import FOLDER, Embedded, Place, Say
from rotation.secret_value import SecretValue

if TYPE_CHECKING:
    from rotation.local.demo.load import Load
    from rotation.local.demo.scenario import Demo
    from rotation.manifest import Manifest

ADMINISTRATOR = "local/orders/db-admin"  # the secret with the database administrator's login
REGION = "us-east-1"


class Local(Embedded):
    name = "local"
    database = "orders"
    deployed = ("foundation", "secrets", "application")

    def provision(self, project: Path, place: Place, say: Say) -> None:
        from rotation.local.postgresql import provision

        if keep_secret(place.server, ADMINISTRATOR, provision(project / FOLDER / "postgresql")):
            say(f"the sample database is there, and its administrator's login in the secret {ADMINISTRATOR}")

    def values(self, project: Path, manifest: Manifest) -> Iterator[str]:
        """Of every version that ever was. The process has the variables of the AWS API."""
        import boto3

        client = boto3.client("secretsmanager")
        for secret in manifest.secrets.values():
            yield from _versions(secret.stored_as)
        yield client.get_secret_value(SecretId=ADMINISTRATOR)["SecretString"]

    def demonstrate(self, demo: Demo, load: Load) -> None:
        from rotation.local.demo.workflow import by_workflow

        by_workflow(demo, load)


def keep_secret(aws: str, name: str, value: SecretValue) -> bool:
    """Make ``value`` the current one of a secret in the local Secrets Manager; returns whether it was not."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "secretsmanager",
        endpoint_url=aws,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # the local API asks for a key, and takes any
    )
    try:
        try:
            kept = SecretValue(client.get_secret_value(SecretId=name)["SecretString"])
        except client.exceptions.ResourceNotFoundException:
            kept = None
            client.create_secret(Name=name, SecretString=value.reveal())
        if kept not in (None, value):
            client.put_secret_value(SecretId=name, SecretString=value.reveal())
    except (BotoCoreError, ClientError) as error:
        raise LocalError(f"the local Secrets Manager refused {name}: {error}") from error
    return kept != value


def _versions(name: str) -> Iterator[str]:
    import boto3

    from rotation.keys.aws_kms import AwsKms
    from rotation.sealing import is_sealed, unseal

    client = boto3.client("secretsmanager")
    for version in client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"]:
        stored = client.get_secret_value(SecretId=name, VersionId=version["VersionId"])["SecretString"]
        yield stored
        if is_sealed(SecretValue(stored)):
            generation = int(version["VersionId"][1:11])
            yield unseal(SecretValue(stored), name=name, generation=generation, service=AwsKms({})).reveal()
