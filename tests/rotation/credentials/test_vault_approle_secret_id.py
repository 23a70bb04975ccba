"""Secret IDs of an AppRole, on a real OpenBao, with a token that may do just what the module's docstring says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import hvac
import pytest
import stamina

from modules import vault_policies as policies
from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.vault_approle_secret_id import VaultApproleSecretId
from rotation.engine import Request
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.manifest import Plugin
from rotation.model import Acceptance, Credential, Leftover, Strategy
from rotation.secret_value import SecretValue
from tests.contracts.crash import NAME, WAIT, CrashContract, Stage
from tests.contracts.credential_kind import SECRET, Make, OverlapContract, TargetContract, installed, issued, texts_of
from tests.fixtures.openbao import OpenBao, Proxy
from tests.fixtures.ports import closed_port

RIGHT = {"role": "billing", "address": "http://127.0.0.1:1"}
_numbers = count(1)


def policy(mount: str, ledger: str, secret: str = SECRET) -> str:
    return policies.document(policies.turn_secret_ids(mount, "billing", secret, ledger))


@dataclass(frozen=True)
class Billing:
    """An AppRole ``billing`` on a mount of its own, and a runner's token."""

    openbao: OpenBao
    mount: str
    ledger: str
    token: str

    @property
    def role(self) -> str:
        return f"auth/{self.mount}/role/billing"

    def kind(self, strategy: Strategy = Strategy.OVERLAPPING, **options: Any) -> VaultApproleSecretId:
        return VaultApproleSecretId(self.options() | options, strategy, _never_read)

    def options(self) -> dict[str, Any]:
        vault = {"mount": self.mount, "ledger": self.ledger, "address": self.openbao.address}
        return {"role": "billing"} | vault

    def configure(self, **settings: Any) -> None:
        self.openbao.client().adapter.post(f"/v1/{self.role}", json={"token_ttl": "10m"} | settings)

    def role_id(self) -> str:
        return str(self.openbao.client().adapter.get(f"/v1/{self.role}/role-id")["data"]["role_id"])

    def registered(self) -> list[str]:
        """The accessors of all secret IDs."""
        try:
            found: list[str] = self.openbao.client().adapter.list(f"/v1/{self.role}/secret-id")["data"]["keys"]
        except hvac.exceptions.InvalidPath:
            return []
        return found

    def by_hand(self) -> Credential:
        """A secret ID from before keyturn."""
        made = self.openbao.client().adapter.post(f"/v1/{self.role}/secret-id")["data"]
        value = {"role_id": self.role_id(), "secret_id": made["secret_id"]}
        return Credential(SECRET, 1, SecretValue(json.dumps(value)))

    def log_in(self, credential: Credential) -> dict[str, Any]:
        """What a machine gets, which logs in with the value as it is."""
        client = hvac.Client(self.openbao.address, token="")
        auth: dict[str, Any] = client.adapter.post(
            f"/v1/auth/{self.mount}/login", json=json.loads(credential.value.reveal())
        )["auth"]
        return auth


def _never_read(name: str) -> SecretValue:
    raise AssertionError(f"it needs no other secret, and asked for {name}")


def secret_id(value: SecretValue) -> str:
    return str(json.loads(value.reveal())["secret_id"])


@pytest.fixture
def billing(openbao: OpenBao, kv_mount: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Billing]:
    client, mount = openbao.client(), f"approle-{next(_numbers)}"
    client.sys.enable_auth_method("approle", path=mount)
    with ExitStack() as cleanup:
        cleanup.callback(client.sys.disable_auth_method, mount)
        token = cleanup.enter_context(openbao.policy(policy(mount, kv_mount)))
        billing = Billing(openbao, mount, kv_mount, token)
        billing.configure()
        monkeypatch.setenv("VAULT_TOKEN", token)
        monkeypatch.delenv("VAULT_NAMESPACE", raising=False)
        cleanup.enter_context(stamina.set_testing(True, attempts=3))
        yield billing


@pytest.fixture
def kind(billing: Billing) -> VaultApproleSecretId:
    return billing.kind()


class TestOverlapping(TargetContract, OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture
    def make(self, billing: Billing) -> Make:
        return billing.kind

    @pytest.fixture
    def kind(self, billing: Billing) -> CredentialKind:
        return billing.kind()

    @pytest.fixture
    def unreachable(self, billing: Billing) -> CredentialKind:
        return billing.kind(address=f"http://127.0.0.1:{closed_port()}", role_id="billing-id")

    @pytest.fixture
    def unauthorized(self, billing: Billing, monkeypatch: pytest.MonkeyPatch) -> CredentialKind:
        monkeypatch.setenv("ANOTHER_TOKEN", "not-a-token")
        return billing.kind(auth={"method": "token", "variable": "ANOTHER_TOKEN"})

    def hidden_part(self, value: SecretValue) -> str:
        return secret_id(value) if value.reveal().startswith("{") else value.reveal()

    @pytest.fixture
    def administrator(self, billing: Billing) -> SecretValue:
        return SecretValue(billing.token)

    @pytest.fixture
    def target_log(self, billing: Billing) -> Callable[[], str]:
        return billing.openbao.log.read_text


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "vault_approle_secret_id") is VaultApproleSecretId


def test_a_value_is_what_a_login_takes_and_its_tokens_say_whose_they_are(
    kind: VaultApproleSecretId, billing: Billing
) -> None:
    auth = billing.log_in(installed(kind, 1))
    whose = {"role_name": "billing", "keyturn_secret": SECRET, "keyturn_generation": "1"}
    assert auth["metadata"] == whose


def test_a_revoked_secret_id_is_gone_and_the_new_one_logs_in(kind: VaultApproleSecretId, billing: Billing) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    assert len(billing.registered()) == 2
    kind.revoke(first, second)
    assert len(billing.registered()) == 1
    with pytest.raises(hvac.exceptions.InvalidRequest):
        billing.log_in(first)
    billing.log_in(second)


def test_tokens_of_a_revoked_secret_id_live_on_as_the_plan_says(kind: VaultApproleSecretId, billing: Billing) -> None:
    first = installed(kind, 1)
    token = billing.log_in(first)["client_token"]
    kind.revoke(first, installed(kind, 2, first), end_sessions=True)
    assert billing.openbao.client(token).auth.token.lookup_self()["data"]["ttl"] > 0
    assert "tokens that somebody got with it live on" in kind.operations(2, 1)[-1]


def test_checking_what_is_not_registered_locks_nobody_out(kind: VaultApproleSecretId, billing: Billing) -> None:
    first = installed(kind, 1)
    candidate = issued(kind, 2, first)
    for _ in range(8):
        assert kind.check(candidate) is Acceptance.DENIED
    billing.log_in(first)


def test_a_role_that_is_locked_out_is_unknown(kind: VaultApproleSecretId, billing: Billing) -> None:
    first = installed(kind, 1)
    for _ in range(6):
        with pytest.raises((hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden)):
            billing.log_in(issued(kind, 2, first))
    assert kind.check(first) is Acceptance.UNKNOWN


def test_a_check_leaves_no_token_behind(kind: VaultApproleSecretId, billing: Billing) -> None:
    first = installed(kind, 1)
    client = billing.openbao.client()
    before = set(client.auth.token.list_accessors()["data"]["keys"])
    assert kind.check(first) is Acceptance.ACCEPTED
    assert set(client.auth.token.list_accessors()["data"]["keys"]) <= before


def test_a_role_for_other_addresses_is_unknown(billing: Billing) -> None:
    billing.configure(secret_id_bound_cidrs=["192.0.2.0/24"])
    kind = billing.kind()
    assert kind.check(installed(kind, 1)) is Acceptance.UNKNOWN


def test_a_wrong_role_id_is_denied(billing: Billing) -> None:
    kind = billing.kind(role_id="somebody-else")
    assert kind.check(installed(kind, 1)) is Acceptance.DENIED


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_registration_whose_request_or_reply_is_lost_registers_it_once(
    billing: Billing, openbao_proxy: Proxy, fate: Any
) -> None:
    openbao_proxy.fault(fate, "custom-secret-id")
    kind = billing.kind(address=openbao_proxy.address)
    first = installed(kind, 1)
    assert len(billing.registered()) == 1
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_run_that_dies_before_it_registers_is_finished_by_the_next(billing: Billing, openbao_proxy: Proxy) -> None:
    openbao_proxy.fault("answered", "custom-secret-id", times=3)
    kind = billing.kind()
    first = issued(kind, 1)
    with pytest.raises(Unavailable):
        billing.kind(address=openbao_proxy.address).install(first, None)
    assert billing.registered() == []
    kind.install(first, None)
    assert kind.check(first) is Acceptance.ACCEPTED


def test_what_others_revoked_while_a_runner_slept_before_registering_is_destroyed_at_once(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, sleeper = billing.kind(), billing.kind()
    first = installed(kind, 1)
    second = issued(kind, 2, first)
    register = sleeper._register

    def late(new: Credential, value: Any) -> str:
        kind.revoke(second, first)
        return register(new, value)

    monkeypatch.setattr(sleeper, "_register", late)
    with pytest.raises(TargetError, match="superseded"):
        sleeper.install(second, first)
    assert kind.check(second) is Acceptance.DENIED
    assert len(billing.registered()) == 1


def test_what_others_promoted_while_a_runner_slept_before_registering_is_left_alone(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, sleeper = billing.kind(), billing.kind()
    first = installed(kind, 1)
    second = issued(kind, 2, first)
    register = sleeper._register

    def late(new: Credential, value: Any) -> str:
        kind.install(second, first)
        kind.revoke(first, second)
        installed(kind, 3, second)
        return register(new, value)

    monkeypatch.setattr(sleeper, "_register", late)
    with pytest.raises(TargetError, match="superseded"):
        sleeper.install(second, first)
    assert kind.check(second) is Acceptance.ACCEPTED


def test_a_revocation_that_died_after_its_note_is_finished_and_not_installed_over(
    billing: Billing, openbao_proxy: Proxy
) -> None:
    kind = billing.kind()
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    openbao_proxy.fault("answered", "secret-id-accessor/destroy", times=3)
    with pytest.raises(Unavailable):
        billing.kind(address=openbao_proxy.address).revoke(second, first)
    with pytest.raises(TargetError, match="superseded"):
        kind.install(second, first)
    kind.revoke(second, first)
    assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.DENIED)


def test_a_secret_id_from_before_keyturn_is_accepted_overlaps_and_is_retired(
    kind: VaultApproleSecretId, billing: Billing
) -> None:
    old = billing.by_hand()
    assert kind.check(old) is Acceptance.ACCEPTED
    second = installed(kind, 2, old)
    assert kind.check(old) is Acceptance.ACCEPTED
    kind.revoke(old, second)
    assert (kind.check(old), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


class TestLeftovers:
    def test_what_the_store_explains_is_none(self, kind: VaultApproleSecretId) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        assert kind.leftovers([second, first]) == ()
        assert kind.leftovers([]) == ()

    def test_one_of_a_generation_that_the_store_has_no_more_is_destroyed(
        self, kind: VaultApproleSecretId, billing: Billing
    ) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        (left,) = kind.leftovers([second])
        assert left.removable
        for _ in range(2):
            kind.lock_out(left.principal, [second])
        assert kind.leftovers([second]) == ()
        assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)

    def test_one_that_somebody_made_by_hand_is_told_and_stays(
        self, kind: VaultApproleSecretId, billing: Billing
    ) -> None:
        first = installed(kind, 1)
        other = billing.by_hand()
        (left,) = kind.leftovers([first])
        assert left == Leftover(left.principal, retired=False, sessions=0)
        with pytest.raises(TargetError, match="not made by keyturn"):
            kind.lock_out(left.principal, [first])
        assert kind.check(other) is Acceptance.ACCEPTED

    def test_a_kept_one_stays(self, kind: VaultApproleSecretId, billing: Billing) -> None:
        first = installed(kind, 1)
        (accessor,) = billing.registered()
        with pytest.raises(TargetError, match="in use"):
            kind.lock_out(accessor, [first])
        assert kind.check(first) is Acceptance.ACCEPTED


@pytest.mark.parametrize(
    ("settings", "options", "reason"),
    [
        ({"secret_id_num_uses": 40}, {}, "limits the uses of a secret ID"),
        ({"secret_id_ttl": "24h"}, {}, "after 86400 s, and how long it is needed is not declared"),
        ({"secret_id_ttl": "24h"}, {"lifetime": 86401}, "after 86400 s, and 86401 s are needed"),
        ({"bind_secret_id": False, "token_bound_cidrs": ["127.0.0.1/32"]}, {}, "asks for no secret ID"),
    ],
)
def test_a_role_whose_secret_ids_would_not_last_is_refused_before_anything_is_changed(
    billing: Billing, settings: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    billing.configure(**settings)
    kind = billing.kind(**options)
    for attempt in (kind.probe, lambda: installed(kind, 1)):
        with pytest.raises(TargetError, match=reason):
            attempt()
    assert billing.registered() == []


def test_a_role_that_ends_them_late_enough_is_taken(billing: Billing) -> None:
    billing.configure(secret_id_ttl="24h")
    kind = billing.kind(lifetime=3600)
    kind.probe()
    assert kind.check(installed(kind, 1)) is Acceptance.ACCEPTED


def test_the_probe_tells_a_missing_role_and_a_refused_runner(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    billing.openbao.client().adapter.delete(f"/v1/{billing.role}")
    with pytest.raises(TargetError, match="role/billing: Vault answered 404"):
        billing.kind().probe()
    monkeypatch.setenv("VAULT_TOKEN", "not-a-token")
    with pytest.raises(Unauthorized):
        billing.kind().probe()


def test_a_sealed_server_is_unknown(kind: VaultApproleSecretId, billing: Billing) -> None:
    first = installed(kind, 1)
    with billing.openbao.sealed():
        assert kind.check(first) is Acceptance.UNKNOWN
    assert kind.check(first) is Acceptance.ACCEPTED


def test_the_runners_token_can_do_nothing_more(billing: Billing) -> None:
    runner = billing.openbao.client(billing.token)
    role = f"/v1/{billing.role}"
    beyond: list[Callable[[], object]] = [
        lambda: runner.adapter.post(role, json={"token_policies": ["root"]}),
        lambda: runner.adapter.post(f"{role}/policies", json={"token_policies": ["root"]}),
        lambda: runner.adapter.post(f"{role}/secret-id"),
        lambda: runner.adapter.post(f"{role}/role-id", json={"role_id": "mine"}),
        lambda: runner.adapter.delete(role),
        lambda: runner.adapter.list(f"/v1/auth/{billing.mount}/role"),
        lambda: runner.adapter.post(f"/v1/auth/{billing.mount}/role/other/custom-secret-id", json={"secret_id": "x"}),
        lambda: runner.secrets.kv.v2.create_or_update_secret("orders", {}, mount_point=billing.ledger),
    ]
    for attempt in beyond:
        with pytest.raises(hvac.exceptions.Forbidden):
            attempt()


@pytest.mark.parametrize("place", ["secret-id/lookup", "custom-secret-id"])
def test_no_secret_id_gets_into_the_ledger_or_into_what_is_said_of_a_refusal(
    billing: Billing, openbao_proxy: Proxy, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level(logging.DEBUG)
    kind = billing.kind(address=openbao_proxy.address)
    first = installed(kind, 1)
    second = issued(kind, 2, first)
    openbao_proxy.fault("answered", place, status=400)
    with pytest.raises(TargetError, match="Vault answered 400") as caught:
        kind.install(second, first)
    ledger = billing.openbao.client().secrets.kv.v2.read_secret_version(
        f"_keyturn/{billing.mount}/billing/{SECRET}", mount_point=billing.ledger, raise_on_deleted_version=True
    )
    seen = "".join([*texts_of(caught.value), caplog.text, json.dumps(ledger)])
    assert secret_id(first.value) not in seen
    assert secret_id(second.value) not in seen


@pytest.mark.parametrize("text", ["", "not json: hunter2", '{"secret_id": "hunter2"}', '{"role_id": ["hunter2"]}'])
def test_a_value_of_another_shape_is_refused_without_showing_it(text: str) -> None:
    kind = VaultApproleSecretId(RIGHT, Strategy.OVERLAPPING, _never_read)
    with pytest.raises(TargetError, match="generation 7 of orders/db is no login of an AppRole") as caught:
        kind.check(Credential(SECRET, 7, SecretValue(text)))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"role": None}, "role"),
        ({"role": "a/../b"}, "role"),
        ({"mount": "/approle"}, "mount"),
        ({"lifetime": 0}, "lifetime"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        VaultApproleSecretId(RIGHT | options, Strategy.OVERLAPPING, _never_read)


class TestWithTheEngine(CrashContract):
    """The kind in a real rotation, with its values in a KV engine."""

    @pytest.fixture
    def stage(self, tmp_path: Path, billing: Billing, openbao: OpenBao) -> Iterator[Stage]:
        with openbao.policy(policy(billing.mount, billing.ledger, NAME)) as token:
            (tmp_path / "runner-token").write_text(token)
            auth = {"method": "token_file", "path": str(tmp_path / "runner-token")}
            credential = Plugin(kind="vault_approle_secret_id", options=billing.options() | {"auth": auth})
            made = Stage.on_vault(tmp_path, openbao, billing.ledger, credential, Strategy.OVERLAPPING)
            made.run(Request(initialize=True, wait=WAIT))
            yield made

    @pytest.fixture
    def kept(self, billing: Billing) -> Callable[[], int]:
        return lambda: len(billing.registered())
