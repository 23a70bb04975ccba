"""The connection to Vault, against OpenBao: how the runner logs in and stays logged in, and what goes wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import stamina

from rotation import vault
from rotation.errors import DeclarationError, StoreError, Unauthorized, Unavailable, UsageError
from rotation.model import Credential
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import VaultKv
from rotation.vault import Vault, connect
from tests.contracts.staging import CANARY, promoted, text_of, told_by
from tests.fixtures.answering import Answering, served
from tests.fixtures.oidc import ISSUER, Signer
from tests.fixtures.openbao import OpenBao, Proxy, await_versions, cluster, persistent
from tests.fixtures.ports import closed_port, free_port
from tests.fixtures.tls import Shelf, material, serving

RULES = json.dumps({"path": {"kv-own/*": {"capabilities": ["read", "list"]}}})


@pytest.fixture(autouse=True)
def its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Neither the user's own token nor another test's connection."""
    for name in ("VAULT_TOKEN", "VAULT_ADDR", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    vault._connected.cache_clear()
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
def opened() -> Iterator[Callable[..., Vault]]:
    made: list[Vault] = []

    def open_(address: str, **options: Any) -> Vault:
        made.append(connect({"address": address, **options}))
        return made[-1]

    yield open_
    for each in made:
        each.session.close()


@pytest.fixture
def engine(openbao: OpenBao) -> Iterator[None]:
    """The policy "own", and what it lets one read."""
    root = openbao.client()
    root.sys.enable_secrets_engine("kv", path="kv-own")
    root.sys.create_or_update_policy("own", RULES)
    root.write("kv-own/it", text="there")
    try:
        yield
    finally:
        root.sys.disable_secrets_engine("kv-own")
        root.sys.delete_policy("own")


Opened = Callable[..., Vault]


def read(connection: Vault, path: str = "kv-own/it") -> str:
    text: str = connection.ask(lambda c: c.adapter.get(f"/v1/{path}"), f"read {path}")["data"]["text"]
    return text


# given tokens


def test_the_token_of_the_environment_is_used_and_a_new_one_at_once(
    openbao: OpenBao, engine: None, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = opened(openbao.address)
    with pytest.raises(Unauthorized, match=r"vault-token"):
        read(connection)
    monkeypatch.setenv("VAULT_TOKEN", "wrong")
    with pytest.raises(Unauthorized, match="403"):
        read(connection)
    monkeypatch.setenv("VAULT_TOKEN", openbao.token)
    assert read(connection) == "there"


def test_the_token_that_vaults_own_client_keeps_is_used(
    openbao: OpenBao, engine: None, opened: Opened, tmp_path: Path
) -> None:
    (tmp_path / ".vault-token").write_text(openbao.token)
    assert read(opened(openbao.address)) == "there"


def test_a_token_file_is_read_again_when_it_changes(
    openbao: OpenBao, engine: None, opened: Opened, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    connection = opened(openbao.address, auth={"method": "token_file", "path": str(file)})
    with pytest.raises(Unauthorized, match="FileNotFoundError"):
        read(connection)
    file.write_text("\n")
    with pytest.raises(Unauthorized, match="empty"):
        read(connection)
    with openbao.policy(RULES) as token:
        file.write_text(f"{token}\n")
        assert read(connection) == "there"
    with pytest.raises(Unauthorized):  # revoked by now
        read(connection)
    file.write_text(openbao.token)
    assert read(connection) == "there"


def later(monkeypatch: pytest.MonkeyPatch, *, minutes: float) -> None:
    """Let it be so much later by the runner's clock."""
    monkeypatch.setattr(vault, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + minutes * 60))


def renewals(proxy: Proxy) -> int:
    return proxy.calls["POST /v1/auth/token/renew-self"] + proxy.calls["PUT /v1/auth/token/renew-self"]


def test_a_given_token_near_its_end_is_renewed(
    openbao: OpenBao, openbao_proxy: Proxy, engine: None, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = openbao.client().auth.token.create(policies=["own"], ttl="10m", renewable=True, no_parent=True)
    monkeypatch.setenv("VAULT_TOKEN", made["auth"]["client_token"])
    connection = opened(openbao_proxy.address)
    for minutes in (4, 9):
        assert read(connection) == "there"
        assert renewals(openbao_proxy) == 0
        later(monkeypatch, minutes=minutes)
    assert read(connection) == "there"
    assert renewals(openbao_proxy) == 1


# logins


@pytest.fixture
def approle(openbao: OpenBao, engine: None) -> Iterator[dict[str, str]]:
    root = openbao.client()
    root.sys.enable_auth_method("approle")
    try:
        root.auth.approle.create_or_update_approle("runner", token_policies=["own"], token_ttl="1h")
        yield {
            "role_id": root.auth.approle.read_role_id("runner")["data"]["role_id"],
            "secret_id": root.auth.approle.generate_secret_id("runner")["data"]["secret_id"],
        }
    finally:
        root.sys.disable_auth_method("approle")


def test_a_runner_logs_in_by_approle_and_once(
    openbao_proxy: Proxy, approle: dict[str, str], opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNNER_SECRET_ID", approle["secret_id"])
    (tmp_path / "secret-id").write_text(approle["secret_id"])
    for place in ({"secret_id_variable": "RUNNER_SECRET_ID"}, {"secret_id_file": str(tmp_path / "secret-id")}):
        auth = {"method": "approle", "role_id": approle["role_id"], **place}
        connection = opened(openbao_proxy.address, auth=auth)
        assert [read(connection) for _ in range(3)] == ["there"] * 3
    assert openbao_proxy.calls == {"POST /v1/auth/approle/login": 2, "GET /v1/kv-own/it": 6}


def test_a_wrong_secret_id_is_unauthorized_and_not_told(
    openbao: OpenBao, approle: dict[str, str], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_SECRET_ID", CANARY)
    auth = {"method": "approle", "role_id": approle["role_id"], "secret_id_variable": "RUNNER_SECRET_ID"}
    told = told_by(lambda: read(opened(openbao.address, auth=auth)))
    assert "log in at auth/approle" in told
    assert CANARY not in told


def approle_runner(
    openbao: OpenBao, address: str, approle: dict[str, str], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> Vault:
    monkeypatch.setenv("RUNNER_SECRET_ID", approle["secret_id"])
    auth = {"method": "approle", "role_id": approle["role_id"], "secret_id_variable": "RUNNER_SECRET_ID"}
    return opened(address, auth=auth)


def test_a_token_that_cannot_be_renewed_any_longer_is_replaced_by_a_new_login(
    openbao: OpenBao,
    openbao_proxy: Proxy,
    approle: dict[str, str],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    openbao.client().auth.approle.create_or_update_approle(
        "runner", token_policies=["own"], token_ttl="2s", token_max_ttl="3s"
    )
    connection = approle_runner(openbao, openbao_proxy.address, approle, opened, monkeypatch)
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        assert read(connection) == "there"
        time.sleep(0.2)
    assert renewals(openbao_proxy) >= 1
    assert 2 <= openbao_proxy.calls["POST /v1/auth/approle/login"] <= 5


def test_a_token_that_was_revoked_is_replaced_within_the_call(
    openbao: OpenBao,
    openbao_proxy: Proxy,
    approle: dict[str, str],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = approle_runner(openbao, openbao_proxy.address, approle, opened, monkeypatch)
    assert read(connection) == "there"
    openbao.client().sys.revoke_prefix("auth/approle")
    assert read(connection) == "there"
    assert openbao_proxy.calls["POST /v1/auth/approle/login"] == 2


def test_threads_whose_token_is_revoked_under_them_all_go_on(
    openbao: OpenBao,
    openbao_proxy: Proxy,
    approle: dict[str, str],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = approle_runner(openbao, openbao_proxy.address, approle, opened, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            openbao.client().sys.revoke_prefix("auth/approle")
            assert list(pool.map(lambda _: read(connection), range(24))) == ["there"] * 24
    assert openbao_proxy.calls["POST /v1/auth/approle/login"] <= 5


def test_a_denial_with_a_good_token_is_told_at_once_and_without_a_new_login(
    openbao: OpenBao,
    openbao_proxy: Proxy,
    approle: dict[str, str],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = approle_runner(openbao, openbao_proxy.address, approle, opened, monkeypatch)
    with pytest.raises(Unauthorized, match="permission denied"):
        read(connection, "kv-other/it")
    assert openbao_proxy.calls["POST /v1/auth/approle/login"] == 1
    assert openbao_proxy.calls["GET /v1/kv-other/it"] == 1


@pytest.fixture
def issuer(openbao: OpenBao, engine: None) -> Iterator[Callable[..., str]]:
    """A JWT backend that trusts one key, and what signs tokens for an audience with it."""
    signer = Signer()
    root = openbao.client()
    root.sys.enable_auth_method("jwt")
    try:
        root.auth.jwt.configure(jwt_validation_pubkeys=[signer.public], bound_issuer=ISSUER)
        root.write(
            "auth/jwt/role/runner",
            role_type="jwt",
            user_claim="sub",
            bound_audiences=["keyturn"],
            token_policies=["own"],
        )
        yield signer.token
    finally:
        root.sys.disable_auth_method("jwt")


def test_a_pipeline_logs_in_with_a_jwt_from_a_file_or_a_variable(
    openbao: OpenBao,
    issuer: Callable[..., str],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CI_JWT", issuer("keyturn"))
    (tmp_path / "jwt").write_text(issuer("keyturn"))
    for place in ({"token_variable": "CI_JWT"}, {"token_file": str(tmp_path / "jwt")}):
        assert read(opened(openbao.address, auth={"method": "jwt", "role": "runner", **place})) == "there"


def test_a_job_of_github_actions_logs_in_with_its_own_identity(
    openbao: OpenBao, issuer: Callable[..., str], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GitHub(Answering):
        def answer(self, asked: str) -> Any:
            assert self.headers["Authorization"] == "bearer the-jobs-own"
            return {"value": issuer(self.path.partition("&audience=")[2])}

    with served(GitHub) as address:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{address}/token?api-version=2.0")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-jobs-own")
        good = {"method": "jwt", "role": "runner", "audience": "keyturn"}
        assert read(opened(openbao.address, auth=good)) == "there"
        for wrong in ({"audience": "another"}, {"role": "nobody"}, {"mount": "jwt-elsewhere"}, {"namespace": "ghost"}):
            namespace = {"namespace": wrong.pop("namespace")} if "namespace" in wrong else {}
            with pytest.raises(Unauthorized, match="log in at auth/jwt") as told:
                read(opened(openbao.address, auth=good | wrong, **namespace))
            assert "what the role is bound to" in told.value.remedy


def test_a_job_that_may_not_ask_for_an_identity_is_told_how(
    openbao: OpenBao, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    with pytest.raises(Unauthorized) as told:
        read(opened(openbao.address, auth={"method": "jwt", "role": "runner"}))
    assert "id-token: write" in told.value.remedy


def test_a_pod_logs_in_with_its_service_account(opened: Opened, tmp_path: Path) -> None:
    """Without a Kubernetes that could review the account there is no server to log in at: this one only listens."""
    (tmp_path / "account").write_text("the.pods.jwt")

    class Server(Answering):
        def answer(self, asked: str) -> Any:
            if self.path == "/v1/auth/k8s-ci/login":
                assert json.loads(asked) == {"role": "runner", "jwt": "the.pods.jwt"}
                return {"auth": {"client_token": "s.pod", "lease_duration": 3600, "renewable": True}}
            assert self.headers["X-Vault-Token"] == "s.pod"
            assert self.headers["X-Vault-Request"] == "true"
            return {"data": {"text": "there"}}

    auth = {"method": "kubernetes", "mount": "k8s-ci", "role": "runner", "token_file": str(tmp_path / "account")}
    with served(Server) as address:
        assert read(opened(address, auth=auth)) == "there"


def test_a_namespace_is_asked_and_no_other(openbao: OpenBao, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", openbao.token)
    openbao.client().write("sys/namespaces/team")
    inside = openbao.client(namespace="team")
    inside.sys.enable_secrets_engine("kv", path="kv-own")
    inside.write("kv-own/it", text="in the namespace")
    try:
        assert read(opened(openbao.address, namespace="team")) == "in the namespace"
        with pytest.raises(StoreError):
            read(opened(openbao.address))
        monkeypatch.setenv("VAULT_NAMESPACE", "team")
        assert read(opened(openbao.address)) == "in the namespace"
    finally:
        inside.sys.disable_secrets_engine("kv-own")
        openbao.client().delete("sys/namespaces/team")


# trouble


@pytest.fixture
def as_root(openbao: OpenBao, engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", openbao.token)


def test_a_sealed_server_is_unavailable_and_says_so(openbao: OpenBao, as_root: None, opened: Opened) -> None:
    connection = opened(openbao.address)
    with openbao.sealed():
        with pytest.raises(Unavailable, match=r"503.*sealed"):
            read(connection)
        with pytest.raises(Unavailable, match=r"could not read: Vault answered 503: it is sealed"):
            connection.ask_once(lambda client: client.read("kv-own/any"), "read", quiet=True)
    assert read(connection) == "there"


@pytest.mark.parametrize("status", [412, 429, 472, 473, 500, 502, 503, 504])
def test_a_standby_an_overloaded_or_a_broken_server_is_asked_again(
    openbao_proxy: Proxy, as_root: None, opened: Opened, status: int
) -> None:
    connection = opened(openbao_proxy.address)
    openbao_proxy.fault("answered", "kv-own", times=1, status=status)
    assert read(connection) == "there"
    openbao_proxy.fault("answered", "kv-own", times=2, status=status)
    with pytest.raises(Unavailable, match=str(status)):
        read(connection)


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_connection_that_breaks_is_made_again(openbao_proxy: Proxy, as_root: None, opened: Opened, fate: Any) -> None:
    connection = opened(openbao_proxy.address)
    openbao_proxy.fault(fate, "kv-own", times=1)
    assert read(connection) == "there"


def test_a_server_that_asks_for_a_pause_gets_it(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "any")

    class Busy(Answering):
        status = 429

        def others(self) -> dict[str, str]:
            return {"Retry-After": "2"}

    with served(Busy) as address, pytest.raises(Unavailable) as busy:
        read(opened(address))
    assert busy.value.retry_after == 2


def test_an_answer_that_is_no_json_is_unavailable(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "any")

    class Portal(Answering):
        def answer(self, asked: str) -> Any:
            return b"<html>Please log in to this network</html>"

        def others(self) -> dict[str, str]:
            return {"Content-Type": "text/html"}

    with served(Portal) as address, pytest.raises(Unavailable, match="incomplete"):
        read(opened(address))


def test_a_server_whose_certificate_is_not_trusted_is_told_from_one_without_tls(
    openbao: OpenBao, as_root: None, opened: Opened, shelf: Shelf
) -> None:
    leaf = material(Credential("orders/tls", 1, shelf.local_ca().issue(None)))
    with serving(leaf) as server, pytest.raises(UsageError, match="certificate is not trusted") as caught:
        read(opened(f"https://127.0.0.1:{server.port}"))
    assert "VAULT_CACERT" in caught.value.remedy
    with pytest.raises(Unavailable, match="the TLS handshake failed"):
        read(opened(openbao.address.replace("http", "https", 1)))


def test_a_proxy_that_is_not_there_is_told_from_a_server_that_is_not(
    openbao: OpenBao, as_root: None, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(Unavailable, match="the proxy of this environment") as told:
        read(opened(openbao.address))
    assert "NO_PROXY" in told.value.remedy
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert read(opened(openbao.address)) == "there"


def test_a_dead_server_and_a_silent_one_are_unavailable(
    openbao_proxy: Proxy, as_root: None, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable):
        read(opened("http://127.0.0.1:9"))
    monkeypatch.setattr(vault, "TIMEOUT", (1.0, 0.2))
    openbao_proxy.fault("late", "kv-own", times=2, seconds=0.6)
    with pytest.raises(Unavailable, match="Timeout"):
        read(opened(openbao_proxy.address))


def test_a_standby_that_points_to_the_leader_is_followed(
    openbao: OpenBao, kv_mount: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", openbao.token)

    class Standby(Answering):
        status = 307

        def others(self) -> dict[str, str]:
            return {"Location": openbao.address + self.path}

    openbao.client().secrets.kv.v2.update_metadata("orders/db", custom_metadata={"a": "b"}, mount_point=kv_mount)
    with served(Standby) as address:
        store = VaultKv({"address": address, "mount": kv_mount})
        promoted(store, "orders/db", 1)
        assert store.read("orders/db") == text_of(1)
        store._vault.session.close()


def test_a_promotion_goes_on_where_its_server_is_started_anew_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server is there at first; then one comes up on the same storage."""
    port, folder = free_port(), tmp_path / "server"
    with persistent(folder, port) as server:
        monkeypatch.setenv("VAULT_TOKEN", server.token)
        root = server.client()
        root.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
        root.secrets.kv.v2.update_metadata("orders/db", custom_metadata={"a": "b"}, mount_point="secret")
        store = VaultKv({"address": server.address})
        promoted(store, "orders/db", 1)
        store.stage("orders/db", 2, text_of(2))
    with stamina.set_testing(False):
        thread = threading.Thread(target=store.promote, args=("orders/db", 2, store.predict("orders/db", 1)))
        thread.start()
        with persistent(folder, port):
            thread.join(timeout=60)
            assert not thread.is_alive()
            assert store.read("orders/db") == text_of(2)
    store._vault.session.close()


def test_a_cluster_changes_its_leader_under_a_promotion_and_the_old_one_serves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that the runner is connected to steps down when it is to write the current value."""
    stepped_down = threading.Event()
    with cluster(tmp_path) as (old, new):
        monkeypatch.setenv("VAULT_TOKEN", old.token)
        root = old.client()
        root.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
        await_versions(root, "secret")
        root.secrets.kv.v2.update_metadata("orders/db", custom_metadata={"a": "b"}, mount_point="secret")
        store = VaultKv({"address": old.address})
        promoted(store, "orders/db", 1)
        store.stage("orders/db", 2, text_of(2))

        class SteppingDown(requests.adapters.HTTPAdapter):
            def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
                ours = (request.method, request.path_url) == ("POST", "/v1/secret/data/orders/db")
                if ours and not stepped_down.is_set():
                    stepped_down.set()
                    root.adapter.put("/v1/sys/step-down")
                return super().send(request, *args, **kwargs)

        store._vault.session.mount("http://", SteppingDown())
        with stamina.set_testing(False):
            store.promote("orders/db", 2, store.predict("orders/db", 1))
        assert stepped_down.is_set()
        assert store.read("orders/db") == text_of(2)
        view = store.observe(["orders/db"])["orders/db"]
        assert (view.current, view.pending) == (store.predict("orders/db", 2), None)
        entry = new.client().secrets.kv.v2.read_secret_metadata("orders/db", mount_point="secret")["data"]
        assert entry["current_version"] == 2, "it was written once"
        store._vault.session.close()


# what is told


def test_a_server_that_quotes_a_value_does_not_get_it_into_an_error_or_a_log(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", f"token-{CANARY}")

    class Parrot(Answering):
        status = 400

        def answer(self, asked: str) -> Any:
            return {"errors": [f"no good: {asked} {self.headers['X-Vault-Token']}"]}

    with served(Parrot) as address, caplog.at_level(logging.DEBUG):
        connection = opened(address)
        told = told_by(
            lambda: connection.ask(
                lambda c: c.secrets.kv.v2.create_or_update_secret("a", {"value": CANARY}), "write a", quiet=True
            )
        )
        told += told_by(lambda: VaultKv({"address": address}).stage("orders/db", 1, SecretValue(CANARY)))
    assert "Vault answered 400" in told
    assert CANARY not in told + caplog.text + repr(vars(connection)) + repr(vars(connection._runner))


# options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"adress": "https://vault.example.com"}, "adress"),
        ({"auth": {"method": "ldap"}}, "ldap|method"),
        ({"auth": {"method": "jwt"}}, "role"),
        ({"auth": {"method": "approle", "role_id": "x"}}, "secret_id"),
    ],
)
def test_a_wrong_option_is_a_wrong_declaration(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        connect({"address": "https://vault.example.com"} | options)


def test_an_address_is_needed_and_looked_at() -> None:
    with pytest.raises(UsageError, match="no address"):
        connect({})
    with pytest.raises(UsageError, match=r"vault\.example"):
        connect({"address": "vault.example"})


def test_plugins_share_one_connection_for_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example.com")
    assert VaultKv({"mount": "a"})._vault is VaultKv({"mount": "b"})._vault is connect({})
    assert connect({"namespace": "team"}) is not connect({})
