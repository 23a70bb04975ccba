"""Secrets Manager (SSM): secrets that it makes and rotates itself in a product, such as a MySQL instance.

- Two accounts take turns: a rotation gives the one that is not in effect a new password, and puts it into effect. The
  other one goes on working until the next rotation.
- All of it is asynchronous: an action answers with a FlowID, and its work is done when the flow is due.
- ``SSM_Current`` is the value in effect, ``{"UserName": …, "Password": …}``; earlier ones stay under their own IDs.
- Where an instance was made known to the emulator (:meth:`ProductSecrets.connect`), the accounts are really made and
  changed there; else they are only written down.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from rotation.local.tencent.cloud import Cloud
from rotation.local.tencent.records import Table
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.ssm_records import (
    CURRENT,
    HOME_TIME,
    TIME_FORMAT,
    Account,
    Managed,
    NewSecret,
    OfSecret,
    Secret,
    Secrets,
    Version,
    accounts,
    require_status,
    time_text,
)
from rotation.local.tencent.wire import ApiError, Call

if TYPE_CHECKING:
    from pymysql import Connection

PRODUCTS = ("Mysql", "Tdsql-mysql", "Tdsql_C_Mysql")
HISTORY = 10  # values of a secret that can still be read
_DAY = 86400  # seconds


def _time(text: str) -> int:
    """Seconds since 1970 of a time as SSM writes it."""
    return int(datetime.strptime(text, TIME_FORMAT).replace(tzinfo=HOME_TIME).timestamp())


def _is_time(text: str) -> str:
    _time(text)
    return text


TimeText = Annotated[str, AfterValidator(_is_time)]
Days = Annotated[int, Field(ge=30, le=365)]
_Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_$-]{1,64}$")]


class Privileges(Parameters):
    """ProductPrivilegeUnit, as far as MySQL has them."""

    PrivilegeName: Literal["GlobalPrivileges", "DatabasePrivileges", "TablePrivileges"]
    Privileges: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Z ]+$")], ...], Field(min_length=1)]
    Database: _Identifier | None = None
    TableName: _Identifier | None = None

    @property
    def place(self) -> str:
        """Where they hold, for GRANT … ON."""
        table = f"`{self.TableName}`" if self.PrivilegeName == "TablePrivileges" else "*"
        return "*.*" if self.PrivilegeName == "GlobalPrivileges" else f"`{self.Database}`.{table}"


class CreateProductSecret(NewSecret):
    UserNamePrefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,7}$")]
    ProductName: Literal["Mysql", "Tdsql-mysql", "Tdsql_C_Mysql"]
    InstanceID: str
    Domains: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9A-Za-z.%:_-]{1,60}$")], ...], Field(min_length=1)]
    PrivilegesList: tuple[Privileges, ...]
    RotationBeginTime: TimeText | None = None
    EnableRotation: bool = False
    RotationFrequency: Days = 30
    AccountRemark: str = ""
    AccountType: str | None = None


class OfFlow(Parameters):
    FlowID: int


class UpdateRotationStatus(OfSecret):
    EnableRotation: bool
    Frequency: Days = 30
    RotationBeginTime: TimeText | None = None


class Nothing(Parameters):
    pass


class Flow(BaseModel):
    """Work on a secret (``region/name``), done when it is ``due``. ``status``: 0 running, 1 done, 2 failed."""

    secret: str
    due: float
    succeeds: bool
    status: Literal[0, 1, 2] = 0
    description: str = ""


class Instance(BaseModel):
    """How the cloud itself logs in to an instance, on TCP."""

    host: str
    port: int
    user: str
    password: str = Field(repr=False)


class ProductSecrets(Service):
    SERVICE = "ssm"
    VERSION = "2019-09-23"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._secrets = Secrets(cloud.records)
        self._flows: Table[Flow] = Table(cloud.records, "ssm.flows", Flow)
        self._instances: Table[Instance] = Table(cloud.records, "ssm.instances", Instance)

    def connect(self, instance_id: str, instance: Instance) -> None:
        """Let the secrets of an instance be made and changed on a real server."""
        self._instances.put(instance_id, instance)

    def tick(self) -> None:
        """Finish the flows that are due, and begin the rotations that are."""
        now = self.cloud.clock.now()
        with self.cloud.records.transaction():
            for number, flow in self._flows.all().items():
                if flow.status == 0 and now >= flow.due:
                    self._flows.put(number, self._finish(flow))
            for secret in self._secrets.all() if self.new_second() else ():
                if secret.managed and self._due(secret, secret.managed, now):
                    following = int(now) + secret.managed.days * _DAY
                    self._secrets.put(_with(secret, secret.managed, {"begin": following}))
                    self._begin(secret)

    def _due(self, secret: Secret, managed: Managed, now: float) -> bool:
        """Whether it is time for its rotation, and it is not being rotated."""
        return managed.enabled and secret.status == "Enabled" and now >= managed.begin and not self._running(secret)

    @action()
    def create_product_secret(self, call: Call, asked: CreateProductSecret) -> Fields:
        if asked.EnableRotation and not asked.RotationBeginTime:
            raise ApiError("MissingParameter", "`RotationBeginTime` is missing.")
        managed = Managed(
            product=asked.ProductName,
            instance=asked.InstanceID,
            names=[f"{asked.UserNamePrefix}_{secrets.token_hex(4)}" for _ in range(2)],
            hosts=list(asked.Domains),
            privileges=[privileges.model_dump_json() for privileges in asked.PrivilegesList],
            enabled=asked.EnableRotation,
            days=asked.RotationFrequency,
            begin=_time(asked.RotationBeginTime) if asked.RotationBeginTime else 0,
        )
        made = asked.secret(call, self.cloud.clock.now())
        secret = made.model_copy(update={"status": "Creating", "managed": managed})
        self._secrets.add(secret)
        return {"SecretName": secret.name, "TagCode": 0, "TagMsg": "", "FlowID": self._begin(secret)}

    @action()
    def rotate_product_secret(self, call: Call, asked: OfSecret) -> Fields:
        secret, managed = self._managed(call, asked.SecretName)
        require_status(secret, "Enabled")
        if not managed.enabled:
            raise ApiError("FailedOperation.RotationForbidden", f"The rotation of `{secret.name}` is not enabled.")
        if self._running(secret):
            raise ApiError("FailedOperation", f"The secret `{secret.name}` is being rotated.")
        return {"FlowID": self._begin(secret)}

    @action(rate=40)
    def describe_async_request_info(self, _call: Call, asked: OfFlow) -> Fields:
        flow = self._flows.get(str(asked.FlowID))
        if flow is None:
            raise ApiError("ResourceNotFound", f"There is no task {asked.FlowID}.")
        return {"TaskStatus": flow.status, "Description": flow.description}

    @action(rate=40)
    def describe_rotation_detail(self, call: Call, asked: OfSecret) -> Fields:
        _, managed = self._managed(call, asked.SecretName)
        return {
            "EnableRotation": managed.enabled,
            "Frequency": managed.days,
            "LatestRotateTime": time_text(managed.rotated),
            "NextRotateBeginTime": time_text(managed.begin if managed.enabled else 0),
        }

    @action(rate=40)
    def describe_rotation_history(self, call: Call, asked: OfSecret) -> Fields:
        secret, _ = self._managed(call, asked.SecretName)
        versions = [version for version in reversed(secret.versions) if version != CURRENT]
        return {"VersionIDs": versions, "TotalCount": len(versions), "AccountInfoList": accounts(secret)}

    @action()
    def update_rotation_status(self, call: Call, asked: UpdateRotationStatus) -> Fields:
        secret, managed = self._managed(call, asked.SecretName)
        require_status(secret, "Enabled", "Disabled")
        begin = _time(asked.RotationBeginTime) if asked.RotationBeginTime else int(self.cloud.clock.now())
        change = (
            {"enabled": True, "days": asked.Frequency, "begin": begin} if asked.EnableRotation else {"enabled": False}
        )
        self._secrets.put(_with(secret, managed, change))
        return {}

    @action()
    def describe_supported_products(self, _call: Call, _asked: Nothing) -> Fields:
        return {"Products": list(PRODUCTS), "TotalCount": len(PRODUCTS)}

    def _managed(self, call: Call, name: str) -> tuple[Secret, Managed]:
        secret = self._secrets.get(call, name)
        if secret.managed is None:
            raise ApiError("OperationDenied", f"The secret `{name}` is not of a product.")
        return secret, secret.managed

    def _running(self, secret: Secret) -> bool:
        own = f"{secret.region}/{secret.name}"
        return any(flow.secret == own and flow.status == 0 for flow in self._flows.all().values())

    def _begin(self, secret: Secret) -> int:
        tasks = self.cloud.tasks
        number = len(self._flows.all()) + 1
        due = self.cloud.clock.now() + tasks.seconds
        self._flows.put(str(number), Flow(secret=f"{secret.region}/{secret.name}", due=due, succeeds=tasks.begin()))
        return number

    def _finish(self, flow: Flow) -> Flow:
        """Put the next account of the flow's secret into effect."""
        secret = next((one for one in self._secrets.all() if f"{one.region}/{one.name}" == flow.secret), None)
        if secret is None or secret.managed is None:
            return flow.model_copy(update={"status": 2, "description": "the secret was deleted"})
        try:
            self._secrets.put(self._rotated(secret, secret.managed, succeeds=flow.succeeds))
        except _ProductError as error:
            if secret.status == "Creating":
                self._secrets.put(secret.model_copy(update={"status": "Failed"}))
            return flow.model_copy(update={"status": 2, "description": str(error)})
        return flow.model_copy(update={"status": 1, "description": "done"})

    def _rotated(self, secret: Secret, managed: Managed, *, succeeds: bool) -> Secret:
        """The secret with its waiting account in effect, under a new password. Raises :class:`_ProductError`."""
        if not succeeds:
            raise _ProductError("the product refused")
        now = int(self.cloud.clock.now())
        made = [account.name for account in managed.accounts]
        name = next((name for name in managed.names if name not in made), made[-1] if made else "")
        password = secrets.token_urlsafe(24)
        self._set_password(managed, name, password)
        others = [account for account in managed.accounts if account.name != name]
        value = Version(created=now, text=json.dumps({"UserName": name, "Password": password}))
        kept = [(version, of) for version, of in secret.versions.items() if version != CURRENT][-(HISTORY - 1) :]
        versions = dict([*kept, (str(uuid.uuid4()), value), (CURRENT, value)])
        status = "Enabled" if secret.status == "Creating" else secret.status
        turned = secret.model_copy(update={"status": status, "versions": versions})
        return _with(turned, managed, {"accounts": [Account(name=name, rotated=now), *others], "rotated": now})

    def _set_password(self, managed: Managed, name: str, password: str) -> None:
        """On the instance, if it is known. Raises :class:`_ProductError`."""
        instance = self._instances.get(managed.instance)
        if instance is None:
            return
        with _logged_in(instance) as connection, connection.cursor() as cursor:
            for host in managed.hosts:
                cursor.execute("CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", (name, host, password))
                cursor.execute("ALTER USER %s@%s IDENTIFIED BY %s", (name, host, password))
                for privileges in map(Privileges.model_validate_json, managed.privileges):
                    granted = ", ".join(privileges.Privileges)
                    cursor.execute(f"GRANT {granted} ON {privileges.place} TO %s@%s", (name, host))


def _with(secret: Secret, managed: Managed, change: Mapping[str, object]) -> Secret:
    return secret.model_copy(update={"managed": managed.model_copy(update=dict(change))})


class _ProductError(Exception):
    """The product did not do its part."""


@contextmanager
def _logged_in(instance: Instance) -> Iterator[Connection]:
    """Raises :class:`_ProductError`, which quotes no statement: it may hold a password."""
    import pymysql

    try:
        connection = pymysql.connect(
            host=instance.host, port=instance.port, user=instance.user, password=instance.password, connect_timeout=5
        )
        with connection:
            yield connection
            connection.commit()
    except pymysql.Error as error:
        number = error.args[0] if error.args else 0
        raise _ProductError(f"the instance answered with error {number}") from error
