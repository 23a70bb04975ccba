"""The embedded MariaDB: who gets in, how it ends, and that its data stays."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rotation.database_login import Login
from rotation.errors import LocalError, Unauthorized
from rotation.local import mariadb as embedded
from rotation.mysql import connected
from rotation.secret_value import SecretValue
from tests.fixtures.mariadb import PLAIN, login_from, running
from tests.fixtures.ports import free_port

needs_mariadb = pytest.mark.skipif(
    not embedded.installed(), reason="no MariaDB is installed (`make test-mariadb` installs it)"
)


def test_what_was_never_started_has_no_superuser(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="never been started"):
        embedded.superuser(tmp_path)


@needs_mariadb
def test_it_lets_in_whom_it_should_keeps_its_data_and_ends_with_its_parent(tmp_path: Path) -> None:
    folder, port, log = tmp_path / "server", free_port(), tmp_path / "log"
    with running(folder, port, log):
        assert stat.S_IMODE((folder / "superuser.json").stat().st_mode) == 0o600
        for username in ("root", ""):
            with pytest.raises(Unauthorized), connected(Login("127.0.0.1", port, username, SecretValue(""), ""), PLAIN):
                pass
        administrator = login_from(embedded.provision(folder).reveal())
        with connected(administrator, PLAIN) as connection:
            assert connection.run("SELECT @@bind_address") == (("127.0.0.1",),)
            connection.run("CREATE USER somebody")
        second = subprocess.run(
            [sys.executable, "-m", "rotation.local.mariadb", f"--port={free_port()}", f"--folder={folder}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (second.returncode, "already runs on this folder" in second.stderr) == (1, True)
    other = free_port()
    with running(folder, other, log) as process:
        assert json.loads(embedded.superuser(folder).reveal())["port"] == other
        again = login_from(embedded.provision(folder).reveal())
        assert (again.password, again.port) == (administrator.password, other)
        with connected(again, PLAIN) as connection:
            assert connection.run("SELECT User FROM mysql.user WHERE User = 'somebody'") == (("somebody",),)
        (server,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        server.wait(120)
    assert "corrupt" not in log.read_text()
    assert "Zerofilling" not in log.read_text()
