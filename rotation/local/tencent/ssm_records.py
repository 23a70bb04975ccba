"""What Secrets Manager (SSM) keeps of a secret, and what is common to the secrets of users and of products."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from rotation.local.tencent.records import Records, Table
from rotation.local.tencent.service import Fields, Parameters, Tag
from rotation.local.tencent.wire import ApiError, Call

CURRENT = "SSM_Current"
DEFAULT_KEY = "00000000-0000-0000-0000-000000000001"  # the key that SSM makes itself, where none is named
VERSIONS = 10
SECRETS = 1000
HOME_TIME = timezone(timedelta(hours=8))
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

Status = Literal["Enabled", "Disabled", "PendingDelete", "Creating", "Failed"]


def _shaped(pattern: str, limit: int) -> AfterValidator:
    """Text of at most ``limit`` bytes."""

    def check(text: str) -> str:
        if len(text.encode()) > limit or not re.fullmatch(pattern, text):
            raise ValueError(f"at most {limit} bytes of {pattern}")
        return text

    return AfterValidator(check)


Name = Annotated[str, _shaped(r"[A-Za-z0-9][A-Za-z0-9_-]*", 128)]
VersionName = Annotated[str, _shaped(r"[A-Za-z0-9][A-Za-z0-9_.-]*", 64)]
DescriptionText = Annotated[str, _shaped(r"(?s).*", 2048)]


class Version(BaseModel):
    """One value: ``text`` as it is, or ``binary`` in base64."""

    created: int
    text: str = Field(default="", repr=False)
    binary: str = Field(default="", repr=False)


class Account(BaseModel):
    """An account of a managed secret in its product. ``rotated`` is in seconds since 1970."""

    name: str
    rotated: int


class Managed(BaseModel):
    """What a product's secret adds: where its two accounts are, and when they are rotated.

    ``names`` are theirs; ``accounts`` are those that were made: the first is in effect, the other one is rotated next.
    ``privileges`` are JSON texts.
    """

    product: str
    instance: str
    names: list[str]
    hosts: list[str]
    privileges: list[str]
    accounts: list[Account] = []
    enabled: bool = False
    days: int = 30
    begin: int = 0
    rotated: int = 0


class Secret(BaseModel):
    """A secret of one region. Times are in seconds since 1970."""

    name: str
    region: str
    creator: str
    description: str = ""
    kms_key: str = DEFAULT_KEY
    additional_config: str = ""
    encrypt_type: int = 0
    tags: dict[str, str] = {}
    status: Status = "Enabled"
    created: int
    delete_at: int = 0
    versions: dict[str, Version] = {}
    managed: Managed | None = None

    @property
    def type(self) -> int:
        """0 of a user, 1 of a product."""
        return 0 if self.managed is None else 1


class OfSecret(Parameters):
    SecretName: Name


class NewSecret(OfSecret):
    """What all secrets are made with."""

    Description: DescriptionText = ""
    KmsKeyId: str | None = None
    Tags: tuple[Tag, ...] = ()
    KmsHsmClusterId: str | None = None
    EncryptType: Annotated[int, Field(ge=0, le=1)] = 0

    def secret(self, call: Call, now: float) -> Secret:
        """The secret, without a value."""
        return Secret(
            name=self.SecretName,
            region=call.region,
            creator=call.caller.uin,
            description=self.Description,
            kms_key=self.KmsKeyId or DEFAULT_KEY,
            encrypt_type=self.EncryptType,
            tags={tag.TagKey: tag.TagValue for tag in self.Tags},
            created=int(now),
        )


class Secrets:
    """The secrets of all regions."""

    def __init__(self, records: Records) -> None:
        self._table: Table[Secret] = Table(records, "ssm.secrets", Secret)

    def get(self, call: Call, name: str) -> Secret:
        """Raises :class:`ApiError` where there is none of that name."""
        found = self._table.get(f"{call.region}/{name}")
        if found is None:
            raise ApiError("ResourceNotFound.SecretNotExist", f"The secret `{name}` does not exist.")
        return found

    def add(self, secret: Secret) -> None:
        """Raises :class:`ApiError` for a name that is taken, or one secret too many."""
        names = [key for key in self._table.names() if key.startswith(f"{secret.region}/")]
        if f"{secret.region}/{secret.name}" in names:
            raise ApiError("ResourceInUse.SecretExists", f"The secret `{secret.name}` exists.")
        if len(names) >= SECRETS:
            raise ApiError("LimitExceeded", f"A region has at most {SECRETS} secrets.")
        self.put(secret)

    def put(self, secret: Secret) -> None:
        self._table.put(f"{secret.region}/{secret.name}", secret)

    def remove(self, secret: Secret) -> None:
        self._table.remove(f"{secret.region}/{secret.name}")

    def all(self) -> list[Secret]:
        return list(self._table.all().values())


def require_status(secret: Secret, *allowed: Status) -> None:
    """Raises :class:`ApiError` in the words for the state that a secret is in."""
    if secret.status in allowed:
        return
    code = {"Disabled": "ResourceDisabled", "PendingDelete": "ResourcePendingDeleted"}
    what = code.get(secret.status)
    if secret.status == "Enabled":
        raise ApiError("OperationDenied", f"The secret `{secret.name}` is Enabled.")
    raise ApiError(
        f"ResourceUnavailable.{what or 'ResourceUninitialized'}", f"The secret `{secret.name}` is {secret.status}."
    )


def make_version(text: str | None, binary: str | None, limit: int, now: float) -> Version:
    """A value that is one of text and base64. Raises :class:`ApiError`."""
    if bool(text) == bool(binary):
        raise ApiError("InvalidParameter", "Exactly one of `SecretString` and `SecretBinary` must be set.")
    try:
        size = len(base64.b64decode(binary, validate=True)) if binary else len((text or "").encode())
    except binascii.Error:
        raise ApiError("InvalidParameterValue", "`SecretBinary` is not base64.") from None
    if size > limit:
        raise ApiError("InvalidParameterValue", f"A value has at most {limit} bytes.")
    return Version(created=int(now), text=text or "", binary=binary or "")


def time_text(seconds: int) -> str:
    """A time as SSM writes it, in the time of its home (UTC+8); empty for none."""
    return f"{datetime.fromtimestamp(seconds, HOME_TIME):{TIME_FORMAT}}" if seconds else ""


def accounts(secret: Secret) -> list[Fields]:
    """The accounts of a managed secret: the one in effect, then the one that is rotated next."""
    managed = secret.managed
    if managed is None:
        return []
    return [
        {
            "AccountName": account.name,
            "Host": managed.hosts,
            "Version": "待轮转" if place else "生效中",  # the SDK's model gives these two words
            "RotatedTime": time_text(account.rotated),
        }
        for place, account in enumerate(managed.accounts)
    ]


def described(secret: Secret) -> Fields:
    """What DescribeSecret and ListSecrets have in common."""
    managed = secret.managed
    return {
        "SecretName": secret.name,
        "Description": secret.description,
        "KmsKeyId": secret.kms_key,
        "CreateUin": int(secret.creator),
        "CreateUinString": secret.creator,
        "Status": secret.status,
        "DeleteTime": secret.delete_at,
        "CreateTime": secret.created,
        "SecretType": secret.type,
        "ProductName": managed.product if managed else "",
        "ResourceID": managed.instance if managed else "",
        "RotationFrequency": managed.days if managed else 0,
        "ResourceName": "",
        "ProjectID": 0,
        "AssociatedInstanceIDs": [],
        "TargetUin": 0,
        "TargetUinString": "",
        "EncryptType": secret.encrypt_type,
        "EncryptSwitching": False,
    }
