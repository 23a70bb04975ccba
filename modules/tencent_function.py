"""The function on Tencent Cloud that turns what is due: SCF, with its timers, and its log in CLS.

What the provider's own defaults would do unasked is said here: a timer that keeps old ticks and tries them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules import scf_timer
from modules.asset import asset
from modules.resource import Resource, Stack, literal
from modules.vendor import FunctionSpec
from modules.where import Where
from rotation.errors import DeclarationError

_NAMESPACE = "default"
_HANDLER = "bootstrap.main_handler"  # must be given, and a custom runtime does not look at it
_RUNTIME = "CustomRuntime"


@dataclass(frozen=True, slots=True)
class CloudFunction:
    """The function ``name`` in one region, and what belongs to it. ``vpc`` is the network of its subnet, and
    ``python_layer`` the layer, by name and version, with the Python that it runs on."""

    region: str
    name: str
    tags: Mapping[str, str]
    vpc: str | None
    python_layer: tuple[str, int] | None

    def declare(self, stack: Stack, spec: FunctionSpec, role: str, attached: Sequence[Resource], where: Where) -> None:
        """``role`` names the role that it runs with, and ``attached`` is what ties policies to that."""
        log = self._log(stack, spec.log_days, where)
        function = Resource(
            stack,
            "function",
            "tencentcloud_scf_function",
            {
                "name": self.name,
                "description": "keyturn turns what is due.",  # letters, digits, commas and periods are all it takes
                "namespace": _NAMESPACE,
                "func_type": "Event",
                "role": role,
                "zip_file": asset(stack, "function-archive", spec.archive, built_by="make scf"),
                "handler": _HANDLER,
                "runtime": _runtime(spec, where),
                "timeout": spec.timeout,
                "mem_size": spec.memory,
                "layers": self._layers(where),
                "environment": {variable: literal(value) for variable, value in self._variables(spec).items()},
                **self._network(spec, where),
                **log,
                "async_run_enable": "FALSE",
                "tags": self.tags,
            },
            where=where,
            after=attached,
        )
        _timers(stack, spec, function.get_string_attribute("name"), where)

    def _log(self, stack: Stack, days: int, where: Where) -> dict[str, Any]:
        """Where the function's output is kept, as arguments of the function."""
        named = {"logset_name": self.name, "tags": self.tags}
        logset = Resource(stack, "function-logs", "tencentcloud_cls_logset", named, where=where)
        kept = {
            "logset_id": logset.get_string_attribute("id"),
            "topic_name": "function",
            "period": days,
            "tags": self.tags,
        }
        topic = Resource(stack, "function-log", "tencentcloud_cls_topic", kept, where=where)
        return {"cls_logset_id": kept["logset_id"], "cls_topic_id": topic.get_string_attribute("id")}

    def _layers(self, where: Where) -> list[dict[str, Any]]:
        if self.python_layer is None:
            raise DeclarationError(
                f"{where}: SCF has no Python that is new enough, and no layer brings one",
                "Make a layer with /opt/python/bin/python3, and name it as python_layer at TencentCloud(…).",
            )
        name, version = self.python_layer
        return [{"layer_name": name, "layer_version": version}]

    def _variables(self, spec: FunctionSpec) -> dict[str, str]:
        """With the way to the journal: SCF tells a function its keys, and not its region."""
        bucket, prefix = spec.journal
        return {
            **spec.variables,
            "KEYTURN_JOURNAL": f"cos://{bucket}/{prefix}",
            "KEYTURN_COS_REGION": self.region,
        }

    def _network(self, spec: FunctionSpec, where: Where) -> dict[str, Any]:
        """The function's network. It needs the public one too, for the cloud's own APIs and the pipeline."""
        public = {"enable_public_net": True, "enable_eip_config": False}
        if spec.security_groups:
            raise DeclarationError(f"{where}: SCF puts functions in no security groups")
        if not spec.subnets:
            return public
        if len(spec.subnets) != 1 or self.vpc is None:
            raise DeclarationError(
                f"{where}: SCF puts a function in one subnet, of a network that must be named",
                "Name one of subnets, and its vpc at TencentCloud(…) in stacks/environments.py.",
            )
        return {**public, "vpc_id": self.vpc, "subnet_id": spec.subnets[0]}


def _runtime(spec: FunctionSpec, where: Where) -> str:
    """Refuses what SCF does not have, and what keyturn does not run on."""
    if spec.runtime != _RUNTIME:
        raise DeclarationError(
            f"{where}: {spec.runtime} is no runtime of SCF for a program that needs Python 3.11",
            f'Declare the trigger with runtime="{_RUNTIME}" and the archive that `make scf` builds.',
        )
    if spec.architecture != "x86_64":
        raise DeclarationError(f"{where}: SCF runs functions on x86_64, not on {spec.architecture}")
    if spec.memory % 128:
        raise DeclarationError(f"{where}: SCF gives memory in steps of 128 MB, not {spec.memory} MB")
    return spec.runtime


def _timers(stack: Stack, spec: FunctionSpec, function: str, where: Where) -> None:
    """One timer asks ``every`` so often; a cron without jitter has one of its own besides, for its very moment."""
    timers: dict[str, str] = {}
    if spec.every is not None:
        timers["due"] = scf_timer.every(spec.every)
    for firing in spec.firings:
        try:
            timer = scf_timer.at(firing.cron, firing.timezone)
        except ValueError as error:
            raise DeclarationError(
                f"{firing.where}: SCF has no timer for the cron {firing.cron!r} in {firing.timezone}: {error}",
                "Say it in Asia/Shanghai, or declare an interval (every) with windows.",
            ) from error
        timers[f"due-{hashlib.sha256(timer.encode()).hexdigest()[:8]}"] = timer
    for name, timer in timers.items():
        Resource(
            stack,
            name,
            "tencentcloud_scf_trigger",
            {
                "function_name": function,
                "namespace": _NAMESPACE,
                "trigger_name": name,
                "type": "timer",
                "trigger_desc": timer,
                "qualifier": "$LATEST",
                "enable": "OPEN",
                "description": "keyturn: asks what is due",
            },
            where=where,
        )
    if spec.every is not None:
        _no_old_ticks(stack, int(spec.every.total_seconds()), function, where)


def _no_old_ticks(stack: Stack, seconds: int, function: str, where: Where) -> None:
    """A tick that failed is not tried again, and one that waited too long is dropped: the next one does as well.
    SCF's own way is two more tries, and to keep it for six hours."""
    Resource(
        stack,
        "function-ticks",
        "tencentcloud_scf_function_event_invoke_config",
        {
            "function_name": function,
            "namespace": _NAMESPACE,
            "async_trigger_config": {"retry_config": [{"retry_num": 0}], "msg_ttl": seconds},
        },
        where=where,
    )
