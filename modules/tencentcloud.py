"""The resources behind the constructs on Tencent Cloud: SSM, KMS, COS and CAM.

A slot is a secret without a version: the provider makes one with the text "default" and deletes it at once
(services/ssm/resource_tc_ssm_secret.go). What the provider's own defaults would destroy or disable is always said here:
a secret that is deleted at once, a key that is made disabled and never renewed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from modules import tencent_policies as policies
from modules.cdk import TerraformResourceLifecycle
from modules.resource import Data, Provider, Resource, Stack, construct_id, literal, text_object
from modules.tencent_function import CloudFunction
from modules.vendor import (
    ConfigVendor,
    FunctionSpec,
    FunctionVendor,
    KeySpec,
    OidcTrust,
    RunnerSpec,
    SlotSpec,
    Trust,
)
from modules.where import Where
from rotation.errors import DeclarationError
from rotation.manifest import Plugin

SOURCE = "tencentcloudstack/tencentcloud"
VERSION = "1.83.25"
ENVIRONMENT_TAG = "keyturn:environment"

_SECRET_NAME, _POLICY_NAME, _ALIAS = 128, 128, 60  # characters
_SSM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_USER_NAME = re.compile(r"[A-Za-z0-9@._+=-]{1,64}")
_YEAR = 365


@dataclass(frozen=True, slots=True)
class TencentCloud(FunctionVendor, ConfigVendor):
    """One account in one region. ``uin`` is the root account's number.

    ``creator`` is the number of the account that applies these stacks, where that is not the root account itself: what
    it makes is named by it in policies. ``app_id`` is what the names of buckets end with; without it, configuration,
    state and journal are another vendor's. ``endpoint`` is the URL of a server that stands for all services, which
    only the rotation uses. ``vpc`` is the network of the function's subnet, and ``python_layer`` the layer, by name and
    version, with the Python that it runs on (SCF's own are too old). ``signing_keys`` are files with the public keys (a
    JWKS) of issuers to register. ``signature_life`` is for an emulator that takes signatures for fewer seconds than the
    real cloud does.
    """

    environment: str
    region: str
    uin: str
    _: KW_ONLY
    creator: str | None = None
    app_id: str | None = None
    endpoint: str | None = None
    signature_life: int | None = None
    vpc: str | None = None
    python_layer: tuple[str, int] | None = None
    signing_keys: Mapping[str, Path] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def stored_as(self, name: str) -> str:
        return f"{self.environment}--{construct_id(name)}"  # SSM takes no slash in a name

    def store(self) -> Plugin:
        life = {} if self.signature_life is None else {"signature_life": self.signature_life}
        return Plugin(kind="tencent_ssm", options=self._connection() | life)

    def function_target(self, name: str) -> Plugin:
        """The target of a consumer that is a cloud function."""
        return Plugin(kind="tencent_scf", options=self._connection() | {"function": name})

    def key_service(self) -> Plugin:
        return Plugin(kind="tencent_kms", options=self._connection())

    def key_reference(self, name: str) -> str:
        return f"keyturn-{self.environment}-{construct_id(name)}"

    def provide(self, stack: Stack) -> None:
        """Credentials come from the environment of whoever plans; a wrong account is refused before anything else."""
        Provider(stack, SOURCE, VERSION, {"region": self.region, "allowed_account_ids": [self.uin]})

    def key(self, stack: Stack, spec: KeySpec, where: Where) -> str:
        alias = self.key_reference(spec.name)
        _fits(alias, _ALIAS, f"{where}: the key {spec.name}")
        _between(spec.deletion_days, 7, 30, f"{where}: the key {spec.name} can be brought back for")
        if spec.native_days != _YEAR:
            raise DeclarationError(
                f"{where}: the key {spec.name} is to be renewed every {spec.native_days} days, and Tencent Cloud's"
                f" provider {VERSION} only knows every {_YEAR}",
                f"Leave native_days at {_YEAR}, and turn the key with `keyturn rekey` as often as you want.",
            )
        key = Resource(
            stack,
            f"key-{spec.name}",
            "tencentcloud_kms_key",
            {
                "alias": alias,
                "description": f"keyturn: {spec.name} ({self.environment})",
                "key_usage": "ENCRYPT_DECRYPT",
                "is_enabled": True,
                "key_rotation_enabled": True,
                "pending_delete_window_in_days": spec.deletion_days,
                "tags": self._tags({}),
            },
            where=where,
        )
        address = self._account.key(key.get_string_attribute("id"))
        self._let_read(stack, f"open-{spec.name}", policies.open_sealed(address), spec.readers, where)
        return address

    def slot(self, stack: Stack, spec: SlotSpec, where: Where) -> None:
        name = self.stored_as(spec.name)
        _fits(name, _SECRET_NAME, f"{where}: the secret {spec.name}")
        _between(spec.recovery_days, 0, 30, f"{where}: the secret {spec.name} can be brought back for")
        secret = Resource(
            stack,
            spec.name,
            "tencentcloud_ssm_secret",
            {
                "secret_name": name,
                "description": spec.description or None,
                "secret_type": 0,  # what its values are is the rotation's business
                "kms_key_id": self._found_key(stack, spec.key, where) if spec.key else None,
                "is_enabled": True,
                "recovery_window_in_days": spec.recovery_days,
                "tags": self._tags(spec.tags),
            },
            where=where,
        )
        # The provider deletes a secret with all its versions, and makes a new one, for another key.
        secret.lifecycle = TerraformResourceLifecycle(ignore_changes=["kms_key_id"])
        read = policies.read_secrets([self._account.secret(name)])
        self._let_read(stack, f"read-{spec.name}", read, spec.readers, where)

    def config_place(self, stack: Stack, name: str, where: Where) -> None:
        Resource(
            stack,
            "config",
            "tencentcloud_cos_bucket",
            {
                "bucket": name,
                "acl": "private",
                "versioning_enable": True,
                "force_clean": False,
                "tags": self._tags({}),
            },
            where=where,
        )

    def config_kind(self) -> str:
        return "tencentcloud_cos_bucket_object"

    def config_object(self, stack: Stack, name: str, place: str, key: str, content: str, where: Where) -> Resource:
        arguments = {**text_object(place, key, content), "acl": "private"}
        return Resource(stack, name, self.config_kind(), arguments, where=where)

    def runner(self, stack: Stack, spec: RunnerSpec, where: Where) -> None:
        account = self._account
        may = self._may_turn(spec.secrets, spec.reads)
        may += policies.turn_keys(account, list(spec.keys.values()))
        may += policies.seal_values(account, [spec.keys[name] for name in sorted(spec.sealing_keys)])
        for name, kind in spec.credentials.items():
            may += self._turn_credential(stack, name, kind, where)
        if self.app_id is not None:
            objects = [account.objects(spec.places.config, f"{consumer}/*") for consumer in spec.consumers]
            may += policies.put_configuration(objects)
            if spec.places.state is not None:
                bucket, key = spec.places.state
                may += policies.keep_state(account.objects(bucket, ""), account.objects(bucket, key))
            if spec.places.journal is not None:
                may += self._keep_journal(spec.places.journal)
        if not spec.trusts:
            raise DeclarationError(
                f"{where}: {stack.name}: a role on Tencent Cloud has to trust somebody",
                "Declare the environment's trusts: AccountTrust(), or an OidcTrust in its pipeline.",
            )
        trust = [self._trust(stack, trusted, where) for trusted in spec.trusts]
        self._role(stack, "runner", f"keyturn-{self.environment}", trust, may, where)

    def function(self, stack: Stack, spec: FunctionSpec, where: Where) -> None:
        name = f"keyturn-{self.environment}"
        may = self._may_turn(spec.secrets, spec.reads) + policies.seal_values(self._account, spec.sealing_keys)
        may += policies.look_at_secrets([self._account.secret(other) for other in spec.others])
        if self.app_id is None:
            raise DeclarationError(
                f"{where}: the function's journal is in the bucket {spec.journal[0]}, and no app_id says whose it is",
                "Name the account's APPID at TencentCloud(…) in stacks/environments.py.",
            )
        may += self._keep_journal(spec.journal)
        trust = [policies.trust_service("scf.qcloud.com")]
        role, attached = self._role(stack, "function", f"{name}-function", trust, may, where)
        function = CloudFunction(self.region, name, self._tags({}), self.vpc, self.python_layer)
        function.declare(stack, spec, role.get_string_attribute("name"), attached, where)

    def rotated_by_store(self, stack: Stack, name: str, days: int, where: Where) -> None:
        del stack, days
        raise DeclarationError(
            f"{where}: SSM calls no function to rotate {name}: it rotates the accounts of Tencent's databases alone",
            "Take it out of by_store, and give it a schedule or the credential kind tencent_product_secret.",
        )

    @property
    def _account(self) -> policies.Account:
        return policies.Account(self.region, self.uin, self.creator or self.uin, self.app_id)

    def _connection(self) -> dict[str, str]:
        return {"region": self.region} | ({"endpoint": self.endpoint} if self.endpoint else {})

    def _tags(self, more: Mapping[str, str]) -> dict[str, str]:
        tags = {**self.tags, **more, ENVIRONMENT_TAG: self.environment}
        return {name: literal(value) for name, value in tags.items()}

    def _found_key(self, stack: Stack, name: str, where: Where) -> str:
        """A key's identifier, looked up by its alias: SSM takes no alias, and another stack has the key."""
        alias = self.key_reference(name)
        wanted = {"search_key_alias": alias, "role": 0, "key_state": 1}  # the account's own, enabled
        return _looked_up(stack, f"key-{name}", "kms_keys", wanted, ("key_list", "alias", alias, "key_id"), where)

    def _turn_credential(self, stack: Stack, name: str, kind: Plugin, where: Where) -> list[policies.Statement]:
        """What a secret's credential kind needs of the cloud beside its store: nothing, where its target is another."""
        if kind.kind == "tencent_product_secret":
            product = _named(kind, "product_secret", _SSM_NAME, f"{where}: the secret {name}")
            return policies.turn_products([self._account.secret(product)])
        if kind.kind != "tencent_cam_key":
            return []
        user = _named(kind, "user", _USER_NAME, f"{where}: the secret {name}")
        found = ("user_list", "name", user, "uin")
        uin = _looked_up(stack, f"user-of-{name}", "cam_users", {"name": user}, found, where)
        return policies.turn_access_keys([self._account.user(uin)])

    def _may_turn(self, secrets: Sequence[str], reads: Sequence[str]) -> list[policies.Statement]:
        statements = policies.turn_secrets([self._account.secret(name) for name in secrets])
        return statements + policies.read_secrets([self._account.secret(name) for name in reads])

    def _keep_journal(self, journal: tuple[str, str]) -> list[policies.Statement]:
        bucket, prefix = journal
        return policies.keep_journal(self._account.objects(bucket, f"{prefix}/*"))

    def _let_read(
        self, stack: Stack, name: str, may: list[policies.Statement], readers: Sequence[str], where: Where
    ) -> None:
        """A policy for roles that there are already, as SSM and KMS have none on their resources."""
        if readers:
            attached = [(reader, f"{name}-{reader}") for reader in readers]
            list(self._policies(stack, name, may, attached, where))

    def _role(
        self,
        stack: Stack,
        name: str,
        called: str,
        trust: Iterable[policies.Statement],
        may: Iterable[policies.Statement],
        where: Where,
    ) -> tuple[Resource, list[Resource]]:
        """Declare a role with its policies; return it, and what ties them to it."""
        role = Resource(
            stack,
            f"{name}-role",
            "tencentcloud_cam_role",
            {
                "name": called,
                "description": f"keyturn: {self.environment}",
                "document": policies.document(trust),
                "console_login": False,
                "tags": self._tags({}),
            },
            where=where,
        )
        attached = [(role.get_string_attribute("name"), f"{name}-may")]
        return role, list(self._policies(stack, f"{name}-may", may, attached, where))

    def _policies(
        self,
        stack: Stack,
        name: str,
        may: Iterable[policies.Statement],
        roles: Iterable[tuple[str, str]],
        where: Where,
    ) -> Iterator[Resource]:
        """Declare policies, and attach each to the roles, given as (name, construct)."""
        roles = list(roles)
        for number, document in enumerate(policies.documents(may)):
            suffix = f"-{number}" if number else ""
            called = f"keyturn-{self.environment}-{construct_id(name)}{suffix}"
            _fits(called, _POLICY_NAME, f"{where}: the policy {name}")
            arguments = {"name": called, "document": document}
            policy = Resource(stack, f"{name}{suffix}", "tencentcloud_cam_policy", arguments, where=where)
            for role, construct in roles:
                ends = {"role_name": role, "policy_name": policy.get_string_attribute("name")}
                kind = "tencentcloud_cam_role_policy_attachment_by_name"
                yield Resource(stack, f"{construct}{suffix}-attached", kind, ends, where=where)

    def _trust(self, stack: Stack, trust: Trust, where: Where) -> policies.Statement:
        if not isinstance(trust, OidcTrust):
            return policies.trust_account(self.uin)
        if others := sorted(set(trust.claims) - {"sub"}):
            raise DeclarationError(
                f"{where}: a role on Tencent Cloud looks at the claim sub alone, not at {', '.join(others)}",
                "Name the repository and the environment in the claim sub, and leave the others out.",
            )
        provider = re.sub(r"[^A-Za-z0-9]+", "-", trust.issuer.removeprefix("https://")).strip("-")
        if not trust.registered:
            self._issuer(stack, provider, trust, where)
        return policies.trust_oidc(self.uin, provider, trust.issuer, trust.audience, trust.claims["sub"])

    def _issuer(self, stack: Stack, provider: str, trust: OidcTrust, where: Where) -> None:
        issuer = Resource(
            stack,
            f"oidc-{provider}",
            "tencentcloud_cam_role_sso",
            {
                "name": provider,
                "identity_url": trust.issuer,
                "identity_key": base64.b64encode(self._public_keys(trust.issuer, where)).decode(),
                "client_ids": [trust.audience],
                "auto_rotate_key": 1,
                "description": f"keyturn: pipelines of {self.environment}",
            },
            where=where,
        )
        # CAM then fetches the issuer's later keys by itself.
        issuer.lifecycle = TerraformResourceLifecycle(ignore_changes=["identity_key"])

    def _public_keys(self, issuer: str, where: Where) -> bytes:
        remedy = (
            f"Save what {issuer}'s jwks_uri answers in a file, and name it in signing_keys; or set registered=True."
        )
        file = self.signing_keys.get(issuer)
        if file is None:
            raise DeclarationError(f"{where}: there are no signing keys of {issuer}", remedy)
        try:
            text = file.read_bytes()
            keys = json.loads(text)["keys"]
            public = all(key["kty"] != "oct" and "d" not in key for key in keys)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise DeclarationError(
                f"{where}: the signing keys of {issuer} cannot be read: {type(error).__name__}", remedy
            ) from None
        if not keys or not public:
            raise DeclarationError(f"{where}: the signing keys of {issuer} are not public keys alone", remedy)
        return text


def _named(kind: Plugin, option: str, names: re.Pattern[str], what: str) -> str:
    """A name in an option. It becomes a part of a policy, so it must stand for nothing but itself."""
    name = str(kind.options.get(option, ""))
    if not names.fullmatch(name):
        raise DeclarationError(f"{what}: {kind.kind} needs the option {option}, a name without wildcards")
    return name


def _looked_up(
    stack: Stack, name: str, source: str, arguments: Mapping[str, Any], found: tuple[str, str, str, str], where: Where
) -> str:
    """A field of the one thing that is asked for, as an expression: ``found`` is the list that the data source answers
    with, the attribute that must be just this value (a search may answer with what only begins alike), and the field.
    Without the thing there is no plan. It is a local value, for within a policy's JSON its quotes would be escaped."""
    construct = construct_id(name)
    if stack.node.try_find_child(construct) is None:
        Data(stack, construct, f"tencentcloud_{source}", arguments, where=where)
        listed, attribute, value, field_ = found
        answer = f"data.tencentcloud_{source}.{construct}.{listed}"
        one = f'${{[for one in {answer} : one.{field_} if one.{attribute} == "{value}"][0]}}'
        stack.add_override(f"locals.{construct}", one)
    return f"${{local.{construct}}}"


def _fits(name: str, most: int, what: str) -> None:
    if len(name) > most:
        raise DeclarationError(f"{what} is called {name} on Tencent Cloud, which is longer than {most} characters")


def _between(days: int, least: int, most: int, what: str) -> None:
    if not least <= days <= most:
        raise DeclarationError(f"{what} {least} to {most} days on Tencent Cloud, not {days}")
