"""Cloud Access Management (CAM): users and their access keys, of which each has at most two.

Policies are not evaluated: whoever signs may do all. Source: the SDK's cam.v20190116 (models, error codes).
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from rotation.local.tencent.cloud import Cloud
from rotation.local.tencent.identity import AccessKey, TemporaryKey
from rotation.local.tencent.records import Table
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.wire import ApiError, Call

KEYS = 2  # of one user
SESSION_NAME = r"^[\w+=,.@-]{2,128}$"
_FIRST_UIN = 100000001000


class User(BaseModel):
    """A sub-user of the account."""

    name: str
    uin: str
    remark: str = ""
    console: int = 0


class AddUser(Parameters):
    Name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+=-]{0,63}$")]
    Remark: str = ""
    ConsoleLogin: Literal[0, 1] = 0
    UseApi: Literal[0, 1] = 0
    Password: str | None = Field(default=None, repr=False)
    NeedResetPassword: Literal[0, 1] = 0
    PhoneNum: str = ""
    CountryCode: str = ""
    Email: str = ""


class OfUser(Parameters):
    Name: str


class UpdateUser(OfUser):
    Remark: str | None = None  # what else it can change is not emulated


class DeleteUser(OfUser):
    Force: Literal[0, 1] = 0


class OfTarget(Parameters):
    TargetUin: int | None = None


class CreateAccessKey(OfTarget):
    Description: Annotated[str, Field(max_length=1024, pattern=r"^[\w+=,.@:/-]*$")] = ""


class OfAccessKey(OfTarget):
    AccessKeyId: str


class UpdateAccessKey(OfAccessKey):
    Status: Literal["Active", "Inactive"]


class GetSecurityLastUsed(Parameters):
    SecretIdList: Annotated[tuple[str, ...], Field(min_length=1, max_length=10)]


class Cam(Service):
    SERVICE = "cam"
    VERSION = "2019-01-16"
    REGIONAL = False

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._users: Table[User] = Table(cloud.records, "cam.users", User)
        self._keys = cloud.identities.keys

    @action()
    def add_user(self, _call: Call, asked: AddUser) -> Fields:
        if self._users.get(asked.Name):
            raise ApiError("InvalidParameter.SubUserNameInUse", f"The user `{asked.Name}` exists.")
        uin = max([_FIRST_UIN, *(int(user.uin) for user in self._users.all().values())]) + 1
        self._users.put(
            asked.Name, User(name=asked.Name, uin=str(uin), remark=asked.Remark, console=asked.ConsoleLogin)
        )
        key = self.cloud.identities.make_key(str(uin)) if asked.UseApi else None
        generated = secrets.token_urlsafe(24) if asked.ConsoleLogin and not asked.Password else ""
        return {
            "Uin": uin,
            "Name": asked.Name,
            "Password": generated,
            "SecretId": key.secret_id if key else "",
            "SecretKey": key.secret_key if key else "",
            "Uid": uin - _FIRST_UIN,
            "PhoneNumVerifyLink": "",
        }

    @action()
    def get_user(self, _call: Call, asked: OfUser) -> Fields:
        user = self._user(asked.Name)
        return {
            "Uin": int(user.uin),
            "Name": user.name,
            "Uid": int(user.uin) - _FIRST_UIN,
            "Remark": user.remark,
            "ConsoleLogin": user.console,
            "PhoneNum": "",
            "CountryCode": "",
            "Email": "",
            "RecentlyLoginIP": "",
            "RecentlyLoginTime": "",
        }

    @action()
    def update_user(self, _call: Call, asked: UpdateUser) -> Fields:
        user = self._user(asked.Name)
        if asked.Remark is not None:
            self._users.put(user.name, user.model_copy(update={"remark": asked.Remark}))
        return {}

    @action()
    def delete_user(self, _call: Call, asked: DeleteUser) -> Fields:
        user = self._user(asked.Name)
        keys = self._of(user.uin)
        if keys and not asked.Force:
            raise ApiError("OperationDenied.HaveKeys", f"The user `{asked.Name}` has access keys.")
        for key in keys:
            self._keys.remove(key.secret_id)
        self._users.remove(asked.Name)
        return {}

    def _user(self, name: str) -> User:
        user = self._users.get(name)
        if user is None:
            raise ApiError("ResourceNotFound.UserNotExist", f"The user `{name}` does not exist.")
        return user

    @action()
    def list_access_keys(self, call: Call, asked: OfTarget) -> Fields:
        return {"AccessKeys": [_shown(key) for key in self._of(self._target(call, asked))]}

    @action()
    def create_access_key(self, call: Call, asked: CreateAccessKey) -> Fields:
        """The only answer that ever has the key's secret."""
        uin = self._target(call, asked)
        if len(self._of(uin)) >= KEYS:
            raise ApiError("OperationDenied.AccessKeyOverLimit", f"A user has at most {KEYS} access keys.")
        key = self.cloud.identities.make_key(uin, asked.Description)
        return {"AccessKey": dict(_shown(key)) | {"SecretAccessKey": key.secret_key}}

    @action()
    def update_access_key(self, call: Call, asked: UpdateAccessKey) -> Fields:
        key = self._key(call, asked)
        self._keys.put(key.secret_id, key.model_copy(update={"status": asked.Status}))
        return {}

    @action()
    def delete_access_key(self, call: Call, asked: OfAccessKey) -> Fields:
        key = self._key(call, asked)
        if key.status == "Active":
            raise ApiError("FailedOperation.Accesskey", "An access key is disabled before it is deleted.")
        self._keys.remove(key.secret_id)
        return {}

    @action()
    def get_security_last_used(self, _call: Call, asked: GetSecurityLastUsed) -> Fields:
        today = f"{self.cloud.clock.moment():%Y-%m-%d}"
        keys = [key for key in map(self._keys.get, asked.SecretIdList) if key]
        return {"SecretIdLastUsedRows": [_last_used(key, today) for key in keys]}

    def _target(self, call: Call, asked: OfTarget) -> str:
        """The UIN of the user whose keys are asked for: the caller's own unless another is named."""
        uin = str(asked.TargetUin or call.caller.uin)
        known = {user.uin for user in self._users.all().values()} | {call.caller.account}
        if uin not in known:
            raise ApiError("ResourceNotFound.UserNotExist", f"The user {uin} does not exist.")
        return uin

    def _key(self, call: Call, asked: OfAccessKey) -> AccessKey:
        key = self._keys.get(asked.AccessKeyId)
        if key is None or key.uin != self._target(call, asked):
            raise ApiError("ResourceNotFound.SecretNotExist", f"The access key `{asked.AccessKeyId}` does not exist.")
        return key

    def _of(self, uin: str) -> list[AccessKey]:
        return [key for key in self._keys.all().values() if key.uin == uin]


def _shown(key: AccessKey) -> Fields:
    return {
        "AccessKeyId": key.secret_id,
        "Status": key.status,
        "CreateTime": f"{datetime.fromtimestamp(key.created, UTC):%Y-%m-%d %H:%M:%S}",
        "Description": key.description,
    }


def _last_used(key: AccessKey, today: str) -> Fields:
    """ "There is a delay of one day": of today nothing is said yet."""
    days = [day for day in key.used_days if day < today]
    midnight = datetime.strptime(days[-1], "%Y-%m-%d").replace(tzinfo=UTC) if days else None
    return {
        "SecretId": key.secret_id,
        "LastUsedDate": days[-1] if days else None,
        "LastSecretUsedDate": int(midnight.timestamp()) if midnight else None,
    }


class AssumeRole(Parameters):
    RoleArn: str
    RoleSessionName: Annotated[str, Field(pattern=SESSION_NAME)]
    DurationSeconds: Annotated[int, Field(ge=1, le=43200)] = 7200


class Empty(Parameters):
    pass


class Sts(Service):
    """The Security Token Service: who signs, and keys for a while.

    Source: the API documentation of GetCallerIdentity and AssumeRole, for the SDK's sts is a package of its own.
    """

    SERVICE = "sts"
    VERSION = "2018-08-13"

    @action()
    def get_caller_identity(self, call: Call, _asked: Empty) -> Fields:
        caller = call.caller
        role = re.fullmatch(r".*:role(?:Name)?/(?P<name>[^:]+):(?P<session>.*)", caller.role)
        if role:
            user, arn = f"{role['name']}:{role['session']}", f"qcs::sts:{caller.account}:assumed-role/{role['name']}"
        else:
            user, arn = caller.uin, f"qcs::cam::uin/{caller.account}:uin/{caller.uin}"
        return {
            "Type": "CAMRole" if role else "CAMUser",
            "AccountId": caller.account,
            "UserId": user,
            "PrincipalId": caller.uin,
            "Arn": arn,
        }

    @action(rate=600)
    def assume_role(self, call: Call, asked: AssumeRole) -> Fields:
        role = f"{asked.RoleArn}:{asked.RoleSessionName}"
        return credentials_of(self.cloud.identities.assume(role, call.caller.uin, asked.DurationSeconds))


def credentials_of(key: TemporaryKey) -> Fields:
    """A temporary key pair as STS answers with it."""
    return {
        "Credentials": {"Token": key.token, "TmpSecretId": key.secret_id, "TmpSecretKey": key.secret_key},
        "ExpiredTime": int(key.expires),
        "Expiration": f"{datetime.fromtimestamp(key.expires, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
