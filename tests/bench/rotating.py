"""What a rotation costs beyond the calls that it makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median

from botocore.client import BaseClient

from rotation.aws import CONFIG, connect
from rotation.engine import Engine, Purpose, Request
from rotation.journal import Journal
from rotation.local import postgresql as embedded
from rotation.manifest import Manifest, Plugin, Secret
from rotation.model import Done, Strategy
from rotation.plugins import Plugins
from rotation.stores.aws_secrets_manager import QUOTAS
from tests.bench import projects, stock
from tests.bench.measure import Command, medians, variables
from tests.bench.recording import RECORDED, Call, Tape, for_twin, replay, replay_side_by_side, twin
from tests.bench.report import Figure, Section
from tests.fixtures.aws import REGION, AwsApi, running_aws_api
from tests.fixtures.ports import free_port
from tests.fixtures.postgresql import running

RUNS = 7
MANY, MANY_RUNS = 100, 2
WORKERS = 8
_ADMINISTRATOR = "local/bench/db-admin"
_START = "import rotation.session, rotation.stores.aws_secrets_manager, rotation.credentials.postgres_user"

Replay = Callable[[list[Call], BaseClient], None]


def login(folder: Path) -> Section:
    """One PostgreSQL login: retired, staged, installed, tested, promoted."""
    port = free_port()
    with running_aws_api(folder) as aws, running(folder / "postgresql", port, folder / "postgresql.log"):
        sample = embedded.Sample("bench", "bench_owner", "keyturn_bench")
        administrator = embedded.provision(folder / "postgresql", sample)
        aws.client("secretsmanager").create_secret(Name=_ADMINISTRATOR, SecretString=administrator.reveal())
        options = {"administrator": _ADMINISTRATOR, "username_base": RECORDED}
        options |= {"owner_role": sample.owner, "dbname": sample.database}
        secret = _secret("bench/" + RECORDED, Plugin(kind="postgres_user", options=options), Strategy.ALTERNATING)
        figures = _compared(folder, aws, [secret], replay, RUNS)
    start = Command([projects.PYTHON, "-c", _START], folder, variables())
    figures.append(Figure("before it: start of the process", medians({"start": start.seconds}, times=5)["start"], "s"))
    return Section(
        "A rotation of a PostgreSQL login without consumers, against its bare calls",
        "Engine.run (rotate, then retire) in one process against the local AWS API and PostgreSQL; its calls to both"
        f" are recorded, and made again on a twin of the secret with bare boto3 and psycopg; {RUNS} rounds in turn"
        " after a warm-up.",
        tuple(figures),
    )


def tokens(folder: Path) -> Section:
    """A hundred random tokens at once."""
    kind = Plugin(kind="random_token", options={"alphabet": "urlsafe", "length": 43})
    with running_aws_api(folder) as aws:
        secrets = [_secret(f"bench/{RECORDED}-{n:03}", kind, Strategy.OVERLAPPING) for n in range(MANY)]
        figures = _compared(
            folder, aws, secrets, lambda calls, client: replay_side_by_side(calls, client, WORKERS), MANY_RUNS
        )
    return Section(
        f"A rotation of {MANY} random tokens at once, against its bare calls",
        f"As above, {WORKERS} secrets at a time on either side; both keep AWS's published rates (50 writes a second),"
        f" which bound them; {MANY_RUNS} rounds in turn after a warm-up.",
        tuple(figures),
    )


def _secret(name: str, credential: Plugin, strategy: Strategy) -> Secret:
    now = timedelta(0)
    store = Plugin(kind="aws_secrets_manager", options={"region": REGION})
    paces = {"bake": now, "settle": now, "patience": now, "grace": now}
    stored_as = f"local/{name}"
    return Secret(name=name, stored_as=stored_as, store=store, credential=credential, strategy=strategy, **paces)


def _compared(folder: Path, aws: AwsApi, secrets: list[Secret], again: Replay, runs: int) -> list[Figure]:
    store = aws.client("secretsmanager")
    for secret in secrets:
        store.create_secret(Name=secret.stored_as)
        store.create_secret(Name=twin(secret.stored_as))
    names, tape = [secret.name for secret in secrets], Tape()
    rotated, replayed = [], []
    with stock.reached(aws), _engine(folder, secrets) as engine:
        client = connect(lambda session: session.client("secretsmanager", config=CONFIG), {"region": REGION}, QUOTAS)
        for _ in range(1 + runs):  # the first round gives them their first values
            tape.clear()
            with tape.recording():
                rotated.append(_seconds(partial(_rotate, engine, names)))
            calls = for_twin(tape.calls)
            time.sleep(1)  # the rates are per second: neither side is to use up the other's
            replayed.append(_seconds(partial(again, calls, client)))
            time.sleep(1)
    ours, bare = median(rotated[1:]), median(replayed[1:])
    ratio = median(a / b for a, b in zip(rotated[1:], replayed[1:], strict=True))
    return [
        Figure("rotation", ours, "s"),
        Figure("its calls alone", bare, "s"),
        Figure("rotation over its calls alone", ratio, "×"),
        Figure("calls per secret", tape.requests / len(secrets), "calls"),
        Figure("of them reads of the same value again", tape.repeated / len(secrets), "calls"),
    ]


@contextmanager
def _engine(folder: Path, secrets: list[Secret]) -> Iterator[Engine]:
    manifest = Manifest(
        environment="local", order=0, sources="", pins=Path("pins.json"), secrets={s.name: s for s in secrets}
    )
    with Journal(folder / "journal.sqlite3") as journal:
        yield Engine(folder, manifest, Plugins(folder, manifest), journal, workers=WORKERS)


def _rotate(engine: Engine, names: list[str]) -> None:
    for purpose in (Purpose.ROTATE, Purpose.RETIRE):
        request = Request(purpose=purpose, initialize=True, wait=timedelta(seconds=120))
        for name, result in engine.run(names, request).items():
            if isinstance(result.decision, Done):
                continue
            raise RuntimeError(f"{purpose} of {name} ended with {result.decision or result.error}")


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
