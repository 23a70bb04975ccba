"""The journal: leases, intents that survive a kill, an audit trail that shows tampering, and clear refusals."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotation import journal as journal_module
from rotation.errors import JournalError, LeaseHeld
from rotation.journal import LEASE, Journal
from rotation.model import Act, Ring

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "orders/db"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(path, clock) as opened:
        yield opened


def change(path: Path, statement: str, *parameters: object) -> None:
    """What somebody with an editor for SQLite would do."""
    database = sqlite3.connect(path)
    with database:
        database.execute(statement, parameters)
    database.close()


# Rotations and notes


def test_a_rotation_that_is_open_goes_on_and_is_not_opened_again(journal: Journal) -> None:
    first = journal.open_rotation(SECRET, 2, "due")
    assert journal.open_rotation(SECRET, 3, "asked for") == first
    assert journal.open_rotations() == (SECRET,)


def test_a_closed_rotation_is_in_the_audit_trail_and_open_no_more(journal: Journal) -> None:
    journal.open_rotation(SECRET, 2, "due")
    journal.close_rotation(SECRET, 2, "promoted", "generation 2 is current")
    assert journal.rotation(SECRET) is None
    assert [(entry.event, entry.generation) for entry in journal.trail(SECRET)] == [("opened", 2), ("promoted", 2)]


def test_a_topic_is_noted_of_exactly_those_secrets_that_are_named(journal: Journal, clock: Clock) -> None:
    first = journal.note_exactly("scheduled", ["orders/db", "orders/api"])
    assert set(first) == {"orders/db", "orders/api"}
    journal.note("orders/api", "promoted", 3)
    clock.now += timedelta(hours=1)
    second = journal.note_exactly("scheduled", ["orders/api", "orders/cache"])
    assert {name: note.at for name, note in second.items()} == {"orders/api": START, "orders/cache": clock.now}
    assert set(journal.notes("orders/api")) == {"scheduled", "promoted"}
    assert journal.note_exactly("scheduled", []) == {}


def test_a_first_note_keeps_its_time_until_it_is_about_another_generation(journal: Journal, clock: Clock) -> None:
    first = journal.first_noted(SECRET, "promoted", 2)
    clock.now += timedelta(hours=1)
    assert journal.first_noted(SECRET, "promoted", 2) == first
    assert journal.first_noted(SECRET, "promoted", 3).at == clock.now


def test_the_history_has_open_rotations_first_and_then_the_newest(journal: Journal, clock: Clock) -> None:
    for goal, outcome in ((2, "promoted"), (3, "rolled back")):
        journal.open_rotation("open", 7, "due")
        journal.open_rotation(SECRET, goal, "due")
        clock.now += timedelta(minutes=goal)
        journal.close_rotation(SECRET, goal, outcome, "")
    past = [(one.secret, one.goal, one.closed and one.closed - one.opened, one.outcome) for one in journal.rotations(9)]
    assert past == [
        ("open", 7, None, None),
        (SECRET, 3, timedelta(minutes=3), "rolled back"),
        (SECRET, 2, timedelta(minutes=2), "promoted"),
    ]
    assert [one.goal for one in journal.rotations(2)] == [7, 3]


def test_notes_and_acts_of_all_secrets_are_read_at_once(journal: Journal, clock: Clock) -> None:
    journal.note("another", "promoted", 5)
    journal.note(SECRET, "promoted", 2)
    journal.note(SECRET, "tested", 3)
    assert {secret: note.generation for secret, note in journal.noted("promoted").items()} == {"another": 5, SECRET: 2}
    journal.settle(journal.intend(SECRET, 2, Act.STAGE), "done")
    clock.now += timedelta(minutes=1)
    journal.settle(journal.intend(SECRET, 2, Act.PIN, Ring.CANARY), "failed")
    journal.intend("another", 5, Act.TEST)
    acts = [(one.secret, one.act, one.ring, one.ended, one.outcome) for one in journal.intents(clock.now)]
    assert acts == [
        (SECRET, Act.PIN, Ring.CANARY, clock.now, "failed"),
        ("another", Act.TEST, None, None, None),
    ]


def test_a_changed_trail_can_still_be_looked_at_together_with_its_flaw(journal: Journal, path: Path) -> None:
    journal.audit(SECRET, 1, "opened")
    journal.audit(SECRET, 1, "promoted")
    change(path, "UPDATE audit SET detail = 'nothing to see' WHERE sequence = 1")
    entries, flaw = journal.inspect()
    assert [entry.event for entry in entries] == ["opened", "promoted"]
    assert "changed at line 1" in str(flaw)


@pytest.mark.parametrize(
    ("record", "highest"),
    [
        (lambda journal: journal.settle(journal.intend(SECRET, 4, Act.STAGE), "done"), 4),
        (lambda journal: journal.settle(journal.intend(SECRET, 4, Act.STAGE), "failed"), 0),
        (lambda journal: journal.intend(SECRET, 4, Act.STAGE), 0),
        (lambda journal: journal.note(SECRET, "spent", 7), 7),
        (lambda journal: journal.note(SECRET, "rejected", 6), 6),
        (lambda journal: journal.note("another", "spent", 9), 0),
    ],
    ids=["staged", "failed to stage", "died while staging", "found used up", "rejected", "of another secret"],
)
def test_the_highest_generation_is_the_highest_that_is_known_to_be_used(
    journal: Journal, record: Callable[[Journal], object], highest: int
) -> None:
    record(journal)
    assert journal.highest(SECRET) == highest


# Intents


def test_only_acts_that_were_done_are_counted(journal: Journal) -> None:
    for outcome in ("done", "failed", "overtaken", "done"):
        journal.settle(journal.intend(SECRET, 2, Act.INSTALL), outcome)
    journal.intend(SECRET, 2, Act.INSTALL)
    assert journal.count(SECRET, 2, Act.INSTALL) == 2


def test_an_act_that_a_run_died_in_is_in_the_audit_trail_once_it_is_written_off(journal: Journal) -> None:
    journal.intend(SECRET, 2, Act.PIN, Ring.CANARY)
    (unfinished,) = journal.unfinished(SECRET)
    assert unfinished.startswith("pin of generation 2")
    journal.write_off(SECRET)
    assert journal.unfinished(SECRET) == ()
    (entry,) = journal.trail(SECRET)
    assert (entry.event, entry.generation) == ("pin canary", 2)
    assert entry.detail.startswith("interrupted")


INTENDS_AND_DIES = """
import os, signal, sys
from pathlib import Path
from rotation.journal import Journal
from rotation.model import Act
journal = Journal(Path(sys.argv[1]))
for generation in range(1, 101):
    journal.intend("orders/db", generation, Act.INSTALL)
    print(generation, flush=True)
"""


def test_an_intent_is_on_disk_before_the_act_even_if_the_process_is_killed(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", INTENDS_AND_DIES, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(5)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout]
    child.stdout.close()
    child.wait()
    with Journal(path) as journal:
        kept = len(journal.unfinished(SECRET))
    assert kept in (len(told), len(told) + 1)


def test_every_write_is_flushed_to_the_disk(journal: Journal) -> None:
    """FULL (2): in WAL mode SQLite then syncs at every commit (https://www.sqlite.org/pragma.html#pragma_synchronous)."""
    assert journal._one("PRAGMA synchronous") == (2,)
    assert journal._one("PRAGMA journal_mode") == ("wal",)


# Leases


def test_a_second_runner_is_told_who_holds_the_lease_and_until_when(path: Path, journal: Journal, clock: Clock) -> None:
    holder = rf"process {os.getpid()} on .* works on orders/db until 2026-03-01T12:01"
    with journal.lease([SECRET]), Journal(path, clock) as other, pytest.raises(LeaseHeld, match=holder):
        other.lease([SECRET]).__enter__()


def test_leases_are_taken_all_or_none(path: Path, journal: Journal, clock: Clock) -> None:
    with Journal(path, clock) as other, journal.lease(["b"]):
        with pytest.raises(LeaseHeld), other.lease(["a", "b", "c"]):
            pass
        with journal.lease(["a", "c"]):
            pass


def test_a_lease_ends_with_its_block_even_after_an_error(path: Path, journal: Journal, clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), journal.lease([SECRET]):
        _ = 1 // 0
    with Journal(path, clock) as other, other.lease([SECRET]):
        pass


def test_a_lease_that_was_not_renewed_runs_out(path: Path, journal: Journal, clock: Clock) -> None:
    with journal.lease([SECRET]):
        clock.now += LEASE
        with Journal(path, clock) as other, other.lease([SECRET]):
            pass


def test_a_lease_is_renewed_while_its_runner_works(
    path: Path, journal: Journal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "LEASE", timedelta(seconds=0.04))
    with journal.lease([SECRET]):
        before = expiry(journal)
        clock.now += timedelta(seconds=30)
        renewed = threading.Event()
        while not renewed.wait(0.01):
            if expiry(journal) > before:
                renewed.set()
    assert renewed.is_set()


def expiry(journal: Journal) -> str:
    row = journal._one("SELECT expires FROM leases")
    assert row is not None
    return str(row[0])


def test_who_holds_a_lease_can_show_it(journal: Journal) -> None:
    with pytest.raises(LeaseHeld):
        journal.require_lease(SECRET)
    with journal.lease([SECRET]):
        journal.require_lease(SECRET)
    with pytest.raises(LeaseHeld):
        journal.require_lease(SECRET)


def test_a_lease_that_ran_out_or_that_another_runner_took_cannot_be_shown(
    path: Path, journal: Journal, clock: Clock
) -> None:
    with journal.lease([SECRET]):
        clock.now += LEASE
        with pytest.raises(LeaseHeld, match="held up"):
            journal.require_lease(SECRET)
        with Journal(path, clock) as other, other.lease([SECRET]):
            other.require_lease(SECRET)
            with pytest.raises(LeaseHeld):
                journal.require_lease(SECRET)


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced by another"])
def test_a_lease_in_a_journal_that_is_gone_cannot_be_shown(path: Path, journal: Journal, *, replaced: bool) -> None:
    with journal.lease([SECRET]):
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(file.with_name(f"away-{file.name}"))
        if replaced:
            Journal(path).close()
        with pytest.raises(LeaseHeld, match="the journal was replaced"):
            journal.require_lease(SECRET)


def test_an_act_that_has_not_ended_ends_now_and_one_of_a_dead_run_when_it_is_written_off(
    path: Path, journal: Journal, clock: Clock
) -> None:
    assert journal.last_ended(SECRET, Act.PROMOTE) is None
    journal.intend(SECRET, 2, Act.PROMOTE)
    journal.settle(journal.intend("another", 2, Act.PROMOTE), "done")
    clock.now += timedelta(hours=1)
    assert journal.last_ended(SECRET, Act.PROMOTE) == clock.now
    journal.write_off(SECRET)
    written_off = clock.now
    clock.now += timedelta(hours=1)
    assert journal.last_ended(SECRET, Act.PROMOTE) == written_off


def test_a_dead_runner_of_this_machine_holds_no_lease(path: Path, journal: Journal) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    hold(path, socket.gethostname(), child.pid)
    with journal.lease([SECRET]):
        pass


def test_a_runner_of_another_machine_holds_its_lease_until_it_runs_out(
    path: Path, journal: Journal, clock: Clock
) -> None:
    hold(path, "another-machine", 1)
    with pytest.raises(LeaseHeld, match="on another-machine"), journal.lease([SECRET]):
        pass
    clock.now += LEASE
    with journal.lease([SECRET]):
        pass


def hold(path: Path, host: str, pid: int) -> None:
    expires = (START + LEASE).isoformat()
    change(path, "INSERT INTO leases VALUES (?, 'somebody', ?, ?, ?)", SECRET, host, pid, expires)


HOLDS = """
import sys
from pathlib import Path
from rotation.journal import Journal
with Journal(Path(sys.argv[1])) as journal, journal.lease(["orders/db"]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_exclude_each_other_and_a_killed_one_leaves_no_lease(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        with Journal(path) as journal, pytest.raises(LeaseHeld, match=f"process {child.pid}"), journal.lease([SECRET]):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    with Journal(path) as journal, journal.lease([SECRET]):
        pass


# The audit trail


@pytest.fixture
def written(path: Path, journal: Journal) -> Path:
    for generation in (1, 2, 3):
        journal.audit(SECRET, generation, "promoted", f"generation {generation} is current")
    assert len(journal.trail()) == 3
    return path


@pytest.mark.parametrize("line", [1, 2, 3])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sequence", 17),
        ("at", "2026-01-01T00:00:00+00:00"),
        ("secret", "another"),
        ("generation", 99),
        ("event", "rolled back"),
        ("detail", "nothing happened"),
        ("previous", "0" * 64),
        ("hash", "0" * 64),
    ],
)
def test_a_changed_column_is_noticed(written: Path, journal: Journal, column: str, value: object, line: int) -> None:
    statement = f"UPDATE audit SET {column} = ? WHERE sequence = ?"  # noqa: S608  # a column's name is no parameter
    change(written, statement, value, line)
    with pytest.raises(JournalError, match="the audit trail was changed at line") as caught:
        journal.trail()
    assert "evidence" in caught.value.remedy


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_line_that_was_taken_out_is_noticed(written: Path, journal: Journal, line: int) -> None:
    change(written, "DELETE FROM audit WHERE sequence = ?", line)
    with pytest.raises(JournalError, match="audit trail"):
        journal.trail()


def test_an_emptied_trail_is_noticed(written: Path, journal: Journal) -> None:
    change(written, "DELETE FROM audit")
    with pytest.raises(JournalError, match="has 0 lines, and 3 were written"):
        journal.trail()


def test_lines_that_changed_places_are_noticed(written: Path, journal: Journal) -> None:
    for source, to in ((1, 10), (2, 1), (10, 2)):
        change(written, "UPDATE audit SET sequence = ? WHERE sequence = ?", to, source)
    with pytest.raises(JournalError, match="changed at line 1"):
        journal.trail()


def test_runners_that_write_at_once_keep_one_chain(path: Path) -> None:
    def write(number: int) -> None:
        with Journal(path) as journal:
            for _ in range(10):
                journal.audit(f"secret{number}", 1, "promoted")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Journal(path) as journal:
        assert len(journal.trail()) == 40


# What cannot be read or written


def test_a_file_that_is_no_journal_is_refused(path: Path) -> None:
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(JournalError, match=r"journal\.sqlite3 cannot be opened: file is not a database") as caught:
        Journal(path)
    assert "go on with a new, empty journal" in caught.value.remedy


def test_a_damaged_journal_is_refused_when_it_is_read(path: Path) -> None:
    with Journal(path) as journal:
        for _ in range(200):
            journal.audit(SECRET, 1, "promoted", "x" * 200)
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(JournalError, match="cannot be read"), Journal(path) as journal:
        journal.trail()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "file" / "journal.sqlite3")


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with nobody(), pytest.raises(JournalError, match="cannot be opened") as caught:
            Journal(folder / "journal.sqlite3")
    assert "permissions" in caught.value.remedy


class nobody:  # noqa: N801  # reads as "with nobody()"
    """Root may write anywhere: be somebody else for a moment."""

    def __enter__(self) -> None:
        self._uid = os.geteuid()
        if self._uid == 0:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self._uid == 0:
            os.seteuid(0)


FILLS_THE_DISK = """
import resource, signal, sys
from pathlib import Path
from rotation.errors import JournalError
from rotation.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
written = 0
try:
    while True:
        journal.audit("orders/db", 1, "promoted", "x" * 1000)
        written += 1
except JournalError as error:
    assert "cannot be written" in str(error), error
    assert "free space" in error.remedy
    print(written)
"""


def test_a_full_disk_is_an_error_and_what_was_written_before_stays(path: Path) -> None:
    """A limit on the size of files stands for the disk: a real one is not to be filled."""
    child = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert child.returncode == 0, child.stderr
    with Journal(path) as journal:
        assert len(journal.trail()) == int(child.stdout) > 0
