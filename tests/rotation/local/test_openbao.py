from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import hvac.exceptions
import psutil
import pytest
import requests

from rotation.local import openbao as embedded
from tests.fixtures.openbao import OpenBao, Proxy, await_versions, persistent
from tests.fixtures.ports import free_port


def _write(client: hvac.Client, mount: str, **data: str) -> None:
    client.secrets.kv.v2.create_or_update_secret("a", data, mount_point=mount)


def _read(client: hvac.Client, mount: str) -> dict[str, str]:
    found: dict[str, str] = client.secrets.kv.v2.read_secret("a", mount_point=mount, raise_on_deleted_version=True)[
        "data"
    ]["data"]
    return found


def test_a_restart_keeps_the_data_and_unseals(tmp_path: Path) -> None:
    folder, port = tmp_path / "openbao", free_port()
    with persistent(folder, port) as server:
        client = server.client()
        client.sys.enable_secrets_engine("kv", "kept", options={"version": "2"})
        await_versions(client, "kept")
        _write(client, "kept", value="one")
    with persistent(folder, port) as again:
        assert again.token == server.token
        assert _read(again.client(), "kept") == {"value": "one"}
        log = again.log.read_text(encoding="utf-8")
        assert server.token not in log
        assert server.unseal_key not in log
    assert stat.S_IMODE((folder / "custody.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700


def test_a_lost_unseal_key_is_said_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder, port = tmp_path / "openbao", free_port()
    with persistent(folder, port):
        pass
    (folder / "custody.json").unlink()
    argv = [sys.executable, "-m", "rotation.local.openbao", f"--port={port}", f"--folder={folder}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "unseal key is lost" in done.stderr
    assert "--purge" in done.stderr
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/v1/sys/health", timeout=2)


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    folder, port = tmp_path / "openbao", free_port()
    argv = [sys.executable, "-m", "rotation.local.openbao", f"--port={port}", f"--folder={folder}"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as supervisor:
        embedded.await_active(hvac.Client(f"http://127.0.0.1:{port}"), supervisor)
        (server,) = psutil.Process(supervisor.pid).children()
        supervisor.kill()
    server.wait(60)
    assert not server.is_running()


def test_the_mounts_of_a_test_are_its_own(openbao: OpenBao, kv_mount: str, transit_mount: str) -> None:
    client = openbao.client()
    _write(client, kv_mount, value="one")
    assert _read(client, kv_mount) == {"value": "one"}
    client.secrets.transit.create_key("orders", mount_point=transit_mount)
    assert {f"{kv_mount}/", f"{transit_mount}/"} <= client.sys.list_mounted_secrets_engines()["data"].keys()


def test_a_sealed_server_serves_nothing_and_keeps_all(openbao: OpenBao, kv_mount: str) -> None:
    client = openbao.client()
    _write(client, kv_mount, value="one")
    with openbao.sealed(), pytest.raises(hvac.exceptions.VaultDown):
        _read(client, kv_mount)
    assert _read(client, kv_mount) == {"value": "one"}


def test_a_token_of_one_policy_can_do_no_more(openbao: OpenBao, kv_mount: str) -> None:
    _write(openbao.client(), kv_mount, value="one")
    with openbao.policy(f'path "{kv_mount}/data/a" {{ capabilities = ["read"] }}') as token:
        reader = openbao.client(token)
        assert _read(reader, kv_mount) == {"value": "one"}
        with pytest.raises(hvac.exceptions.Forbidden):
            _write(reader, kv_mount, value="two")


def test_the_proxy_loses_a_request_and_a_reply(openbao: OpenBao, openbao_proxy: Proxy, kv_mount: str) -> None:
    client = hvac.Client(openbao_proxy.address, token=openbao.token)
    _write(client, kv_mount, value="one")
    openbao_proxy.fault("lost before", f"/{kv_mount}/data/a")
    with pytest.raises(requests.ConnectionError):
        _write(client, kv_mount, value="never came")
    assert _read(client, kv_mount) == {"value": "one"}
    openbao_proxy.fault("lost after", f"POST /v1/{kv_mount}/data/a")
    with pytest.raises(requests.ConnectionError):
        _write(client, kv_mount, value="came")
    assert _read(client, kv_mount) == {"value": "came"}
    openbao_proxy.fault("answered", "GET", status=429)
    with pytest.raises(hvac.exceptions.RateLimitExceeded):
        _read(client, kv_mount)
    assert openbao_proxy.calls[f"POST /v1/{kv_mount}/data/a"] == 3
