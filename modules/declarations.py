"""The types of an estate: what its user writes down, and where. Names are as the manifest's: "orders/db"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from modules.reason import reason
from modules.rotation_schedule import RotationSchedule
from modules.where import Where, here
from rotation.errors import DeclarationError
from rotation.manifest import Name, Plugin
from rotation.model import Ring, Strategy

_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class Pace:
    """How carefully secrets are turned: ``bake`` is how long the canary must be good, ``settle`` how long the stable
    ring must be, ``patience`` how long an unknown is waited for beyond that, ``grace`` how long the old generation
    must have been out of use before it is retired."""

    bake: timedelta
    settle: timedelta
    patience: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the vendor's key service. ``native_days`` is how often the service renews its material by itself."""

    name: str
    _: KW_ONLY
    native_days: int = 365
    where: Where = field(default_factory=here, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential kind with its options. ``reads`` are other secrets, by their names in the store, that it needs: an
    administrator's, say. They are not rotated here."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret. ``key`` encrypts it in the store, and seals it as well where ``sealed``; ``readers`` are the principals
    of its consumers. Without ``pace`` the environment's holds; without ``schedule`` it is turned only on demand."""

    name: str
    credential: Credential
    _: KW_ONLY
    strategy: Strategy
    description: str = ""
    key: str | None = None
    sealed: bool = False
    schedule: RotationSchedule | None = None
    pace: Pace | None = None
    readers: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    end_sessions: bool = False
    where: Where = field(default_factory=here, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Consumer:
    """An application. ``template`` is relative to the project; a ring without ``signals`` is never known to be good.

    ``target`` is how its configuration reaches its rings where the application stack does not carry it.
    """

    name: str
    _: KW_ONLY
    template: Path
    format: Literal["yaml", "json", "toml", "ini", "dotenv", "properties"]
    secrets: tuple[str, ...]
    signals: Mapping[Ring, tuple[Plugin, ...]]
    target: Plugin | None = None
    where: Where = field(default_factory=here, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Estate:
    """All that one environment has. Names are checked against each other when it is made."""

    keys: tuple[Key, ...] = ()
    secrets: tuple[Secret, ...] = ()
    consumers: tuple[Consumer, ...] = ()

    def __post_init__(self) -> None:
        keys = _by_name("key", self.keys)
        for key in self.keys:
            _check_name(key)
        secrets = _by_name("secret", self.secrets)
        _by_name("consumer", self.consumers)
        for secret in self.secrets:
            if secret.key is not None and secret.key not in keys:
                raise DeclarationError(
                    f"{secret.where}: the secret {secret.name} uses the key {secret.key}, which is not declared"
                )
        for consumer in self.consumers:
            for name in consumer.secrets:
                if name not in secrets:
                    raise DeclarationError(
                        f"{consumer.where}: the consumer {consumer.name} uses the secret {name}, which is not declared"
                    )


def _check_name(key: Key) -> None:
    """Secrets and consumers have their names checked by the manifest; a key's becomes part of its alias."""
    try:
        _NAME.validate_python(key.name)
    except ValidationError as error:
        raise DeclarationError(f"{key.where}: the key {key.name}: {reason(error)}") from error


def _by_name(what: str, declared: Iterable[Key | Secret | Consumer]) -> set[str]:
    seen: dict[str, Where] = {}
    for item in declared:
        if item.name in seen:
            raise DeclarationError(f"{item.where}: the {what} {item.name} is declared already at {seen[item.name]}")
        seen[item.name] = item.where
    return set(seen)
