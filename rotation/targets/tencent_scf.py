"""Deploy to a function on Tencent Cloud (SCF): its environment is the configuration, an alias divides the traffic.

- The consumer's rendered file (``dotenv``) is the variables that keyturn owns: references, never values. All other
  variables of the function stay. :data:`OWNED` names those that are keyturn's, :data:`GENERATIONS` what they stand for.
- A configuration is deployed as a published version: the function's ``$LATEST`` gets the variables, and is published.
  The version's description holds a digest of its configuration and code; one that exists already is used again, so an
  apply that was killed goes on where it was.
- The alias sends ``weight`` of its traffic to the canary ring's version and the rest to the stable ring's; where both
  are the same it has no routing. An alias that serves ``$LATEST`` is moved to a published copy of it first: a change
  of ``$LATEST`` would reach everybody at once.
- Nothing else is deployed along: where ``$LATEST`` differs from the version that serves in its code or in anything
  but keyturn's own variables, the deployment is refused.

UpdateFunctionConfiguration replaces all variables and has no condition. What was published is therefore read again
before traffic goes there, and deployments of one project run one at a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rotation import pins
from rotation.deploy import alone
from rotation.errors import Conflict, DeclarationError, DeployError, GuardRefused, KeyturnError, LimitExceeded
from rotation.manifest import Consumer, Manifest
from rotation.model import Place, Ring
from rotation.options import first_problem, parse
from rotation.retries import retrying, until
from rotation.targets import Deployment, DeployTarget
from rotation.tencentcloud import Cloud, Connection, Manner, connect

OWNED = "KEYTURN_VARIABLES"  # the names of the variables that keyturn set, with commas
GENERATIONS = "KEYTURN_GENERATIONS"  # "orders/db=42,orders/api-token=7"
LATEST = "$LATEST"
MOST_BYTES = 4096  # of all names and values: https://www.tencentcloud.com/document/product/583/11637
SETTLED_AFTER = 120.0  # seconds that a change or a publication may take

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,63}")
_RESERVED = ("SCF_", "QCLOUD_", "TENCENTCLOUD_")
_PAGE = 100


class _Absent(DeployError):
    """There is no such function, alias or version."""


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "FailedOperation.FunctionStatusError": Conflict,
    "FailedOperation.OperationConflict": Conflict,
    "InvalidParameterValue.EnvironmentExceededLimit": LimitExceeded,
    "LimitExceeded.FunctionVersions": LimitExceeded,
    "ResourceNotFound": _Absent,
}


class _Options(Connection):
    """``alias`` is the one through which the function is called; ``$DEFAULT`` every function has. ``weight`` is the
    share of calls that the canary ring gets."""

    function: str = Field(min_length=2, max_length=60)
    namespace: str = "default"
    alias: str = "$DEFAULT"
    weight: float = Field(default=0.1, gt=0, lt=1)


class _Variable(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    Key: str
    Value: str


class _Environment(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    Variables: tuple[_Variable, ...] | None = None


class _Function(BaseModel):
    """What GetFunction says of one version. ``settings`` are those that a version carries beside code and variables."""

    model_config = ConfigDict(extra="ignore", frozen=True)

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

    @property
    def others(self) -> dict[str, str]:
        """The variables that are not keyturn's."""
        own = {OWNED, GENERATIONS, *self.variables.get(OWNED, "").split(",")}
        return {name: value for name, value in self.variables.items() if name not in own}


class _Weight(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    Version: str
    Weight: float


class _Routing(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    AdditionalVersionWeights: tuple[_Weight, ...] | None = None


class _Alias(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    FunctionVersion: str
    RoutingConfig: _Routing | None = None
    Description: str | None = None

    @property
    def served(self) -> _Served:
        weights = (self.RoutingConfig.AdditionalVersionWeights if self.RoutingConfig else None) or ()
        canary = weights[0] if weights else None
        return _Served(self.FunctionVersion, canary.Version if canary else None, canary.Weight if canary else 0.0)


class _Served(NamedTuple):
    """The versions behind the alias. Without a canary everybody gets the stable one."""

    stable: str
    canary: str | None
    weight: float = 0.0


class TencentScfTarget(DeployTarget):
    """One function, and so one consumer, per declaration of this target."""

    def __init__(self, options: Mapping[str, Any], project: Path, manifest: Manifest) -> None:
        self._options = parse(_Options, options, "target tencent_scf")
        self._project = project
        self._manifest = manifest
        self._consumer = _only_consumer(manifest, self._options)
        self._scf = _Scf(connect(self._options), self)

    @property
    def function(self) -> dict[str, str]:
        """The parameters that name the function."""
        return {"FunctionName": self._options.function, "Namespace": self._options.namespace}

    def __str__(self) -> str:
        return f"{self._options.namespace}/{self._options.function}"

    def deployed(self) -> dict[Place, dict[str, int]]:
        try:
            served = self._scf.alias(self._options.alias).served
        except _Absent:  # the function is still to be made
            return {}
        versions = {Ring.STABLE: served.stable, Ring.CANARY: served.canary or served.stable}
        found = {
            (self._consumer.name, ring): _generations(self._scf.version(versions[ring]).variables, str(self))
            for ring in self._consumer.rings
        }
        return {place: generations for place, generations in found.items() if generations}

    def apply(self, places: Sequence[Place]) -> Deployment:
        with alone(self._project):
            before = self._settled_alias()
            versions = {ring: self._version(self._configuration(ring), before.stable) for ring in self._rings(places)}
            after = self._routed(before, versions)
            changed = [f"{self}:{self._options.alias}"] if after != before else []
            if after != before:
                self._scf.route(self._options.alias, before, after)
        wanted = {f"{self}/{ring}": version for ring, version in sorted(versions.items())}
        digest = hashlib.sha256(json.dumps([str(self), wanted, after], sort_keys=True).encode()).hexdigest()
        return Deployment(digest, tuple(changed))

    def _rings(self, places: Sequence[Place]) -> list[Ring]:
        return sorted(ring for consumer, ring in places if consumer == self._consumer.name)

    def _configuration(self, ring: Ring) -> dict[str, str]:
        """The rendered file's variables, and keyturn's two of its own; none where the ring has no pins."""
        generations = pins.load(self._project / self._manifest.pins).at(self._consumer.name, ring)
        if not generations:
            return {}
        rendered = self._project / self._consumer.rings[ring].rendered
        variables = _parse(rendered)
        stands_for = ",".join(f"{secret}={generation}" for secret, generation in sorted(generations.items()))
        return {**variables, OWNED: ",".join(sorted(variables)), GENERATIONS: stands_for}

    def _settled_alias(self) -> _Served:
        """What the alias serves, once that is no longer ``$LATEST``."""
        alias = self._scf.alias(self._options.alias)
        if alias.served.canary == LATEST:
            raise GuardRefused(
                f"the alias {self._options.alias} of {self} sends some of its traffic to {LATEST}",
                "Route it to published versions only, then run the command again.",
            )
        if alias.FunctionVersion != LATEST:
            return alias.served
        latest = self._scf.settled(LATEST)
        copy = self._scf.published(latest, self._digest(latest.variables, latest))
        served = alias.served._replace(stable=copy)
        self._scf.route(self._options.alias, alias.served, served)
        return served

    def _version(self, wanted: Mapping[str, str], serving: str) -> str:
        """The published version with this configuration and the code that serves now."""
        latest = self._scf.settled(LATEST)
        self._guard(latest, self._scf.version(serving), serving)
        variables = {**latest.others, **wanted}
        self._check(wanted, latest, variables)
        latest = self._scf.configured(variables)
        return self._scf.published(latest, self._digest(variables, latest))

    def _guard(self, latest: _Function, serving: _Function, version: str) -> None:
        differs = [name for name, value in latest.settings.items() if value != serving.settings[name]]
        differs += [f"variable {name}" for name, _ in sorted(latest.others.items() ^ serving.others.items())]
        if self._scf.code(LATEST) != self._scf.code(version):
            differs.append("code")
        if differs:
            raise GuardRefused(
                f"the deployment of {self} would also bring {LATEST}'s own {', '.join(dict.fromkeys(differs))}",
                f"Publish {LATEST} and move the alias {self._options.alias} to it first, then run the command again.",
            )

    def _check(self, wanted: Mapping[str, str], latest: _Function, variables: Mapping[str, str]) -> None:
        """Refuse variables that SCF would not take, or that are somebody else's."""
        bad = [name for name in wanted if not _NAME.fullmatch(name) or name.startswith(_RESERVED)]
        taken = sorted(wanted.keys() & latest.others.keys())
        empty = [name for name, value in variables.items() if not value]
        for names, what in ((bad, "no name for a variable in SCF"), (empty, "empty, which SCF refuses")):
            if names:
                raise DeclarationError(f"the configuration of {self._consumer.name}: {', '.join(names)} is {what}")
        if taken:
            raise DeployError(
                f"{self} has {', '.join(taken)} already, and keyturn did not set it",
                "Remove the variable from the function, or call it something else in the consumer's template.",
            )
        size = sum(len(f"{name}{value}".encode()) for name, value in variables.items())
        if size > MOST_BYTES:
            raise LimitExceeded(
                f"the variables of {self} would have {size} bytes, and SCF takes {MOST_BYTES}",
                "Let the consumer's template name fewer or shorter things.",
            )

    def _digest(self, variables: Mapping[str, str], latest: _Function) -> str:
        about = [dict(variables), latest.settings, self._scf.code(LATEST)]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _routed(self, before: _Served, versions: Mapping[Ring, str]) -> _Served:
        """The alias once these rings have these versions, and the others what they had."""
        stable = versions.get(Ring.STABLE, before.stable)
        if Ring.CANARY not in self._consumer.rings:
            return _Served(stable, None)
        canary = versions.get(Ring.CANARY, before.canary or before.stable)
        return _Served(stable, None) if canary == stable else _Served(stable, canary, self._options.weight)


class _Scf:
    """The calls on one function."""

    def __init__(self, cloud: Cloud, target: TencentScfTarget) -> None:
        self._cloud = cloud
        self._target = target

    def alias(self, name: str) -> _Alias:
        reply = self._call("GetAlias", {"Name": name}, f"read the alias {name} of {self._target}", ("FunctionVersion",))
        return _read(_Alias, reply)

    def route(self, name: str, before: _Served, after: _Served) -> None:
        """Let the alias serve other versions. Raises :class:`Conflict` where it no longer serves what it did.

        An old routing is taken away by an empty one, and that is looked at: what leaving it out does is not documented.
        """
        standing = self.alias(name)
        if standing.served != before:
            raise Conflict(f"somebody else has moved the alias {name} of {self._target}")
        weights = [] if after.canary is None else [{"Version": after.canary, "Weight": after.weight}]
        parameters = {
            "Name": name,
            "FunctionVersion": after.stable,
            "RoutingConfig": {"AdditionalVersionWeights": weights},
            "Description": standing.Description or "",
        }
        self._call("UpdateAlias", parameters, f"move the alias {name} of {self._target}")
        until(
            lambda: self.alias(name).served,
            lambda seen: seen[:2] == after[:2],
            what=f"the alias {name} of {self._target} with version {after.stable}",
        )

    def version(self, qualifier: str) -> _Function:
        doing = f"read version {qualifier} of {self._target}"
        reply = self._call("GetFunction", {"Qualifier": qualifier}, doing, ("Status", "Timeout", "MemorySize"))
        return _read(_Function, reply)

    def settled(self, qualifier: str) -> _Function:
        """A version, once nothing is being changed about it any more."""
        found = until(
            lambda: self.version(qualifier),
            lambda seen: not seen.Status.endswith("ing"),
            what=f"version {qualifier} of {self._target}, done with its change,",
            seconds=SETTLED_AFTER,
        )
        if found.Status != "Active":
            what = f"version {qualifier} of {self._target} is {found.Status}"
            raise DeployError(what, "Look at the function in SCF's console.")
        return found

    def code(self, qualifier: str) -> str:
        """The SHA-256 of a version's code."""
        doing = f"read the code's digest of version {qualifier} of {self._target}"
        reply = self._call("GetFunctionAddress", {"Qualifier": qualifier}, doing, ("CodeSha256",))
        return str(reply["CodeSha256"])

    def configured(self, variables: Mapping[str, str]) -> _Function:
        """``$LATEST`` with these variables and no others; written only where it has not got them."""
        listed = [{"Key": name, "Value": value} for name, value in sorted(variables.items())]
        doing = f"configure {self._target}"

        def write() -> None:  # where an answer was lost, what came of it is looked at
            if self.settled(LATEST).variables != variables:
                self._once("UpdateFunctionConfiguration", {"Environment": {"Variables": listed}}, doing)

        retrying(write)
        latest = self.settled(LATEST)
        if latest.variables != variables:
            raise Conflict(f"somebody else configures {self._target}")
        return latest

    def published(self, latest: _Function, digest: str) -> str:
        """The version that is as ``$LATEST`` is now; published unless it was before."""
        about = f"keyturn configuration {digest}"  # letters, digits and blanks: all that SCF takes here

        def write() -> None:
            if self._find(about) is None:
                self._once("PublishVersion", {"Description": about}, f"publish {self._target}")

        retrying(write)
        number = until(lambda: self._find(about), bool, what=f"the version of {self._target} that was published")
        version = self.settled(str(number))
        if version.variables != latest.variables:
            raise Conflict(f"version {number} of {self._target} has not the configuration that its description tells")
        return str(number)

    def _find(self, description: str) -> str | None:
        """The newest version with this description."""
        found = (str(seen["Version"]) for seen in self._versions() if seen.get("Description") == description)
        return next(found, None)

    def _versions(self) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while True:
            parameters = {"Offset": offset, "Limit": _PAGE, "Order": "DESC", "OrderBy": "AddTime"}
            doing = f"list the versions of {self._target}"
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
        return self._cloud.call("scf", action, {**self._target.function, **parameters}, manner)

    def _once(self, action: str, parameters: Mapping[str, Any], doing: str) -> None:
        manner = Manner(doing, DeployError, _REFUSALS)
        self._cloud.call_once("scf", action, {**self._target.function, **parameters}, manner)


def _only_consumer(manifest: Manifest, options: _Options) -> Consumer:
    """The consumer whose configuration the function's environment is."""
    found = [
        consumer
        for consumer in manifest.consumers.values()
        if consumer.target.kind == "tencent_scf"
        and consumer.target.options.get("function") == options.function
        and consumer.target.options.get("namespace", "default") == options.namespace
    ]
    if len(found) != 1:
        names = ", ".join(consumer.name for consumer in found) or "no consumer"
        raise DeclarationError(
            f"the function {options.namespace}/{options.function} has one environment, and is the target of {names}",
            "Declare it as the target of one consumer.",
        )
    if found[0].format != "dotenv":
        raise DeclarationError(
            f"the configuration of {found[0].name} is {found[0].format}, and a function's variables are dotenv",
            "Declare the consumer's format as dotenv: NAME='value' lines.",
        )
    return found[0]


def _parse(rendered: Path) -> dict[str, str]:
    """The variables of a rendered file, which was checked when it was rendered."""
    try:
        text = rendered.read_text(encoding="utf-8")
    except OSError as error:
        raise DeployError(f"{rendered.name} cannot be read: {error.strerror}", "Run `keyturn render`.") from error
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items()}


def _generations(variables: Mapping[str, str], where: str) -> dict[str, int]:
    """What a version's variables stand for."""
    listed = variables.get(GENERATIONS, "")
    try:
        pairs = (pair.rpartition("=") for pair in listed.split(",") if pair)
        return {secret: int(generation) for secret, _, generation in pairs}
    except ValueError as error:
        raise DeployError(f"the variable {GENERATIONS} of {where} is not as keyturn wrote it") from error


_Model = TypeVar("_Model", bound=BaseModel)


def _read(model: type[_Model], reply: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(reply)
    except ValidationError as error:  # it holds the variables of others: not chained
        where, what = first_problem(error)
    raise DeployError(f"an answer of SCF is not as it is documented: {where}: {what}")
