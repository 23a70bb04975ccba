"""A random text that only the store and its consumers know: a session key, a token of one's own. It has no target."""

# ruff: noqa: ARG002 (whom it should be told to, or asked of, does not exist)

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotation.credentials import CredentialKind, DescribesOperations, ReadSecret, WithoutTarget
from rotation.errors import DeclarationError
from rotation.model import Acceptance, Credential, Strategy
from rotation.options import parse
from rotation.secret_value import SecretValue

ALPHABETS: Mapping[str, str] = {
    "alphanumeric": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "urlsafe": string.ascii_letters + string.digits + "-_",
}
LEAST_ENTROPY_BITS = 128


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    alphabet: str = "alphanumeric"
    length: Annotated[int, Field(ge=1, le=4096)] = 32
    prefix: Annotated[str, Field(max_length=64)] = ""

    @property
    def characters(self) -> str:
        return ALPHABETS.get(self.alphabet, self.alphabet)

    @model_validator(mode="after")
    def _hard_to_guess(self) -> Self:
        if len(set(self.characters)) < len(self.characters):
            named = ", ".join(ALPHABETS)
            raise ValueError(f"alphabet {self.alphabet!r} is neither one of {named} nor a list of different characters")
        if not (self.characters + self.prefix).isprintable():
            raise ValueError("alphabet and prefix must be printable characters")
        bits = self.length * math.log2(len(self.characters) or 1)
        if bits < LEAST_ENTROPY_BITS:
            raise ValueError(
                f"length {self.length} of {len(self.characters)} characters has {bits:.0f} bits of entropy,"
                f" fewer than {LEAST_ENTROPY_BITS}"
            )
        return self


class RandomToken(CredentialKind, WithoutTarget, DescribesOperations):
    """Options: ``alphabet`` ("alphanumeric", "hex", "urlsafe", or the characters themselves), ``length`` in characters
    without the ``prefix``, ``prefix``. Fewer than 128 bits of entropy are refused."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.OVERLAPPING, Strategy.SINGLE})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        if strategy not in self.strategies:
            known = ", ".join(sorted(self.strategies))
            raise DeclarationError(f"random_token has no strategy {strategy} (it has: {known})")
        self._options = parse(_Options, options, "random_token")

    def issue(self, current: Credential | None) -> SecretValue:
        drawn = "".join(secrets.choice(self._options.characters) for _ in range(self._options.length))
        return SecretValue(self._options.prefix + drawn)

    def install(self, new: Credential, current: Credential | None) -> None:
        """Nothing to do: nobody but the consumers knows tokens."""

    def check(self, credential: Credential) -> Acceptance:
        """Always accepted: there is nobody to ask. Whether consumers get along with it their signals tell."""
        return Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """Nothing to do: a token is out of use when no consumer has it."""

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        return ("nothing: nobody but its consumers knows a token",)
