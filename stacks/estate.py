"""The estate: keys, secrets and consumers. This is the example that the demo runs; replace it with your own.

An estate is a function of the environment, so that what differs (addresses, who reads) stands here in plain sight.
"""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path

from modules.declarations import Consumer, Credential, Estate, Key, Secret
from modules.rotation_schedule import RotationSchedule
from rotation.manifest import Plugin
from rotation.model import Ring, Strategy
from stacks.environments import Environment


def estate(environment: Environment) -> Estate:
    orders_api = f"arn:aws:iam::{environment.account}:role/orders-api"
    monthly = RotationSchedule(
        every=timedelta(days=30),
        timezone="Europe/Berlin",
        windows=({"weekdays": ("mon", "tue", "wed", "thu"), "opens": time(9), "closes": time(16)},),
        jitter=timedelta(days=1),
    )
    administrator = environment.vendor.stored_as("orders/db-admin")
    return Estate(
        keys=(Key("orders"),),
        secrets=(
            Secret(
                "orders/db",
                Credential(
                    "postgres_user",
                    {
                        "administrator": administrator,
                        "username_base": "orders_app",
                        "owner_role": "orders_owner",
                        "dbname": "orders",
                    },
                    reads=(administrator,),
                ),
                strategy=Strategy.ALTERNATING,
                description="The orders application's login at its database",
                key="orders",
                schedule=monthly,
                readers=(orders_api,),
            ),
            Secret(
                "orders/api-token",
                Credential("random_token", {"alphabet": "urlsafe", "length": 43}),
                strategy=Strategy.OVERLAPPING,
                description="The token with which the orders application calls its partners",
                key="orders",
                sealed=True,
                schedule=monthly,
                readers=(orders_api,),
            ),
        ),
        consumers=(
            Consumer(
                "orders-api",
                template=Path("stacks/config/orders-api.yaml.j2"),
                format="yaml",
                secrets=("orders/db", "orders/api-token"),
                signals={ring: _signals(environment, ring) for ring in Ring},
            ),
        ),
    )


def _signals(environment: Environment, ring: Ring) -> tuple[Plugin, ...]:
    health = Plugin(kind="http_health", options={"url": f"{environment.applications[ring]}/health"})
    if not environment.is_local:
        return (health,)
    log = Plugin(kind="log_file", options={"path": f".keyturn/local/logs/orders-api-{ring}.log"})
    return (health, log)
