from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest

from rotation.errors import LocalError
from rotation.local import environment
from rotation.local.embedded import embedded, names
from rotation.local.embedded.local import ADMINISTRATOR, keep_secret
from rotation.local.environment import down, environment_variables, status, up
from rotation.model import Ring
from rotation.secret_value import SecretValue
from tests.fixtures.ports import closed_port

NAMES = ["aws", "postgresql", "orders-api-canary", "orders-api-stable"]


def _quiet(_: str) -> None:
    """What the commands say, where a test does not ask for it."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose embedded environment runs; each test leaves it running."""
    project = tmp_path_factory.mktemp("project")
    try:
        up(project, _quiet)
        yield project
    finally:
        down(project, _quiet, purge=True)


def _pids(project: Path) -> list[int | None]:
    return [service.pid for service in status(project)]


def _client(project: Path, service: str) -> Any:
    variables = environment_variables(project)
    return boto3.client(
        service,  # type: ignore[call-overload]  # typed for literal names only
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )


def _administrator(project: Path) -> dict[str, Any]:
    answer = _client(project, "secretsmanager").get_secret_value(SecretId=ADMINISTRATOR)
    login: dict[str, Any] = json.loads(answer["SecretString"])
    return login


def test_everything_runs_and_answers_after_up(running: Path) -> None:
    services = status(running)
    assert [service.name for service in services] == NAMES
    assert all(service.ready and service.pid for service in services)


def test_the_addresses_are_those_that_the_stacks_read(running: Path) -> None:
    endpoints = json.loads((running / ".keyturn/local/endpoints.json").read_text(encoding="utf-8"))
    addresses = {service.name: service.address for service in status(running)}
    assert endpoints == {
        "aws": f"http://{addresses['aws']}",
        "postgresql": {"host": "127.0.0.1", "port": int(addresses["postgresql"].partition(":")[2])},
        "applications": {ring: f"http://{addresses[f'orders-api-{ring}']}" for ring in ("canary", "stable")},
    }


def test_the_administrator_s_login_is_a_secret_that_works(running: Path) -> None:
    login = _administrator(running)
    with psycopg.connect(
        host=login["host"], port=login["port"], user=login["username"], password=login["password"], dbname="orders"
    ) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (login["username"],)


def test_a_second_up_changes_nothing(running: Path) -> None:
    before, login = _pids(running), _administrator(running)
    said: list[str] = []
    up(running, said.append)
    assert _pids(running) == before
    assert _administrator(running) == login
    assert len(said) == len(NAMES)
    assert all("runs already" in line for line in said)


def test_up_starts_what_died(running: Path) -> None:
    before = _pids(running)
    assert before[2] is not None
    psutil.Process(before[2]).kill()
    psutil.Process(before[2]).wait(20)
    said: list[str] = []
    up(running, said.append)
    after = _pids(running)
    assert after[2] not in (None, before[2])
    assert (after[0], after[1], after[3]) == (before[0], before[1], before[3])
    assert sum("started" in line for line in said) == 1


def test_a_lost_administrator_s_login_comes_back(running: Path) -> None:
    login = _administrator(running)
    _client(running, "secretsmanager").put_secret_value(SecretId=ADMINISTRATOR, SecretString="{}")
    up(running, _quiet)
    assert _administrator(running) == login


def test_a_restart_keeps_ports_and_data(running: Path) -> None:
    addresses, login = [service.address for service in status(running)], _administrator(running)
    _client(running, "s3").create_bucket(Bucket="kept")
    pids = _pids(running)
    down(running, _quiet)
    assert _pids(running) == [None] * len(NAMES)
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    up(running, _quiet)
    assert [service.address for service in status(running)] == addresses
    assert _administrator(running) == login
    assert "kept" in [bucket["Name"] for bucket in _client(running, "s3").list_buckets()["Buckets"]]


def test_two_ups_at_once_start_everything_once(running: Path) -> None:
    down(running, _quiet)
    said: list[str] = []
    both = [threading.Thread(target=up, args=(running, said.append)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sum("started" in line for line in said) == len(NAMES)
    assert sum("runs already" in line for line in said) == len(NAMES)
    assert all(service.ready for service in status(running))


def test_no_value_is_in_any_log_or_argument_or_variable(running: Path) -> None:
    password = _administrator(running)["password"]
    logs = sorted((running / ".keyturn/local/logs").iterdir())
    assert {path.name for path in logs} >= {f"{name}.out" for name in NAMES}
    assert not any(password in path.read_text(encoding="utf-8") for path in logs)
    for pid in _pids(running):
        process = psutil.Process(pid)
        assert not any(password in text for text in (*process.cmdline(), *process.environ().values()))


def test_only_this_user_reaches_the_folder(running: Path) -> None:
    assert stat.S_IMODE((running / ".keyturn/local").stat().st_mode) == 0o700


def test_a_port_that_someone_took_meanwhile_is_told(running: Path) -> None:
    address = status(running)[0].address
    down(running, _quiet)
    try:
        with socket.create_server(("127.0.0.1", int(address.partition(":")[2]))), pytest.raises(LocalError) as caught:
            up(running, _quiet)
        assert f"port {address.partition(':')[2]}, which aws keeps, is taken by another program" in str(caught.value)
    finally:
        up(running, _quiet)


def test_a_project_that_never_started_it_has_no_status_no_variables_and_nothing_to_stop(tmp_path: Path) -> None:
    assert status(tmp_path) == ()
    down(tmp_path, _quiet)
    with pytest.raises(LocalError, match="has not been started") as caught:
        environment_variables(tmp_path)
    assert caught.value.remedy == "Run `keyturn local up`."


def test_local_vault_has_addresses_once_it_was_asked_for_and_local_keeps_its_own(tmp_path: Path) -> None:
    before = environment._choose(tmp_path)
    with pytest.raises(LocalError, match="local-vault has not been started") as caught:
        environment.place_of(tmp_path, "local-vault")
    assert caught.value.remedy == "Run `keyturn local up -e local-vault`."
    assert "VAULT_ADDR" not in environment_variables(tmp_path)
    environment._with(embedded("local-vault"), tmp_path, before)
    added = environment.place_of(tmp_path, "local-vault")
    assert environment_variables(tmp_path)["VAULT_ADDR"] == added.server
    assert environment.place_of(tmp_path, "local").applications == before.applications
    servers, rings = ["aws", "postgresql", "openbao"], ["orders-api-canary", "orders-api-stable"]
    addresses = {service.name: service.address for service in status(tmp_path)}
    assert list(addresses) == [*servers, *rings, *(f"local-vault-{ring}" for ring in rings)]
    assert added.applications == {ring: f"http://{addresses[f'local-vault-orders-api-{ring}']}" for ring in Ring}
    assert added.https.keys() == set(Ring)
    assert len({*addresses.values(), *added.https.values()}) == len(addresses) + len(Ring), "each port is one's own"


def test_damaged_endpoints_are_told_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / ".keyturn/local/endpoints.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"aws": 1}', encoding="utf-8")
    with pytest.raises(LocalError, match=r"endpoints\.json .* is not what") as caught:
        up(tmp_path, _quiet)
    assert "Remove .keyturn/local/endpoints.json" in caught.value.remedy


def test_purge_removes_the_data_and_what_refers_to_it_and_nothing_else(tmp_path: Path) -> None:
    gone = [".keyturn/local/aws/state"]
    for name in names():
        gone += [f"stacks/pins/{name}.json", f"stacks/config/rendered/{name}/canary/a.yaml"]
    kept = ["stacks/pins/staging.json", "stacks/config/rendered/staging/canary/a.yaml", "stacks/config/a.yaml.j2"]
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    down(tmp_path, _quiet, purge=True)
    assert not any((tmp_path / name).exists() for name in gone)
    assert all((tmp_path / name).exists() for name in kept)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rotation.files.os.fsync", full)
    with pytest.raises(LocalError, match=r"cannot write endpoints\.json: No space left") as caught:
        up(tmp_path, _quiet)
    assert "Free some space" in caught.value.remedy
    assert status(tmp_path) == ()


def test_a_refusal_of_the_secrets_manager_does_not_carry_the_value(tmp_path: Path) -> None:
    endpoints = environment._choose(tmp_path).model_copy(update={"aws": f"http://127.0.0.1:{closed_port()}"})
    with pytest.raises(LocalError) as caught:
        keep_secret(endpoints.aws, ADMINISTRATOR, SecretValue("canary-value"))
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary-value" not in repr(error)
        error = error.__cause__ or error.__context__
