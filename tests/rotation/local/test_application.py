"""The sample application, run as a program against a real PostgreSQL and the AWS API, under load."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from rotation.keys.aws_kms import AwsKms
from rotation.local.application import database as application_database
from rotation.local.application.orders_api import parse
from rotation.local.demo.load import within
from rotation.local.demo.tls_clients import clients
from rotation.model import Credential, Health, Ring
from rotation.sealing import seal
from rotation.secret_value import SecretValue
from rotation.signals.http_health import HttpHealth
from rotation.signals.log_file import LogFile
from tests.fixtures.aws import AwsApi
from tests.fixtures.ports import free_port
from tests.fixtures.postgresql import Database
from tests.fixtures.tls import AUTHORITY, Shelf, material

_numbers = count(1)


@dataclass
class World:
    """A database, an AWS API with a bucket and slots, and one running application."""

    aws: AwsApi
    database: Database
    folder: Path
    number: int = field(default_factory=lambda: next(_numbers))
    port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)
    values: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "orders-api-canary.log"

    def login(self, user: str, password: str, *, grants: bool = True) -> SecretValue:
        """A user that may act as the owner of the orders, and its login."""
        self.values.append(password)
        self.database.run(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        if grants:
            self.database.run(f"GRANT {self.database.owner} TO {user}")
            self.database.run(f"ALTER ROLE {user} SET role TO {self.database.owner}")
        return self.value_of(user, password)

    def value_of(self, user: str, password: str) -> SecretValue:
        server = self.database.server
        place = {"host": server.host, "port": server.port, "dbname": self.database.name}
        return SecretValue(json.dumps(place | {"engine": "postgres", "username": user, "password": password}))

    def store(self, secret: str, generation: int, value: SecretValue, **others: str) -> dict[str, Any]:
        """Put a value into the store, and return where the configuration says it is."""
        client = self.aws.client("secretsmanager")
        name = f"application-{self.number}/{secret}"
        try:
            arn = client.create_secret(Name=name)["ARN"]
        except client.exceptions.ResourceExistsException:
            arn = client.describe_secret(SecretId=name)["ARN"]
        version = f"g{generation:010d}-{'0' * 24}"
        client.put_secret_value(SecretId=arn, ClientRequestToken=version, SecretString=value.reveal())
        return {"arn": arn, "version_id": version, "generation": generation} | others

    def configure(self, secrets: Mapping[str, Mapping[str, Any]] | str) -> None:
        body = secrets if isinstance(secrets, str) else yaml.safe_dump({"secrets": dict(secrets)})
        self.aws.client("s3").put_object(Bucket=self.bucket, Key="orders-api/canary.yaml", Body=body.encode())

    @property
    def bucket(self) -> str:
        return f"application-{self.number}"

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """Its health as soon as something holds of it."""
        deadline = time.monotonic() + seconds
        while not holds(health := self.health()):
            assert time.monotonic() < deadline, (health, self.log.read_text())
            time.sleep(0.05)
        return health

    def lines(self, text: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if text in line]


@pytest.fixture
def world(aws_environment: AwsApi, orders_database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(aws_environment, orders_database, tmp_path)
    aws_environment.client("s3").create_bucket(Bucket=world.bucket)
    command = [sys.executable, "-m", "rotation.local.application", "--ring=canary", f"--port={world.port}"]
    command += [f"--config=s3://{world.bucket}/orders-api/canary.yaml", f"--log={world.log}", "--rate=100"]
    command += [f"--https-port={world.https_port}"]
    output = tmp_path / "output"
    with output.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT) as process:
        try:
            await_port(world, process)
            yield world
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, output.read_text()
        finally:
            process.kill()
    for value in world.values:
        assert value not in world.log.read_text()
        assert value not in output.read_text()
    assert "Traceback" not in output.read_text()


def await_port(world: World, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            world.health()
        except OSError:
            assert process.poll() is None, (world.folder / "output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def uses(secret: str, generation: int) -> Callable[[dict[str, Any]], bool]:
    return lambda health: health["generations"].get(secret) == generation


def test_without_a_configuration_it_waits_and_says_so(world: World) -> None:
    told = {"status": "starting", "ring": "canary", "generations": {}, "queries": 0, "failed": 0}
    assert world.health() == told


def test_a_switch_under_load_fails_no_query_and_closes_the_old_sessions(world: World) -> None:
    old = world.store("orders/db", 41, world.login(f"old_{world.number}", "old-password-0041"))
    world.configure({"orders/db": old})
    world.until(lambda health: health["queries"] > 50)
    new = world.store("orders/db", 42, world.login(f"new_{world.number}", "new-password-0042"))
    for generation, place in ((42, new), (41, old), (42, new)):
        world.configure({"orders/db": place})
        before = world.until(uses("orders/db", generation))["queries"]
        world.until(lambda health, before=before: health["queries"] > before + 30)  # type: ignore[misc]
    health = world.health()
    assert (health["status"], health["failed"]) == ("ok", 0)
    assert not world.lines("ERROR")
    world.until(lambda _: users_connected(world) == {f"new_{world.number}"})


def users_connected(world: World) -> set[str]:
    sessions = world.database.run("SELECT usename FROM pg_stat_activity WHERE datname = current_database()")
    return {user for (user,) in sessions} - {"postgres"}


def test_a_query_that_has_begun_to_look_for_a_connection_finds_one_though_the_login_is_switched(
    orders_database: Database,
) -> None:
    server = orders_database.server
    place = {"host": server.host, "port": server.port, "dbname": orders_database.name}
    login = SecretValue(json.dumps(place | {"username": server.username, "password": server.password.reveal()}))
    database = application_database.Database()
    database.switch(1, login)
    with database.pool() as old:
        switching = threading.Thread(target=database.switch, args=(2, login))
        switching.start()
        while generation_in_use(database) != 2:
            time.sleep(0.01)
        assert old is not None
        with old.connection() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
            assert sessions(orders_database) == 2 * application_database.CONNECTIONS
    switching.join()
    # A session that was left ends when the server comes to it.
    assert within(lambda: sessions(orders_database) == application_database.CONNECTIONS)
    database.close()
    assert generation_in_use(database) is None


def sessions(database: Database) -> int:
    """Of the application, at its database."""
    mine = database.run(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders-api' AND datname = current_database()"
    )
    return int(mine[0][0])


def generation_in_use(database: application_database.Database) -> int | None:
    with database.pool() as pool:
        return pool.generation if pool else None


def test_each_generation_has_its_own_lines_with_counts(world: World) -> None:
    for generation in (1, 2):
        place = world.store(
            "orders/db", generation, world.login(f"user_{world.number}_{generation}", "a-password-12345")
        )
        world.configure({"orders/db": place})
        world.until(lambda _, text=f"generation={generation} uses=": bool(world.lines(text)))  # type: ignore[misc]
    pattern = re.compile(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO ring=canary secret=orders/db generation=[12]"
        r" (in use|uses=[1-9]\d* failed=0)"
    )
    assert all(pattern.fullmatch(line) for line in world.log.read_text().splitlines())


def test_a_refused_login_is_reported_while_the_old_one_goes_on_and_taken_once_it_works(world: World) -> None:
    world.configure(
        {"orders/db": world.store("orders/db", 41, world.login(f"old_{world.number}", "old-password-0041"))}
    )
    world.until(uses("orders/db", 41))
    user = f"new_{world.number}"
    world.values.append("new-password-0042")
    place = world.store("orders/db", 42, world.value_of(user, "new-password-0042"))
    world.configure({"orders/db": place})
    health = world.until(lambda health: health["status"] == "failing")
    assert health["failing"] == {"orders/db": 42}
    assert health["generations"] == {"orders/db": 41}
    world.until(lambda now: now["queries"] > health["queries"] + 20)
    assert world.lines("ERROR ring=canary secret=orders/db generation=42 cannot switch to it: OperationalError")
    world.login(user, "new-password-0042")
    health = world.until(uses("orders/db", 42))
    assert health["failed"] == 0
    assert "failing" not in health


def test_going_back_to_the_old_generation_ends_the_trouble_with_the_new_one(world: World) -> None:
    old = world.store("orders/db", 41, world.login(f"old_{world.number}", "old-password-0041"))
    world.configure({"orders/db": old})
    world.until(uses("orders/db", 41))
    missing = old | {"version_id": f"g{42:010d}-{'0' * 24}", "generation": 42}
    world.configure({"orders/db": missing})
    world.until(lambda health: health.get("failing") == {"orders/db": 42})
    assert world.lines("generation=42 cannot switch to it: ResourceNotFoundException")
    world.configure({"orders/db": old})
    world.until(lambda health: health["status"] == "ok")


def test_a_login_that_breaks_only_in_use_is_seen_by_both_signals_and_blamed_on_its_generation(world: World) -> None:
    since = datetime.now(UTC)
    world.configure(
        {"orders/db": world.store("orders/db", 41, world.login(f"old_{world.number}", "old-password-0041"))}
    )
    world.until(lambda _: bool(world.lines("generation=41 uses=")))
    login = world.login(f"new_{world.number}", "new-password-0042", grants=False)
    world.database.run(f"GRANT SELECT ON orders TO new_{world.number}")
    world.configure({"orders/db": world.store("orders/db", 42, login)})
    world.until(lambda health: health["status"] == "failing")
    by_health = HttpHealth({"url": f"http://127.0.0.1:{world.port}/health"})
    by_log = LogFile({"path": str(world.log)})
    for a_signal in (by_health, by_log):
        verdict = a_signal.read("orders/db", 42, since, datetime.now(UTC))
        assert verdict.health is Health.BAD, verdict
        assert a_signal.read("orders/db", 41, since, datetime.now(UTC)).health is not Health.BAD
    assert "InsufficientPrivilege: permission denied for table orders" in " ".join(
        by_log.read("orders/db", 42, since, datetime.now(UTC)).evidence
    )
    assert by_health.running("orders/db") == 42


def test_a_good_switch_is_good_to_both_signals(world: World) -> None:
    since = datetime.now(UTC)
    world.configure({"orders/db": world.store("orders/db", 7, world.login(f"user_{world.number}", "a-password-0007"))})
    world.until(lambda _: bool(world.lines("generation=7 uses=")))
    for a_signal in (
        HttpHealth({"url": f"http://127.0.0.1:{world.port}/health"}),
        LogFile({"path": str(world.log)}),
    ):
        verdict = a_signal.read("orders/db", 7, since, datetime.now(UTC))
        assert verdict.health is Health.GOOD, verdict


def test_a_sealed_token_is_unsealed_and_signs_every_order(world: World) -> None:
    kms = world.aws.client("kms")
    alias = f"alias/application-{world.number}"
    kms.create_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    world.values.append("token-value-in-clear")
    name = f"application-{world.number}/orders/api-token"
    sealed = seal(SecretValue("token-value-in-clear"), name=name, generation=7, key=alias, service=AwsKms({}))
    token = world.store("orders/api-token", 7, sealed, sealed_with=alias)
    database = world.store("orders/db", 1, world.login(f"user_{world.number}", "a-password-12345"))
    world.configure({"orders/db": database, "orders/api-token": token})
    health = world.until(lambda health: health["status"] == "ok")
    assert health["generations"] == {"orders/db": 1, "orders/api-token": 7}
    world.until(lambda _: bool(world.lines("secret=orders/api-token generation=7 uses=")))


def test_a_token_that_was_moved_to_another_generation_is_refused_while_the_login_switches(world: World) -> None:
    kms = world.aws.client("kms")
    alias = f"alias/application-{world.number}"
    kms.create_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    name = f"application-{world.number}/orders/api-token"
    sealed = seal(SecretValue("token-value-in-clear"), name=name, generation=7, key=alias, service=AwsKms({}))
    token = world.store("orders/api-token", 8, sealed, sealed_with=alias)
    database = world.store("orders/db", 1, world.login(f"user_{world.number}", "a-password-12345"))
    world.configure({"orders/api-token": token, "orders/db": database})
    health = world.until(uses("orders/db", 1))
    assert health["failing"] == {"orders/api-token": 8}


def test_certificates_are_switched_under_clients_without_a_failed_handshake_and_what_is_none_is_not(
    world: World, shelf: Shelf
) -> None:
    values = [shelf.local_ca().issue(None) for _ in range(2)] + [SecretValue("not-a-certificate")]
    places = [world.store("orders/tls", number, value) for number, value in enumerate(values, 1)]
    world.values += [*json.loads(values[0].reveal())["private_key"].splitlines()[1:-1], "not-a-certificate"]
    world.configure({"orders/tls": places[0]})
    world.until(uses("orders/tls", 1))
    authorities = material(_credential(shelf[AUTHORITY])).ca
    with clients({Ring.CANARY: world.https_port}, authorities, "orders.test") as seen:
        assert within(lambda: len(seen[Ring.CANARY].serials) > 10)
        world.configure({"orders/tls": places[1]})
        assert within(lambda: len(seen[Ring.CANARY].kinds) == 2)
        world.configure({"orders/tls": places[2]})
        world.until(lambda health: health.get("failing") == {"orders/tls": 3})
    found = [material(_credential(value)).x509.serial_number for value in values[:2]]
    assert (seen[Ring.CANARY].kinds, seen[Ring.CANARY].failures) == (found, [])
    assert world.health()["generations"] == {"orders/tls": 2}
    world.until(lambda _: bool(world.lines("secret=orders/tls generation=2 uses=")))


def _credential(value: SecretValue) -> Credential:
    return Credential("orders/tls", 1, value)


def test_before_it_has_a_certificate_it_hangs_up_and_every_client_counts_that(world: World, shelf: Shelf) -> None:
    authorities = material(_credential(shelf[AUTHORITY])).ca
    with clients({Ring.CANARY: world.https_port}, authorities, "orders.test") as seen:
        assert within(lambda: len(seen[Ring.CANARY].failures) > 5)
    assert seen[Ring.CANARY].serials == []
    assert world.health()["status"] == "starting"


def test_a_broken_configuration_is_logged_once_and_changes_nothing(world: World) -> None:
    world.configure({"orders/db": world.store("orders/db", 1, world.login(f"user_{world.number}", "a-password-12345"))})
    world.until(uses("orders/db", 1))
    world.configure("secrets: [")
    world.until(lambda _: bool(world.lines("the configuration cannot be read: ValueError")))
    before = world.health()["queries"]
    health = world.until(lambda health: health["queries"] > before + 50)
    assert (health["status"], health["failed"]) == ("ok", 0)
    assert len(world.lines("the configuration cannot be read")) == 1


@pytest.mark.parametrize(
    ("argument", "named"),
    [("--config=https://bucket/key", "s3://BUCKET/KEY"), ("--config=s3://bucket", "s3://"), ("--rate=0", "--rate")],
)
def test_an_argument_that_makes_no_sense_is_refused(
    argument: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["--ring=canary", "--port=1", "--config=s3://bucket/key", "--log=app.log"]
    assert parse(good).key == "key"
    with pytest.raises(SystemExit):
        parse([*good, argument])
    assert named in capsys.readouterr().err
