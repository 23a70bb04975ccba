"""The pins: which generation of each secret each ring of each consumer uses. One file per environment, reviewed like
code, written by rotation only::

    {"format": 1, "pins": {"orders-api": {"canary": {"orders/db": 42}, "stable": {"orders/db": 41}}}}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rotation.errors import DeclarationError
from rotation.files import write_atomically
from rotation.manifest import Consumer, Manifest, Name
from rotation.model import Place, Ring

_RESTORE = "Take the file back from version control (`git checkout`), or correct it by hand."


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    pins: dict[Name, dict[Annotated[Ring, Field(strict=False)], dict[Name, Annotated[int, Field(ge=1)]]]]


@dataclass(frozen=True, slots=True)
class Pins:
    """The generation of each secret at each place, which is a consumer's name and a ring. Immutable."""

    _places: Mapping[Place, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, consumer: str, ring: Ring, secret: str) -> int | None:
        """The pinned generation, None where there is no pin."""
        return self.at(consumer, ring).get(secret)

    def at(self, consumer: str, ring: Ring) -> Mapping[str, int]:
        """The generation of each secret that is pinned at one place."""
        return self._places.get((consumer, ring), MappingProxyType({}))

    def places(self) -> tuple[Place, ...]:
        """The places that have a pin, in order."""
        return tuple(sorted(self._places))

    def with_(self, consumer: str, ring: Ring, secret: str, generation: int | None) -> Self:
        """These pins with one of them moved; None takes it away."""
        here = {name: pinned for name, pinned in self.at(consumer, ring).items() if name != secret}
        if generation is not None:
            here[secret] = generation
        others = {place: pins for place, pins in self._places.items() if place != (consumer, ring)}
        return type(self).made_of(others | {(consumer, ring): here})

    @classmethod
    def made_of(cls, places: Mapping[Place, Mapping[str, int]]) -> Self:
        return cls(MappingProxyType({place: MappingProxyType(dict(pins)) for place, pins in places.items() if pins}))


def load(path: Path) -> Pins:
    """Read the pins; no file is no pins. Raises :class:`DeclarationError` that names what is wrong in the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
    except FileNotFoundError:
        return Pins()
    except json.JSONDecodeError as error:
        raise DeclarationError(
            f"the pins {path.name} are not JSON: line {error.lineno}: {error.msg}", _RESTORE
        ) from error
    except (ValueError, OSError) as error:
        raise DeclarationError(f"the pins {path.name} cannot be read: {error}", _RESTORE) from error
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = " → ".join(str(part) for part in first["loc"]) or "its top"
        raise DeclarationError(f"the pins {path.name} are not valid at {where}: {first['msg']}", _RESTORE) from error
    return Pins.made_of(
        {(consumer, ring): pins for consumer, rings in file.pins.items() for ring, pins in rings.items()}
    )


def write(path: Path, pins: Pins) -> None:
    """Write the pins atomically: sorted, so that the same pins are the same text and a change is a line in a review."""
    rings: dict[str, dict[str, dict[str, int]]] = {}
    for consumer, ring in pins.places():
        rings.setdefault(consumer, {})[ring.value] = dict(pins.at(consumer, ring))
    text = json.dumps({"format": 1, "pins": rings}, indent=2, sort_keys=True) + "\n"
    write_atomically(path, text)


def validate(pins: Pins, manifest: Manifest, known_generations: Mapping[str, Collection[int]]) -> None:
    """Raise :class:`DeclarationError` for a pin to what is not declared or not in the store.

    ``known_generations`` holds, by the name of each secret that the store was asked for, the generations it has; pins
    of other secrets are checked against the manifest only.
    """
    for name, ring in pins.places():
        consumer = manifest.consumers.get(name)
        if consumer is None:
            raise _unknown(f"consumer {name}", manifest, manifest.consumers)
        if ring not in consumer.rings:
            raise _unknown(f"ring {ring} of {name}", manifest, consumer.rings)
        for secret, generation in sorted(pins.at(name, ring).items()):
            _validate_pin(consumer, ring, secret, generation, manifest, known_generations)


def _validate_pin(
    consumer: Consumer,
    ring: Ring,
    secret: str,
    generation: int,
    manifest: Manifest,
    known_generations: Mapping[str, Collection[int]],
) -> None:
    if secret not in consumer.secrets:
        raise _unknown(f"secret {secret} of {consumer.name}", manifest, consumer.secrets)
    known = known_generations.get(secret)
    if known is not None and generation not in known:
        held = ", ".join(str(g) for g in sorted(known)) or "none"
        raise DeclarationError(
            f"{consumer.name}/{ring} is pinned to generation {generation} of {secret}, "
            f"which the store does not hold (it holds: {held})",
            f"Pin a generation that exists in {manifest.pins.as_posix()}, or take the file back from version control.",
        )


def _unknown(what: str, manifest: Manifest, declared: Iterable[str]) -> DeclarationError:
    known = ", ".join(sorted(declared)) or "none"
    return DeclarationError(
        f"the pins of {manifest.environment} name the {what}, which no stack declares (declared: {known})",
        f"Remove the pin from {manifest.pins.as_posix()}, or declare it in stacks/ and run `cdktf synth`.",
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice")
    return dict(pairs)
