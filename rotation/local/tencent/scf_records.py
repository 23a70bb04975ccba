"""What Serverless Cloud Function (SCF) remembers: functions with their versions, aliases and timers, code, events."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from rotation.local.tencent.records import Records, Table
from rotation.local.tencent.scf_timer import ZONE
from rotation.local.tencent.service import Parameters
from rotation.local.tencent.wire import ApiError

LATEST = "$LATEST"
DEFAULT_ALIAS = "$DEFAULT"
MOST_VERSIONS = 1000
MOST_ENVIRONMENT = 4096  # bytes of names and values

FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_-]{0,58}[A-Za-z0-9])$")]
AliasName = Annotated[str, Field(pattern=r"^(\$DEFAULT|[A-Za-z][A-Za-z0-9_-]{0,63})$")]
DescriptionText = Annotated[str, Field(max_length=1000, pattern=r"^[A-Za-z0-9\u4e00-\u9fff ,.\n]*$")]
Seconds = Annotated[int, Field(ge=1, le=900)]

RUNTIMES = frozenset({"Python3.6", "Python3.7", "Python3.9", "Python3.10", "CustomRuntime"})
_RESERVED = ("SCF_", "QCLOUD_", "TENCENTCLOUD_")


class Variable(Parameters):
    Key: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{1,63}$")]
    Value: Annotated[str, Field(min_length=1)]


class Variables(Parameters):
    Variables: list[Variable]

    def checked(self) -> dict[str, str]:
        """The variables by name. Raises :class:`ApiError`."""
        variables = {variable.Key: variable.Value for variable in self.Variables}
        if len(variables) != len(self.Variables):
            raise ApiError("InvalidParameterValue.Environment", "A variable is there twice.")
        if any(name.startswith(_RESERVED) for name in variables):
            raise ApiError("InvalidParameterValue.EnvironmentSystemProtect", "The name of a variable is reserved.")
        if sum(len(f"{name}{value}".encode()) for name, value in variables.items()) > MOST_ENVIRONMENT:
            raise ApiError("InvalidParameterValue.EnvironmentExceededLimit", "The variables are over 4 KB.")
        return variables


class Settings(BaseModel):
    """The configuration of one version."""

    handler: str
    runtime: str
    description: str = ""
    timeout: int = 3
    memory: int = 128
    role: str = ""
    logset: str = ""
    topic: str = ""
    variables: dict[str, str] = {}


class Version(BaseModel):
    """``looks`` is how often it is still seen as ``status`` before it is Active. Times are seconds since 1970."""

    number: str
    settings: Settings
    code: str  # SHA-256
    size: int
    added: float
    modified: float
    status: str = "Active"
    looks: int = 0


class Alias(BaseModel):
    """``weights`` are the shares of additional versions."""

    name: str
    version: str
    weights: dict[str, float] = {}
    description: str = ""
    added: float
    modified: float

    def choose(self) -> str:
        """The version of one call."""
        drawn = random.random()  # noqa: S311 - traffic
        for version, weight in self.weights.items():
            drawn -= weight
            if drawn < 0:
                return version
        return self.version


class Trigger(BaseModel):
    """A timer. ``checked`` is until when it was fired."""

    name: str
    cron: str
    message: str
    qualifier: str
    description: str
    enabled: bool
    added: float
    modified: float
    checked: float


class Function(BaseModel):
    """``versions`` are those published, by number; numbers are never used again."""

    name: str
    namespace: str
    identifier: str
    latest: Version
    versions: dict[str, Version] = {}
    published: int = 0
    aliases: dict[str, Alias] = {}
    triggers: dict[str, Trigger] = {}

    def version(self, qualifier: str | None) -> Version:
        """A version by its number. Raises :class:`ApiError`."""
        if qualifier in (None, LATEST):
            return self.latest
        try:
            return self.versions[str(qualifier)]
        except KeyError:
            raise ApiError("ResourceNotFound.FunctionVersion", f"There is no version `{qualifier}`.") from None

    def alias(self, name: str) -> Alias:
        try:
            return self.aliases[name]
        except KeyError:
            raise ApiError("ResourceNotFound.Alias", f"There is no alias `{name}`.") from None


class Event(BaseModel):
    """An asynchronous call that is due at a time (seconds since 1970)."""

    function: str
    namespace: str
    qualifier: str
    payload: str
    source: Literal["timer", "invoke"]
    due: float
    attempt: int = 0


class Code(BaseModel):
    zip: str = Field(repr=False)  # Base64


class Functions:
    """All functions of one region's namespaces."""

    def __init__(self, records: Records, now: Callable[[], float]) -> None:
        self._functions: Table[Function] = Table(records, "scf.functions", Function)
        self.codes: Table[Code] = Table(records, "scf.codes", Code)
        self.events: Table[Event] = Table(records, "scf.events", Event)
        self.now = now

    def find(self, name: str, namespace: str) -> Function | None:
        return self._functions.get(f"{namespace}/{name}")

    def get(self, asked: OfFunction) -> Function:
        if found := self.find(asked.FunctionName, asked.Namespace):
            return found
        raise ApiError("ResourceNotFound.Function", f"The function `{asked.FunctionName}` does not exist.")

    def settled(self, asked: OfFunction) -> Function:
        """A function about which something may be changed."""
        function = self.get(asked)
        if function.latest.status != "Active":
            raise ApiError("FailedOperation.FunctionStatusError", f"The function is {function.latest.status}.")
        return function

    def put(self, function: Function) -> None:
        self._functions.put(f"{function.namespace}/{function.name}", function)

    def remove(self, function: Function) -> None:
        self._functions.remove(f"{function.namespace}/{function.name}")

    def all(self) -> list[Function]:
        return list(self._functions.all().values())


class OfFunction(Parameters):
    FunctionName: FunctionName
    Namespace: str = "default"


def time_text(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, ZONE):%Y-%m-%d %H:%M:%S}"


def page(found: list[Any], offset: int, limit: int) -> list[Any]:
    return found[offset : offset + limit]
