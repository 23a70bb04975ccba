"""What the sample application reads: its configuration, and from each vendor the values that this names.

The configuration is an object in S3. A value's place tells by its shape whose it is: another vendor is another place in
``Wanted``, and another reader in :class:`Values`.
"""

from __future__ import annotations

from pathlib import Path

import boto3
import hvac
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from rotation.errors import StoreError
from rotation.keys.aws_kms import AwsKms
from rotation.keys.tencent_kms import TencentKms
from rotation.keys.vault_transit import VaultTransit
from rotation.sealing import unseal
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import to_text
from rotation.tencentcloud import Connection, Manner, connect


class InSecretsManager(BaseModel):
    """Where one secret's value is read in Secrets Manager, as the configuration names it."""

    model_config = ConfigDict(frozen=True)

    arn: str
    version_id: str
    generation: int
    sealed_with: str | None = None


class TransitKey(BaseModel):
    model_config = ConfigDict(frozen=True)

    mount: str
    key: str


class InVault(BaseModel):
    """Where one secret's value is read in Vault: ``path`` is the API's, below /v1/."""

    model_config = ConfigDict(frozen=True)

    path: str
    version: int
    name: str
    generation: int
    sealed_with: TransitKey | None = None


class InSsm(BaseModel):
    """Where one secret's value is read in Tencent Cloud's Secrets Manager; ``sealed_with`` is a key's alias in KMS."""

    model_config = ConfigDict(frozen=True)

    name: str
    version_id: str
    generation: int
    sealed_with: str | None = None


Wanted = InSecretsManager | InVault | InSsm


class Configuration(BaseModel):
    secrets: dict[str, Wanted]


_PATIENCE = 30  # seconds for an answer: an error is held against the generation that is read, and a server may be busy
_ONCE = Config(connect_timeout=10, read_timeout=_PATIENCE, retries={"total_max_attempts": 1})


class ConfigurationObject:
    """The application's configuration in S3."""

    def __init__(self, bucket: str, key: str) -> None:
        self._s3 = boto3.client("s3", config=_ONCE)
        self._object = {"Bucket": bucket, "Key": key}
        self._etag = ""

    def changed(self) -> Configuration | None:
        """The configuration if it has changed since the last look; None if not, or while there is none.

        Raises ``ClientError`` or ``BotoCoreError`` when it cannot be read, ``ValueError`` when it is no configuration.
        """
        unless = {"IfNoneMatch": self._etag} if self._etag else {}
        try:
            answer = self._s3.get_object(**self._object, **unless)  # type: ignore[arg-type]  # typed by TypedDicts
        except ClientError as error:
            if error.response["Error"]["Code"] in {"304", "NoSuchKey", "NoSuchBucket"}:
                return None
            raise
        with answer["Body"] as body:
            text = body.read()
        try:
            configuration = Configuration.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError) as error:
            raise ValueError("not YAML with a mapping of secrets") from error
        self._etag = answer["ETag"]
        return configuration


class SecretsManager:
    def __init__(self) -> None:
        self._client = boto3.client("secretsmanager", config=_ONCE)

    def value(self, wanted: InSecretsManager) -> SecretValue:
        """The value of exactly this version, unsealed if it is sealed."""
        answer = self._client.get_secret_value(SecretId=wanted.arn, VersionId=wanted.version_id)
        value = SecretValue(answer["SecretString"])
        if wanted.sealed_with is None:
            return value
        return unseal(value, name=answer["Name"], generation=wanted.generation, service=AwsKms({}))


class Vault:
    """Vault at an address, with the token in a file."""

    def __init__(self, address: str, token: Path) -> None:
        self._token = token
        self._client = hvac.Client(address, timeout=_PATIENCE)
        self._connection = {"address": address, "auth": {"method": "token_file", "path": str(token)}}

    def value(self, wanted: InVault) -> SecretValue:
        """The value of exactly this version, unsealed if it is sealed. Raises ``VaultError``, ``RequestException``."""
        self._client.token = self._token.read_text(encoding="utf-8")
        answer = self._client.read(f"{wanted.path}?version={wanted.version}")
        if answer is None or answer["data"]["data"] is None:
            raise ValueError(f"{wanted.path} has no version {wanted.version}")
        value = SecretValue(to_text(answer["data"]["data"]))
        if wanted.sealed_with is None:
            return value
        service = VaultTransit({"mount": wanted.sealed_with.mount, **self._connection})
        return unseal(value, name=wanted.name, generation=wanted.generation, service=service)


class Ssm:
    """Tencent Cloud at an address. Region and credentials are the environment's."""

    def __init__(self, address: str) -> None:
        self._options = {"endpoint": address}
        self._cloud = connect(Connection(endpoint=address))

    def value(self, wanted: InSsm) -> SecretValue:
        """The value of exactly this version, unsealed if it is sealed. Raises ``KeyturnError``."""
        doing = Manner(f"read the secret {wanted.name}", StoreError, requires=("SecretString",), quiet=True)
        version = {"SecretName": wanted.name, "VersionId": wanted.version_id}
        value = SecretValue(self._cloud.call_once("ssm", "GetSecretValue", version, doing)["SecretString"])
        if wanted.sealed_with is None:
            return value
        return unseal(value, name=wanted.name, generation=wanted.generation, service=TencentKms(self._options))


class Values:
    """The values that a configuration names. ``vault`` and ``ssm`` are None where the application was told of none."""

    def __init__(self, vault: Vault | None, ssm: Ssm | None) -> None:
        self._secrets_manager = SecretsManager()
        self._vault = vault
        self._ssm = ssm

    def value(self, wanted: Wanted) -> SecretValue:
        if isinstance(wanted, InSecretsManager):
            return self._secrets_manager.value(wanted)
        if isinstance(wanted, InSsm) and self._ssm is not None:
            return self._ssm.value(wanted)
        if isinstance(wanted, InVault) and self._vault is not None:
            return self._vault.value(wanted)
        raise ValueError(
            f"the configuration names a place ({type(wanted).__name__}) that the application was not given"
        )
