"""The emulated Tencent Cloud as a program of its own, as the embedded environment runs it."""

from __future__ import annotations

import http.client
import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tencentcloud.common.credential import Credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.ssm.v20190923.ssm_client import SsmClient

from rotation.errors import LocalError
from rotation.local.service import answers_http
from rotation.local.tencent.embedded import custody
from tests.fixtures.ports import free_port
from tests.fixtures.tencent import REGION, ask, refused


@contextmanager
def running(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The program's process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "rotation.local.tencent", f"--port={port}", f"--folder={folder}", "--with-parent"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def program(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The program's process when it answers."""
    with running(folder, port) as process:
        answers = answers_http(f"http://127.0.0.1:{port}/keyturn/ready")
        deadline = time.monotonic() + 30
        while not answers():
            assert process.poll() is None, "the program ended"
            assert time.monotonic() < deadline, "the program does not answer"
            time.sleep(0.05)
        yield process


def client(folder: Path, port: int) -> Any:
    root = custody(folder)
    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=f"127.0.0.1:{port}"))
    return SsmClient(Credential(root.secret_id, root.secret_key), REGION, profile)


def control(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, f"/keyturn/{path}", None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_it_keeps_its_data_and_its_key_when_it_is_killed(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "cloud"
    with pytest.raises(LocalError, match="never been started"):
        custody(folder)
    with program(folder, port) as process:
        key = custody(folder)
        ask(client(folder, port), "CreateSecret", SecretName="kept", SecretString="canary-of-the-program")
        process.kill()
    with program(folder, port) as process:
        assert custody(folder) == key
        found = ask(client(folder, port), "GetSecretValue", SecretName="kept", VersionId="SSM_Current")
        assert found.SecretString == "canary-of-the-program"
        _misbehaves_on_demand(folder, port)
        _refuses_a_second_one(folder, port)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0, printed
    assert "canary" not in printed
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _misbehaves_on_demand(folder: Path, port: int) -> None:
    fault = {"service": "ssm", "operation": "DescribeSecret", "kind": "throttle"}
    assert control(port, "POST", "faults", fault)[0] == 200
    with refused("RequestLimitExceeded"):
        ask(client(folder, port), "DescribeSecret", SecretName="kept")
    assert control(port, "PUT", "clock", {"offset_seconds": 600})[0] == 200
    with refused("AuthFailure.SignatureExpire"):
        ask(client(folder, port), "DescribeSecret", SecretName="kept")
    assert control(port, "PUT", "clock", {"offset_seconds": 0})[0] == 200
    assert control(port, "GET", "calls")[1]["ssm.DescribeSecret"] == 2
    instance = {"host": "127.0.0.1", "port": 9, "user": "root", "password": "canary-of-the-instance"}
    assert control(port, "PUT", "instances/cdb-1", instance)[0] == 200
    assert control(port, "PUT", "tasks", {"seconds": 3, "failing": 1})[0] == 200
    assert control(port, "PUT", "tasks", {"minutes": 3})[0] == 400
    assert control(port, "POST", "faults", {"kind": "fire"})[0] == 400
    assert control(port, "GET", "nothing")[0] == 404


def _refuses_a_second_one(folder: Path, port: int) -> None:
    elsewhere = folder.with_name("elsewhere")
    for place, number, says in (
        (folder, free_port(), "already runs on this folder"),
        (elsewhere, port, f"cannot listen on port {port}"),
    ):
        with running(place, number) as second:
            printed, _ = second.communicate(timeout=30)
        assert (second.returncode, says in printed) == (1, True), printed
