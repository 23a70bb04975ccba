"""A journal in a bucket, of S3 and of COS: what lives on, who may write, and what happens when it cannot be had."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.config import Config

from rotation import environment_lease
from rotation.buckets import Bucket, s3
from rotation.environment_lease import EnvironmentLease
from rotation.errors import Conflict, JournalError, LeaseHeld
from rotation.journal import Journal
from rotation.journal_place import BucketJournal, OfflineJournal, open_journal
from rotation.local.demo.load import within
from rotation.model import Act
from rotation.plugins import load
from rotation.settings import Settings
from tests.fixtures.aws import AwsApi
from tests.fixtures.cos import APP_ID, CosPlace
from tests.fixtures.ports import closed_port

BUCKET = "journals"
SECRET = "orders/db"


@dataclass(frozen=True)
class World(ABC):
    """A prefix of its own in a bucket; every runner has a fresh folder unless it is given one."""

    folder: Path
    patch: pytest.MonkeyPatch
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    nowhere: ClassVar[str]  # the URL of a bucket that is not there
    reads: ClassVar[frozenset[str]]  # what is called by who only looks
    prelude: ClassVar[str] = ""  # of another process

    @property
    def bucket(self) -> Bucket:
        """What another runner has."""
        return load(Bucket, self.place.partition("://")[0])(self.place)

    @property
    @abstractmethod
    def place(self) -> str:
        """The URL of the journals."""

    @abstractmethod
    def faults(self, operation: str, kind: str, *, times: int = 1, after: int = 0, seconds: float = 0) -> None:
        """Let calls fail, by their names in S3."""

    @abstractmethod
    def clear_faults(self) -> None: ...

    @abstractmethod
    def set_clock(self, seconds: float) -> None: ...

    @abstractmethod
    def forget_calls(self) -> None: ...

    @abstractmethod
    def calls(self) -> Counter[str]: ...

    @abstractmethod
    def names(self) -> set[str]: ...

    @abstractmethod
    def without_server(self, port: int) -> None:
        """Let every call go to a port that nobody listens on."""

    @abstractmethod
    def without_credentials(self) -> None: ...

    @abstractmethod
    def impatient(self) -> None:
        """Let clients wait half a second for an answer."""

    def open(self, folder: Path | None = None, *, url: str | None = None, required: bool = False) -> Journal:
        project = folder or self.folder / uuid.uuid4().hex
        project.mkdir(exist_ok=True)
        settings = Settings(project=project, journal=url or self.place, journal_required=required)
        opened = open_journal(settings, "local", lambda what, follows: self.warnings.append((what, follows)))
        assert isinstance(opened, Journal)
        return opened

    def name(self, what: str) -> str:
        (found,) = (name for name in self.names() if name.startswith(f"local.{what}"))
        return found

    def get(self, name: str = "local.sqlite3") -> bytes:
        found = self.bucket.read(name)
        assert found is not None
        return found.body

    def put(self, body: bytes, name: str = "local.sqlite3") -> None:
        """Replace an object, as somebody does who knows what it is now."""
        bucket = self.bucket
        while True:
            standing = bucket.read(name)
            with suppress(Conflict):  # a runner has replaced it just now
                bucket.write(name, body, standing.etag if standing else None)
                return

    def lease(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("local.lease.json"))
        return found

    def trail(self, name: str = "local.sqlite3") -> list[str]:
        """The details in the audit trail of a journal in the bucket, which must be a whole database."""
        path = self.folder / f"look-{uuid.uuid4().hex}.sqlite3"
        path.write_bytes(self.get(name))
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with Journal(path) as journal:
            return [entry.detail for entry in journal.trail()]

    def deny_writes(self) -> None:
        self.faults("PutObject", "deny", times=10_000)


@dataclass(frozen=True, kw_only=True)
class S3World(World):
    api: AwsApi

    nowhere = "s3://nowhere-to-be-found/x"
    reads = frozenset({"GetObject"})

    @property
    def place(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def faults(self, operation: str, kind: str, *, times: int = 1, after: int = 0, seconds: float = 0) -> None:
        self.api.faults("s3", operation, kind, times=times, after=after, seconds=seconds)

    def clear_faults(self) -> None:
        self.api.clear_faults()

    def set_clock(self, seconds: float) -> None:
        self.api.set_clock(seconds)

    def forget_calls(self) -> None:
        self.api.forget_calls()

    def calls(self) -> Counter[str]:
        called = self.api.calls().items()
        return Counter({call.removeprefix("s3."): times for call, times in called if call.startswith("s3.")})

    def names(self) -> set[str]:
        listed = self.api.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Contents", [])
        return {entry["Key"].removeprefix(f"{self.prefix}/") for entry in listed}

    def without_server(self, port: int) -> None:
        self.patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    def without_credentials(self) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            self.patch.delenv(name)
        self.patch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def impatient(self) -> None:
        config = Config(connect_timeout=0.5, read_timeout=0.5, retries={"total_max_attempts": 1})
        self.patch.setattr(s3, "_CONFIG", config)


@dataclass(frozen=True, kw_only=True)
class CosWorld(World):
    at: CosPlace

    nowhere = f"cos://nowhere-{APP_ID}/x"
    reads = frozenset({"GetBucket", "HeadObject", "GetObject"})
    prelude = (
        "from datetime import timedelta; from rotation.buckets import cos\n"
        "cos.SETTLE, cos.PROMPT = 0.0, timedelta(hours=1)\n"
    )

    @property
    def place(self) -> str:
        return f"cos://{self.at.cos.name}/{self.prefix}"

    def faults(self, operation: str, kind: str, *, times: int = 1, after: int = 0, seconds: float = 0) -> None:
        kind = {"error": "internal", "unavailable": "http_error"}.get(kind, kind)
        self.at.cloud.faults.plan(f"cos.{operation}", kind, times=times, after=after, seconds=seconds)

    def clear_faults(self) -> None:
        self.at.cloud.faults.clear()

    def set_clock(self, seconds: float) -> None:
        self.at.cloud.clock.run(seconds)

    def forget_calls(self) -> None:
        self.at.cloud.faults.forget_calls()

    def calls(self) -> Counter[str]:
        called = self.at.cloud.faults.calls().items()
        return Counter({call.removeprefix("cos."): times for call, times in called if call.startswith("cos.")})

    def names(self) -> set[str]:
        rows = {entry.key.rpartition("/")[0] for entry in self.at.cos.below(f"{self.prefix}/")[0]}
        names = {row.removeprefix(f"{self.prefix}/") for row in rows}
        return {name for name in names if self.bucket.read(name) is not None}

    def without_server(self, port: int) -> None:
        self.patch.setenv("KEYTURN_COS_ENDPOINT", f"http://127.0.0.1:{port}")

    def without_credentials(self) -> None:
        for name in ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"):
            self.patch.delenv(name)
        self.patch.setenv("HOME", str(self.folder))
        self.patch.setattr("rotation.tencentcloud._METADATA", ("127.0.0.1", 1))  # no virtual machine's

    def impatient(self) -> None:
        self.patch.setattr("rotation.cos.TIMEOUT", (0.5, 0.5))


@pytest.fixture(params=["s3", "cos"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made: World
    if request.param == "s3":
        api: AwsApi = request.getfixturevalue("aws_environment")
        api.client("s3").create_bucket(Bucket=BUCKET)
        made = S3World(tmp_path, monkeypatch, api=api)
    else:
        made = CosWorld(tmp_path, monkeypatch, at=request.getfixturevalue("cos_place"))
    yield made
    made.clear_faults()
    made.set_clock(0)


@pytest.fixture
def impatient(world: World) -> None:
    """Clients that wait half a second for an answer."""
    world.impatient()


def left_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / ".keyturn/journal").iterdir()}


def eventually(world: World, what: str) -> None:
    deadline = time.monotonic() + 60
    while what not in (world.trail() if "local.sqlite3" in world.names() else []):
        assert time.monotonic() < deadline, f"{what!r} does not reach the bucket"
        time.sleep(0.1)


def go_on(journal: Journal) -> None:
    """Act and act again, for at most a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journal.settle(journal.intend(SECRET, 1, Act.INSTALL), "done", "one more")
        time.sleep(0.1)


def _fail_after(journal: Journal, detail: str) -> None:
    journal.audit(SECRET, 1, "failed", detail)
    raise LookupError


# What lives on


def test_what_a_run_noted_is_there_for_the_next_one_on_another_machine(world: World) -> None:
    with world.open() as first, first.lease([SECRET]):
        promoted = first.first_noted(SECRET, "promoted", 41)
        first.audit(SECRET, 41, "promoted", "generation 41 is current")
    with world.open() as second:
        assert second.notes(SECRET)["promoted"] == promoted
        assert [entry.detail for entry in second.trail()] == ["generation 41 is current"]
    assert world.names() == {"local.sqlite3"}
    assert world.warnings == []


def test_a_run_that_goes_on_is_in_the_bucket_before_it_ends(world: World) -> None:
    with world.open() as journal, journal.lease([SECRET]):
        journal.settle(journal.intend(SECRET, 1, Act.STAGE), "done", "generation 1 is staged")
        eventually(world, "generation 1 is staged")
        journal.settle(journal.intend(SECRET, 1, Act.INSTALL), "done", "generation 1 is installed")
        eventually(world, "generation 1 is installed")


def test_a_run_that_fails_leaves_its_trail_and_no_lease(world: World) -> None:
    with pytest.raises(LookupError), world.open() as journal, journal.lease([SECRET]):
        _fail_after(journal, "on the way")
    assert world.names() == {"local.sqlite3"}
    assert world.trail() == ["on the way"]


def test_nothing_is_left_on_the_runner_s_disk_once_all_is_sent(world: World) -> None:
    folder = world.folder / "runner"
    with world.open(folder) as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
    assert left_in(folder) == set()


# Who may write


def test_a_command_that_only_looks_writes_nothing(world: World) -> None:
    with world.open() as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
    world.forget_calls()
    with world.open() as journal:
        assert len(journal.trail()) == 1
        journal.forget(SECRET, "what is not there")
    assert set(world.calls()) <= world.reads


def test_a_command_that_only_looks_needs_no_right_to_write(world: World) -> None:
    with world.open() as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
    world.deny_writes()
    with world.open() as journal:
        journal.first_noted(SECRET, "drift", 1)
    assert world.warnings == []


def test_what_a_look_noted_is_kept_where_the_runner_may_write(world: World) -> None:
    with world.open() as journal:
        noted = journal.first_noted(SECRET, "drift", 1)
    with world.open() as journal:
        assert journal.first_noted(SECRET, "drift", 1) == noted
    assert world.names() == {"local.sqlite3"}


def test_a_look_neither_fails_nor_gets_in_the_way_while_another_runner_is_at_work(world: World) -> None:
    with world.open() as at_work, at_work.lease([SECRET]):
        with world.open() as looking:
            looking.first_noted(SECRET, "drift", 1)
        at_work.audit(SECRET, 1, "promoted", "one")
    assert world.trail() == ["one"]
    assert world.names() == {"local.sqlite3"}
    assert world.warnings == []


def test_the_second_of_two_pipelines_is_told_who_the_first_one_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SERVER_URL": "https://git.example", "REPOSITORY": "team/shop", "RUN_ID": "7"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    with world.open() as first, first.lease([SECRET]):
        who = f"process {os.getpid()} on {socket.gethostname()}, https://git.example/team/shop/actions/runs/7"
        with pytest.raises(LeaseHeld) as caught, world.open() as second, second.lease(["another/secret"]):
            pass
        assert str(caught.value).startswith(f"another runner ({who}) works on local until {world.lease()['expires']}")
        first.audit(SECRET, 1, "promoted", "one")
    assert world.trail() == ["one"]
    with world.open() as third, third.lease([SECRET]):
        assert len(third.trail()) == 1


def test_who_takes_the_lease_later_goes_on_from_what_was_written_since_it_was_opened(world: World) -> None:
    with world.open() as second:
        with world.open() as first, first.lease([SECRET]):
            first.audit(SECRET, 1, "promoted", "one")
        with second.lease([SECRET]):
            assert [entry.detail for entry in second.trail()] == ["one"]
            second.audit(SECRET, 2, "promoted", "two")
    assert world.trail() == ["one", "two"]
    assert world.warnings == []


def test_of_many_runners_that_start_at_once_one_gets_the_lease(world: World) -> None:
    script = (
        "import sys; from rotation.buckets import Bucket; from rotation.environment_lease import EnvironmentLease;"
        "from rotation.plugins import load;"
        "from rotation.errors import LeaseHeld\n"
        "bucket = load(Bucket, sys.argv[1].partition('://')[0])(sys.argv[1])\n"
        "try: EnvironmentLease(bucket, 'local', sys.argv[2]).take(); print('won')\n"
        "except LeaseHeld as held: print(held)"
    )
    runners = [
        subprocess.Popen(
            [sys.executable, "-c", world.prelude + script, world.place, str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    said = [runner.communicate(timeout=60)[0].strip() for runner in runners]
    assert said.count("won") == 1
    assert all("works on local until" in line for line in said if line != "won")


def test_a_killed_runner_s_lease_ends_by_itself(world: World) -> None:
    EnvironmentLease(world.bucket, "local", "killed").take()
    with pytest.raises(LeaseHeld), world.open() as journal, journal.lease([SECRET]):
        pass
    world.set_clock(environment_lease.LEASE.total_seconds() + 2)
    with world.open() as journal, journal.lease([SECRET]):
        assert world.lease()["owner"] == journal.owner


def test_a_lease_that_is_kept_stays_young(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lease, "RENEWAL", timedelta(seconds=0.2))
    with world.open() as journal, journal.lease([SECRET]):
        world.forget_calls()
        assert within(lambda: world.calls()["PutObject"] >= 2)
    assert world.names() <= {"local.sqlite3"}


def test_the_lease_in_the_bucket_is_what_can_be_shown(world: World) -> None:
    with world.open() as journal:
        with pytest.raises(LeaseHeld):
            journal.require_lease(SECRET)
        with journal.lease([SECRET]):
            journal.require_lease(SECRET)
            world.put(b'{"host": "elsewhere", "process": 9, "expires": "soon"}', "local.lease.json")
            with pytest.raises(LeaseHeld, match="elsewhere"):
                journal.require_lease(SECRET)


def test_a_lease_that_is_got_only_on_the_way_promotes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may have been at work since this run began, and it has not looked at what they did."""
    monkeypatch.setattr(environment_lease, "RENEWAL", timedelta(seconds=0.2))
    with world.open() as journal:
        world.deny_writes()
        with journal.lease([SECRET]):
            world.clear_faults()
            deadline = time.monotonic() + 60
            while "local.lease.json" not in world.names():
                assert time.monotonic() < deadline, "the lease is not taken"
                time.sleep(0.1)
            with pytest.raises(JournalError, match="under a lease only"):
                journal.require_lease(SECRET)


def test_a_brief_lease_is_waited_for(world: World) -> None:
    looking = EnvironmentLease(world.bucket, "local", "looking")
    looking.take(brief=True)
    with pytest.raises(LeaseHeld):
        EnvironmentLease(world.bucket, "local", "looking too").take(brief=True)
    world.set_clock(environment_lease.BRIEF.total_seconds() + 2)
    with world.open() as journal, journal.lease([SECRET]):
        assert world.lease()["brief"] is False


def test_a_runner_that_lost_its_lease_acts_no_more_and_keeps_its_trail_beside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_lease, "RENEWAL", timedelta(seconds=0.2))
    with world.open() as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
        eventually(world, "one")
        world.put(b'{"host": "elsewhere", "process": 9, "expires": "soon"}', "local.lease.json")
        with pytest.raises(LeaseHeld, match="process 9 on elsewhere"):
            go_on(journal)
        journal.audit(SECRET, 1, "failed", "three")
    assert "three" in world.trail(world.name("conflict-"))
    assert "three" not in world.trail()
    assert world.lease()["host"] == "elsewhere"


def test_two_runners_never_overwrite_each_other_s_trail(world: World) -> None:
    with world.open() as journal, journal.lease([SECRET]):
        other = world.folder / "other.sqlite3"
        with Journal(other) as foreign:
            foreign.audit(SECRET, 9, "promoted", "theirs")
            foreign.copy_to(world.folder / "copy")
        world.put((world.folder / "copy").read_bytes())
        journal.audit(SECRET, 1, "promoted", "one")
        journal.audit(SECRET, 2, "promoted", "two")
    assert world.trail() == ["theirs"]
    assert world.trail(world.name("conflict-")) == ["one", "two"]
    ((what, follows),) = world.warnings
    assert what == f"another runner has taken over {world.place}/local.sqlite3 in the meantime"
    assert world.name("conflict-") in follows


@pytest.mark.parametrize("kind", ["lost_reply", "throttle", "error", "unavailable", "drop"])
def test_a_fault_of_the_moment_costs_nothing(world: World, kind: str) -> None:
    for operation in ("GetObject", "PutObject", "DeleteObject"):
        world.faults(operation, kind)
    with world.open() as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
        world.faults("PutObject", kind)
    assert world.trail() == ["one"]
    assert world.names() == {"local.sqlite3"}
    assert world.warnings == []


# A bucket that cannot be worked with


def unreachable(world: World, how: str) -> str:
    """Make the bucket unreachable in one way, and return the journal's URL."""
    if how == "no bucket":
        return world.nowhere
    if how == "no server":
        world.without_server(closed_port())
    if how == "no credentials":
        world.without_credentials()
    kinds = {"no rights": "deny", "overloaded": "throttle", "slow": "delay"}
    if how in kinds:
        world.faults("*", kinds[how], times=10_000, seconds=3)
    return world.place


WAYS = ("no bucket", "no server", "no credentials", "no rights", "overloaded", "slow")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", WAYS)
def test_without_its_bucket_a_run_goes_on_with_an_empty_journal_that_is_kept(world: World, how: str) -> None:
    folder, started = world.folder / "runner", time.monotonic()
    url = unreachable(world, how)
    with world.open(folder, url=url) as journal, journal.lease([SECRET]):
        assert isinstance(journal, OfflineJournal)
        with pytest.raises(JournalError, match="under a lease only"):  # who knows who else is at work
            journal.require_lease(SECRET)
        journal.audit(SECRET, 1, "promoted", "offline")
    assert time.monotonic() - started < 60
    ((what, follows),) = world.warnings
    assert what.startswith(f"the journal {url}/local.sqlite3 cannot be reached: could not read")
    assert "grace times start anew" in follows
    with Journal(folder / ".keyturn/journal/local.offline.sqlite3") as left:
        assert [entry.detail for entry in left.trail()] == ["offline"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("world", ["s3"], indirect=True)  # by now it is all the same whose bucket it is
@pytest.mark.parametrize("how", WAYS)
def test_a_journal_that_is_required_is_an_error_where_it_cannot_be_reached(world: World, how: str) -> None:
    url = unreachable(world, how)
    with pytest.raises(JournalError, match="cannot be reached") as caught:
        world.open(world.folder / "runner", url=url, required=True)
    assert "s3:ListBucket" in caught.value.remedy
    assert world.warnings == []


def test_a_trail_that_could_not_be_sent_is_sent_by_a_later_run(world: World) -> None:
    folder = world.folder / "runner"
    world.faults("*", "deny", times=10_000)
    with world.open(folder) as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "offline")
    world.clear_faults()
    with world.open(folder) as journal, journal.lease([SECRET]):
        assert journal.trail() == ()
        journal.audit(SECRET, 1, "promoted", "online")
    assert world.trail(world.name("unsent-")) == ["offline"]
    assert world.trail() == ["online"]
    assert left_in(folder) == set()
    what, follows = world.warnings[-1]
    assert "could not reach the journal" in what
    assert world.name("unsent-") in follows


def test_a_bucket_that_comes_back_during_the_run_gets_its_trail_at_the_end(world: World) -> None:
    folder = world.folder / "runner"
    world.faults("*", "deny", times=10_000)
    with world.open(folder) as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "offline")
        world.clear_faults()
    assert world.trail(world.name("unsent-")) == ["offline"]
    assert left_in(folder) == set()


def test_a_journal_that_can_be_read_but_not_written_keeps_its_memory_and_its_trail(world: World) -> None:
    folder = world.folder / "runner"
    with world.open() as journal, journal.lease([SECRET]):
        promoted = journal.first_noted(SECRET, "promoted", 41)
    world.deny_writes()
    with world.open(folder) as journal, journal.lease([SECRET]):
        assert journal.notes(SECRET)["promoted"] == promoted
        journal.audit(SECRET, 42, "promoted", "unsent")
    assert "cannot be written" in world.warnings[0][0]
    assert [name.partition("-")[0] for name in left_in(folder)] == ["local.unsent"]
    world.clear_faults()
    with world.open(folder) as journal, journal.lease([SECRET]):
        pass
    assert world.trail(world.name("unsent-")) == ["unsent"]
    assert left_in(folder) == set()


def test_a_required_journal_that_cannot_be_written_stops_the_run_before_it_acts(world: World) -> None:
    world.deny_writes()
    with (
        pytest.raises(JournalError, match="cannot be written"),
        world.open(required=True) as journal,
        journal.lease([SECRET]),
    ):
        pytest.fail("it works without its journal")


def test_a_required_journal_that_gets_lost_on_the_way_stops_the_run_at_its_next_act(world: World) -> None:
    with world.open(required=True) as journal, journal.lease([SECRET]):
        world.deny_writes()
        journal.audit(SECRET, 1, "opened", "one")
        with pytest.raises(JournalError, match="cannot be written"):
            go_on(journal)


def test_what_a_killed_runner_did_not_send_is_sent_by_the_next_one_on_its_disk(world: World) -> None:
    folder = world.folder / "runner"
    folder.mkdir()
    script = (
        "import os, sys, signal; from pathlib import Path; from rotation.settings import Settings\n"
        "from rotation.journal_place import open_journal\n"
        "settings = Settings(project=Path(sys.argv[1]), journal=sys.argv[2])\n"
        "journal = open_journal(settings, 'local', print); lease = journal.lease(['s']); lease.__enter__()\n"
        "journal.audit('s', 1, 'promoted', 'last words'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    world.faults("PutObject", "deny", times=10_000, after=1)  # the lease is made
    killed = subprocess.run(
        [sys.executable, "-c", world.prelude + script, folder, world.place], check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    world.clear_faults()
    world.set_clock(environment_lease.LEASE.total_seconds() + 2)
    with world.open(folder) as journal, journal.lease([SECRET]):
        pass
    assert world.trail(world.name("unsent-")) == ["last words"]
    assert left_in(folder) == set()


def test_what_a_killed_runner_had_sent_is_not_sent_again(world: World) -> None:
    folder = world.folder / "runner"
    with world.open(folder) as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
    (folder / ".keyturn/journal/local.unsent-20260101T000000Z-4194304.sqlite3").write_bytes(world.get())
    with world.open(folder) as journal, journal.lease([SECRET]):
        pass
    assert left_in(folder) == set()
    assert world.names() == {"local.sqlite3"}


@pytest.mark.parametrize("damage", ["truncated", "no database", "another database"])
def test_a_damaged_journal_is_kept_and_a_new_one_takes_its_place(world: World, damage: str) -> None:
    with world.open() as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "lost")
    damaged = {"truncated": world.get()[:-5000], "no database": b"<html>", "another database": _other_database(world)}
    world.put(damaged[damage])
    with world.open() as journal, journal.lease([SECRET]):
        assert journal.trail() == ()
        journal.audit(SECRET, 2, "promoted", "new")
    assert world.get(world.name("damaged-")) == damaged[damage]
    assert world.trail() == ["new"]
    ((what, follows),) = world.warnings
    assert "it is damaged, or no journal" in what
    assert world.name("damaged-") in follows


def test_a_look_at_a_damaged_journal_leaves_it_where_it_is(world: World) -> None:
    world.put(b"<html>")
    with world.open() as journal:
        assert journal.trail() == ()
    assert world.names() == {"local.sqlite3"}
    assert len(world.warnings) == 1


def test_a_damaged_journal_that_is_required_is_an_error_and_stays(world: World) -> None:
    world.put(b"<html>")
    with pytest.raises(JournalError, match="it is damaged, or no journal") as caught:
        world.open(world.folder / "runner", required=True)
    assert "older version" in caught.value.remedy
    assert world.get() == b"<html>"
    assert left_in(world.folder / "runner") == set()


def _other_database(world: World) -> bytes:
    path = world.folder / "other"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    return path.read_bytes()


# A folder


def test_a_journal_in_a_folder_stays_what_it_was(tmp_path: Path) -> None:
    settings = Settings(project=tmp_path, journal="elsewhere")
    with open_journal(settings, "local", lambda *_: pytest.fail("it warns")) as journal:
        journal.audit(SECRET, 1, "promoted", "one")
        assert not isinstance(journal, BucketJournal | OfflineJournal)
    assert (tmp_path / "elsewhere/local.sqlite3").is_file()
