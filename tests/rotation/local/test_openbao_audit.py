"""What OpenBao itself keeps of whole rotations, in its log and for an auditor, has no value in clear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rotation.engine import Purpose, Request
from rotation.local.demo.leaks import _sensitive
from rotation.manifest import Key, Plugin
from rotation.model import Strategy
from tests.contracts.crash import NAME, WAIT, Stage
from tests.fixtures.openbao import OpenBao, persistent
from tests.fixtures.ports import free_port
from tests.fixtures.tls import NAMES, Pki

TOKEN = Plugin(kind="random_token", options={"alphabet": "hex", "length": 40})


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server as the embedded environment runs it."""
    with persistent(tmp_path_factory.mktemp("audited") / "openbao", free_port()) as server:
        client = server.client()
        client.sys.enable_secrets_engine("transit")
        client.secrets.transit.create_key("orders", derived=True)
        client.sys.enable_secrets_engine("pki", config={"max_lease_ttl": "87600h"})
        client.sys.enable_auth_method("approle")
        client.adapter.post("/v1/auth/approle/role/billing", json={"token_ttl": "10m"})
        yield server


def _sealed_token(server: OpenBao, folder: Path, kv: str) -> Stage:
    key = Key(service=Plugin(kind="vault_transit", options={"address": server.address}), reference="orders")
    return Stage.on_vault(folder, server, kv, TOKEN, Strategy.OVERLAPPING, key)


def _secret_id(server: OpenBao, folder: Path, kv: str) -> Stage:
    options = {"role": "billing", "ledger": kv, "address": server.address}
    credential = Plugin(kind="vault_approle_secret_id", options=options)
    return Stage.on_vault(folder, server, kv, credential, Strategy.OVERLAPPING)


def _certificate(server: OpenBao, folder: Path, kv: str) -> Stage:
    options = {"issuer": Pki(server, "pki").issuer(address=server.address), "names": list(NAMES)}
    return Stage.on_vault(folder, server, kv, Plugin(kind="tls_certificate", options=options), Strategy.OVERLAPPING)


@pytest.mark.parametrize("make", [_sealed_token, _secret_id, _certificate])
def test_neither_its_log_nor_its_audit_has_a_value_of_a_rotation(
    audited: OpenBao,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[OpenBao, Path, str], Stage],
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", audited.token)
    values = {audited.token.encode(), audited.unseal_key.encode()}
    with audited.mount("kv-v2") as kv:
        stage = make(audited, tmp_path, kv)
        for request in (Request(initialize=True, wait=WAIT), Request(wait=WAIT)):
            assert stage.run(request).error is None
            values.update(_sensitive(stage.value().reveal()))
        stage.run(Request(Purpose.RETIRE, wait=WAIT))
    assert len(values) == 4
    kept = audited.log.read_bytes() + (audited.log.parent / "audit.log").read_bytes()
    assert f'"path":"{kv}/data/{NAME}"'.encode() in kept
    assert not [value for value in values if value in kept]


def test_a_value_in_the_path_of_a_request_would_be_found_there(audited: OpenBao) -> None:
    audited.client().read("secret/data/a-value-in-a-path")
    assert b"a-value-in-a-path" in (audited.log.parent / "audit.log").read_bytes()
