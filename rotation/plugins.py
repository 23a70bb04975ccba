"""Find a plugin by its name: the name of its file in its family's folder. Nothing registers it anywhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rotation.credentials import CredentialKind
from rotation.errors import DeclarationError, UsageError
from rotation.keys import KeyService
from rotation.manifest import Consumer, ConsumerRing, Key, Manifest, Plugin, Secret
from rotation.model import Ring
from rotation.signals import Signal
from rotation.stores import SecretStore
from rotation.targets import DeployTarget

Family = TypeVar("Family")


def load(family: type[Family], kind: str) -> type[Family]:
    """Return the class that the file ``kind`` in the family's folder defines.

    Only that file is imported, so that a plugin whose SDK is absent breaks nobody else. Raises
    :class:`DeclarationError` for a kind that is none of the family's files, :class:`UsageError` for an absent SDK.
    """
    package = importlib.import_module(family.__module__)
    kinds = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if kind not in kinds:
        raise DeclarationError(f"{package.__name__} has no {kind!r} (it has: {', '.join(kinds)})")
    try:
        module = importlib.import_module(f"{package.__name__}.{kind}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{kind} needs the package {error.name}, which is not installed",
            "Install keyturn with the extra that brings it: its pyproject.toml lists them.",
        ) from error
    (found,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, family)
        and not inspect.isabstract(value)
    )
    return found


@contextmanager
def _named(whose: str) -> Iterator[None]:
    """Let a wrong declaration say whose it is."""
    try:
        yield
    except DeclarationError as error:
        raise DeclarationError(f"{whose}: {error}", error.remedy) from error


class Plugins:
    """The plugin objects that one environment's declarations ask for, each made once."""

    def __init__(self, project: Path, manifest: Manifest) -> None:
        self._project = project
        self._manifest = manifest
        self._made: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def require(self, secrets: Iterable[Secret]) -> None:
        """Make all that these secrets need, before anything is asked of anybody.

        Raises :class:`DeclarationError` with all that is declared wrongly: whose plugin, which option, and why. What
        cannot be made here for another reason (its package is absent, no region is set) is left to who uses it.
        """
        wrong = dict.fromkeys(problem for secret in secrets for problem in self._problems(secret))
        if wrong:
            raise DeclarationError("; ".join(wrong))

    def _problems(self, secret: Secret) -> Iterator[str]:
        makers: list[Callable[[], object]] = [lambda: self.kind(secret)]
        if secret.key is not None:
            key = self._manifest.keys[secret.key]
            makers.append(lambda: self.keys(key))
        for consumer in self._manifest.consumers_of(secret.name):
            makers.append(partial(self.target, consumer))
            makers += [partial(self._named_signals, consumer, ring) for ring in sorted(consumer.rings)]
        for make in makers:
            try:
                make()
            except DeclarationError as error:
                yield str(error)
            except UsageError:
                continue

    def _named_signals(self, consumer: Consumer, ring: Ring) -> None:
        with _named(f"{consumer.name} ({ring})"):
            self.signals(consumer.rings[ring])

    def store(self, secret: Secret) -> SecretStore:
        with _named(secret.name):
            return self._once(SecretStore, secret.store, lambda found: found(secret.store.options))

    def kind(self, secret: Secret) -> CredentialKind:
        """The kind of one secret; it may read the current values of other secrets in the same store."""
        store = self.store(secret)
        with _named(secret.name):
            made: CredentialKind = load(CredentialKind, secret.credential.kind)(
                secret.credential.options, secret.strategy, store.read
            )
        return made

    def keys(self, key: Key) -> KeyService:
        with _named(f"the key {key.reference}"):
            return self._once(KeyService, key.service, lambda found: found(key.service.options))

    def target(self, consumer: Consumer) -> DeployTarget:
        made = consumer.target
        with _named(consumer.name):
            return self._once(DeployTarget, made, lambda found: found(made.options, self._project, self._manifest))

    def signals(self, ring: ConsumerRing) -> tuple[Signal, ...]:
        return tuple(self._signal(plugin) for plugin in ring.signals)

    def _signal(self, plugin: Plugin) -> Signal:
        return self._once(Signal, plugin, lambda found: found(plugin.options))

    def _once(self, family: type[Family], plugin: Plugin, make: Callable[[type[Family]], Family]) -> Family:
        key = (family.__name__, plugin.model_dump_json())
        with self._lock:
            if key not in self._made:
                self._made[key] = make(load(family, plugin.kind))
            made: Family = self._made[key]
            return made
