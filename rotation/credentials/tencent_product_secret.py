"""Secrets that Tencent Cloud's SSM makes and rotates itself in a product, such as a MySQL instance: keyturn says when.

SSM has two accounts in the product, in turn: a rotation gives the one that is not in effect a new password, puts it
into effect (``SSM_Current``), and leaves the other one as it is until the next. A value is no password but a reference
to one version of the product secret, and where to log in with it::

    {"product_secret": "orders-db", "version": "3f…", "host": "db", "port": 3306, "dbname": "orders", "id": "9f…"}

**How that maps.** SSM makes the password, and its version, when it rotates; so that is done before a value is staged:

- To make a value is to rotate, and wait. But only where the current generation's version is in effect: otherwise that
  would change the account that the current one is. A version in effect that nobody has claimed, of a run that died
  before it staged the value, of a candidate that was turned down, or of SSM's own schedule, is taken as it is.
- To install it changes nothing: SSM has installed it.
- To revoke the previous generation is to rotate once more, which gives its account a password that nobody has; the next
  value is then that one. A candidate cannot be revoked, for its account is the one in effect: it stays until its turn.

**Consumers** that read the version in their configuration have a canary. Those that follow ``SSM_Current``, as
Tencent's consumer SDK does, have the new login as soon as it is made; the old one works on meanwhile.

**SSM's own schedule** would take turns as well, and the second one in a row kills the current login. So let it be the
longest (365 days), and rotate by keyturn's; a period of less than 180 days is refused. A rotation that SSM forbids
because its schedule is off cannot be asked for either.

SSM compares nothing: a runner that is suspended just between its last look and the call may rotate once more what
others have rotated since, and kill the current login; the journal's lease is what keeps them apart.

**The runner** needs ssm:RotateProductSecret, ssm:DescribeAsyncRequestInfo, ssm:DescribeRotationHistory,
ssm:DescribeRotationDetail and ssm:GetSecretValue on the product secret.
https://www.tencentcloud.com/document/product/1105 and the SDK's ssm.v20190923.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rotation.credential_values import read
from rotation.credentials import CredentialKind, DescribesOperations, HasAdministrator, ReadSecret, ReportsUsage
from rotation.database_login import Login, Place
from rotation.database_login import parse as login_of
from rotation.errors import DeclarationError, KeyturnError, OutcomeUnknown, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy, Usage
from rotation.mysql import SslMode, Transport, connected
from rotation.options import parse
from rotation.retries import until
from rotation.secret_value import SecretValue
from rotation.tencentcloud import Connection, Manner, connect

CURRENT = "SSM_Current"
LEAST_DAYS = 180
_RUNNING, _DONE = 0, 1  # TaskStatus; 2 is failed


class _Options(Connection):
    product_secret: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 3306
    dbname: str
    patience: Annotated[float, Field(gt=0, le=3600)] = 330.0
    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None


class _Value(BaseModel):
    """A generation's value. The ``id`` tells two generations of one version apart."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    product_secret: str
    version: str


class _Missing(TargetError):
    """SSM has no such version, or no such secret."""


class TencentProductSecret(CredentialKind, ReportsUsage, HasAdministrator, DescribesOperations):
    """Options: ``product_secret`` (its name in SSM), ``host``, ``port`` and ``dbname`` of the MySQL instance,
    ``patience`` (seconds that a rotation may take), ``sslmode``, ``sslrootcert`` (a file); and those of
    :class:`rotation.tencentcloud.Connection`."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.ALTERNATING})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        del read  # SSM itself changes the passwords
        self._options = parse(_Options, options, "tencent_product_secret")
        if strategy not in self.strategies:
            raise DeclarationError(f"tencent_product_secret has no strategy {strategy} (it has: alternating)")
        self._transport = Transport(self._options.sslmode, self._options.sslrootcert)
        self._cloud = connect(self._options)

    def issue(self, current: Credential | None) -> SecretValue:
        options, version = self._options, self._in_effect()
        if current is not None and version == self._version(current):
            version = self._rotate(version)
        place = {"host": options.host, "port": options.port, "dbname": options.dbname}
        reference = {"product_secret": options.product_secret, "version": version}
        return SecretValue(json.dumps({**reference, **place, "id": secrets.token_hex(16)}))

    def install(self, new: Credential, current: Credential | None) -> None:
        del current
        if self._version(new) != self._in_effect() and self.check(new) is Acceptance.DENIED:
            raise TargetError(
                f"generation {new.generation} of {new.secret} is superseded: SSM has rotated its account since",
                "Run the command again: it starts from what is there now.",
            )

    def check(self, credential: Credential) -> Acceptance:
        try:
            login = self._login(self._version(credential))
        except _Missing:
            return Acceptance.DENIED
        except (Unavailable, Unauthorized):  # it is the runner that SSM refuses
            return Acceptance.UNKNOWN
        try:
            with connected(login, self._transport, dbname=self._options.dbname):
                return Acceptance.ACCEPTED
        except Unauthorized:
            return Acceptance.DENIED
        except Unavailable:
            return Acceptance.UNKNOWN

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """Rotates, where that ends ``old`` and leaves ``current``; where it does not, nothing is done (see the module).
        Open sessions go on, whatever ``end_sessions`` says: SSM cannot end them."""
        del end_sessions
        if current is None:
            return
        ending, staying = self._version(old), self._version(current)
        if ending != staying == self._in_effect() and self.check(old) is not Acceptance.DENIED:
            self._rotate(staying)

    def usage(self, old: Credential, current: Credential | None) -> Usage | None:
        """Open sessions of the account, which may see its own; what opens and closes between two looks is missed."""
        version = self._version(old)
        if current is not None and self._version(current) == version:
            return None
        try:
            with connected(self._login(version), self._transport) as connection:
                rows = connection.run(
                    "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Quit'"
                    " AND USER = SUBSTRING_INDEX(USER(), '@', 1)"
                )
        except (_Missing, Unauthorized):
            return Usage(sessions=None)
        return Usage(sessions=len(rows))

    def probe(self) -> None:
        found = self._ask("DescribeRotationDetail", "look at the rotation of {}", "EnableRotation", "Frequency")
        name = self._options.product_secret
        if not found["EnableRotation"]:
            raise TargetError(
                f"the rotation of the product secret {name} is not enabled, and SSM rotates none on demand then",
                "Enable it, every 365 days: keyturn rotates it, by its own schedule.",
            )
        if found["Frequency"] < LEAST_DAYS:
            raise TargetError(
                f"SSM rotates {name} on its own, every {found['Frequency']} days, and its consumers would not be told",
                "Let it be every 365 days: keyturn rotates it, by its own schedule.",
            )

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        name = self._options.product_secret
        if current is None:
            return (f"none: generation {new} is what SSM has for {name}",)
        made = f"RotateProductSecret of {name}: SSM makes the login of generation {new}, in the account that is idle"
        return made, f"when generation {current} is retired: RotateProductSecret, which changes its account's password"

    def _version(self, credential: Credential) -> str:
        value = _parse(credential)
        if value.product_secret != self._options.product_secret:
            raise TargetError(
                f"generation {credential.generation} of {credential.secret} refers to another product secret",
                f"Store a value that refers to {self._options.product_secret}, or declare the other one.",
            )
        return value.version

    # SSM

    def _in_effect(self) -> str:
        """The version whose value SSM_Current has."""
        current = self._read(CURRENT)
        listed = self._ask("DescribeRotationHistory", "list the versions of {}", "VersionIDs")["VersionIDs"]
        for version in listed:
            if self._read(version) == current:
                return str(version)
        raise TargetError(
            f"none of the {len(listed)} versions that SSM keeps of {self._options.product_secret} is the one in effect",
            "Run the command again; SSM may be rotating it just now.",
        )

    def _rotate(self, before: str) -> str:
        """Have SSM rotate, and return the version that is in effect then. Where the answer is lost, the outcome is
        awaited: a request that is under way may still be applied for as long as its signature lasts, 300 s."""
        name = self._options.product_secret
        manner = self._manner("rotate {}", "FlowID")
        try:
            flow = self._cloud.call_once("ssm", "RotateProductSecret", {"SecretName": name}, manner)["FlowID"]
        except OutcomeUnknown:
            pass
        else:
            self._await(flow)
        what = f"the rotation of the product secret {name}"
        return until(self._in_effect, lambda seen: seen != before, what=what, seconds=self._options.patience)

    def _await(self, flow: int) -> None:
        """Wait until SSM's task is over. Raises :class:`TargetError` where it has failed."""
        manner = self._manner(f"look at the task {flow} of {{}}", "TaskStatus")

        def look() -> dict[str, Any]:
            return self._cloud.call("ssm", "DescribeAsyncRequestInfo", {"FlowID": flow}, manner)

        name = self._options.product_secret
        seen = until(
            look,
            lambda task: task["TaskStatus"] != _RUNNING,
            what=f"the end of the rotation of the product secret {name}",
            seconds=self._options.patience,
        )
        if seen["TaskStatus"] != _DONE:
            raise TargetError(
                f"SSM could not rotate the product secret {name}: {seen.get('Description') or 'no reason'}"
            )

    def _login(self, version: str) -> Login:
        """The login that a version holds. Raises :class:`_Missing` where SSM keeps it no longer."""
        options = self._options
        place = Place(options.host, options.port, options.dbname)
        return login_of(self._read(version), f"version {version} of {options.product_secret}", "MySQL", place)

    def _read(self, version: str) -> SecretValue:
        asked = {"SecretName": self._options.product_secret, "VersionId": version}
        manner = self._manner("read {}", "SecretString", quiet=True)
        return SecretValue(self._cloud.call("ssm", "GetSecretValue", asked, manner)["SecretString"])

    def _ask(self, action: str, doing: str, *requires: str) -> dict[str, Any]:
        asked = {"SecretName": self._options.product_secret}
        return self._cloud.call("ssm", action, asked, self._manner(doing, *requires))

    def _manner(self, doing: str, *requires: str, quiet: bool = False) -> Manner:
        what = doing.format(f"the product secret {self._options.product_secret}")
        return Manner(what, TargetError, _REFUSALS, requires, quiet)


_REFUSALS: Mapping[str, type[KeyturnError]] = {"ResourceNotFound": _Missing}


def _parse(credential: Credential) -> _Value:
    return read(
        _Value,
        credential,
        "is no reference to a product secret",
        "Store it as JSON with product_secret and version.",
    )
