"""One function on Tencent Cloud (SCF): its versions, their variables, and the aliases that divide its calls.

UpdateFunctionConfiguration replaces all variables and has no condition: somebody else's may come between. What was
published is therefore read again before it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rotation.errors import Conflict, DeployError, KeyturnError, LimitExceeded
from rotation.options import first_problem
from rotation.retries import retrying, until
from rotation.tencentcloud import Cloud, Manner

LATEST = "$LATEST"
_SETTLED_AFTER = 120.0  # seconds that a change or a publication may take
_PAGE = 100


class Absent(DeployError):
    """There is no such function, alias or version."""


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "FailedOperation.FunctionStatusError": Conflict,
    "FailedOperation.OperationConflict": Conflict,
    "InvalidParameterValue.EnvironmentExceededLimit": LimitExceeded,
    "LimitExceeded.FunctionVersions": LimitExceeded,
    "ResourceNotFound": Absent,
}


class _Answer(BaseModel):
    """A part of one of SCF's answers."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Variable(_Answer):
    Key: str
    Value: str


class _Environment(_Answer):
    Variables: tuple[_Variable, ...] | None = None


class Version(_Answer):
    """What GetFunction says of one version. ``settings`` are those that a version carries beside code and variables."""

    Status: str
    Handler: str | None = None
    Timeout: int
    MemorySize: int
    Runtime: str | None = None
    Role: str | None = None
    VpcConfig: dict[str, Any] | None = None
    Layers: tuple[dict[str, Any], ...] | None = None
    Environment: _Environment | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return self.model_dump(exclude={"Status", "Environment"})

    @property
    def variables(self) -> dict[str, str]:
        listed = (self.Environment.Variables if self.Environment else None) or ()
        return {variable.Key: variable.Value for variable in listed}


class _Weight(_Answer):
    Version: str
    Weight: float


class _Routing(_Answer):
    AdditionalVersionWeights: tuple[_Weight, ...] | None = None


class Alias(_Answer):
    """What GetAlias says of one alias."""

    FunctionVersion: str
    RoutingConfig: _Routing | None = None
    Description: str | None = None

    @property
    def served(self) -> Served:
        weights = (self.RoutingConfig.AdditionalVersionWeights if self.RoutingConfig else None) or ()
        canary = weights[0] if weights else None
        return Served(self.FunctionVersion, canary.Version if canary else None, canary.Weight if canary else 0.0)


class Served(NamedTuple):
    """The versions behind an alias. ``weight`` is the share of calls that the canary gets; without
    one everybody gets the stable version."""

    stable: str
    canary: str | None
    weight: float = 0.0


class Function:
    """The calls on one function. What SCF refuses is raised as :class:`DeployError` (:class:`Absent` where something is
    not there), :class:`LimitExceeded`, or :class:`Conflict` where somebody else is at it."""

    def __init__(self, cloud: Cloud, name: str, namespace: str) -> None:
        self._cloud = cloud
        self._named = {"FunctionName": name, "Namespace": namespace}

    def __str__(self) -> str:
        return f"{self._named['Namespace']}/{self._named['FunctionName']}"

    def alias(self, name: str) -> Alias:
        reply = self._call("GetAlias", {"Name": name}, f"read the alias {name} of {self}", ("FunctionVersion",))
        return _read(Alias, reply)

    def route(self, name: str, before: Served, after: Served) -> None:
        """Let the alias serve other versions. Raises :class:`Conflict` where it no longer serves what it did.

        An old routing is taken away by an empty one, and that is looked at: what leaving it out does is not documented.
        """
        standing = self.alias(name)
        if standing.served != before:
            raise Conflict(f"somebody else has moved the alias {name} of {self}")
        weights = [] if after.canary is None else [{"Version": after.canary, "Weight": after.weight}]
        parameters = {
            "Name": name,
            "FunctionVersion": after.stable,
            "RoutingConfig": {"AdditionalVersionWeights": weights},
            "Description": standing.Description or "",
        }
        self._call("UpdateAlias", parameters, f"move the alias {name} of {self}")
        until(
            lambda: self.alias(name).served,
            lambda seen: seen[:2] == after[:2],
            what=f"the alias {name} of {self} with version {after.stable}",
        )

    def version(self, qualifier: str) -> Version:
        doing = f"read version {qualifier} of {self}"
        reply = self._call("GetFunction", {"Qualifier": qualifier}, doing, ("Status", "Timeout", "MemorySize"))
        return _read(Version, reply)

    def settled(self, qualifier: str) -> Version:
        """A version, once nothing is being changed about it any more."""
        found = until(
            lambda: self.version(qualifier),
            lambda seen: not seen.Status.endswith("ing"),
            what=f"version {qualifier} of {self}, done with its change,",
            seconds=_SETTLED_AFTER,
        )
        if found.Status != "Active":
            what = f"version {qualifier} of {self} is {found.Status}"
            raise DeployError(what, "Look at the function in SCF's console.")
        return found

    def code(self, qualifier: str) -> str:
        """The SHA-256 of a version's code."""
        doing = f"read the code's digest of version {qualifier} of {self}"
        reply = self._call("GetFunctionAddress", {"Qualifier": qualifier}, doing, ("CodeSha256",))
        return str(reply["CodeSha256"])

    def configured(self, variables: Mapping[str, str]) -> Version:
        """``$LATEST`` with these variables and no others; written only where it has not got them."""
        listed = [{"Key": name, "Value": value} for name, value in sorted(variables.items())]
        doing = f"configure {self}"

        def write() -> None:  # where an answer was lost, what came of it is looked at
            if self.settled(LATEST).variables != variables:
                self._once("UpdateFunctionConfiguration", {"Environment": {"Variables": listed}}, doing)

        retrying(write)
        latest = self.settled(LATEST)
        if latest.variables != variables:
            raise Conflict(f"somebody else configures {self}")
        return latest

    def published(self, latest: Version, about: str) -> str:
        """The version that is as ``$LATEST`` is now, described as ``about``; published unless it was before."""

        def write() -> None:
            if self._find(about) is None:
                self._once("PublishVersion", {"Description": about}, f"publish {self}")

        retrying(write)
        number = until(lambda: self._find(about), bool, what=f"the version of {self} that was published")
        version = self.settled(str(number))
        if version.variables != latest.variables:
            raise Conflict(f"version {number} of {self} has not the configuration that its description tells")
        return str(number)

    def _find(self, description: str) -> str | None:
        """The newest version with this description."""
        found = (str(seen["Version"]) for seen in self._versions() if seen.get("Description") == description)
        return next(found, None)

    def _versions(self) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while True:
            parameters = {"Offset": offset, "Limit": _PAGE, "Order": "DESC", "OrderBy": "AddTime"}
            doing = f"list the versions of {self}"
            reply = self._call("ListVersionByFunction", parameters, doing, ("Versions", "TotalCount"))
            yield from reply["Versions"]
            offset += _PAGE
            if offset >= reply["TotalCount"]:
                return

    def _call(
        self, action: str, parameters: Mapping[str, Any], doing: str, requires: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """For what may be done twice."""
        manner = Manner(doing, DeployError, _REFUSALS, requires)
        return self._cloud.call("scf", action, {**self._named, **parameters}, manner)

    def _once(self, action: str, parameters: Mapping[str, Any], doing: str) -> None:
        manner = Manner(doing, DeployError, _REFUSALS)
        self._cloud.call_once("scf", action, {**self._named, **parameters}, manner)


_Model = TypeVar("_Model", bound=_Answer)


def _read(model: type[_Model], reply: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(reply)
    except ValidationError as error:  # it holds the variables of others: not chained
        where, what = first_problem(error)
    raise DeployError(f"an answer of SCF is not as it is documented: {where}: {what}")
