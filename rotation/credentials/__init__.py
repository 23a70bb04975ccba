"""Credential kinds: how a value is made, installed in its target, tested and revoked. Every file here is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from rotation.model import Acceptance, Credential, Leftover, Strategy, Usage
from rotation.secret_value import SecretValue

ReadSecret = Callable[[str], SecretValue]


class CredentialKind(ABC):
    """One kind of credential for one secret.

    ``options`` are those of the declaration; ``read`` gives the current value of another secret in the same store by
    its name there (an administrator's, say). Methods raise :class:`~rotation.errors.Unavailable` when the target
    cannot be reached, :class:`~rotation.errors.Unauthorized` when it refuses the administrator and
    :class:`~rotation.errors.TargetError` for any other refusal.

    Targets with a memory (a database) refuse an older generation after a newer one was installed in its place, so that
    a runner that slept cannot undo what others did since: that, too, is a TargetError.
    """

    strategies: ClassVar[frozenset[Strategy]]

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None: ...

    @abstractmethod
    def issue(self, current: Credential | None) -> SecretValue:
        """Make a new value; the target is not touched. ``current`` is None for a secret's first value."""

    @abstractmethod
    def install(self, new: Credential, current: Credential | None) -> None:
        """Make the target accept ``new``. But for the strategy "single", ``current`` stays accepted. Idempotent."""

    @abstractmethod
    def check(self, credential: Credential) -> Acceptance:
        """Ask the target with the credential itself, over a new connection. Never raises for an unreachable target."""

    @abstractmethod
    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """Make the target deny ``old``, unless it is the same principal as ``current``. Open sessions go on unless
        ``end_sessions``. Idempotent."""


class ReportsUsage(ABC):
    """A kind whose target keeps statistics on who uses it."""

    @abstractmethod
    def usage(self, old: Credential, current: Credential | None) -> Usage | None:
        """Who uses ``old``. None where ``current`` is the same principal: who uses that tells nothing of ``old``."""


class ComparesPrivileges(ABC):
    """A kind whose principals have privileges."""

    @abstractmethod
    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """What ``old`` may do and ``new`` may not, each as a readable line; empty when nothing is missing."""


class DescribesOperations(ABC):
    """A kind that can say beforehand what it does in its target."""

    @abstractmethod
    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        """What installing the generation ``new``, and later revoking ``current``, do there: sentences without values.
        Nothing is read or asked: whoever plans may be allowed to read no value."""


class HasAdministrator(ABC):
    """A kind that acts on its target as somebody with more rights than the credential itself."""

    @abstractmethod
    def probe(self) -> None:
        """Raise Unavailable or Unauthorized when the target cannot be reached or refuses the administrator. Changes
        nothing."""


class Expires(ABC):
    """A kind whose values end by themselves."""

    @abstractmethod
    def renew_at(self, credential: Credential) -> datetime:
        """When to replace it, well before its end, whatever its schedule says. Nothing is asked."""


class HasPublicPart(ABC):
    """A kind whose values have a part that everybody may see, and by which they are recognised in use."""

    @abstractmethod
    def public_part(self, credential: Credential) -> Mapping[str, str]:
        """That part, by the names of its fields."""


class WithoutTarget:
    """A kind whose values no target knows but the consumers: there is nobody to ask about them."""


class ReportsLeftovers(ABC):
    """A kind whose target can list the principals that are the secret's."""

    @abstractmethod
    def leftovers(self, kept: Sequence[Credential]) -> tuple[Leftover, ...]:
        """The secret's principals that the target lets in, and whose none of the ``kept`` credentials is."""

    @abstractmethod
    def lock_out(self, principal: str, kept: Sequence[Credential]) -> None:
        """Make the target deny a leftover that still is one, and removable; TargetError otherwise. Idempotent."""
