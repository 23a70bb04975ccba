"""Estates of any size, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from modules.declarations import Consumer, Credential, Estate, Key, Secret
from modules.rotation_schedule import RotationSchedule
from rotation.model import Strategy
from stacks.environments import Environment

TEMPLATE = Path("stacks/config/orders-api.yaml.j2")


def estate_of(secrets: int) -> Callable[[Environment], Estate]:
    """An estate of so many secrets, each fourth of them sealed, ten to a consumer."""

    def estate(environment: Environment) -> Estate:
        monthly = RotationSchedule(every=timedelta(days=30), jitter=timedelta(days=1))
        names = [f"team-{number // 100}/secret-{number}" for number in range(secrets)]
        return Estate(
            keys=(Key("main"),),
            secrets=tuple(_secret(name, monthly, sealed=number % 4 == 0) for number, name in enumerate(names)),
            consumers=tuple(
                _consumer(f"app-{first // 10}", names[first : first + 10]) for first in range(0, secrets, 10)
            ),
        )

    return estate


def _secret(name: str, schedule: RotationSchedule, *, sealed: bool) -> Secret:
    return Secret(
        name,
        Credential("random_token"),
        strategy=Strategy.OVERLAPPING,
        key="main",
        sealed=sealed,
        schedule=schedule,
        readers=("arn:aws:iam::123456789012:role/reader",),
    )


def _consumer(name: str, secrets: list[str]) -> Consumer:
    return Consumer(name, template=TEMPLATE, format="yaml", secrets=tuple(secrets), signals={})
