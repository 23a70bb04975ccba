"""MySQL users, on a real MariaDB or the server that KEYTURN_TEST_MYSQL names; the administrator is not root."""

from __future__ import annotations

import ast
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pymysql
import pytest

from rotation import plugins
from rotation.credentials import CredentialKind, ReadSecret
from rotation.credentials.mysql_user import MysqlUser
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.fencing import Record
from rotation.model import Acceptance, Credential, Leftover, Strategy, Usage
from rotation.mysql import LOCK_SECONDS, connected
from rotation.mysql.accounts import Accounts
from rotation.mysql.verifiers import sha256_crypt, verifier
from rotation.secret_value import SecretValue
from tests.contracts.credential_kind import SECRET, InPlaceContract, installed, issued
from tests.contracts.database_user import DatabaseUserContract, Users, UsersInTurnContract, user_of
from tests.fixtures.mariadb import PLAIN, MysqlDatabase, MysqlServer, login_from
from tests.fixtures.project import CHECKOUT


@dataclass(frozen=True)
class Orders(Users[MysqlUser]):
    """The users of a fresh database."""

    database: MysqlDatabase
    product: ClassVar[str] = "MySQL"
    ended: ClassVar[type[Exception]] = pymysql.OperationalError

    def make(self, options: dict[str, Any], strategy: Strategy, read: ReadSecret) -> MysqlUser:
        return MysqlUser({"role": self.database.role, "sslmode": PLAIN.sslmode} | options, strategy, read)

    def make_user(self, username: str, password: str) -> None:
        self.database.run(f"CREATE USER '{username}'@'%' IDENTIFIED BY '{password}'")
        self.database.run(f"GRANT SELECT ON {self.database.name}.* TO '{username}'@'%'")

    @contextmanager
    def session(self, credential: Credential) -> Iterator[Callable[[], object]]:
        with connected(login_from(credential.value.reveal()), PLAIN) as session:
            yield lambda: session.run("SELECT 1")

    def record(self, credential: Credential) -> object:
        rows: dict[str, str] = dict(self.database.run("SELECT account, record FROM keyturn.users"))
        return json.loads(rows[f"{user_of(credential)}@%"])


@pytest.fixture
def orders(mysql_database: MysqlDatabase) -> Orders:
    return Orders(mysql_database)


@pytest.fixture
def kind(orders: Orders) -> MysqlUser:
    return orders.kind()


class WithLog:
    @pytest.fixture
    def target_log(self, orders: Orders) -> Callable[[], str]:
        log = orders.database.server.log
        return lambda: log.read_text(errors="replace") if log else ""


class TestAlternating(WithLog, UsersInTurnContract): ...


class TestSingle(WithLog, DatabaseUserContract, InPlaceContract):
    strategy = Strategy.SINGLE


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "mysql_user") is MysqlUser


class TestTheValue:
    def test_it_has_the_shape_that_aws_uses(self, orders: Orders) -> None:
        value = json.loads(orders.kind(password_length=40).issue(None).reveal())
        assert len(value.pop("password")) == 40
        root = orders.database.server.root
        place = {"engine": "mysql", "host": root.host, "port": root.port, "dbname": orders.database.name}
        assert value == place | {"username": f"{orders.base}_a"}

    def test_or_the_one_that_tencent_cloud_s_consumers_read(self, orders: Orders) -> None:
        kind = orders.kind(shape="tencent")
        first = installed(kind, 1)
        value = json.loads(first.value.reveal())
        assert (value["UserName"], set(value)) == (
            f"{orders.base}_a",
            {"UserName", "Password", "host", "port", "dbname"},
        )
        second = installed(kind, 2, first)
        assert (kind.check(second), login_from(second.value.reveal()).username) == (
            Acceptance.ACCEPTED,
            f"{orders.base}_b",
        )

    def test_one_of_username_and_password_alone_is_understood(self, orders: Orders) -> None:
        root = orders.database.server.root
        kind = orders.kind(shape="tencent", host=root.host, port=root.port)
        login = login_from(installed(kind, 1).value.reveal())
        bare = {"UserName": login.username, "Password": login.password.reveal()}
        assert kind.check(Credential(SECRET, 1, SecretValue(json.dumps(bare)))) is Acceptance.ACCEPTED


def test_both_users_start_with_the_role_and_what_is_granted_to_it_later(kind: MysqlUser, orders: Orders) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    orders.database.run("CREATE TABLE parcels (id int)", login_from(first.value.reveal()))
    orders.database.run("INSERT INTO parcels VALUES (1)", login_from(second.value.reveal()))
    orders.database.run(f"GRANT DROP ON {orders.database.name}.* TO {orders.database.role}")
    orders.database.run("DROP TABLE parcels", login_from(second.value.reveal()))


def test_what_a_retired_user_has_defined_goes_on_working(kind: MysqlUser, orders: Orders) -> None:
    orders.database.run(f"GRANT CREATE VIEW ON {orders.database.name}.* TO {orders.database.role}")
    first = installed(kind, 1)
    orders.database.run(
        f"GRANT SELECT ON {orders.database.name}.orders TO '{user_of(first)}'@'%'"
    )  # a view's definer needs more than a role
    orders.database.run("CREATE VIEW latest AS SELECT id FROM orders", login_from(first.value.reveal()))
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    assert orders.database.run("SELECT * FROM latest", login_from(second.value.reveal())) == ()


def test_keyturns_own_checks_are_no_use(kind: MysqlUser) -> None:
    first = installed(kind, 1)
    for _ in range(5):
        kind.check(first)
        assert kind.usage(first, None) == Usage(sessions=0)


def test_an_administrator_that_sees_only_its_own_sessions_takes_nothing_for_unused(
    kind: MysqlUser, orders: Orders
) -> None:
    first = installed(kind, 1)
    administrator = json.loads(orders.database.administrator.reveal())["username"]
    orders.database.run(f"REVOKE PROCESS ON *.* FROM {administrator}@'%'")
    looks: tuple[Callable[[], object], ...] = (kind.probe, lambda: kind.usage(first, None))
    for look in looks:
        with pytest.raises(TargetError, match="sessions of others") as caught:
            look()
        assert "GRANT PROCESS" in caught.value.remedy


class TestARunThatDies:
    """Between any two statements: what is noted and what the server accepts, and that the next try ends it."""

    @pytest.fixture
    def dying(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
        """Die at the first statement that begins with a word."""

        class _DiedError(Exception): ...

        def at(word: str) -> Any:
            run = Accounts._run

            def once(accounts: Accounts, statement: str, user: str) -> None:
                if statement.startswith(word):
                    monkeypatch.setattr(Accounts, "_run", run)
                    raise _DiedError
                run(accounts, statement, user)

            monkeypatch.setattr(Accounts, "_run", once)
            return pytest.raises(_DiedError)

        return at

    @pytest.mark.parametrize("word", ["CREATE USER", "GRANT", "ALTER USER"])
    def test_an_installation_is_finished_by_the_next_try_and_nobody_older_gets_between(
        self, kind: MysqlUser, orders: Orders, dying: Callable[[str], Any], word: str
    ) -> None:
        late, newer = issued(kind, 2), issued(kind, 3)
        with dying(word):
            kind.install(newer, None)
        assert kind.check(newer) is Acceptance.DENIED
        if word != "CREATE USER":
            with pytest.raises(TargetError, match="superseded"):
                kind.install(late, None)
        kind.install(newer, None)
        assert kind.check(newer) is Acceptance.ACCEPTED
        assert orders.record(newer) == {"generation": 3, "state": "installed", "spent": 3}
        orders.database.run("SELECT * FROM orders", login_from(newer.value.reveal()))

    def test_a_revocation_is_finished_by_the_next_try(
        self, kind: MysqlUser, orders: Orders, dying: Callable[[str], Any]
    ) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        with dying("ALTER USER"):
            kind.revoke(first, second)
        assert kind.check(first) is Acceptance.ACCEPTED
        assert orders.record(first) == {"generation": 1, "state": "revoked", "spent": 1}
        kind.revoke(first, second)
        assert kind.check(first) is Acceptance.DENIED


class TestFencing:
    def test_a_runner_whose_connection_the_server_has_ended_changes_nothing_any_more(
        self, kind: MysqlUser, orders: Orders
    ) -> None:
        first = issued(kind, 1)
        login = login_from(first.value.reveal())
        with kind._changing() as accounts:
            ((number,),) = accounts.connection.run("SELECT CONNECTION_ID()")
            orders.database.run(f"KILL {number}")
            kind.install(first, None)  # another runner, that takes the lock
            with pytest.raises(pymysql.OperationalError):
                accounts.disable(login.username, Record())
        assert kind.check(first) is Acceptance.ACCEPTED

    def test_the_server_lets_go_of_a_sleeping_runner_s_lock(self, kind: MysqlUser) -> None:
        with kind._changing() as accounts:
            ((idle, kept),) = accounts.connection.run("SELECT @@wait_timeout, @@interactive_timeout")
        assert idle == 60
        assert kept > idle

    def test_others_wait_for_the_lock_and_say_so(self, kind: MysqlUser, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rotation.mysql.accounts.LOCK_SECONDS", 1)
        assert LOCK_SECONDS > 1
        with kind._changing(), pytest.raises(Unavailable, match="another runner"):
            kind.install(issued(kind, 1), None)

    def test_a_garbled_note_stops_the_rotation_and_says_where(self, kind: MysqlUser, orders: Orders) -> None:
        first = installed(kind, 1)
        orders.database.run("UPDATE keyturn.users SET record = '{\"state\": 1}'")
        with pytest.raises(TargetError, match=f"noted of the user {user_of(first)} in `keyturn`.`users`"):
            kind.install(Credential(SECRET, 3, first.value), None)


class TestAnAdoptedUser:
    """A user from before keyturn, under a name of its own."""

    @pytest.fixture
    def legacy(self, orders: Orders) -> Credential:
        return orders.legacy()

    def test_it_is_retired_and_comes_back(self, kind: MysqlUser, legacy: Credential) -> None:
        second = installed(kind, 2, legacy)
        kind.revoke(legacy, second)
        assert kind.check(legacy) is Acceptance.DENIED
        third = Credential(SECRET, 3, legacy.value)  # the rotation is undone after all
        kind.install(third, second)
        assert kind.check(third) is Acceptance.ACCEPTED

    def test_it_gets_no_role_that_it_had_not(self, kind: MysqlUser, orders: Orders, legacy: Credential) -> None:
        second = installed(kind, 2, legacy)
        kind.revoke(legacy, second)
        kind.install(Credential(SECRET, 3, legacy.value), second)
        with pytest.raises((TargetError, Unauthorized), match=r"denied"):
            orders.database.run("INSERT INTO orders (item) VALUES ('pen')", login_from(legacy.value.reveal()))


def test_an_administrator_without_the_role_is_refused_and_nobody_is_let_in(orders: Orders) -> None:
    orders.database.run("CREATE ROLE stranger")
    try:
        kind = orders.kind(role="stranger")
        first = issued(kind, 1)
        with pytest.raises(TargetError, match="refused"):
            kind.install(first, None)
        assert kind.check(first) is Acceptance.DENIED
        assert orders.kind().leftovers([]) == ()
    finally:
        orders.database.run("DROP ROLE stranger")


def test_a_server_that_wants_to_look_at_passwords_says_what_to_switch_off(orders: Orders) -> None:
    """MariaDB refuses what stands for a password while a plugin checks passwords; its warnings alone say why."""
    server = orders.database.server
    if not server.is_mariadb:
        pytest.skip("MySQL takes what stands for a password, whatever checks passwords")
    kind = orders.kind()
    first = issued(kind, 1)
    server.run("INSTALL SONAME 'simple_password_check'")
    try:
        with pytest.raises(TargetError, match="cannot look at") as refused:
            kind.install(first, None)
        assert "strict_password_validation = OFF" in refused.value.remedy
        assert kind.check(first) is Acceptance.DENIED
        server.run("SET GLOBAL strict_password_validation = OFF")
        kind.install(first, None)
        assert kind.check(first) is Acceptance.ACCEPTED
    finally:
        server.run("SET GLOBAL strict_password_validation = ON")
        server.run("UNINSTALL SONAME 'simple_password_check'")


def test_the_documented_statements_make_an_administrator_that_is_enough(mysql: MysqlServer) -> None:
    """Those of docs/mysql.md, with the declaration that stands there."""
    page = (CHECKOUT / "docs" / "mysql.md").read_text(encoding="utf-8").replace("orders", "documented")
    statements = page.partition("```sql\n")[2].partition("```")[0].replace("…", "of-this-test-alone")
    declared = page.partition('Credential("mysql_user", ')[2].partition(")\n```")[0]
    options = ast.literal_eval(declared) | {"sslmode": PLAIN.sslmode}
    del options["sslrootcert"]
    administrator = replace(
        mysql.root, username="keyturn_admin", password=SecretValue("of-this-test-alone"), dbname=options["dbname"]
    )
    right = "CONNECTION ADMIN" if mysql.is_mariadb else "CONNECTION_ADMIN"
    try:
        for line in statements.replace("CONNECTION ADMIN", right).splitlines():
            if statement := line.partition("--")[0].strip().removesuffix(";"):
                mysql.run(statement.replace("DATABASE keyturn", "DATABASE IF NOT EXISTS keyturn"))
        kind = MysqlUser(options, Strategy.ALTERNATING, lambda _: administrator.to_value("mysql"))
        kind.probe()
        first = installed(kind, 1)
        assert kind.check(first) is Acceptance.ACCEPTED
        login = login_from(first.value.reveal())
        assert {role for (role,) in mysql.run("SELECT CURRENT_ROLE()", login)} == {options["role"]}
    finally:
        for statement in (
            f"DROP USER IF EXISTS keyturn_admin@'%', {options['username_base']}_a@'%'",
            f"DROP ROLE IF EXISTS {options['role']}",
            f"DROP DATABASE IF EXISTS {options['dbname']}",
            "DROP TABLE IF EXISTS keyturn.users",
        ):
            mysql.run(statement)


class TestCheck:
    """Denied only when the server turned the login down; all else is unknown."""

    def test_a_locked_user_is_denied(self, kind: MysqlUser, orders: Orders) -> None:
        first = installed(kind, 1)
        orders.database.run(f"ALTER USER '{user_of(first)}'@'%' ACCOUNT LOCK")
        assert kind.check(first) is Acceptance.DENIED

    def test_a_server_that_asks_for_the_password_in_clear_is_unknown_and_gets_none(self, kind: MysqlUser) -> None:
        first = issued(kind, 1)
        with _AsksInClear() as (port, heard):
            login = json.loads(first.value.reveal()) | {"port": port}
            assert kind.check(Credential(SECRET, 1, SecretValue(json.dumps(login)))) is Acceptance.UNKNOWN
            assert login["username"].encode() in heard
            assert login["password"].encode() not in heard


class TestLeftovers:
    @pytest.fixture
    def turned(self, kind: MysqlUser) -> tuple[Credential, Credential]:
        """A first generation that was retired, and the second one, which is current."""
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        return first, second

    @staticmethod
    def let_in(orders: Orders, credential: Credential) -> str:
        login = login_from(credential.value.reveal())
        kept = verifier("mysql_native_password", login.password.reveal())
        orders.database.run(
            f"ALTER USER '{login.username}'@'%' IDENTIFIED WITH mysql_native_password AS '{kept}' ACCOUNT UNLOCK"
        )
        return login.username

    def test_one_that_was_let_in_again_is_found_and_locked_out(
        self, kind: MysqlUser, orders: Orders, turned: tuple[Credential, Credential]
    ) -> None:
        first, second = turned
        assert kind.leftovers([second]) == ()
        user = self.let_in(orders, first)
        assert kind.leftovers([second]) == (Leftover(user, retired=True, sessions=0),)
        with connected(login_from(first.value.reveal()), PLAIN):
            assert kind.leftovers([second]) == (Leftover(user, retired=True, sessions=1),)
            with pytest.raises(TargetError, match="in use"):
                kind.lock_out(user, [second])
        for _ in range(2):
            kind.lock_out(user, [second])
        assert kind.leftovers([second]) == ()
        assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)

    def test_one_that_keyturn_never_locked_out_or_that_is_in_use_stays(
        self, kind: MysqlUser, orders: Orders, turned: tuple[Credential, Credential]
    ) -> None:
        third = installed(kind, 3, turned[1])
        with pytest.raises(TargetError, match="was not locked out by keyturn"):
            kind.lock_out(user_of(third), [turned[1]])
        for principal in (user_of(turned[1]), "root"):
            with pytest.raises(TargetError, match="no leftover"):
                kind.lock_out(principal, [turned[1]])
        assert kind.check(third) is Acceptance.ACCEPTED


class TestTransport:
    def test_a_certificate_is_checked_as_far_as_is_asked(self, orders: Orders, mysql_database: MysqlDatabase) -> None:
        trusted = mysql_database.server.certificate
        if trusted is None:
            pytest.skip("the server that KEYTURN_TEST_MYSQL names has a certificate that is not known here")
        pem, elsewhere = str(trusted), "localhost"  # the certificate is for 127.0.0.1
        accepted: list[dict[str, Any]] = [
            {"sslmode": "prefer"},
            {"sslmode": "require"},
            {"sslmode": "verify-ca", "sslrootcert": pem, "host": elsewhere},
            {"sslmode": "verify-full", "sslrootcert": pem},
        ]
        for options in accepted:
            orders.kind(**options).probe()
        refused: list[dict[str, Any]] = [
            {"sslmode": "verify-ca"},
            {"sslmode": "verify-full", "sslrootcert": pem, "host": elsewhere},
        ]
        for options in refused:
            with pytest.raises(Unavailable, match="cannot be used"):
                orders.kind(**options).probe()
        with pytest.raises(Unavailable, match="root certificates"):
            orders.kind(sslmode="verify-ca", sslrootcert="/nowhere").probe()

    def test_a_user_that_must_use_tls_is_denied_without(self, orders: Orders, kind: MysqlUser) -> None:
        first = installed(kind, 1)
        orders.database.run(f"ALTER USER '{user_of(first)}'@'%' REQUIRE SSL")
        assert orders.kind(sslmode="prefer").check(first) is Acceptance.ACCEPTED
        assert kind.check(first) is Acceptance.DENIED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"administrator": None}, "administrator"),
        ({"username_base": "Robert'); DROP"}, "username_base"),
        ({"username_base": "a" * 31}, "username_base"),
        ({"role": ""}, "role"),
        ({"role": "app_b"}, "app_b is also one of the users"),
        ({"user_host": "%' OR"}, "user_host"),
        ({"ledger": "a`b"}, "ledger"),
        ({"password_length": 21}, "password_length"),
        ({"sslmode": "allow"}, "sslmode"),
        ({"shape": "azure"}, "shape"),
        ({"authentication": "ed25519"}, "authentication"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    right = {"administrator": "admin", "username_base": "app", "role": "owner", "dbname": "orders"}
    with pytest.raises(DeclarationError, match=reason):
        MysqlUser(right | options, Strategy.ALTERNATING, lambda _: SecretValue("{}"))


def test_verifiers_are_what_the_servers_make(mysql_database: MysqlDatabase) -> None:
    """The second is hashcat's example of MySQL's own (https://hashcat.net/wiki/doku.php?id=example_hashes, 7401), since
    no package has a MySQL 8 to ask."""
    ((made,),) = mysql_database.run("SELECT PASSWORD('Hunter2-ö')") if mysql_database.server.is_mariadb else (("*",),)
    assert made in ("*", verifier("mysql_native_password", "Hunter2-ö"))
    salt = bytes.fromhex("F9CC98CE08892924F50A213B6BC571A2C11778C5")
    assert sha256_crypt(b"hashcat", salt) == "bTy95Y99eAME1dwEkHOA1ndHGBWz.1bxSSRkuTXFGV/"
    assert verifier("caching_sha2_password", "x").startswith("$A$005$")
    assert len(verifier("caching_sha2_password", "x")) == 70


class _AsksInClear:
    """A server that greets as MySQL does, then asks for the password in clear, and keeps all that it hears."""

    def __enter__(self) -> tuple[int, bytearray]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._heard = bytearray()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self._listener.getsockname()[1], self._heard

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        # Protocol::HandshakeV10 without CLIENT_SSL, then Protocol::AuthSwitchRequest.
        flags = 0x00000200 | 0x00008000 | 0x00080000
        greeting = b"\x0a8.0.0\0" + (7).to_bytes(4, "little") + b"12345678\0" + (flags & 0xFFFF).to_bytes(2, "little")
        greeting += b"\x2d\x02\x00" + (flags >> 16).to_bytes(2, "little") + b"\x15" + bytes(10) + b"123456789012\0"
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(5)
            connection.sendall(self._packet(0, greeting + b"mysql_native_password\0"))
            self._heard += connection.recv(4096)
            connection.sendall(self._packet(2, b"\xfemysql_clear_password\0"))
            while more := connection.recv(4096):
                self._heard += more

    @staticmethod
    def _packet(number: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "little") + bytes([number]) + body
