"""The resources behind the constructs on AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from modules import aws_policies as policies
from modules.asset import asset
from modules.resource import Provider, Resource, Stack, address, literal, text_object
from modules.schema import Schema
from modules.vendor import (
    AccountTrust,
    ConfigVendor,
    FunctionSpec,
    FunctionVendor,
    KeySpec,
    OidcTrust,
    RunnerSpec,
    SlotSpec,
)
from modules.where import Where
from rotation.manifest import Plugin

SOURCE = "hashicorp/aws"
_YEAR = 365

# Every service that the stacks use, and two that provider 3.39 asks by itself: sts, and ec2, whose real name it would
# look up for 20 s at each plan.
_SERVICES = (
    "cloudwatchevents",
    "cloudwatchlogs",
    "ec2",
    "iam",
    "kms",
    "lambda",
    "s3",
    "secretsmanager",
    "sts",
)


@dataclass(frozen=True, slots=True)
class Aws(FunctionVendor, ConfigVendor):
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
        return Resource(stack, name, self.config_kind(), text_object(place, key, content), where=where)

    def runner(self, stack: Stack, spec: RunnerSpec, where: Where) -> None:
        trust = policies.document(
            self._trust(stack, f"oidc-{number}", trusted, where) for number, trusted in enumerate(spec.trusts)
        )
        does = "turns the secrets" if spec.secrets else "deploys the configuration"
        role = Resource(
            stack,
            "runner",
            "aws_iam_role",
            {
                "name": f"keyturn-{self.environment}",
                "description": f"keyturn: {does} of {self.environment}",
                "assume_role_policy": _json(trust),
                "tags": self._tags({}),
            },
            where=where,
        )
        may = {"name": "rotation", "role": role.get_string_attribute("id"), "policy": _json(self._may(spec))}
        Resource(stack, "runner-may", "aws_iam_role_policy", may, where=where)

    def function(self, stack: Stack, spec: FunctionSpec, where: Where) -> None:
        name = self._function_name
        logs = {"name": f"/aws/lambda/{name}", "retention_in_days": spec.log_days, "tags": self._tags({})}
        log = Resource(stack, "function-log", "aws_cloudwatch_log_group", logs, where=where)
        role = self._function_role(stack, spec, log.get_string_attribute("arn"), where)
        archive = asset(stack, "function-archive", spec.archive)
        variables = {**spec.variables, "KEYTURN_JOURNAL": f"s3://{'/'.join(spec.journal)}"}
        network = (
            {"subnet_ids": list(spec.subnets), "security_group_ids": list(spec.security_groups)}
            if spec.subnets
            else None
        )
        function = Resource(
            stack,
            "function",
            "aws_lambda_function",
            {
                "function_name": name,
                "description": f"keyturn: turns what is due in {self.environment}",
                "role": role.get_string_attribute("arn"),
                "filename": archive,
                "source_code_hash": f'${{filebase64sha256("{archive}")}}',
                "handler": "rotation.handlers.aws_lambda.handler",
                "runtime": spec.runtime,
                # Lambda's own default; older providers cannot ask for another one.
                "architectures": None if spec.architecture == "x86_64" else [spec.architecture],
                "timeout": spec.timeout,
                "memory_size": spec.memory,
                "reserved_concurrent_executions": 1,
                "environment": {"variables": {name: literal(value) for name, value in variables.items()}},
                "vpc_config": network,
                "tags": self._tags({}),
            },
            where=where,
            after=[log],  # Lambda would make one itself, which keeps everything for ever
        )
        if spec.every is not None:
            self._rule(stack, spec.every, function.get_string_attribute("arn"), where)
        by_store = {"principal": "secretsmanager.amazonaws.com", "source_account": self.account}
        self._let(stack, "store", by_store, where, after=function)

    def rotated_by_store(self, stack: Stack, name: str, days: int, where: Where) -> None:
        Resource(
            stack,
            f"rotation-{name}",
            "aws_secretsmanager_secret_rotation",
            {
                "secret_id": f"${{{address('aws_secretsmanager_secret', name)}.id}}",
                "rotation_lambda_arn": self._arn("lambda", f"function:{self._function_name}"),
                "rotation_rules": {"automatically_after_days": days},
            },
            where=where,
        )

    @property
    def _function_name(self) -> str:
        return f"keyturn-{self.environment}"

    def _function_role(self, stack: Stack, spec: FunctionSpec, log: str, where: Where) -> Resource:
        trust = policies.document([policies.trust_service("lambda.amazonaws.com")])
        role = Resource(
            stack,
            "function-role",
            "aws_iam_role",
            {
                "name": f"{self._function_name}-function",
                "description": f"keyturn: turns what is due in {self.environment}",
                "assume_role_policy": _json(trust),
                "tags": self._tags({}),
            },
            where=where,
        )
        statements = self._may_turn(spec.secrets, spec.reads, spec.store_keys, spec.sealing_keys, spec.sealed)
        if spec.others:
            prefix = self._arn("secretsmanager", "secret:")
            statements.append(policies.look_at_secrets(policies.Scope.of(spec.others, self.environment, prefix)))
        statements += [*policies.keep_journal(*spec.journal), policies.write_log(log)]
        if spec.subnets:
            statements.append(policies.join_network())
        may = {
            "name": "rotation",
            "role": role.get_string_attribute("id"),
            "policy": _json(policies.document(statements)),
        }
        Resource(stack, "function-may", "aws_iam_role_policy", may, where=where)
        return role

    def _rule(self, stack: Stack, every: timedelta, function: str, where: Where) -> None:
        minutes = every // timedelta(minutes=1)
        rule = Resource(
            stack,
            "due",
            "aws_cloudwatch_event_rule",
            {
                "name": f"{self._function_name}-due",
                "description": "keyturn: asks what is due",
                "schedule_expression": "rate(1 hour)" if minutes == 60 else f"rate({minutes} minutes)",
                "tags": self._tags({}),
            },
            where=where,
        )
        name = rule.get_string_attribute("name")
        target = {"rule": name, "target_id": "keyturn", "arn": function}
        Resource(stack, "due-target", "aws_cloudwatch_event_target", target, where=where)
        by_rule = {"principal": "events.amazonaws.com", "source_arn": rule.get_string_attribute("arn")}
        self._let(stack, "due", by_rule, where, after=rule)

    def _let(self, stack: Stack, who: str, caller: Mapping[str, str], where: Where, *, after: Resource) -> None:
        may = {
            "statement_id": f"keyturn-{who}",
            "action": "lambda:InvokeFunction",
            "function_name": "${aws_lambda_function.function.function_name}",
            **caller,
        }
        Resource(stack, f"{who}-may-call", "aws_lambda_permission", may, where=where, after=[after])

    def _may(self, spec: RunnerSpec) -> dict[str, Any]:
        store_keys = [spec.keys[name] for name in sorted(spec.store_keys)]
        sealing_keys = [spec.keys[name] for name in sorted(spec.sealing_keys)]
        statements = self._may_turn(spec.secrets, spec.reads, store_keys, sealing_keys, spec.sealed)
        if spec.keys:
            statements.append(policies.turn_keys(list(spec.keys.values())))
        if spec.consumers:
            statements += policies.put_configuration(spec.places.config, spec.consumers)
        if spec.places.state:
            statements += policies.keep_state(*spec.places.state)
        if spec.places.journal:
            statements += policies.keep_journal(*spec.places.journal)
        return policies.document(statements)

    def _may_turn(
        self,
        secrets: Sequence[str],
        reads: Sequence[str],
        store_keys: Sequence[str],
        sealing_keys: Sequence[str],
        sealed: Sequence[str],
    ) -> list[policies.Statement]:
        """To turn these secrets, and what goes with it."""
        statements: list[policies.Statement] = []
        if secrets:
            scope = policies.Scope.of(secrets, self.environment, self._arn("secretsmanager", "secret:"))
            statements += [policies.find_secrets(), policies.turn_secrets(scope)]
        if reads:
            arns = [self._arn("secretsmanager", f"secret:{name}{policies.SUFFIX}") for name in reads]
            statements.append(policies.read_administrators(arns))
        if store_keys:
            everywhere = self._arn("secretsmanager", f"secret:{self.environment}/*")
            statements.append(policies.encrypt_through_store(store_keys, self.region, everywhere))
        if sealing_keys:
            statements.append(policies.seal_values(sealing_keys, sealed, self.environment))
        return statements

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
