"""An incident on 200 secrets keeps to AWS's published rates, by the log of the local AWS API."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from rotation import incident
from rotation.engine import Engine
from rotation.incident_report import State
from rotation.journal import Journal
from rotation.manifest import Manifest, Plugin, Secret
from rotation.model import Strategy
from rotation.plugins import Plugins
from rotation.stores.aws_secrets_manager import QUOTAS
from tests.fixtures.aws import REGION, AwsApi

SECRETS = 200
READER = "role/orders-api"
STORE = Plugin(kind="aws_secrets_manager", options={"region": REGION})

# A call arrives some time after the client let it go, and not always the same: on a busy machine those of more than a
# second arrive within one. The longer the span, the less of that is left.
JITTER = {1.0: 1.5, 10.0: 1.1}  # by the span in seconds

_CALL = re.compile(r"(?P<at>\S+ \S+) \S+ secretsmanager\.(?P<operation>\w+) \d+ (?P<took>\d+) ms")


def declared() -> Manifest:
    paces = dict.fromkeys(("bake", "settle", "patience", "grace"), timedelta(0))
    secrets = [
        Secret(
            name=f"quota/s{number:03}",
            stored_as=f"quota/s{number:03}",
            store=STORE,
            credential=Plugin(kind="random_token"),
            strategy=Strategy.OVERLAPPING,
            readers=(READER,),
            **paces,
        )
        for number in range(SECRETS)
    ]
    return Manifest(
        environment="quota", order=0, sources="", pins=Path("pins.json"), secrets={s.name: s for s in secrets}
    )


def arrivals(log: str) -> dict[str, list[float]]:
    """When the calls that share a quota arrived, in seconds, in order."""
    found: dict[str, list[float]] = defaultdict(list)
    for call in _CALL.finditer(log):
        if call["operation"] in QUOTAS:
            ended = datetime.strptime(call["at"], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            found[QUOTAS[call["operation"]].name].append(ended - int(call["took"]) / 1000)
    return {name: sorted(moments) for name, moments in found.items()}


def most_within(moments: Sequence[float], span: float) -> int:
    return max(bisect_left(moments, moment + span) - at for at, moment in enumerate(moments))


def test_the_most_in_a_second_is_found_wherever_the_second_begins() -> None:
    assert most_within([0.0, 0.9, 1.2, 1.5, 1.89, 1.95, 5.0], 1) == 4


def test_200_secrets_are_turned_within_the_rates(aws_environment: AwsApi, tmp_path: Path) -> None:
    manifest, client = declared(), aws_environment.client("secretsmanager")
    engine = Engine(tmp_path, manifest, Plugins(tmp_path, manifest), Journal(tmp_path / "journal.sqlite3"))
    for secret in manifest.secrets.values():
        token = engine.plugins.store(secret).predict(secret.stored_as, 1).version_id
        client.create_secret(Name=secret.stored_as, SecretString="canary-of-the-first", ClientRequestToken=token)
    log = aws_environment.folder / "log"
    before = log.stat().st_size
    report = incident.respond(engine, [incident.begin(engine, READER)], outside=False, wait=timedelta(0))
    engine.journal.close()
    assert [(line.state, line.new) for line in report.lines] == [(State.RETIRED, 2)] * SECRETS
    calls = arrivals(log.read_text()[before:])
    assert len(calls["writes"]) >= 4 * SECRETS
    for quota in {QUOTAS[operation] for operation in QUOTAS if QUOTAS[operation].name in calls}:
        for span, jitter in JITTER.items():
            most = most_within(calls[quota.name], span)
            assert most <= quota.per_second * span * jitter, f"{quota.name}: {most} in {span} s"
    assert "canary-of-the-first" not in log.read_text()
