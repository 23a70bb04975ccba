"""What a look for drift in a large estate costs, against the calls that it makes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

from rotation.aws import CONFIG, connect
from rotation.drift import Way
from rotation.drift.check import check
from rotation.engine import Engine
from rotation.journal import Journal
from rotation.manifest import Manifest, Plugin, Secret
from rotation.model import Strategy
from rotation.plugins import Plugins
from rotation.stores.aws_secrets_manager import QUOTAS
from tests.bench import stock
from tests.bench.recording import Tape, replay
from tests.bench.report import Figure, Section
from tests.fixtures.aws import REGION, running_aws_api

SIZES = (1_000, 10_000)
RUNS = 5
WAYS = (Way.STORED, Way.LIVE, Way.CONSUMED)


def estates(folder: Path) -> Section:
    """Looks at 1,000 and 10,000 random tokens, whose kind has no target to ask."""
    figures: list[Figure] = []
    with running_aws_api(folder) as aws, stock.reached(aws):
        stocked = 0
        for secrets in SIZES:
            stock.slots(aws, names(secrets)[stocked:])
            stocked = secrets
            with engine_of(folder / f"of-{secrets}", secrets) as engine:
                figures += _figures(engine, secrets)
    return Section(
        "keyturn drift stored live consumed, against its bare calls",
        "One look in one process against the local AWS API; its calls are recorded, and made again with bare boto3;"
        f" medians of {RUNS} rounds in turn after a warm-up.",
        tuple(figures),
    )


def names(secrets: int) -> list[str]:
    """The names of the secrets in the store."""
    return [f"drift/token-{number:05}" for number in range(secrets)]


@contextmanager
def engine_of(folder: Path, secrets: int) -> Iterator[Engine]:
    """An engine on so many declared tokens without consumers, its journal in the folder."""
    now = timedelta(0)
    declared = {
        name: Secret(
            name=name,
            stored_as=name,
            store=Plugin(kind="aws_secrets_manager", options={"region": REGION}),
            credential=Plugin(kind="random_token"),
            strategy=Strategy.OVERLAPPING,
            bake=now,
            settle=now,
            patience=now,
            grace=now,
        )
        for name in names(secrets)
    }
    pins = Path("stacks/pins/local.json")
    manifest = Manifest(environment="local", order=0, sources="", pins=pins, secrets=declared)
    with Journal(folder / "journal.sqlite3") as journal:
        yield Engine(folder, manifest, Plugins(folder, manifest), journal)


def _figures(engine: Engine, secrets: int) -> Iterator[Figure]:
    looks, bare = [], []
    client = connect(lambda session: session.client("secretsmanager", config=CONFIG), {"region": REGION}, QUOTAS)
    tape = Tape()
    for _ in range(1 + RUNS):
        tape.clear()
        with tape.recording():
            began = time.perf_counter()
            check(engine, WAYS)
            looks.append(time.perf_counter() - began)
        began = time.perf_counter()
        replay(tape.calls, client)
        bare.append(time.perf_counter() - began)
    yield Figure(f"calls for {secrets:,} secrets", tape.requests, "calls", at_most=secrets / 100)
    yield Figure(f"look at {secrets:,} secrets", median(looks[1:]), "s")
    yield Figure("its calls alone", median(bare[1:]), "s")
    ratio = median(a / b for a, b in zip(looks[1:], bare[1:], strict=True))
    yield Figure("look over its calls alone", ratio, "×", at_most=2)
