"""The embedded PostgreSQL as a process: who may log in, how it stops, and what survives."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from rotation.errors import LocalError
from rotation.local import postgresql as embedded
from tests.fixtures.ports import free_port
from tests.fixtures.postgresql import Database, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "server"


def connect(folder: Path, database: str = "postgres", **others: str) -> psycopg.Connection[tuple[object, ...]]:
    login = json.loads(embedded.superuser(folder).reveal())
    own = {"user": login["username"], "password": login["password"]}
    return psycopg.connect(host=login["host"], port=login["port"], dbname=database, autocommit=True, **own | others)


def server_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def await_end(pid: int, seconds: float = 60) -> None:
    process = psutil.Process(pid) if psutil.pid_exists(pid) else None
    deadline = time.monotonic() + seconds
    while process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def start(folder: Path, *arguments: str, port: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rotation.local.postgresql", f"--port={port or free_port()}"]
    return subprocess.Popen(
        [*command, f"--folder={folder}", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def test_everyone_needs_a_password_and_only_this_machine_can_connect(folder: Path, tmp_path: Path) -> None:
    with running(folder, free_port(), tmp_path / "log") as process:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(folder, password="not-the-password")
        with connect(folder) as connection:
            settings = {
                name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                for name in ("listen_addresses", "unix_socket_directories", "fsync", "max_connections")
            }
            methods = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        assert settings == {
            "listen_addresses": ("127.0.0.1",),
            "unix_socket_directories": ("",),
            "fsync": ("on",),
            "max_connections": ("200",),
        }
        assert methods == [("scram-sha-256",)]
        password = json.loads(embedded.superuser(folder).reveal())["password"]
        assert stat.S_IMODE((folder / "superuser.json").stat().st_mode) == 0o600
        assert not (folder / "password").exists()
        arguments = [psutil.Process(pid).cmdline() for pid in (process.pid, server_pid(folder))]
        assert password not in str(arguments) + (tmp_path / "log").read_text()


def test_it_stops_at_once_despite_open_sessions_and_keeps_its_data_and_password(folder: Path, tmp_path: Path) -> None:
    with running(folder, free_port(), tmp_path / "log") as process:
        login = json.loads(embedded.superuser(folder).reveal())
        administrator = json.loads(embedded.provision(folder).reveal())
        session = connect(folder, "orders")
        session.execute("INSERT INTO orders (item) VALUES ('pen')")
        pid = server_pid(folder)
        process.terminate()
        assert process.wait(60) == 0
        assert not psutil.pid_exists(pid)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()
    port = free_port()
    with running(folder, port, tmp_path / "log"):
        assert json.loads(embedded.superuser(folder).reveal()) == login | {"port": port}
        assert json.loads(embedded.provision(folder).reveal()) == administrator | {"port": port}
        with connect(folder, "orders") as connection:
            assert connection.execute("SELECT item FROM orders").fetchall() == [("pen",)]


def test_a_killed_one_leaves_no_server_and_starts_again(folder: Path, tmp_path: Path) -> None:
    with running(folder, free_port(), tmp_path / "log") as process:
        server = server_pid(folder)
        process.kill()
        process.wait(60)
        await_end(server)
    with running(folder, free_port(), tmp_path / "log") as process:
        with connect(folder) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        pid_file = folder / "data" / "postmaster.pid"
        stale = pid_file.read_text().split("\n", 1)[1]
        os.kill(server_pid(folder), signal.SIGKILL)
        assert process.wait(60) != 0
    pid_file.write_text(f"{os.getpid()}\n{stale}")  # the old number is another process by now
    with running(folder, free_port(), tmp_path / "log"), connect(folder) as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_a_first_start_that_was_cut_off_is_done_again(folder: Path, tmp_path: Path) -> None:
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    with running(folder, free_port(), tmp_path / "log"), connect(folder) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_it_ends_with_the_process_that_started_it_when_told_to(folder: Path) -> None:
    starter = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'rotation.local.postgresql', *sys.argv[1:]])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    arguments = [f"--port={free_port()}", f"--folder={folder}", "--with-parent"]
    with subprocess.Popen(
        [sys.executable, "-c", starter, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        embedded.await_ready(folder)
        server = server_pid(folder)
        parent.kill()
    await_end(child)
    await_end(server)


def test_a_second_one_on_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with running(folder, free_port(), tmp_path / "log"), start(folder) as second:
        assert second.wait(60) == 1
        assert second.stderr is not None
        assert "already runs on this folder" in second.stderr.read()


def test_a_port_that_is_taken_ends_it_with_the_reason(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with start(folder, port=taken.getsockname()[1]) as process:
            _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Address already in use" in said


def test_there_is_no_superuser_before_the_first_start(folder: Path) -> None:
    with pytest.raises(LocalError, match="never been started"):
        embedded.superuser(folder)
    with pytest.raises(LocalError, match="did not answer within 0 s"):
        embedded.await_ready(folder, seconds=0)


def test_the_administrator_of_the_sample_makes_users_but_reads_no_data(orders_database: Database) -> None:
    login = json.loads(orders_database.administrator.reveal())
    own = {"user": login["username"], "password": login["password"]}
    orders_database.run(f"CREATE ROLE {login['username']}_made", **own)
    orders_database.run(f"DROP ROLE {login['username']}_made", **own)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        orders_database.run("SELECT * FROM orders", **own)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        orders_database.run(f"SET ROLE {orders_database.owner}", **own)
    owner = orders_database.run("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'")
    assert owner == [(orders_database.owner,)]
