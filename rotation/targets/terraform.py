"""Deploy through Terraform: the stack named by the option ``stack`` holds each place's configuration object.

Its output ``deployed`` says what was applied: ``{"<consumer>/<ring>": {"<secret>": generation}}``. It must take the
generations from a resource that depends on the configuration object (the ``output`` of a terraform_data, say):
Terraform writes an output of literals into the state even when the resource beside it failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from rotation import deploy, pins
from rotation.errors import DeployError
from rotation.manifest import Manifest
from rotation.model import Place, Ring
from rotation.options import parse
from rotation.targets import Deployment, DeployTarget

_DEPLOYED = TypeAdapter(dict[str, dict[str, int]])


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stack: str


class TerraformTarget(DeployTarget):
    in_stacks: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], project: Path, manifest: Manifest) -> None:
        self._stack = parse(_Options, options, "target terraform").stack
        self._project = project
        self._manifest = manifest

    def deployed(self) -> dict[Place, dict[str, int]]:
        value = deploy.outputs(self._project, self._stack, self._manifest.sources).get(deploy.DEPLOYED, {})
        try:
            return {_place(name): generations for name, generations in _DEPLOYED.validate_python(value).items()}
        except ValueError as error:  # pydantic's errors are ValueErrors, too
            raise DeployError(
                f"the output {deploy.DEPLOYED} of {self._stack} does not map consumer/ring to generations",
                "Declare it by modules/app_config.py, and deploy that stack.",
            ) from error

    def apply(self, places: Sequence[Place]) -> Deployment:
        # A place whose first candidate was taken back has no pins, and loses its configuration again.
        unpinned = set(places) - set(pins.load(self._project / self._manifest.pins).places())
        review = partial(deploy.guard, allowed=self._addresses(places), removable=self._addresses(unpinned))
        return deploy.deploy(self._project, self._stack, review)

    def _addresses(self, places: Iterable[Place]) -> frozenset[str]:
        rings = (self._manifest.consumers[consumer].rings[ring] for consumer, ring in places)
        return frozenset(address for ring in rings for address in ring.addresses)


def _place(name: str) -> Place:
    consumer, _, ring = name.rpartition("/")
    return consumer, Ring(ring)
