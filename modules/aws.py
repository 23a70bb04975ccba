"""The resources behind the constructs on AWS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules import aws_policies as policies
from modules.resource import Provider, Resource, Stack, literal
from modules.schema import Schema
from modules.vendor import AccountTrust, KeySpec, OidcTrust, RunnerSpec, SlotSpec, Vendor
from modules.where import Where
from rotation.manifest import Plugin

SOURCE = "hashicorp/aws"
_YEAR = 365

# Every service that the stacks use, and two that provider 3.39 asks by itself: sts, and ec2, whose real name it would
# look up for 20 s at each plan.
_SERVICES = ("ec2", "iam", "kms", "s3", "secretsmanager", "sts")


@dataclass(frozen=True, slots=True)
class Aws(Vendor):
    """One account and region, reached with one provider version.

    ``endpoint`` is the URL of an AWS API that is not Amazon's; the provider then checks neither account nor region.
    """

    environment: str
    region: str
    account: str
    version: str
    endpoint: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def stored_as(self, name: str) -> str:
        return f"{self.environment}/{name}"

    def store(self) -> Plugin:
        return Plugin(kind="aws_secrets_manager", options={"region": self.region})

    def key_service(self) -> Plugin:
        return Plugin(kind="aws_kms", options={"region": self.region})

    def key_reference(self, name: str) -> str:
        return f"alias/keyturn-{self.environment}-{name}"

    def provide(self, stack: Stack) -> None:
        Provider(stack, SOURCE, self.version, self._local() if self.endpoint else self._real())

    def key(self, stack: Stack, spec: KeySpec, where: Where) -> str:
        policy = policies.own_key(self.account, self.region, self.environment, spec.readers)
        key = Resource(
            stack,
            f"key-{spec.name}",
            "aws_kms_key",
            {
                "description": f"keyturn: {spec.name} ({self.environment})",
                "enable_key_rotation": True,
                # A year is what KMS does without being told, and all that older providers can ask for.
                "rotation_period_in_days": spec.native_days if spec.native_days != _YEAR else None,
                "deletion_window_in_days": spec.deletion_days,
                "policy": _json(policy),
                "tags": self._tags({}),
            },
            where=where,
        )
        alias = {"name": self.key_reference(spec.name), "target_key_id": key.get_string_attribute("key_id")}
        Resource(stack, f"alias-{spec.name}", "aws_kms_alias", alias, where=where)
        return key.get_string_attribute("arn")

    def slot(self, stack: Stack, spec: SlotSpec, where: Where) -> None:
        Resource(
            stack,
            spec.name,
            "aws_secretsmanager_secret",
            {
                "name": self.stored_as(spec.name),
                "description": spec.description or None,
                # The alias' full ARN is what Secrets Manager answers: anything else would show as a change for ever.
                "kms_key_id": self._arn("kms", self.key_reference(spec.key)) if spec.key else None,
                "policy": _json(policies.read_secret(spec.readers)) if spec.readers else None,
                "recovery_window_in_days": spec.recovery_days,
                "tags": self._tags(spec.tags),
            },
            where=where,
        )

    def config_place(self, stack: Stack, name: str, where: Where) -> None:
        separate = stack.schemas["aws"].has("aws_s3_bucket_versioning")
        versioning = None if separate else {"enabled": True}
        bucket = Resource(
            stack,
            "config",
            "aws_s3_bucket",
            {"bucket": name, "versioning": versioning, "tags": self._tags({})},
            where=where,
        )
        if separate:
            settings = {"bucket": bucket.get_string_attribute("id"), "versioning_configuration": {"status": "Enabled"}}
            Resource(stack, "config-versioning", "aws_s3_bucket_versioning", settings, where=where)

    def config_kind(self) -> str:
        return "aws_s3_object" if Schema.load("aws", self.version).has("aws_s3_object") else "aws_s3_bucket_object"

    def config_object(self, stack: Stack, name: str, place: str, key: str, content: str, where: Where) -> Resource:
        return Resource(
            stack,
            name,
            self.config_kind(),
            {
                "bucket": place,
                "key": key,
                "content": literal(content),
                "content_type": "text/plain; charset=utf-8",
                # After an update that failed the provider keeps the new content in its state all the same; only the
                # object's own ETag, which is the MD5 of its text, shows the next plan that it is still the old one.
                "etag": hashlib.md5(content.encode(), usedforsecurity=False).hexdigest(),
            },
            where=where,
        )

    def runner(self, stack: Stack, spec: RunnerSpec, where: Where) -> None:
        trust = policies.document(
            self._trust(stack, f"oidc-{number}", trusted, where) for number, trusted in enumerate(spec.trusts)
        )
        role = Resource(
            stack,
            "runner",
            "aws_iam_role",
            {
                "name": f"keyturn-{self.environment}",
                "description": f"keyturn: turns the secrets of {self.environment}",
                "assume_role_policy": _json(trust),
                "tags": self._tags({}),
            },
            where=where,
        )
        may = {"name": "rotation", "role": role.get_string_attribute("id"), "policy": _json(self._may(spec))}
        Resource(stack, "runner-may", "aws_iam_role_policy", may, where=where)

    def _may(self, spec: RunnerSpec) -> dict[str, Any]:
        scope = policies.Scope.of(spec.secrets, self.environment, self._arn("secretsmanager", "secret:"))
        statements = [policies.find_secrets(), policies.turn_secrets(scope)] if spec.secrets else []
        reads = [self._arn("secretsmanager", f"secret:{name}{policies.SUFFIX}") for name in spec.reads]
        if reads:
            statements.append(policies.read_administrators(reads))
        if spec.keys:
            statements.append(policies.turn_keys(list(spec.keys.values())))
        if spec.store_keys:
            keys = [spec.keys[name] for name in sorted(spec.store_keys)]
            everywhere = self._arn("secretsmanager", f"secret:{self.environment}/*")
            statements.append(policies.encrypt_through_store(keys, self.region, everywhere))
        if spec.sealing_keys:
            keys = [spec.keys[name] for name in sorted(spec.sealing_keys)]
            statements.append(policies.seal_values(keys, spec.sealed, self.environment))
        if spec.consumers:
            statements += policies.put_configuration(spec.config, spec.consumers)
        if spec.state:
            statements += policies.keep_state(*spec.state)
        return policies.document(statements)

    def _trust(self, stack: Stack, name: str, trust: OidcTrust | AccountTrust, where: Where) -> policies.Statement:
        if isinstance(trust, AccountTrust):
            return policies.trust_account(self.account)
        host = trust.issuer.removeprefix("https://")
        arn = f"arn:aws:iam::{self.account}:oidc-provider/{host}"
        if not trust.registered:
            issuer = {"url": trust.issuer, "client_id_list": [trust.audience], "tags": self._tags({})}
            arn = Resource(stack, name, "aws_iam_openid_connect_provider", issuer, where=where).get_string_attribute(
                "arn"
            )
        return policies.trust_oidc(arn, host, trust.audience, trust.claims)

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"

    def _tags(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**self.tags, **more, policies.ENVIRONMENT_TAG: self.environment}

    def _real(self) -> dict[str, Any]:
        """Credentials come from the environment of whoever plans; a wrong account is refused before anything else."""
        return {"region": self.region, "allowed_account_ids": [self.account]}

    def _local(self) -> dict[str, Any]:
        skipped = ("credentials_validation", "metadata_api_check", "region_validation", "requesting_account_id")
        return {
            "region": self.region,
            "endpoints": dict.fromkeys(_SERVICES, self.endpoint),
            "s3_force_path_style": True,
            **{f"skip_{check}": True for check in skipped},
        }


def _json(policy: Mapping[str, Any]) -> str:
    return json.dumps(policy, separators=(",", ":"))
