"""Secret IDs of one AppRole, with which a machine logs in to Vault or OpenBao: the old and the new one overlap.

A value is what a login takes, as JSON: ``{"role_id": …, "secret_id": …}``. Keyturn makes the secret ID itself (256
random bits), stages it, and then registers it as a custom one: so a run that dies leaves none that is not in the store.
Its metadata, ``keyturn_secret`` and ``keyturn_generation``, is also in every token that somebody gets with it, and so
in Vault's audit log.

**The ledger** is a document in KV version 2 at ``<ledger>/_keyturn/<mount>/<role>/<secret>``: the generation installed
or revoked last and the highest that ever was (rotation/fencing.py says what that refuses), and which secret
ID, by its accessor, counts as a newer generation than its metadata says, because a rollback brought it back. A
generation is noted before its secret ID is registered, and looked up again after: where another runner turned it down
in between, it is destroyed at once; what was left behind for longer, `keyturn drift` finds.

**Checks** log in. But a secret ID that is not registered is denied without a login: Vault and OpenBao lock a role out,
for all its users, after five failed ones (https://developer.hashicorp.com/vault/docs/concepts/user-lockout). A role
that is locked out, or bound to addresses other than keyturn's, is unknown. The token of a check is revoked, if its
policies let it do that to itself (Vault's ``default`` does); else it ends with the role's ``token_ttl``.

**Limits.** Each login with a role of limited uses (``secret_id_num_uses``) would use one up, keyturn's checks as well:
such a role is refused. So is one whose secret IDs end by themselves (``secret_id_ttl``) before ``lifetime`` is over,
which is to be longer than the time from one rotation to the next, and the grace window.

**What cannot be told, or done.** Vault does not keep when a secret ID was last used: only the grace window stands
between a promotion and the retirement. Tokens that somebody got with a secret ID live on to their own end after it is
destroyed, also where sessions are to be ended: give the role a short ``token_ttl`` and ``token_max_ttl``.

**The runner** needs, besides its rights on the store, for a secret "billing/vault"::

    path "auth/approle/role/billing"                              { capabilities = ["read"] }
    path "auth/approle/role/billing/role-id"                      { capabilities = ["read"] }
    path "auth/approle/role/billing/custom-secret-id"             { capabilities = ["create", "update"] }
    path "auth/approle/role/billing/secret-id"                    { capabilities = ["list"] }
    path "auth/approle/role/billing/secret-id/lookup"             { capabilities = ["create", "update"] }
    path "auth/approle/role/billing/secret-id-accessor/lookup"    { capabilities = ["create", "update"] }
    path "auth/approle/role/billing/secret-id-accessor/destroy"   { capabilities = ["create", "update"] }
    path "secret/data/_keyturn/approle/billing/billing/vault"     { capabilities = ["create", "read", "update"] }

Whoever may register secret IDs of a role can log in as it: so can the runner.
https://developer.hashicorp.com/vault/api-docs/auth/approle
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import hvac
import requests
from hvac.exceptions import VaultError
from pydantic import BaseModel, ConfigDict, Field

from rotation.credential_values import read
from rotation.credentials import (
    CredentialKind,
    DescribesOperations,
    HasAdministrator,
    ReadSecret,
    ReportsLeftovers,
)
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.fencing import Record, refuse_superseded
from rotation.kv_document import Document
from rotation.model import Acceptance, Credential, Leftover, Strategy
from rotation.options import parse
from rotation.retries import retrying
from rotation.secret_value import SecretValue
from rotation.vault import TIMEOUT, Connection, connect

_BYTES = 32
_Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")]


class _Options(Connection):
    mount: _Path = "approle"
    role: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    role_id: str | None = None
    ledger: _Path = "secret"
    lifetime: Annotated[int, Field(gt=0)] | None = None


class _Value(BaseModel):
    """A generation's value, open: it must not get into a message."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    role_id: str
    secret_id: str = Field(min_length=1, repr=False)


class _Note(BaseModel):
    """What keyturn did last. ``again`` holds, by accessors, the generations that brought an older value back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record: Record = Record()
    again: dict[str, int] = {}

    def with_record(self, record: Record) -> _Note:
        return self.model_copy(update={"record": record})

    def brought_back(self, accessor: str, generation: int) -> _Note:
        return _Note(record=self.record.installed_as(generation), again=self.again | {accessor: generation})

    def without(self, accessor: str) -> _Note:
        return self.model_copy(update={"again": {a: g for a, g in self.again.items() if a != accessor}})


@dataclass(frozen=True, slots=True)
class _Registered:
    """A secret ID that Vault lets in, without itself. ``secret`` is empty where keyturn did not make it."""

    accessor: str
    secret: str
    generation: int

    def as_noted(self, note: _Note) -> int:
        return note.again.get(self.accessor, self.generation)


class _Missing(TargetError):
    """Vault has nothing there."""


class _Denied(TargetError):
    """Vault turned a login down."""


class VaultApproleSecretId(CredentialKind, ReportsLeftovers, HasAdministrator, DescribesOperations):
    """Options: ``role``; ``role_id`` (else Vault is asked), ``mount`` of the auth method, ``ledger`` (the mount of a KV
    engine, version 2), ``lifetime`` (for how many seconds a secret ID must be good, where the role limits that); and
    those of :class:`rotation.vault.Connection`."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.OVERLAPPING})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        del read  # it acts as the runner
        self._options = parse(_Options, options, "vault_approle_secret_id")
        if strategy not in self.strategies:
            raise DeclarationError(f"vault_approle_secret_id has no strategy {strategy} (it has: overlapping)")
        self._role = f"auth/{self._options.mount}/role/{self._options.role}"
        self._vault = connect(self._options)

    def issue(self, current: Credential | None) -> SecretValue:
        del current
        role_id = self._options.role_id or self._ask("read", "role-id", _get)["data"]["role_id"]
        return SecretValue(json.dumps({"role_id": role_id, "secret_id": secrets.token_urlsafe(_BYTES)}))

    def install(self, new: Credential, current: Credential | None) -> None:
        value, whom = _parse(new), f"AppRole {self._options.role}"
        found = self._find(value)
        if found is None:
            self._refuse_limits()

        def step(note: _Note) -> _Note:
            generation = 0 if found is None else found.as_noted(note)
            if generation > new.generation:
                refuse_superseded(whom, Record(generation=generation, spent=generation), new, current)
            if generation == new.generation < note.record.generation:
                return note  # an older one that is still there, as overlapping ones are
            refuse_superseded(whom, note.record, new, current)
            if found is not None and generation < new.generation:
                return note.brought_back(found.accessor, new.generation)
            return note.with_record(note.record.installed_as(new.generation))

        ledger = self._ledger(new.secret)
        ledger.change(step)
        if found is None:
            accessor, record = self._register(new, value), ledger.read().record
            try:
                refuse_superseded(whom, record, new, current)
            except TargetError:
                if record.generation <= new.generation:  # else another runner may have registered and promoted it
                    self._destroy(accessor)
                raise

    def check(self, credential: Credential) -> Acceptance:
        value = _parse(credential)
        try:
            if self._find(value) is None:
                return Acceptance.DENIED
            self._vault.ask(
                lambda c: self._log_in(c, value), f"log in as {self._options.role}", {400: _Denied}, TargetError
            )
        except _Denied as denied:
            return Acceptance.UNKNOWN if "CIDR" in str(denied) else Acceptance.DENIED
        except (Unavailable, Unauthorized):  # 403: the runner may not look, or the role is locked out
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """Destroys the secret ID. Tokens that somebody got with it live on (see the module), whatever
        ``end_sessions`` says."""
        del end_sessions
        value, ledger = _parse(old), self._ledger(old.secret)
        if current is not None and _parse(current).secret_id == value.secret_id:
            return

        def step(note: _Note) -> _Note:
            latest = note.record.generation == old.generation
            record = note.record.revoked_at(old.generation) if latest else note.record.without(old.generation)
            return note.with_record(record)

        note = ledger.change(step)
        found = self._find(value)
        if found is not None and found.as_noted(note) <= old.generation:
            self._destroy(found.accessor)
            ledger.change(lambda note: note.without(found.accessor))

    def leftovers(self, kept: Sequence[Credential]) -> tuple[Leftover, ...]:
        """The role's secret IDs, by their accessors, that no kept value is, but for those of keyturn's other secrets.
        How many tokens they have given is not known: their ``sessions`` are 0."""
        if not kept:
            return ()
        explained = {found.accessor for found in map(self._find, map(_parse, kept)) if found is not None}
        secret, spent = kept[0].secret, self._ledger(kept[0].secret).read().record.spent
        return tuple(
            Leftover(found.accessor, retired=found.secret == secret and found.generation <= spent, sessions=0)
            for found in self._registered()
            if found.secret in ("", secret) and found.accessor not in explained
        )

    def lock_out(self, principal: str, kept: Sequence[Credential]) -> None:
        if self._lookup(principal) is None:
            return
        if not any(left.principal == principal and left.removable for left in self.leftovers(kept)):
            raise TargetError(f"the secret ID {principal} is in use, or was not made by keyturn: it is left alone")
        self._destroy(principal)

    def probe(self) -> None:
        self._refuse_limits()

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        registered = f"{self._role}/custom-secret-id: a secret ID for generation {new}"
        if current is None:
            return (registered,)
        gone = f"when generation {current} is retired: its secret ID is destroyed"
        return registered, f"{gone}; tokens that somebody got with it live on to their own end"

    # Vault

    def _ledger(self, secret: str) -> Document[_Note]:
        path = f"_keyturn/{self._options.mount}/{self._options.role}/{secret}"
        return Document(self._vault, self._options.ledger, path, _Note)

    def _refuse_limits(self) -> None:
        role = self._ask("read", "", _get)["data"]
        name, ttl, lifetime = self._options.role, role.get("secret_id_ttl") or 0, self._options.lifetime
        if not role.get("bind_secret_id", True):
            raise TargetError(f"the AppRole {name} asks for no secret ID", "Set bind_secret_id on it.")
        if role.get("secret_id_num_uses"):
            raise TargetError(
                f"the AppRole {name} limits the uses of a secret ID, and each check would use one up",
                "Set secret_id_num_uses to 0 on it.",
            )
        if ttl and (lifetime is None or ttl < lifetime):
            needed = f"{lifetime} s are needed" if lifetime else "how long it is needed is not declared"
            raise TargetError(
                f"the AppRole {name} ends a secret ID after {ttl} s, and {needed}",
                "Set its secret_id_ttl to 0, or raise it and declare lifetime: the time between rotations, and grace.",
            )

    def _register(self, new: Credential, value: _Value) -> str:
        """Make Vault let the secret ID in, and return its accessor. One that is there already stays as it is."""
        metadata = {"keyturn_secret": new.secret, "keyturn_generation": str(new.generation)}
        body = {"secret_id": value.secret_id, "metadata": json.dumps(metadata)}

        def once() -> str:
            found = self._find(value)
            if found is None:
                self._vault.ask_once(
                    lambda c: c.adapter.post(f"/v1/{self._role}/custom-secret-id", json=body),
                    f"register a secret ID of {self._role}",
                    otherwise=TargetError,
                    quiet=True,
                )
                found = self._find(value)
            if found is None:
                raise Unavailable(f"a secret ID of {self._role} that was just registered is gone")
            return found.accessor

        return retrying(once)

    def _find(self, value: _Value) -> _Registered | None:
        found = self._ask("look up", "secret-id/lookup", _post(secret_id=value.secret_id))
        return _registered(found["data"]) if found else None

    def _lookup(self, accessor: str) -> _Registered | None:
        try:
            found = self._ask("look up", "secret-id-accessor/lookup", _post(secret_id_accessor=accessor))
        except _Missing:
            return None
        return _registered(found["data"])

    def _registered(self) -> Iterator[_Registered]:
        """All that the role has. One that ends meanwhile is left out."""
        try:
            accessors = self._ask("list", "secret-id", lambda c, path: c.adapter.list(path))["data"]["keys"]
        except _Missing:
            return
        yield from filter(None, map(self._lookup, accessors))

    def _destroy(self, accessor: str) -> None:
        def once() -> None:
            if self._lookup(accessor) is not None:
                self._vault.ask_once(
                    lambda c: _post(secret_id_accessor=accessor)(c, f"/v1/{self._role}/secret-id-accessor/destroy"),
                    f"destroy a secret ID of {self._role}",
                    otherwise=TargetError,
                )

        retrying(once)

    def _log_in(self, client: hvac.Client, value: _Value) -> None:
        """As the machine would, through a connection of its own; the token is given up at once."""
        machine = hvac.Client(
            client.url, token="", namespace=client.adapter.namespace, timeout=TIMEOUT, adapter=type(client.adapter)
        )
        try:
            body = {"role_id": value.role_id, "secret_id": value.secret_id}
            machine.token = machine.adapter.post(f"/v1/auth/{self._options.mount}/login", json=body)["auth"][
                "client_token"
            ]
            with suppress(VaultError, requests.RequestException):
                machine.auth.token.revoke_self()
        finally:
            machine.adapter.close()

    def _ask(self, verb: str, what: str, call: Callable[[hvac.Client, str], Any]) -> dict[str, Any]:
        """What Vault answers about the role; empty where it has no content."""
        path = f"{self._role}/{what}".rstrip("/")
        answer = self._vault.ask(
            lambda c: call(c, f"/v1/{path}"), f"{verb} {path}", {404: _Missing}, TargetError, quiet=True
        )
        return answer if isinstance(answer, dict) else {}


def _get(client: hvac.Client, path: str) -> Any:
    return client.adapter.get(path)


def _post(**body: str) -> Callable[[hvac.Client, str], Any]:
    return lambda client, path: client.adapter.post(path, json=body)


def _registered(data: Mapping[str, Any]) -> _Registered:
    metadata = data.get("metadata") or {}
    generation = str(metadata.get("keyturn_generation", ""))
    return _Registered(
        data["secret_id_accessor"],
        metadata.get("keyturn_secret", ""),
        int(generation) if generation.isdecimal() else 0,
    )


def _parse(credential: Credential) -> _Value:
    return read(
        _Value,
        credential,
        "is no login of an AppRole",
        "Store it as JSON with role_id and secret_id.",
    )
