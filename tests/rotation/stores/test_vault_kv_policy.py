"""The runner's policy, tested by being used: with it alone the store does all it must, and the runner nothing more."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import hvac
import pytest
from hvac.exceptions import Forbidden

from modules import vault_policies as policies
from rotation import vault
from rotation.errors import Unauthorized
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import VALUE_BYTES, VaultKv
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import promoted, text_of, two_current
from tests.fixtures.openbao import OpenBao, Proxy
from tests.rotation.stores.test_vault_kv import Harness

NAMES = [f"declared/{uuid.uuid4().hex[:12]}" for _ in range(120)]


@pytest.fixture(scope="module")
def proxy(openbao: OpenBao) -> Iterator[Proxy]:
    made = Proxy(openbao.address)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def mounted(openbao: OpenBao) -> Iterator[str]:
    with openbao.mount("kv-v2") as mount:
        yield mount


@pytest.fixture(scope="module")
def token(openbao: OpenBao, mounted: str) -> Iterator[str]:
    """One that may turn the declared secrets and no others. Names that have no slot are declared as well."""
    without_slot = ["keyturn/there-is-no-such-slot", *map(str, range(20))]
    rules = policies.keep_token() | policies.turn_secrets(mounted, [*NAMES, *without_slot])
    with openbao.policy(policies.document(rules)) as made:
        yield made


@pytest.fixture(scope="module")
def runners(proxy: Proxy, mounted: str) -> Iterator[Iterator[VaultKv]]:
    vault._connected.cache_clear()
    made = [VaultKv({"mount": mounted, "address": proxy.address}) for _ in range(2)]
    yield itertools.cycle(made)
    made[0]._vault.session.close()


class TestVaultKvWithTheRunnersPolicy(Harness, SecretStoreContract):
    value_bytes = VALUE_BYTES
    bad_names = ("",)
    names = iter(NAMES)

    @pytest.fixture(autouse=True)
    def as_the_runner(self, server: None, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VAULT_TOKEN", token)

    def slot(self) -> str:
        return self.slot_named(next(self.names))

    def test_it_is_told_a_slot_that_is_not_there(self) -> None:
        name = next(self.names)
        assert not self.open().observe([name])[name].exists

    def test_it_can_rewrap_a_value_and_take_back_what_was_deleted(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        store.rewrap(name, store.predict(name, 1), SecretValue("another envelope"))
        for leaf in ("ledger", "g1-r1"):
            self.kv.delete_latest_version_of_secret(f"_rotation/{name}/{leaf}", mount_point=self.mount)
        assert store.read(name) == SecretValue("another envelope")

    def test_it_can_go_on_without_a_ledger(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 7)
        self.kv.delete_metadata_and_all_versions(f"_rotation/{name}/ledger", mount_point=self.mount)
        assert store.observe([name])[name].highest == 7

    # what the runner may not do

    def test_it_cannot_touch_another_secret(self, token: str) -> None:
        own, store, root = self.slot(), self.open(), self.root()
        promoted(store, own, 1)
        # below a declared secret's name, and with one that a pattern of that secret's leaves could take for a leaf
        for name in ("undeclared/db", f"{own}/replica", f"{own}/gold", f"{own}x"):
            self.slot_named(name)
            two_current(root, name)
            client = self.openbao.client(token)
            with pytest.raises(Unauthorized):
                store.observe([name])
            for act in self.every_call(client, name):
                with pytest.raises(Forbidden):
                    act()
            assert root.read(name) == text_of(2)

    def every_call(self, client: hvac.Client, name: str) -> list[Callable[[], Any]]:
        kv, mount = client.secrets.kv.v2, self.mount
        paths = [name, *(f"_rotation/{name}/{leaf}" for leaf in ("ledger", "g1", "g2"))]
        return [
            act
            for path in paths
            for act in (
                partial(client.read, f"{mount}/data/{path}"),
                partial(client.read, f"{mount}/metadata/{path}"),
                partial(client.list, f"{mount}/metadata/{path}"),
                partial(kv.create_or_update_secret, path, {"value": "x"}, mount_point=mount),
                partial(kv.undelete_secret_versions, path, [1], mount_point=mount),
                partial(kv.destroy_secret_versions, path, [1], mount_point=mount),
                partial(kv.delete_metadata_and_all_versions, path, mount_point=mount),
            )
        ]

    def test_it_cannot_delete_its_own_secret_or_its_ledger(self, token: str) -> None:
        name, store = self.slot(), self.open()
        two_current(store, name)
        kv = self.openbao.client(token).secrets.kv.v2
        for path in (name, f"_rotation/{name}/ledger"):
            acts: list[Callable[[], Any]] = [
                partial(kv.delete_metadata_and_all_versions, path, mount_point=self.mount),
                partial(kv.delete_latest_version_of_secret, path, mount_point=self.mount),
                partial(kv.destroy_secret_versions, path, [1], mount_point=self.mount),
                partial(kv.update_metadata, path, max_versions=1, mount_point=self.mount),
            ]
            for act in acts:
                with pytest.raises(Forbidden):
                    act()
        assert store.read(name) == text_of(2)

    def test_it_cannot_list_secrets_change_mounts_or_make_tokens(self, token: str) -> None:
        client = self.openbao.client(token)
        with self.openbao.mount("kv-v2") as other:
            for act in (
                lambda: client.list(f"{self.mount}/metadata/"),
                lambda: client.list(f"{self.mount}/metadata/_rotation/"),
                lambda: client.read(f"{other}/data/{NAMES[0]}"),
                lambda: client.secrets.kv.v2.configure(max_versions=1, mount_point=self.mount),
                lambda: client.sys.disable_secrets_engine(self.mount),
                lambda: client.sys.enable_secrets_engine("kv", path="mine"),
                client.sys.list_mounted_secrets_engines,
                client.sys.list_policies,
                lambda: client.sys.create_or_update_policy("mine", 'path "*" {capabilities = ["sudo"]}'),
                lambda: client.auth.token.create(policies=["root"]),
                client.sys.seal,
            ):
                with pytest.raises(Forbidden):
                    act()

    def root(self) -> VaultKv:
        """A runner that may do everything."""
        variable = {"method": "token", "variable": "TESTS_ROOT_TOKEN"}
        return VaultKv({"mount": self.mount, "address": self.openbao.address, "auth": variable})

    @pytest.fixture(autouse=True)
    def root_token(self, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TESTS_ROOT_TOKEN", openbao.token)
