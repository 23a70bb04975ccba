"""Keys, secrets and consumers as the benchmarks declare them: the projects that they make have this as their
stacks/estate.py, with another number of secrets."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from modules.declarations import Consumer, Credential, Estate, Key, Secret
from modules.rotation_schedule import RotationSchedule
from rotation.model import Ring, Strategy
from stacks.environments import Environment

SECRETS = 10


def estate(environment: Environment) -> Estate:
    reader = f"arn:aws:iam::{environment.account}:role/bench-api"
    ceaseless = RotationSchedule(every=timedelta(seconds=1))  # always due, so that plans have something to plan
    token = Credential("random_token", {"alphabet": "urlsafe", "length": 43})
    return Estate(
        keys=(Key("bench"),),
        secrets=tuple(
            Secret(
                f"bench/token-{number:04}",
                token,
                strategy=Strategy.OVERLAPPING,
                description="One of many",
                key="bench",
                schedule=ceaseless,
                readers=(reader,),
            )
            for number in range(SECRETS)
        ),
        consumers=(
            Consumer(
                "bench-api",
                template=Path("stacks/config/bench-api.json.j2"),
                format="json",
                secrets=("bench/token-0000",),
                signals=dict.fromkeys(Ring, ()),
            ),
        ),
    )
