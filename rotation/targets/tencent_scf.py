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

As a function takes its variables without a condition (rotation/scf.py), deployments of one project run one at a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import Field

from rotation import pins
from rotation.deploy import alone
from rotation.errors import DeclarationError, DeployError, GuardRefused, LimitExceeded
from rotation.manifest import Consumer, Manifest
from rotation.model import Place, Ring
from rotation.options import parse
from rotation.scf import LATEST, Absent, Function, Served, Version
from rotation.targets import Deployment, DeployTarget
from rotation.tencentcloud import Connection, connect

OWNED = "KEYTURN_VARIABLES"  # the names of the variables that keyturn set, with commas
GENERATIONS = "KEYTURN_GENERATIONS"  # "orders/db=42,orders/api-token=7"
MOST_BYTES = 4096  # of all names and values: https://www.tencentcloud.com/document/product/583/11637

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,63}")
_RESERVED = ("SCF_", "QCLOUD_", "TENCENTCLOUD_")


class _Options(Connection):
    """``alias`` is the one through which the function is called; ``$DEFAULT`` every function has. ``weight`` is the
    share of calls that the canary ring gets."""

    function: str = Field(min_length=2, max_length=60)
    namespace: str = "default"
    alias: str = "$DEFAULT"
    weight: float = Field(default=0.1, gt=0, lt=1)


class TencentScfTarget(DeployTarget):
    """One function, and so one consumer, per declaration of this target."""

    def __init__(self, options: Mapping[str, Any], project: Path, manifest: Manifest) -> None:
        self._options = parse(_Options, options, "target tencent_scf")
        self._project = project
        self._manifest = manifest
        self._consumer = _only_consumer(manifest, self._options)
        self._function = Function(connect(self._options), self._options.function, self._options.namespace)

    def __str__(self) -> str:
        return str(self._function)

    def deployed(self) -> dict[Place, dict[str, int]]:
        try:
            served = self._function.alias(self._options.alias).served
        except Absent:  # the function is still to be made
            return {}
        versions = {Ring.STABLE: served.stable, Ring.CANARY: served.canary or served.stable}
        found = {
            (self._consumer.name, ring): _generations(self._function.version(versions[ring]).variables, str(self))
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
                self._function.route(self._options.alias, before, after)
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

    def _settled_alias(self) -> Served:
        """What the alias serves, once that is no longer ``$LATEST``."""
        alias = self._function.alias(self._options.alias)
        if alias.served.canary == LATEST:
            raise GuardRefused(
                f"the alias {self._options.alias} of {self} sends some of its traffic to {LATEST}",
                "Route it to published versions only, then run the command again.",
            )
        if alias.FunctionVersion != LATEST:
            return alias.served
        latest = self._function.settled(LATEST)
        copy = self._function.published(latest, self._description(latest.variables, latest))
        served = alias.served._replace(stable=copy)
        self._function.route(self._options.alias, alias.served, served)
        return served

    def _version(self, wanted: Mapping[str, str], serving: str) -> str:
        """The published version with this configuration and the code that serves now."""
        latest = self._function.settled(LATEST)
        self._guard(latest, self._function.version(serving), serving)
        variables = {**_others(latest), **wanted}
        self._check(wanted, latest, variables)
        latest = self._function.configured(variables)
        return self._function.published(latest, self._description(variables, latest))

    def _guard(self, latest: Version, serving: Version, version: str) -> None:
        differs = [name for name, value in latest.settings.items() if value != serving.settings[name]]
        differs += [f"variable {name}" for name, _ in sorted(_others(latest).items() ^ _others(serving).items())]
        if self._function.code(LATEST) != self._function.code(version):
            differs.append("code")
        if differs:
            raise GuardRefused(
                f"the deployment of {self} would also bring {LATEST}'s own {', '.join(dict.fromkeys(differs))}",
                f"Publish {LATEST} and move the alias {self._options.alias} to it first, then run the command again.",
            )

    def _check(self, wanted: Mapping[str, str], latest: Version, variables: Mapping[str, str]) -> None:
        """Refuse variables that SCF would not take, or that are somebody else's."""
        bad = [name for name in wanted if not _NAME.fullmatch(name) or name.startswith(_RESERVED)]
        taken = sorted(wanted.keys() & _others(latest).keys())
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

    def _description(self, variables: Mapping[str, str], latest: Version) -> str:
        """What marks the version with this configuration: letters, digits and blanks, all that SCF takes there."""
        about = [dict(variables), latest.settings, self._function.code(LATEST)]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return f"keyturn configuration {digest}"

    def _routed(self, before: Served, versions: Mapping[Ring, str]) -> Served:
        """The alias once these rings have these versions, and the others what they had."""
        stable = versions.get(Ring.STABLE, before.stable)
        if Ring.CANARY not in self._consumer.rings:
            return Served(stable, None)
        canary = versions.get(Ring.CANARY, before.canary or before.stable)
        return Served(stable, None) if canary == stable else Served(stable, canary, self._options.weight)


def _others(version: Version) -> dict[str, str]:
    """The variables of a version that are not keyturn's."""
    own = {OWNED, GENERATIONS, *version.variables.get(OWNED, "").split(",")}
    return {name: value for name, value in version.variables.items() if name not in own}


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
