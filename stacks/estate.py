"""The estate: keys, secrets and consumers. This is the example that the demo runs; replace it with your own.

An estate is a function of the environment, so that what differs (addresses, who reads) stands here in plain sight.
"""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path

from modules.declarations import Consumer, Credential, Estate, Key, Secret
from modules.rotation_schedule import RotationSchedule
from modules.tencentcloud import TencentCloud
from modules.vault import Vault
from modules.vendor import Vendor
from rotation.manifest import Plugin
from rotation.model import Ring, Strategy
from stacks.environments import Environment


def estate(environment: Environment) -> Estate:
    orders_api, database, template = _by_vendor(environment)
    certificates = _certificates(environment.vendor, orders_api) if isinstance(environment.vendor, Vault) else ()
    monthly = RotationSchedule(
        every=timedelta(days=30),
        timezone="Europe/Berlin",
        windows=({"weekdays": ("mon", "tue", "wed", "thu"), "opens": time(9), "closes": time(16)},),
        jitter=timedelta(days=1),
    )
    return Estate(
        keys=(Key("orders"),),
        secrets=(
            Secret(
                "orders/db",
                _login(environment, database),
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
            *certificates,
        ),
        consumers=(
            Consumer(
                "orders-api",
                template=Path("stacks/config") / template,
                format="yaml",
                secrets=("orders/db", "orders/api-token", *(secret.name for secret in certificates)),
                signals={ring: _signals(environment, ring) for ring in Ring},
            ),
            *_functions(environment.vendor),
        ),
    )


def _by_vendor(environment: Environment) -> tuple[str, str, str]:
    """The application's own principal, its database, and the template of its configuration."""
    if isinstance(environment.vendor, TencentCloud):
        return "orders-api", "orders_tencent", "orders-api.tencent.yaml.j2"
    if isinstance(environment.vendor, Vault):
        return "orders-api", "orders_vault", "orders-api.vault.yaml.j2"
    return f"arn:aws:iam::{environment.account}:role/orders-api", "orders", "orders-api.yaml.j2"


def _login(environment: Environment, database: str) -> Credential:
    """Two users of the database in turn."""
    administrator = environment.vendor.stored_as("orders/db-admin")
    options = {"administrator": administrator, "username_base": f"{database}_app", "dbname": database}
    if environment.database == "mysql":
        options |= {"role": f"{database}_role", "shape": "tencent"}
        return Credential("mysql_user", options, reads=(administrator,))
    return Credential("postgres_user", {**options, "owner_role": f"{database}_owner"}, reads=(administrator,))


def _certificates(vault: Vault, reader: str) -> tuple[Secret, ...]:
    """The certificate of the application's HTTPS server, signed by Vault's PKI engine."""
    return (
        Secret(
            "orders/tls",
            Credential("tls_certificate", {"issuer": vault.issuer("orders-api"), "names": ["orders.localhost"]}),
            strategy=Strategy.OVERLAPPING,
            description="The certificate with which the orders application serves HTTPS",
            schedule=RotationSchedule(every=timedelta(days=20)),
            readers=(reader,),
        ),
    )


def _functions(vendor: Vendor) -> tuple[Consumer, ...]:
    """The cloud function that writes receipts: its variables are its configuration, and the rotation deploys them.
    Its calls' health would be read in its log: Plugin(kind="tencent_cls", options={"topic": …})."""
    if not isinstance(vendor, TencentCloud):
        return ()
    return (
        Consumer(
            "orders-receipts",
            template=Path("stacks/config/orders-receipts.env.j2"),
            format="dotenv",
            secrets=("orders/api-token",),
            signals={},
            target=vendor.function_target("orders-receipts"),
        ),
    )


def _signals(environment: Environment, ring: Ring) -> tuple[Plugin, ...]:
    health = Plugin(kind="http_health", options={"url": f"{environment.applications[ring]}/health"})
    if not environment.is_local:
        return (health,)
    name = "orders-api" if environment.name == "local" else f"{environment.name}-orders-api"
    log = Plugin(kind="log_file", options={"path": f".keyturn/local/logs/{name}-{ring}.log"})
    if ring not in environment.https:
        return (health, log)
    served = {"secret": "orders/tls", "endpoint": environment.https[ring], "server_name": "orders.localhost"}
    return (health, log, Plugin(kind="tls_endpoint", options=served))
