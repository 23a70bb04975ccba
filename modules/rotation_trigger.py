"""RotationTrigger: a function in the cloud that asks what is due, and that the store's own rotation calls.

An environment that has a :class:`Trigger` turns its declared schedules into one rule: the function is called so often
that none of their windows is missed, and looks up by itself what is due. It is called every hour, or more often where
a window or an interval is short: each is met at least twice, for a tick can be late or fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from modules.declarations import Estate, Secret
from modules.resource import Stack
from modules.vendor import Firing, FunctionSpec, FunctionVendor, Vendor
from modules.where import Where, here
from rotation.errors import DeclarationError
from rotation.manifest import Dispatch
from rotation.schedule import Schedule, Window

_PERIODS = tuple(timedelta(minutes=minutes) for minutes in (60, 30, 15, 10, 5))
_ANY_DAY = date(2024, 1, 1)
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Trigger:
    """The function, and what it may do.

    ``dispatch`` is the pipeline that turns what only Terraform can deploy. ``by_store`` names the secrets that the
    store may rotate by itself through the function, each with how often in days it is to do so, or None for only when
    it is asked: it rotates such a secret *at once* when that is applied, whatever windows say. Others that have
    consumers the function cannot turn.

    ``archive`` is what `make lambda` built, for ``runtime`` and ``architecture``; ``timeout`` is in seconds, ``memory``
    in MB, ``log_days`` for how long its log is kept. ``subnets`` and ``security_groups`` place it in a network, from
    where it has to reach the targets and the store.
    """

    _: KW_ONLY
    dispatch: Dispatch | None = None
    by_store: Mapping[str, int | None] = field(default_factory=dict)
    archive: Path = Path("build/lambda.zip")
    runtime: str = "python3.12"
    architecture: str = "x86_64"
    timeout: int = 300
    memory: int = 512
    log_days: int = 90
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    where: Where = field(default_factory=here, compare=False, repr=False)


class RotationTrigger:
    """The function of one environment with its rule and its role. ``keys`` are the keys' addresses by name.

    ``journal`` is the environment's, (bucket, prefix): a function keeps nothing, and without a memory nothing would
    ever be due that is counted from when its schedule was first seen.
    """

    def __init__(
        self,
        stack: Stack,
        vendor: Vendor,
        estate: Estate,
        trigger: Trigger,
        *,
        environment: str,
        keys: Mapping[str, str],
        journal: tuple[str, str] | None,
    ) -> None:
        _check(trigger, estate)
        if journal is None:
            raise DeclarationError(
                f"{trigger.where}: {environment} has a trigger and no journal in a bucket: a function forgets",
                'Declare the environment\'s journal: ("bucket", "prefix").',
            )
        used = {name for consumer in estate.consumers for name in consumer.secrets}
        turned = [s for s in estate.secrets if s.name in trigger.by_store or s.name not in used]
        dispatch = trigger.dispatch
        variables = {"KEYTURN_ENVIRONMENT": environment}
        if dispatch is not None:
            variables["KEYTURN_DISPATCH"] = json.dumps(dispatch.model_dump(), sort_keys=True)
        spec = FunctionSpec(
            archive=trigger.archive,
            runtime=trigger.runtime,
            architecture=trigger.architecture,
            timeout=trigger.timeout,
            memory=trigger.memory,
            log_days=trigger.log_days,
            subnets=trigger.subnets,
            security_groups=trigger.security_groups,
            variables=variables,
            every=asked_every(s.schedule.declared for s in estate.secrets if s.schedule is not None),
            firings=tuple(_firings(estate.secrets)),
            secrets=tuple(vendor.stored_as(secret.name) for secret in turned),
            others=tuple(vendor.stored_as(secret.name) for secret in estate.secrets if secret not in turned),
            sealed=tuple(vendor.stored_as(secret.name) for secret in turned if secret.sealed),
            reads=tuple(sorted({*_reads(turned), *([dispatch.token] if dispatch else [])})),
            store_keys=tuple(sorted({keys[secret.key] for secret in turned if secret.key})),
            sealing_keys=tuple(sorted({keys[secret.key] for secret in turned if secret.key and secret.sealed})),
            journal=journal,
        )
        _with_functions(vendor, trigger).function(stack, spec, trigger.where)


def rotate_by_store(stack: Stack, vendor: Vendor, trigger: Trigger) -> None:
    """Let the store rotate by itself what the trigger says, in the stack that has the slots."""
    for name, days in sorted(trigger.by_store.items()):
        if days is not None:
            stack.warn(f"{trigger.where}: {name} is rotated at once when this is applied, and then every {days} days")
            _with_functions(vendor, trigger).rotated_by_store(stack, name, days, trigger.where)


def _with_functions(vendor: Vendor, trigger: Trigger) -> FunctionVendor:
    if not isinstance(vendor, FunctionVendor):
        raise DeclarationError(f"{trigger.where}: {type(vendor).__name__} has no functions that could be a trigger")
    return vendor


def asked_every(schedules: Iterable[Schedule]) -> timedelta | None:
    """How often to ask what is due, so that every window and every interval is met twice; None without schedules.

    What a blackout leaves of a window can be shorter, and so can the day on which clocks go forward.
    """
    declared = list(schedules)
    if not declared:
        return None
    spans = [_span(window) for schedule in declared for window in schedule.windows]
    spans += [schedule.every for schedule in declared if schedule.every is not None]
    shortest = min(spans, default=timedelta(days=1))
    return next((period for period in _PERIODS if 2 * period <= shortest), _PERIODS[-1])


def _firings(secrets: Iterable[Secret]) -> Iterator[Firing]:
    """The crons of these secrets, but for those with jitter, which come due some time later."""
    for secret in secrets:
        schedule = secret.schedule.declared if secret.schedule is not None else None
        if schedule is not None and schedule.cron is not None and not schedule.jitter:
            yield Firing(schedule.cron, schedule.timezone, secret.where)


def _span(window: Window) -> timedelta:
    opens = datetime.combine(_ANY_DAY, window.opens)
    closes = datetime.combine(_ANY_DAY, window.closes or time(0))
    return closes - opens if closes > opens else closes + timedelta(days=1) - opens


def _reads(secrets: Iterable[Secret]) -> set[str]:
    return {read for secret in secrets for read in secret.credential.reads}


def _check(trigger: Trigger, estate: Estate) -> None:
    where, secrets = trigger.where, {secret.name: secret for secret in estate.secrets}
    if not 120 <= trigger.timeout <= 900:
        raise DeclarationError(
            f"{where}: a timeout of {trigger.timeout} s is not between 120 (a secret is only begun with 60 s left) and"
            " 900, which is a function's longest"
        )
    address = urlsplit(trigger.dispatch.url) if trigger.dispatch else None
    if address is not None and address.scheme != "https" and address.hostname not in _LOOPBACK:
        raise DeclarationError(f"{where}: the dispatch's address is not https://, and its token would pass in clear")
    for name, days in trigger.by_store.items():
        if name not in secrets:
            raise DeclarationError(f"{where}: the store is to rotate {name}, which is not declared")
        if days is not None and secrets[name].schedule is not None:
            raise DeclarationError(f"{where}: {name} has a schedule, and the store is to rotate it as well: choose one")
        if days is not None and not 1 <= days <= 1000:
            raise DeclarationError(f"{where}: the store rotates {name} every 1 to 1000 days, not every {days}")
