"""Secrets Manager (SSM): the secrets that users keep in it, and what all secrets can be asked for.

Source: the SDK's ssm.v20190923 (clients, models, error codes) and the API documentation's rates.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rotation.local.tencent.cloud import Cloud
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.ssm_records import (
    CURRENT,
    DEFAULT_KEY,
    VERSIONS,
    DescriptionText,
    NewSecret,
    OfSecret,
    Secret,
    Secrets,
    Status,
    Version,
    VersionName,
    accounts,
    described,
    make_version,
    require_status,
    time_text,
)
from rotation.local.tencent.wire import ApiError, Call

_DAY = 86400  # seconds


class CreateSecret(NewSecret):
    VersionId: VersionName | None = None
    SecretType: int = 0
    SecretBinary: str | None = None
    SecretString: str | None = None
    AdditionalConfig: str = ""


class OfVersion(OfSecret):
    VersionId: VersionName


class GetSecretValue(OfVersion):
    EncryptionPublicKey: str | None = None
    EncryptionAlgorithm: str | None = None


class WithValue(OfVersion):
    SecretBinary: str | None = None
    SecretString: str | None = None


class UpdateDescription(OfSecret):
    Description: DescriptionText


class DeleteSecret(OfSecret):
    RecoveryWindowInDays: Annotated[int, Field(ge=0, le=30)] = 0
    CleanSSHKey: bool = False
    DeleteMode: Annotated[int, Field(ge=0, le=1)] = 0


class TagFilter(Parameters):
    TagKey: str
    TagValue: tuple[str, ...] = ()


class ListSecrets(Parameters):
    Offset: Annotated[int, Field(ge=0)] = 0
    Limit: Annotated[int, Field(ge=0)] = 20
    OrderType: Annotated[int, Field(ge=0, le=1)] = 0
    State: Annotated[int, Field(ge=0, le=5)] = 0
    SearchSecretName: str = ""
    TagFilters: tuple[TagFilter, ...] = ()
    SecretType: Annotated[int, Field(ge=0, le=4)] = 0
    ProductName: str = ""
    EncryptType: int | None = None
    InstanceID: str = ""

    def wants(self, secret: Secret) -> bool:
        states: tuple[Status, ...] = ("Enabled", "Disabled", "PendingDelete", "Creating", "Failed")
        managed = secret.managed
        return (
            (self.State == 0 or secret.status == states[self.State - 1])
            and self.SearchSecretName in secret.name
            and self.SecretType == secret.type
            and (not self.ProductName or managed is None or managed.product in self.ProductName.split(","))
            and (not self.InstanceID or (managed is not None and managed.instance == self.InstanceID))
            and (self.EncryptType is None or self.EncryptType == secret.encrypt_type)
            and all(secret.tags.get(tag.TagKey, None) in tag.TagValue for tag in self.TagFilters)
        )


class Empty(Parameters):
    pass


class Ssm(Service):
    """The actions on secrets of users, and the reading ones on all."""

    SERVICE = "ssm"
    VERSION = "2019-09-23"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.secrets = Secrets(cloud.records)

    def tick(self) -> None:
        """Remove the secrets whose recovery window has passed."""
        if not self.new_second():
            return
        with self.cloud.records.transaction():
            for secret in self.secrets.all():
                if secret.status == "PendingDelete" and self.cloud.clock.now() >= secret.delete_at:
                    self.secrets.remove(secret)

    @action(rate=100)
    def create_secret(self, call: Call, asked: CreateSecret) -> Fields:
        if asked.SecretType != 0:
            raise ApiError("UnsupportedOperation", "Only secrets of users (type 0) are emulated here.")
        now = self.cloud.clock.now()
        version = asked.VersionId or CURRENT
        value = make_version(asked.SecretString, asked.SecretBinary, self.cloud.settings.value_limit, now)
        own = {"additional_config": asked.AdditionalConfig, "versions": {version: value}}
        secret = asked.secret(call, now).model_copy(update=own)
        self.secrets.add(secret)
        return {"SecretName": secret.name, "VersionId": version, "TagCode": 0, "TagMsg": ""}

    @action(rate=100)
    def put_secret_value(self, call: Call, asked: WithValue) -> Fields:
        secret = self._writable(call, asked.SecretName)
        limit = self.cloud.settings.value_limit
        value = make_version(asked.SecretString, asked.SecretBinary, limit, self.cloud.clock.now())
        if asked.VersionId in secret.versions:
            raise ApiError("ResourceInUse.VersionIdExists", f"The version `{asked.VersionId}` exists.")
        if len(secret.versions) >= VERSIONS:
            raise ApiError("LimitExceeded", f"A secret has at most {VERSIONS} versions.")
        secret.versions[asked.VersionId] = value
        self.secrets.put(secret)
        return {"SecretName": secret.name, "VersionId": asked.VersionId}

    @action(rate=50)
    def update_secret(self, call: Call, asked: WithValue) -> Fields:
        """Overwrite a version in place, on no condition."""
        secret = self._writable(call, asked.SecretName)
        value = make_version(asked.SecretString, asked.SecretBinary, self.cloud.settings.value_limit, 0)
        before = _version(secret, asked.VersionId)
        secret.versions[asked.VersionId] = value.model_copy(update={"created": before.created})
        self.secrets.put(secret)
        return {"SecretName": secret.name, "VersionId": asked.VersionId}

    def _writable(self, call: Call, name: str) -> Secret:
        """A secret that takes values from users."""
        secret = self.secrets.get(call, name)
        if secret.managed:
            raise ApiError("OperationDenied.AutoRotatedResource", f"The secret `{name}` is rotated by its product.")
        require_status(secret, "Enabled", "Disabled")
        return secret

    @action(rate=300)
    def get_secret_value(self, call: Call, asked: GetSecretValue) -> Fields:
        if asked.EncryptionPublicKey:
            raise ApiError("UnsupportedOperation", "Answers that are encrypted for the caller are not emulated.")
        secret = self.secrets.get(call, asked.SecretName)
        require_status(secret, "Enabled")
        version = _version(secret, asked.VersionId)
        return {
            "SecretName": secret.name,
            "VersionId": asked.VersionId,
            "SecretBinary": version.binary,
            "SecretString": version.text,
        }

    @action(rate=40)
    def list_secret_version_ids(self, call: Call, asked: OfSecret) -> Fields:
        secret = self.secrets.get(call, asked.SecretName)
        versions = [{"VersionId": name, "CreateTime": of.created} for name, of in secret.versions.items()]
        return {"SecretName": secret.name, "Versions": versions or None}  # "This field may return null"

    @action(rate=50)
    def delete_secret_version(self, call: Call, asked: OfVersion) -> Fields:
        """At once, in every state of the secret."""
        secret = self.secrets.get(call, asked.SecretName)
        if secret.managed:
            raise ApiError("OperationDenied.AutoRotatedResource", "A product's secret keeps its versions.")
        _version(secret, asked.VersionId)
        del secret.versions[asked.VersionId]
        self.secrets.put(secret)
        return {"SecretName": secret.name, "VersionId": asked.VersionId}

    @action(rate=40)
    def describe_secret(self, call: Call, asked: OfSecret) -> Fields:
        secret = self.secrets.get(call, asked.SecretName)
        managed = secret.managed
        next_rotation = managed.begin if managed and managed.enabled else 0
        return dict(described(secret)) | {
            "RotationStatus": bool(managed and managed.enabled),
            "AdditionalConfig": secret.additional_config,
            "AccountInfoList": accounts(secret),
            "NextRotationTime": time_text(next_rotation),
        }

    @action(rate=40)
    def list_secrets(self, call: Call, asked: ListSecrets) -> Fields:
        found = [secret for secret in self.secrets.all() if secret.region == call.region and asked.wants(secret)]
        found.sort(key=lambda secret: secret.created, reverse=asked.OrderType == 0)
        page = found[asked.Offset :][: asked.Limit or 20]
        return {"TotalCount": len(found), "SecretMetadatas": [_listed(secret) for secret in page]}

    @action()
    def update_description(self, call: Call, asked: UpdateDescription) -> Fields:
        secret = self.secrets.get(call, asked.SecretName)
        require_status(secret, "Enabled", "Disabled")
        self.secrets.put(secret.model_copy(update={"description": asked.Description}))
        return {"SecretName": secret.name}

    @action()
    def enable_secret(self, call: Call, asked: OfSecret) -> Fields:
        return self._become(call, asked.SecretName, "Enabled")

    @action()
    def disable_secret(self, call: Call, asked: OfSecret) -> Fields:
        return self._become(call, asked.SecretName, "Disabled")

    def _become(self, call: Call, name: str, status: Status) -> Fields:
        secret = self.secrets.get(call, name)
        require_status(secret, "Enabled", "Disabled")
        self.secrets.put(secret.model_copy(update={"status": status}))
        return {"SecretName": secret.name}

    @action(rate=50)
    def delete_secret(self, call: Call, asked: DeleteSecret) -> Fields:
        if asked.DeleteMode:
            raise ApiError("UnsupportedOperation", "To delete a product's accounts with their secret is not emulated.")
        secret = self.secrets.get(call, asked.SecretName)
        require_status(secret, "Disabled", "Failed")
        delete_at = int(self.cloud.clock.now()) + asked.RecoveryWindowInDays * _DAY
        if asked.RecoveryWindowInDays:
            self.secrets.put(secret.model_copy(update={"status": "PendingDelete", "delete_at": delete_at}))
        else:
            self.secrets.remove(secret)
        return {"SecretName": secret.name, "DeleteTime": delete_at, "FlowID": 0}

    @action()
    def restore_secret(self, call: Call, asked: OfSecret) -> Fields:
        """It comes back Disabled."""
        secret = self.secrets.get(call, asked.SecretName)
        if secret.status != "PendingDelete":
            raise ApiError("OperationDenied", f"The secret `{secret.name}` is {secret.status}.")
        self.secrets.put(secret.model_copy(update={"status": "Disabled", "delete_at": 0}))
        return {"SecretName": secret.name}

    @action()
    def get_service_status(self, call: Call, _asked: Empty) -> Fields:
        mine = [secret for secret in self.secrets.all() if secret.region == call.region]
        return {
            "ServiceEnabled": True,
            "InvalidType": 1,
            "AccessKeyEscrowEnabled": False,
            "ExpireTime": "",
            "QPSLimit": 1000,
            "SecretLimit": 1000,
            "PayModel": "PostPay",
            "RenewFlag": 0,
            "ResourceId": f"ssm_{call.caller.account}",
            "TotalCount": len(mine),
            "ResourceRegion": 1,
        }


def _listed(secret: Secret) -> Fields:
    managed = secret.managed
    return dict(described(secret)) | {
        "KmsKeyType": "DEFAULT" if secret.kms_key == DEFAULT_KEY else "CUSTOMER",
        "RotationStatus": int(bool(managed and managed.enabled)),
        "NextRotationTime": managed.begin if managed and managed.enabled else 0,
        "RotationBeginTime": time_text(managed.begin) if managed else "",
    }


def _version(secret: Secret, name: str) -> Version:
    found = secret.versions.get(name)
    if found is None:
        raise ApiError("ResourceNotFound", f"The secret `{secret.name}` has no version `{name}`.")
    return found
