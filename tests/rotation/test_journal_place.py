"""A journal in a bucket, on the local AWS API: what lives on, who may write, and what happens when it cannot be had."""

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
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from rotation import bucket as bucket_module
from rotation import environment_lease
from rotation.bucket import Bucket
from rotation.environment_lease import EnvironmentLease
from rotation.errors import JournalError, LeaseHeld
from rotation.journal import Journal
from rotation.journal_place import BucketJournal, OfflineJournal, open_journal
from rotation.model import Act
from rotation.settings import Settings
from tests.fixtures.aws import AwsApi
from tests.fixtures.ports import closed_port

BUCKET = "journals"
SECRET = "orders/db"


@dataclass(frozen=True)
class World:
    """A prefix of its own in a bucket; every runner has a fresh folder unless it is given one."""

    api: AwsApi
    folder: Path
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def open(self, folder: Path | None = None, *, url: str | None = None, required: bool = False) -> Journal:
        project = folder or self.folder / uuid.uuid4().hex
        project.mkdir(exist_ok=True)
        settings = Settings(project=project, journal=url or self.url, journal_required=required)
        opened = open_journal(settings, "local", lambda what, follows: self.warnings.append((what, follows)))
        assert isinstance(opened, Journal)
        return opened

    def names(self) -> set[str]:
        listed = self.api.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Contents", [])
        return {entry["Key"].removeprefix(f"{self.prefix}/") for entry in listed}

    def name(self, what: str) -> str:
        (found,) = (name for name in self.names() if name.startswith(f"local.{what}"))
        return found

    def get(self, name: str = "local.sqlite3") -> bytes:
        body: bytes = self.api.client("s3").get_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")["Body"].read()
        return body

    def put(self, body: bytes, name: str = "local.sqlite3") -> None:
        self.api.client("s3").put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=body)

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
        self.api.faults("s3", "PutObject", "deny", times=10_000)


@pytest.fixture
def world(aws_environment: AwsApi, tmp_path: Path) -> Iterator[World]:
    aws_environment.client("s3").create_bucket(Bucket=BUCKET)
    yield World(aws_environment, tmp_path)
    aws_environment.clear_faults()
    aws_environment.set_clock(0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait half a second for an answer."""
    config = Config(connect_timeout=0.5, read_timeout=0.5, retries={"total_max_attempts": 1})
    monkeypatch.setattr(bucket_module, "_CONFIG", config)


def left_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / ".keyturn/journal").iterdir()}


def eventually(world: World, what: str) -> None:
    deadline = time.monotonic() + 20
    while what not in (world.trail() if "local.sqlite3" in world.names() else []):
        assert time.monotonic() < deadline, f"{what!r} does not reach the bucket"
        time.sleep(0.1)


def go_on(journal: Journal) -> None:
    """Act and act again, for at most half a minute."""
    deadline = time.monotonic() + 30
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
    world.api.forget_calls()
    with world.open() as journal:
        assert len(journal.trail()) == 1
        journal.forget(SECRET, "what is not there")
    assert {call for call in world.api.calls() if call.startswith("s3.")} == {"s3.GetObject"}


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
        "import sys; from rotation.bucket import Bucket; from rotation.environment_lease import EnvironmentLease;"
        "from rotation.errors import LeaseHeld\n"
        "try: EnvironmentLease(Bucket(sys.argv[1]), 'local', sys.argv[2]).take(); print('won')\n"
        "except LeaseHeld as held: print(held)"
    )
    runners = [
        subprocess.Popen([sys.executable, "-c", script, world.url, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    said = [runner.communicate(timeout=60)[0].strip() for runner in runners]
    assert said.count("won") == 1
    assert all("works on local until" in line for line in said if line != "won")


def test_a_killed_runner_s_lease_ends_by_itself(world: World) -> None:
    EnvironmentLease(Bucket(world.url), "local", "killed").take()
    with pytest.raises(LeaseHeld), world.open() as journal, journal.lease([SECRET]):
        pass
    world.api.set_clock(environment_lease.LEASE.total_seconds() + 2)
    with world.open() as journal, journal.lease([SECRET]):
        assert world.lease()["owner"] == journal.owner


def test_a_lease_that_is_kept_stays_young(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lease, "RENEWAL", timedelta(seconds=0.2))
    with world.open() as journal, journal.lease([SECRET]):
        world.api.forget_calls()
        time.sleep(2)
        assert world.api.calls()["s3.PutObject"] >= 2
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
            world.api.clear_faults()
            deadline = time.monotonic() + 20
            while "local.lease.json" not in world.names():
                assert time.monotonic() < deadline, "the lease is not taken"
                time.sleep(0.1)
            with pytest.raises(JournalError, match="under a lease only"):
                journal.require_lease(SECRET)


def test_a_brief_lease_is_waited_for(world: World) -> None:
    looking = EnvironmentLease(Bucket(world.url), "local", "looking")
    looking.take(brief=True)
    with pytest.raises(LeaseHeld):
        EnvironmentLease(Bucket(world.url), "local", "looking too").take(brief=True)
    world.api.set_clock(environment_lease.BRIEF.total_seconds() + 2)
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
    assert what == f"another runner has taken over {world.url}/local.sqlite3 in the meantime"
    assert world.name("conflict-") in follows


@pytest.mark.parametrize("kind", ["lost_reply", "throttle", "error", "unavailable", "drop"])
def test_a_fault_of_the_moment_costs_nothing(world: World, kind: str) -> None:
    for operation in ("GetObject", "PutObject", "DeleteObject"):
        world.api.faults("s3", operation, kind)
    with world.open() as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "one")
        world.api.faults("s3", "PutObject", kind)
    assert world.trail() == ["one"]
    assert world.names() == {"local.sqlite3"}
    assert world.warnings == []


# A bucket that cannot be worked with


def unreachable(world: World, how: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the bucket unreachable in one way, and return the journal's URL."""
    if how == "no bucket":
        return "s3://nowhere-to-be-found/x"
    if how == "no server":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    if how == "no credentials":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kinds = {"no rights": "deny", "overloaded": "throttle", "slow": "delay"}
    if how in kinds:
        world.api.faults("s3", "*", kinds[how], times=10_000, seconds=3)
    return world.url


WAYS = ("no bucket", "no server", "no credentials", "no rights", "overloaded", "slow")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", WAYS)
def test_without_its_bucket_a_run_goes_on_with_an_empty_journal_that_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, started = world.folder / "runner", time.monotonic()
    url = unreachable(world, how, monkeypatch)
    with world.open(folder, url=url) as journal, journal.lease([SECRET]):
        assert isinstance(journal, OfflineJournal)
        with pytest.raises(JournalError, match="under a lease only"):  # who knows who else is at work
            journal.require_lease(SECRET)
        journal.audit(SECRET, 1, "promoted", "offline")
    assert time.monotonic() - started < 30
    ((what, follows),) = world.warnings
    assert what.startswith(f"the journal {url}/local.sqlite3 cannot be reached: could not read")
    assert "grace times start anew" in follows
    with Journal(folder / ".keyturn/journal/local.offline.sqlite3") as left:
        assert [entry.detail for entry in left.trail()] == ["offline"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", WAYS)
def test_a_journal_that_is_required_is_an_error_where_it_cannot_be_reached(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = unreachable(world, how, monkeypatch)
    with pytest.raises(JournalError, match="cannot be reached") as caught:
        world.open(world.folder / "runner", url=url, required=True)
    assert "s3:ListBucket" in caught.value.remedy
    assert world.warnings == []


def test_a_trail_that_could_not_be_sent_is_sent_by_a_later_run(world: World) -> None:
    folder = world.folder / "runner"
    world.api.faults("s3", "*", "deny", times=10_000)
    with world.open(folder) as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "offline")
    world.api.clear_faults()
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
    world.api.faults("s3", "*", "deny", times=10_000)
    with world.open(folder) as journal, journal.lease([SECRET]):
        journal.audit(SECRET, 1, "promoted", "offline")
        world.api.clear_faults()
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
    world.api.clear_faults()
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
    world.api.faults("s3", "PutObject", "deny", times=10_000, after=1)  # the lease is made
    killed = subprocess.run([sys.executable, "-c", script, folder, world.url], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    world.api.clear_faults()
    world.api.set_clock(environment_lease.LEASE.total_seconds() + 2)
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
