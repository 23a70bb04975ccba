"""The resources behind the constructs on HashiCorp Vault and OpenBao.

A secret's slot is its metadata in KV v2, for which the provider has no resource but the generic one; a slot that is no
longer declared stays, as deleting metadata deletes every version. No value enters Terraform: a database's password is
given through a write-only argument, from an ephemeral variable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any

from modules import vault_policies as policies
from modules.cdk import TerraformResourceLifecycle
from modules.resource import Provider, Resource, Stack, address, construct_id, literal
from modules.vendor import KeySpec, OidcTrust, RunnerSpec, SlotSpec, Vendor
from modules.where import Where, here
from rotation.errors import DeclarationError
from rotation.manifest import Plugin

SOURCE = "hashicorp/vault"
VERSION = "5.13.0"
_DAY = 24 * 60 * 60  # seconds
_TOKEN_TTL = 60 * 60  # seconds that a runner's token lives without being renewed
_NEVER = 10 * 365 * _DAY  # the longest time that rotation/credentials/vault_database_role.py speaks of
_AUTHORITY_TTL = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class PkiRole:
    """What the PKI engine may issue: certificates for just these domains (with ``subdomains`` also for those below
    them), valid for ``ttl`` at most."""

    name: str
    domains: tuple[str, ...]
    _: KW_ONLY
    ttl: timedelta
    subdomains: bool = False
    where: Where = field(default_factory=here, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PostgresConnection:
    """A PostgreSQL server that the database engine logs in to. ``url`` names it with the engine's own templates
    {{username}} and {{password}}. ``users`` are those whose passwords the engine keeps, by the names of their static
    roles.

    ``password`` is the name of a Terraform variable that holds the password, for the length of one apply, and is sent
    again whenever ``password_version`` is raised. Without one it is set outside of Terraform.
    """

    name: str
    _: KW_ONLY
    url: str
    username: str
    users: Mapping[str, str]
    password: str | None = None
    password_version: int = 1
    where: Where = field(default_factory=here, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AppRole:
    """What a machine logs in as, with a secret ID that is turned: its tokens have these ``policies``."""

    name: str
    policies: tuple[str, ...]
    _: KW_ONLY
    token_ttl: timedelta = timedelta(hours=1)
    token_max_ttl: timedelta = timedelta(days=1)
    where: Where = field(default_factory=here, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Vault(Vendor):
    """The part of one server, or of one ``namespace`` of it, that is one environment's: its mounts bear its name.

    ``auth`` is how the rotation logs in, as rotation/vault.py takes it. A PKI engine, a database engine and AppRoles
    are mounted where something is declared for them.
    """

    environment: str
    address: str
    _: KW_ONLY
    auth: Mapping[str, Any] = field(default_factory=dict)
    namespace: str | None = None
    pki_roles: tuple[PkiRole, ...] = ()
    databases: tuple[PostgresConnection, ...] = ()
    app_roles: tuple[AppRole, ...] = ()

    @property
    def kv(self) -> str:
        return f"keyturn-{self.environment}"

    @property
    def transit(self) -> str:
        return f"keyturn-{self.environment}-transit"

    @property
    def pki(self) -> str:
        return f"keyturn-{self.environment}-pki"

    @property
    def database(self) -> str:
        return f"keyturn-{self.environment}-database"

    @property
    def approle(self) -> str:
        return f"keyturn-{self.environment}-approle"

    def static_roles(self, *roles: str) -> dict[str, Any]:
        """The options of a `vault_database_role`, but for its database, for one or two of the ``databases``' roles."""
        return {"mount": self.database, "roles": roles, "ledger": self.kv, **self._connection()}

    def app_role(self, role: str) -> dict[str, Any]:
        """The options of a `vault_approle_secret_id` for one of the ``app_roles``."""
        return {"mount": self.approle, "role": role, "ledger": self.kv, **self._connection()}

    def issuer(self, role: str) -> dict[str, Any]:
        """The issuer of a `tls_certificate`, for the name of one of the ``pki_roles``."""
        return {"kind": "vault_pki", "mount": self.pki, "role": role, **self._connection()}

    def stored_as(self, name: str) -> str:
        return name

    def store(self) -> Plugin:
        return Plugin(kind="vault_kv", options={"mount": self.kv, **self._connection()})

    def key_service(self) -> Plugin:
        return Plugin(kind="vault_transit", options={"mount": self.transit, **self._connection()})

    def key_reference(self, name: str) -> str:
        return construct_id(name)  # the engine takes no slash in a key's name

    def provide(self, stack: Stack) -> None:
        Provider(stack, SOURCE, VERSION, {"address": self.address, "namespace": self.namespace})

    def prepare(self, stack: Stack, where: Where) -> None:
        self._mount(stack, self.kv, "kv", where, options={"version": "2"})
        self._mount(stack, self.transit, "transit", where)
        if self.pki_roles:
            # It limits the mount's authority, too, which must outlive what it signs; each role has its own limit.
            self._mount(stack, self.pki, "pki", where, max_lease_ttl_seconds=_seconds(_AUTHORITY_TTL))
        for role in self.pki_roles:
            self._pki_role(stack, role)
        if self.databases:
            self._mount(stack, self.database, "database", where)
        for connection in self.databases:
            self._connect(stack, connection)
            for name, user in sorted(connection.users.items()):
                self._static_role(stack, connection, name, user)
        if self.app_roles:
            login = {"type": "approle", "path": self.approle, "description": f"keyturn: {self.environment}"}
            Resource(stack, self.approle, "vault_auth_backend", login, where=where)
        for app_role in self.app_roles:
            self._app_role(stack, app_role)

    def key(self, stack: Stack, spec: KeySpec, where: Where) -> str:
        name = self.key_reference(spec.name)
        key = Resource(
            stack,
            f"key-{spec.name}",
            "vault_transit_secret_backend_key",
            {
                "backend": _mounted(self.transit),
                "name": name,
                "type": "aes256-gcm96",
                # The engine derives the wrapping key from the context only for such a key; see vault_transit.py.
                "derived": True,
                "exportable": False,
                "deletion_allowed": False,
                "auto_rotate_period": spec.native_days * _DAY,
            },
            where=where,
        )
        # `keyturn rekey --raise-minimum` raises it, and the provider's default of 1 would lower it again:
        # https://github.com/hashicorp/terraform-provider-vault/blob/main/vault/resource_transit_secret_backend_key.go
        key.lifecycle = TerraformResourceLifecycle(ignore_changes=["min_decryption_version"])
        if spec.readers:
            self._policy(stack, f"open-{spec.name}", policies.open_sealed(self.transit, name), where)
        return key.get_string_attribute("name")

    def slot(self, stack: Stack, spec: SlotSpec, where: Where) -> None:
        described = {"description": spec.description} if spec.description else {}
        Resource(
            stack,
            spec.name,
            "vault_generic_endpoint",
            {
                "path": f"{self.kv}/metadata/{self.stored_as(spec.name)}",
                "data_json": literal(json.dumps({"custom_metadata": {**described, **spec.tags}}, sort_keys=True)),
                "disable_delete": True,
                "ignore_absent_fields": True,
            },
            where=where,
        )
        if spec.readers:
            rules = policies.read_secret(self.kv, self.stored_as(spec.name))
            if self._has(spec.credential):
                rules |= policies.follow_value(spec.name, spec.credential.kind, spec.credential.options)
            self._policy(stack, f"read-{spec.name}", rules, where)

    def runner(self, stack: Stack, spec: RunnerSpec, where: Where) -> None:
        # In this order: what is turned may be read for another secret, too.
        rules = policies.keep_token() | policies.look_at_secrets(self.kv, spec.reads)
        rules |= policies.turn_secrets(self.kv, spec.secrets)
        rules |= policies.turn_keys(self.transit, [self.key_reference(name) for name in sorted(spec.keys)])
        rules |= policies.seal_values(self.transit, [self.key_reference(name) for name in sorted(spec.sealing_keys)])
        if self.pki_roles:
            rules |= policies.issue_certificates(self.pki, [role.name for role in self.pki_roles])
        for name, kind in spec.credentials.items():
            if self._has(kind):
                self._check_declared(stack, name, kind, where)
                rules |= policies.turn_credential(name, kind.kind, kind.options)
        policy = self._policy(stack, "runner", rules, where)
        for number, trust in enumerate(spec.trusts):
            if not isinstance(trust, OidcTrust):
                raise DeclarationError(f"{where}: {stack.name}: Vault has no account whose principals could be trusted")
            self._trust(stack, f"ci-{number}", trust, policy, where)

    def _has(self, credential: Plugin) -> bool:
        """Whether a credential's target is this server, if it is a Vault server's at all."""
        return bool(credential.options.get("address", self.address) == self.address)

    def _check_declared(self, stack: Stack, name: str, credential: Plugin, where: Where) -> None:
        """Refuse a secret whose role is to be in a mount of this environment, and is not declared."""
        options = credential.options
        known = {
            ("vault_database_role", self.database): {role for found in self.databases for role in found.users},
            ("vault_approle_secret_id", self.approle): {role.name for role in self.app_roles},
        }.get((credential.kind, str(options.get("mount"))))
        turned = options.get("roles", (options.get("role"),))
        if known is not None and (missing := [role for role in turned if role not in known]):
            raise DeclarationError(
                f"{where}: {stack.name}: the secret {name} turns the role {missing[0]}, which is not declared",
                "Declare it for the environment's Vault: in the users of one of its databases, or in its app_roles.",
            )

    def _connection(self) -> dict[str, Any]:
        options = {"address": self.address, "namespace": self.namespace, "auth": dict(self.auth) or None}
        return {name: value for name, value in options.items() if value is not None}

    def _mount(self, stack: Stack, path: str, kind: str, where: Where, **others: Any) -> None:
        arguments = {"path": path, "type": kind, "description": f"keyturn: {self.environment}", **others}
        Resource(stack, path, "vault_mount", arguments, where=where)

    def _policy(self, stack: Stack, name: str, rules: policies.Rules, where: Where) -> str:
        """Declare a policy, and return its name."""
        named = f"keyturn-{self.environment}-{construct_id(name)}"
        arguments = {"name": named, "policy": literal(policies.document(rules))}
        Resource(stack, f"policy-{name}", "vault_policy", arguments, where=where)
        return named

    def _trust(self, stack: Stack, name: str, trust: OidcTrust, policy: str, where: Where) -> None:
        path = f"keyturn-{self.environment}-{name}"
        backend = Resource(
            stack,
            f"{name}-issuer",
            "vault_jwt_auth_backend",
            {
                "path": path,
                "description": f"keyturn: pipelines of {self.environment}",
                "oidc_discovery_url": trust.issuer,
                "bound_issuer": trust.issuer,
            },
            where=where,
        )
        Resource(
            stack,
            name,
            "vault_jwt_auth_backend_role",
            {
                "backend": backend.get_string_attribute("path"),
                "role_name": "keyturn",
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_audiences": [trust.audience],
                "bound_claims_type": "string",
                "bound_claims": {claim: literal(value) for claim, value in sorted(trust.claims.items())},
                "token_policies": [policy],
                "token_no_default_policy": True,
                "token_ttl": _TOKEN_TTL,
                "token_max_ttl": _DAY,
            },
            where=where,
        )

    def _pki_role(self, stack: Stack, role: PkiRole) -> None:
        Resource(
            stack,
            f"pki-{role.name}",
            "vault_pki_secret_backend_role",
            {
                "backend": _mounted(self.pki),
                "name": role.name,
                "allowed_domains": list(role.domains),
                "allow_bare_domains": True,
                "allow_subdomains": role.subdomains,
                "allow_any_name": False,
                "allow_localhost": False,
                "allow_ip_sans": False,
                "server_flag": True,
                "client_flag": False,
                "key_type": "any",  # the requester's choice; by default RSA alone
                "max_ttl": str(_seconds(role.ttl)),
            },
            where=role.where,
        )

    def _connect(self, stack: Stack, connection: PostgresConnection) -> None:
        server: dict[str, Any] = {"connection_url": literal(connection.url), "username": connection.username}
        if connection.password is not None:
            # cdktf 0.21 is older than ephemeral variables, and has no construct for them.
            stack.add_override(f"variable.{connection.password}", _EPHEMERAL)
            server["password_wo"] = f"${{var.{connection.password}}}"
            server["password_wo_version"] = connection.password_version
        Resource(
            stack,
            f"database-{connection.name}",
            "vault_database_secret_backend_connection",
            {
                "backend": _mounted(self.database),
                "name": connection.name,
                "allowed_roles": sorted(connection.users),
                "postgresql": server,
            },
            where=connection.where,
        )

    def _static_role(self, stack: Stack, connection: PostgresConnection, name: str, user: str) -> None:
        server = address("vault_database_secret_backend_connection", f"database-{connection.name}")
        Resource(
            stack,
            f"static-role-{name}",
            "vault_database_secret_backend_static_role",
            {
                "backend": _mounted(self.database),
                "name": name,
                "db_name": f"${{{server}.name}}",
                "username": user,
                # The rotation says when: Vault's own would leave consumers with a dead password.
                "rotation_period": _NEVER,
                # An existing user's consumers go on with its password until the first rotation. Only Vault Enterprise
                # can, and only there does the provider ask for it; other servers rotate when the role is made.
                "skip_import_rotation": True,
            },
            where=connection.where,
        )

    def _app_role(self, stack: Stack, role: AppRole) -> None:
        Resource(
            stack,
            f"app-role-{role.name}",
            "vault_approle_auth_backend_role",
            {
                "backend": f"${{{address('vault_auth_backend', self.approle)}.path}}",
                "role_name": role.name,
                "bind_secret_id": True,
                # Secret IDs end when they are turned: those that end by themselves, or by use, cannot be.
                "secret_id_num_uses": 0,
                "secret_id_ttl": 0,
                "token_policies": list(role.policies),
                "token_ttl": _seconds(role.token_ttl),
                "token_max_ttl": _seconds(role.token_max_ttl),
            },
            where=role.where,
        )


# Empty for whoever deploys without the password (keyturn passes no TF_VAR_… on): without a default there is no plan.
# It is sent where the connection is new or its password_version is, and there the server refuses an empty one.
_EPHEMERAL = {"type": "string", "sensitive": True, "ephemeral": True, "default": ""}


def _mounted(path: str) -> str:
    """The path of a mount of the same stack, as an expression that waits for it."""
    return f"${{vault_mount.{path}.path}}"


def _seconds(duration: timedelta) -> int:
    return duration // timedelta(seconds=1)
