"""What the constructs ask of a vendor. One file per vendor answers it: aws.py, tencentcloud.py, vault.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from modules.resource import Resource, Stack
from modules.where import Where
from rotation.manifest import Plugin


@dataclass(frozen=True, slots=True)
class KeySpec:
    """A key. ``native_days`` is how often the vendor itself renews its material, ``deletion_days`` how long a deleted
    key can be brought back. ``readers`` are principals that may decrypt what it protects."""

    name: str
    native_days: int
    deletion_days: int
    readers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """A secret's slot, without a version. ``key`` is the name of the key that encrypts it in the store, None for the
    store's own; ``recovery_days`` is how long a deleted secret can be brought back, 0 for not at all; ``credential`` is
    the kind of its values, by which readers may need more than the value."""

    name: str
    description: str
    key: str | None
    readers: tuple[str, ...]
    tags: Mapping[str, str]
    recovery_days: int
    credential: Plugin


@dataclass(frozen=True, slots=True)
class OidcTrust:
    """Trust in the jobs of a CI system that has these ``claims``: {"sub": …} at least, or anyone's job there would do.

    ``registered`` tells that the account already has this issuer, as there can be only one of each.
    """

    issuer: str
    audience: str
    claims: Mapping[str, str]
    registered: bool = False


@dataclass(frozen=True, slots=True)
class AccountTrust:
    """Trust in the account's own principals, as far as their policies let them."""


Trust = OidcTrust | AccountTrust


@dataclass(frozen=True, slots=True)
class Places:
    """Where a runner puts what it makes. ``config`` is the place of the configuration objects, ``state`` the bucket and
    key of the application stack's state, ``journal`` the bucket and prefix of the journal."""

    config: str
    state: tuple[str, str] | None = None
    journal: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """What the runner works on. ``secrets`` and ``sealed`` (those of them with an envelope of their own) are names in
    the store, ``reads`` those of other secrets that it only reads; ``credentials`` are the secrets' kinds, by their
    declared names; ``keys`` are addresses by name, ``store_keys`` the names of those that the store encrypts with and
    ``sealing_keys`` of those that envelopes do."""

    secrets: tuple[str, ...]
    sealed: tuple[str, ...]
    reads: tuple[str, ...]
    credentials: Mapping[str, Plugin]
    keys: Mapping[str, str]
    store_keys: frozenset[str]
    sealing_keys: frozenset[str]
    consumers: tuple[str, ...]
    places: Places
    trusts: Sequence[Trust]


@dataclass(frozen=True, slots=True)
class Firing:
    """A cron of five fields on the clocks of a time zone, and the line that declares it."""

    cron: str
    timezone: str
    where: Where


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """The function that turns what is due, called ``every`` so often (None: never); a vendor whose timers can may call
    it at the ``firings`` as well, when something is due that moment. Names and keys are as in
    :class:`RunnerSpec`: it may turn ``secrets`` and look at ``others``. ``variables`` hold names only, and
    the vendor adds KEYTURN_JOURNAL; ``journal`` is the bucket and the prefix of its memory."""

    archive: Path
    runtime: str
    architecture: str
    timeout: int
    memory: int
    log_days: int
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    variables: Mapping[str, str]
    every: timedelta | None
    firings: tuple[Firing, ...]
    secrets: tuple[str, ...]
    others: tuple[str, ...]
    sealed: tuple[str, ...]
    reads: tuple[str, ...]
    store_keys: tuple[str, ...]
    sealing_keys: tuple[str, ...]
    journal: tuple[str, str]


class Vendor(ABC):
    """A vendor of secrets and keys in one environment."""

    @abstractmethod
    def stored_as(self, name: str) -> str:
        """A secret's name in the store, which several environments may share."""

    @abstractmethod
    def store(self) -> Plugin:
        """The secret store, as the rotation finds it."""

    @abstractmethod
    def key_service(self) -> Plugin:
        """The key service, as the rotation finds it."""

    @abstractmethod
    def key_reference(self, name: str) -> str:
        """What the key service calls a key. Known without Terraform, so that stacks need nothing of each other."""

    @abstractmethod
    def provide(self, stack: Stack) -> None:
        """Give the stack its provider. Call it first."""

    def prepare(self, stack: Stack, where: Where) -> None:
        """Declare, once in an environment, what slots and keys are made in, where a vendor has such places."""

    @abstractmethod
    def key(self, stack: Stack, spec: KeySpec, where: Where) -> str:
        """Declare a key with its reference; return its address as an expression."""

    @abstractmethod
    def slot(self, stack: Stack, spec: SlotSpec, where: Where) -> None: ...

    @abstractmethod
    def runner(self, stack: Stack, spec: RunnerSpec, where: Where) -> None:
        """Declare the identity that rotates, with the least that it needs."""


class ConfigVendor(ABC):
    """A vendor that holds configuration objects; not every vendor of secrets does."""

    @abstractmethod
    def provide(self, stack: Stack) -> None:
        """Give the stack its provider. Call it first."""

    @abstractmethod
    def config_place(self, stack: Stack, name: str, where: Where) -> None:
        """Declare where configuration objects are put."""

    @abstractmethod
    def config_kind(self) -> str:
        """The Terraform type of a configuration object."""

    @abstractmethod
    def runner(self, stack: Stack, spec: RunnerSpec, where: Where) -> None:
        """Declare the identity that rotates. Where another vendor has the secrets, ``spec`` has none of them."""

    @abstractmethod
    def config_object(self, stack: Stack, name: str, place: str, key: str, content: str, where: Where) -> Resource:
        """Declare one configuration object with this text."""


class FunctionVendor(Vendor):
    """A vendor that can also run the function that turns what is due."""

    @abstractmethod
    def function(self, stack: Stack, spec: FunctionSpec, where: Where) -> None:
        """Declare the function that turns what is due, what calls it, and what it may do."""

    @abstractmethod
    def rotated_by_store(self, stack: Stack, name: str, days: int, where: Where) -> None:
        """Let the store rotate a secret by itself through the function, every so many days."""
