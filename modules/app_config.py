"""AppConfig: a consumer's configuration per ring, as rendered, and the pins that it was rendered from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from modules.declarations import Consumer
from modules.reason import reason
from modules.resource import Resource, Stack, address
from modules.vendor import ConfigVendor
from rotation import manifest
from rotation.errors import DeclarationError
from rotation.model import Ring
from rotation.pins import Pins

_PINS = "terraform_data"


@dataclass(frozen=True, slots=True)
class Files:
    """The project's files; those in ``overlay``, under the same relative path, go first. It serves to plan a rotation
    before its pins are written."""

    project: Path
    overlay: Path | None = None

    def find(self, relative: Path) -> Path:
        laid_over = self.overlay / relative if self.overlay else None
        return laid_over if laid_over and laid_over.exists() else self.project / relative


class AppConfig:
    """One configuration object per ring, whose content is the rendered file, and beside it the pins as data: a plan
    shows the lines that change and reads ``"orders/db" = 41 -> 42``. A ring without pins, or not rendered yet, has
    neither. Nor has any ring of a consumer with a target of its own: the rotation deploys there.

    ``declared`` goes to the manifest. ``deployed`` is for an output: for "<consumer>/<ring>" a reference to the pins as
    they were applied, {secret: generation}. They are applied after the object: an apply that fails at the object does
    not claim its generations, as an output of plain numbers would.
    """

    def __init__(
        self,
        stack: Stack,
        vendor: ConfigVendor,
        consumer: Consumer,
        *,
        environment: str,
        place: str,
        files: Files,
        pinned: Pins,
    ) -> None:
        if not (files.project / consumer.template).is_file():
            raise DeclarationError(
                f"{consumer.where}: the template {consumer.template} of {consumer.name} does not exist",
                "Write it, or correct its name in the declaration.",
            )
        self.declared = _declared(stack, vendor, consumer, environment)
        self.deployed: dict[str, str] = {}
        if consumer.target is not None:
            return
        for ring, declared in self.declared.rings.items():
            rendered = files.find(declared.rendered)
            generations = dict(sorted(pinned.at(consumer.name, ring).items()))
            if not generations or not rendered.is_file():
                continue
            key = f"{consumer.name}/{ring}.{consumer.format}"
            content = rendered.read_text(encoding="utf-8")
            config = vendor.config_object(stack, _config(consumer, ring), place, key, content, consumer.where)
            name = _pins(consumer, ring)
            Resource(stack, name, _PINS, {"input": generations}, where=consumer.where, after=[config])
            self.deployed[f"{consumer.name}/{ring}"] = f"${{{address(_PINS, name)}.output}}"


def _declared(stack: Stack, vendor: ConfigVendor, consumer: Consumer, environment: str) -> manifest.Consumer:
    try:
        return manifest.Consumer(
            name=consumer.name,
            template=consumer.template,
            format=consumer.format,
            secrets=consumer.secrets,
            target=consumer.target or manifest.Plugin(kind="terraform", options={"stack": stack.name}),
            rings={ring: _ring(vendor, consumer, environment, ring) for ring in Ring},
        )
    except ValidationError as error:
        raise DeclarationError(f"{consumer.where}: the consumer {consumer.name}: {reason(error)}") from error


def _ring(vendor: ConfigVendor, consumer: Consumer, environment: str, ring: Ring) -> manifest.ConsumerRing:
    rendered = Path("stacks") / "config" / "rendered" / environment / ring / f"{consumer.name}.{consumer.format}"
    carried = (
        address(vendor.config_kind(), _config(consumer, ring)),
        address(_PINS, _pins(consumer, ring)),
    )
    return manifest.ConsumerRing(
        rendered=rendered,
        addresses=() if consumer.target else carried,
        signals=consumer.signals.get(ring, ()),
    )


def _config(consumer: Consumer, ring: Ring) -> str:
    return f"config-{consumer.name}-{ring}"


def _pins(consumer: Consumer, ring: Ring) -> str:
    return f"pins-{consumer.name}-{ring}"
