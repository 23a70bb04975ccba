"""Rules: what a review refuses or warns of. Each is a small named object over the normalized document.

A file of the project adds its own::

    from rotation.review.rules import Document, Finding, refuse, rule

    @rule("friday", "refuses changes of keys in plans made for Fridays")
    def friday(document: Document) -> Iterator[Finding]:
        for stack, change in document.changes():
            if change.type == "aws_kms_key":
                yield refuse("keys rest on Fridays", stack, change)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from rotation.review.document import DECLARED, Change, Document, Stack
from rotation.review.policies import Grant, Policy, policies
from rotation.value_carriers import DATA, RESOURCES

SECRETS = frozenset(
    {
        "aws_secretsmanager_secret",
        "aws_ssm_parameter",
        "azurerm_key_vault_secret",
        "google_secret_manager_secret",
        "kubernetes_secret",
        "kubernetes_secret_v1",
        "tencentcloud_ssm_secret",
        "vault_kv_secret",
        "vault_kv_secret_v2",
    }
)
KEYS = frozenset(
    {
        "aws_kms_alias",
        "aws_kms_external_key",
        "aws_kms_key",
        "aws_kms_replica_key",
        "azurerm_key_vault_key",
        "google_kms_crypto_key",
        "tencentcloud_kms_external_key",
        "tencentcloud_kms_key",
        "vault_transit_secret_backend_key",
    }
)
# Where state and configuration are kept, with what protects it.
PLACES = frozenset(
    {
        "aws_dynamodb_table",
        "aws_s3_bucket",
        "aws_s3_bucket_versioning",
        "azurerm_storage_container",
        "google_storage_bucket",
        "tencentcloud_cos_bucket",
        "vault_mount",
    }
)
# How long what was deleted can be brought back, in days, by argument; without a word AWS gives a secret 30 days.
_WINDOWS = {"recovery_window_in_days": 30, "deletion_window_in_days": 30, "soft_delete_retention_days": None}
_STANDALONE = ("_policy", "_policy_attachment", "_lambda_permission", "_kms_grant")  # what only gives rights
_CROSS_STACK = "cross-stack-output-"  # what cdktf calls a reference to another stack, always sensitive


class Verdict(StrEnum):
    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule says of one address, or of everything. ``rule`` is filled in by :func:`judge`."""

    verdict: Verdict
    message: str
    stack: str = ""
    address: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """``about`` is what it refuses or warns of, for people."""

    name: str
    about: str
    check: Callable[[Document], Iterable[Finding]]


def rule(name: str, about: str) -> Callable[[Callable[[Document], Iterable[Finding]]], Rule]:
    """Make a rule of a function that yields its findings."""
    return lambda check: Rule(name, about, check)


def refuse(message: str, stack: Stack, change: Change) -> Finding:
    return Finding(Verdict.REFUSE, message, stack.name, change.address)


def warn(message: str, stack: Stack, change: Change) -> Finding:
    return Finding(Verdict.WARN, message, stack.name, change.address)


def judge(rules: Iterable[Rule], document: Document) -> list[Finding]:
    """What these rules find, refusals first."""
    found = [replace(finding, rule=each.name) for each in rules for finding in each.check(document)]
    return sorted(found, key=lambda finding: finding.verdict is not Verdict.REFUSE)


# ── what is lost ──


@rule("secret-deleted", "refuses to delete or replace a secret: its values go with it")
def secret_deleted(document: Document) -> Iterator[Finding]:
    return _lost(document, SECRETS, "the secret, with all of its values")


@rule("key-deleted", "refuses to delete or replace a key: what it encrypts cannot be read any more")
def key_deleted(document: Document) -> Iterator[Finding]:
    return _lost(document, KEYS, "the key, and with it the way to all that it encrypts")


@rule("place-deleted", "refuses to delete or replace a place of state or configuration")
def place_deleted(document: Document) -> Iterator[Finding]:
    return _lost(document, PLACES, "a place where state or configuration may be kept")


def _lost(document: Document, kinds: Collection[str], what: str) -> Iterator[Finding]:
    for stack, change in document.changes():
        if change.type not in kinds:
            continue
        if change.deletes:
            verb = "replaces" if change.after is not None else "deletes"
            yield refuse(f"{verb} {what}", stack, change)
        elif "forget" in change.actions:
            yield warn(f"forgets {what}: it stays, and nobody manages it", stack, change)


@rule("recovery-window", "refuses a window of no days to bring back what was deleted, and warns of shortened ones")
def recovery_window(document: Document) -> Iterator[Finding]:
    for stack, change in document.changes():
        for name, default in _WINDOWS.items():
            now, was = _days(change.after, name, default), _days(change.before, name, default)
            if now is None or name not in (change.after or {}):
                continue
            if now == 0 and not stack.embedded:
                yield refuse(f"{name} is 0: what is deleted is gone at once", stack, change)
            elif was is not None and now < was:
                yield warn(f"{name} is shortened from {was} to {now} days", stack, change)


def _days(attributes: Any, name: str, default: int | None) -> int | None:
    if not isinstance(attributes, dict) or attributes.get(name) is None:
        return default if isinstance(attributes, dict) and name in attributes else None
    value = attributes[name]
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


@rule("key-disabled", "refuses to disable a key, and warns where its own rotation is turned off")
def key_disabled(document: Document) -> Iterator[Finding]:
    for stack, change in document.changes():
        if change.type not in KEYS or not isinstance(change.after, dict):
            continue
        before = change.before if isinstance(change.before, dict) else {}
        if change.after.get("is_enabled") is False and before.get("is_enabled") is not False:
            yield refuse("disables the key: nothing that it encrypts can be read", stack, change)
        if change.after.get("enable_key_rotation") is False and before.get("enable_key_rotation") is not False:
            yield warn("the key's own rotation is off", stack, change)


# ── what would be kept in state ──


@rule("value-in-state", "refuses whatever would put a value into Terraform's state")
def value_in_state(document: Document) -> Iterator[Finding]:
    for stack, change in document.changes():
        if change.after is None:
            continue
        carrier = (DATA if change.is_data else RESOURCES).get(change.type)
        if carrier is not None and not carrier.arguments:
            yield refuse(carrier.reason, stack, change)
        elif change.sensitive:
            yield refuse(f"{', '.join(change.sensitive[:5])} would be kept in state", stack, change)
    for stack in document.stacks:
        for output in stack.outputs:
            if output.sensitive and output.after is not None:
                yield _sensitive_output(stack, output.name)


def _sensitive_output(stack: Stack, name: str) -> Finding:
    address = f"output.{name}"
    if name.startswith(_CROSS_STACK):
        reference = "the reference of another stack to this one is kept in state: see that it is no value"
        return Finding(Verdict.WARN, reference, stack.name, address)
    return Finding(Verdict.REFUSE, "the sensitive output would be kept in state in clear", stack.name, address)


# ── who may do what ──


@rule("policy-open", "refuses a policy that is open to everyone, or allows every action on everything")
def policy_open(document: Document) -> Iterator[Finding]:
    for stack, change, path, before, after in _policy_changes(document):
        wide = sorted(grant for grant in after.beyond(before) if grant.is_open)
        if free := [grant for grant in wide if not grant.condition]:
            yield refuse(f"{path} allows {_said(free)}", stack, change)
        if bound := [grant for grant in wide if grant.condition]:
            yield warn(f"{path} allows {_said(bound)}, under a condition", stack, change)


@rule("policy-widened", "warns of what a policy allows and did not allow before")
def policy_widened(document: Document) -> Iterator[Finding]:
    for stack, change, path, before, after in _policy_changes(document):
        if change.actions == DECLARED or (change.before is None and not change.type.endswith(_STANDALONE)):
            continue  # there is nothing to compare it with
        if new := sorted(grant for grant in after.beyond(before) if not grant.is_open):
            yield warn(f"{path} newly allows {_said(new)}", stack, change)
        if gone := sorted(after.no_longer_denied(before)):
            yield warn(f"{path} no longer denies {_said(gone)}", stack, change)
        if after.opaque - before.opaque:
            yield warn(f"{path} has a new statement with NotAction, NotPrincipal or NotResource", stack, change)


@rule("policy-unknown", "warns of a policy that is known only after apply")
def policy_unknown(document: Document) -> Iterator[Finding]:
    for stack, change in document.changes():
        for path in change.unknown:
            if path.rpartition(".")[2] in ("policy", "assume_role_policy"):
                yield warn(f"{path} is known only after apply: it cannot be reviewed here", stack, change)


def _policy_changes(document: Document) -> Iterator[tuple[Stack, Change, str, Policy, Policy]]:
    """Each policy that a change sets to something else, with what it was before."""
    for stack, change in document.changes():
        if change.is_data:
            continue
        old = dict(policies(change.before))
        for path, policy in policies(change.after):
            if policy != old.get(path):
                yield stack, change, path, old.get(path, Policy()), policy


def _said(grants: Collection[Grant]) -> str:
    """Grants in words: the actions, by who may take them and on what."""
    actions: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for grant in grants:
        # "*" is what the policy is attached to, where it names principals.
        resource = "" if grant.principal and grant.resource == "*" else grant.resource
        actions[grant.principal, resource][grant.action] = None
    parts = []
    for (principal, resource), names in list(actions.items())[:3]:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        whom = " to everyone" if principal == "*" else f" to {principal}" if principal else ""
        parts.append(f"{', '.join(list(names)[:4])}{more}{whom}{f' on {resource}' if resource else ''}")
    more = f"; and {len(actions) - 3} more" if len(actions) > 3 else ""
    return "; ".join(parts) + more


@rule("unusual-action", "warns of what a plan does beside creating, changing and deleting")
def unusual_action(document: Document) -> Iterator[Finding]:
    for stack, change in document.changes():
        for action in {"invoke", "defer", "import", "move"}.intersection(change.actions):
            yield warn(_UNUSUAL[action], stack, change)


_UNUSUAL = {
    "invoke": "a provider's action is run",
    "defer": "the change is put off to a later plan",
    "import": "something that exists is taken into the state",
    "move": "the resource gets another address",
}

BUILT_IN = (
    secret_deleted,
    key_deleted,
    place_deleted,
    recovery_window,
    key_disabled,
    value_in_state,
    policy_open,
    policy_widened,
    policy_unknown,
    unusual_action,
)
