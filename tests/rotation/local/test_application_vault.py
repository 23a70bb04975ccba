"""The sample application's reads from Vault, with a token of its own, on a real server."""

from __future__ import annotations

from pathlib import Path

import hvac.exceptions
import pytest

from rotation.keys.vault_transit import VaultTransit
from rotation.local.application.orders_api import parse
from rotation.local.application.values import Configuration, InSecretsManager, InVault, TransitKey, Vault
from rotation.sealing import seal
from rotation.secret_value import SecretValue
from tests.fixtures.openbao import OpenBao

REQUIRED = ("--ring=canary", "--port=1", "--config=s3://bucket/key", "--log=log")


@pytest.fixture
def reader(openbao: OpenBao, tmp_path: Path) -> Vault:
    token = tmp_path / "token"
    token.write_text(openbao.token, encoding="utf-8")
    return Vault(openbao.address, token)


def _wanted(mount: str, version: int = 1, sealed_with: TransitKey | None = None) -> InVault:
    path = f"{mount}/data/_rotation/orders/db/g7"
    return InVault(path=path, version=version, name="orders/db", generation=7, sealed_with=sealed_with)


def _put(server: OpenBao, mount: str, **fields: str) -> None:
    server.client().secrets.kv.v2.create_or_update_secret("_rotation/orders/db/g7", fields, mount_point=mount)


def test_it_reads_just_the_version_that_is_named(openbao: OpenBao, kv_mount: str, reader: Vault) -> None:
    _put(openbao, kv_mount, value="first")
    _put(openbao, kv_mount, value="second")
    assert reader.value(_wanted(kv_mount)) == SecretValue("first")
    assert reader.value(_wanted(kv_mount, version=2)) == SecretValue("second")


def test_a_sealed_value_is_opened_by_the_transit_engine(
    openbao: OpenBao, kv_mount: str, transit_mount: str, reader: Vault, vault_environment: OpenBao
) -> None:
    assert vault_environment is openbao
    openbao.client().secrets.transit.create_key("orders", derived=True, mount_point=transit_mount)
    service = VaultTransit({"mount": transit_mount})
    sealed = seal(SecretValue("opened-canary"), name="orders/db", generation=7, key="orders", service=service)
    _put(openbao, kv_mount, value=sealed.reveal())
    key = TransitKey(mount=transit_mount, key="orders")
    assert reader.value(_wanted(kv_mount, sealed_with=key)) == SecretValue("opened-canary")


@pytest.mark.parametrize("version", [1, 3])
def test_what_is_deleted_or_never_was_is_no_value(openbao: OpenBao, kv_mount: str, reader: Vault, version: int) -> None:
    _put(openbao, kv_mount, value="first")
    openbao.client().secrets.kv.v2.delete_secret_versions("_rotation/orders/db/g7", [1], mount_point=kv_mount)
    with pytest.raises((ValueError, hvac.exceptions.InvalidPath)):
        reader.value(_wanted(kv_mount, version=version))


def test_another_token_in_the_file_is_used_at_once(openbao: OpenBao, kv_mount: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s.wrong", encoding="utf-8")
    reader = Vault(openbao.address, token)
    _put(openbao, kv_mount, value="first")
    with pytest.raises(hvac.exceptions.Forbidden):
        reader.value(_wanted(kv_mount))
    token.write_text(openbao.token, encoding="utf-8")
    assert reader.value(_wanted(kv_mount)) == SecretValue("first")


def test_a_configuration_says_by_its_shape_where_a_value_is() -> None:
    found = Configuration.model_validate(
        {
            "secrets": {
                "a": {"arn": "arn:a", "name": "local/a", "version_id": "g1", "generation": 1},
                "b": {"path": "kv/data/b", "version": 1, "name": "b", "generation": 1},
            }
        }
    )
    assert isinstance(found.secrets["a"], InSecretsManager)
    assert isinstance(found.secrets["b"], InVault)


def test_an_address_without_a_token_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*REQUIRED, "--vault=http://127.0.0.1:8200"])
    assert "--vault and --vault-token go together" in capsys.readouterr().err
