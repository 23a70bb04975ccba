"""Version 2 of the KV engine, against OpenBao behind a proxy that loses requests and replies."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from modules import vault_policies
from rotation import vault
from rotation.errors import Conflict, DeclarationError, GenerationSpent, StoreError, Unauthorized
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore
from rotation.stores.vault_kv import VALUE_BYTES, VaultKv, to_fields, to_text
from tests.contracts.interruption import InterruptionContract
from tests.contracts.rewrapping import RewrappingContract
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import (
    Killed,
    Moment,
    Shape,
    Trouble,
    current_of,
    die,
    promoted,
    rejected,
    text_of,
    two_current,
    two_pending,
)
from tests.fixtures.openbao import OpenBao, Proxy

Fields = dict[str, Any]

_FAULTS: dict[Trouble, dict[str, Any]] = {
    Trouble.THROTTLED: {"fate": "answered", "status": 429},
    Trouble.BROKEN: {"fate": "answered", "status": 500},
    Trouble.DROPPED: {"fate": "lost before"},
    Trouble.LOST_REPLY: {"fate": "lost after"},
    Trouble.DENIED: {"fate": "answered", "status": 403},
}


class Hooks(requests.adapters.HTTPAdapter):
    """requests' own transport, with something done at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[Moment, Callable[[], None]] = {}

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.at.get(Moment.BEFORE, _nothing)()
        answer = super().send(*args, **kwargs)
        _ = answer.content  # the whole of it has come, and the connection is free again
        self.at.get(Moment.AFTER, _nothing)()
        return answer


def _nothing() -> None: ...


@pytest.fixture(scope="module")
def proxy(openbao: OpenBao) -> Iterator[Proxy]:
    """One for all tests: a runner keeps its connection to it."""
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
def runners(openbao: OpenBao, proxy: Proxy, mounted: str) -> Iterator[Iterator[VaultKv]]:
    """Ten, in turn. One process shares a connection, so each is made as if it were another process."""
    made = []
    for _ in range(10):
        vault._connected.cache_clear()
        made.append(VaultKv({"mount": mounted, "address": proxy.address}))
    yield itertools.cycle(made)
    for runner in made:
        runner._vault.session.close()


class Harness:
    """Secrets in one mount, and runners with a connection each."""

    @pytest.fixture(autouse=True)
    def server(
        self,
        openbao: OpenBao,
        proxy: Proxy,
        mounted: str,
        runners: Iterator[VaultKv],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("VAULT_TOKEN", openbao.token)
        self.openbao, self.proxy, self.mount, self.runners = openbao, proxy, mounted, runners
        self.raw = openbao.client()
        self.proxy.clear()

    def open(self) -> VaultKv:
        return next(self.runners)

    def slot(self) -> str:
        return self.slot_named(f"tests/{uuid.uuid4().hex[:12]}")

    def slot_named(self, name: str) -> str:
        self.latest = name
        self.kv.update_metadata(name, custom_metadata={"made-by": "a test"}, mount_point=self.mount)
        return name

    @property
    def kv(self) -> Any:
        return self.raw.secrets.kv.v2

    def put_foreign(self, name: str, text: str) -> str:
        made = self.raw.secrets.kv.v2.create_or_update_secret(name, {"value": text}, mount_point=self.mount)
        return f"{self.mount}/data/{name}?version={made['data']['version']}"

    @contextmanager
    def at_every_call(self, store: SecretStore, moment: Moment, do: Callable[[], None]) -> Iterator[None]:
        assert isinstance(store, VaultKv)
        hooks, session = Hooks(), store._vault.session  # where every call passes
        hooks.at[moment] = do
        before = session.get_adapter(self.proxy.address)
        session.mount("http://", hooks)
        try:
            yield
        finally:
            session.mount("http://", before)
            hooks.close()

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        # Of many secrets that are observed together it meets one: else no call of any would fail three times.
        self.proxy.fault(**_FAULTS[kind], match=self.latest, times=times, after=after)


class TestVaultKv(Harness, SecretStoreContract, InterruptionContract, RewrappingContract):
    value_bytes = VALUE_BYTES
    bad_names = ("", "with space", "/a", "a/", "a//b", "a/../b", "_rotation/a", "x" * 201, "x/" * 300 + "x", "line\n")

    # what consumers read

    def test_consumers_read_the_promoted_value_and_never_a_pending_one(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        store.stage(name, 2, text_of(2))
        assert self.entry(name) == {"value": text_of(1).reveal()}
        store.promote(name, 2, store.predict(name, 1))
        assert self.entry(name) == {"value": text_of(2).reveal()}

    def test_a_pinned_consumer_reads_a_generation_at_its_version_id_before_and_after_its_promotion(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        store.stage(name, 2, text_of(2))
        path = store.predict(name, 2).version_id
        assert path == f"{self.mount}/data/_rotation/{name}/g2"
        for _ in range(2):
            assert self.raw.read(path)["data"]["data"] == {"value": text_of(2).reveal()}
            store.promote(name, 2, store.predict(name, 1))

    def test_the_members_of_a_json_object_are_the_fields_of_its_entry(self) -> None:
        store, name = self.open(), self.slot()
        value = {"username": "orders_a", "password": 'ä"\\\n', "port": 5432, "tls": True, "ca": None}
        store.stage(name, 1, SecretValue(json.dumps(value)))
        store.promote(name, 1, None)
        assert self.entry(name) == value
        assert json.loads(store.read(name).reveal()) == value

    @pytest.mark.parametrize(
        "text",
        ["{}", "[1]", '"x"', '{"value": "x"}', '{"a": 1.10}', '{"a": {"b": 1}}', '{"a": 1, "a": 2}', '{"a": 9e99}'],
    )
    def test_other_json_is_one_text(self, text: str) -> None:
        assert to_fields(text) == {"value": text}
        assert to_text(to_fields(text)) == text

    # damage

    def test_what_keyturn_keeps_is_taken_back_where_somebody_deleted_it(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
        store.stage(name, 3, text_of(3))
        for leaf in ("ledger", "g1", "g2", "g3"):
            self.kv.delete_latest_version_of_secret(f"_rotation/{name}/{leaf}", mount_point=self.mount)
        assert self.shape(name) == Shape(current=2, pending=3, previous=1, rejected=False, revision=0)
        assert store.stage(name, 3, SecretValue("another")) == text_of(3)
        assert [store.read(name, store.predict(name, n)) for n in (1, 2, 3)] == [text_of(n) for n in (1, 2, 3)]

    def test_a_generation_whose_value_was_destroyed_is_spent(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.kv.create_or_update_secret(f"_rotation/{name}/g2", {"value": "x"}, mount_point=self.mount)
        self.kv.destroy_secret_versions(f"_rotation/{name}/g2", [1], mount_point=self.mount)
        with pytest.raises(GenerationSpent) as spent:
            store.stage(name, 2, text_of(2))
        assert spent.value.highest == 2
        promoted(store, name, 3)

    def test_a_deleted_current_version_is_foreign_until_somebody_takes_it_back(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.kv.delete_latest_version_of_secret(name, mount_point=self.mount)
        assert current_of(store, name) == Version(f"{self.mount}/data/{name}?version=1", None)
        with pytest.raises(StoreError, match="is deleted"):
            store.read(name)
        self.kv.undelete_secret_versions(name, [1], mount_point=self.mount)
        assert current_of(store, name) == store.predict(name, 1)

    def test_a_current_value_that_is_only_left_at_the_secrets_own_path_is_read_there(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.kv.delete_metadata_and_all_versions(f"_rotation/{name}/g1", mount_point=self.mount)
        assert store.read(name) == text_of(1)
        promoted(store, name, 2)
        with pytest.raises(StoreError, match="no version"):
            store.read(name, store.predict(name, 1))

    def test_without_its_ledger_the_current_version_is_foreign_and_generations_go_on(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 41)
        self.kv.delete_metadata_and_all_versions(f"_rotation/{name}/ledger", mount_point=self.mount)
        view = store.observe([name])[name]
        assert (view.current, view.highest) == (Version(f"{self.mount}/data/{name}?version=1", None), 41)
        with pytest.raises(GenerationSpent) as spent:
            store.stage(name, 40, text_of(40))
        assert spent.value.highest == 41
        assert view.current is not None
        store.stage(name, 42, store.read(name, view.current))
        store.promote(name, 42, view.current)
        assert self.shape(name) == Shape(current=42, pending=None, previous=None, rejected=False, revision=0)

    def test_generations_go_on_after_the_secrets_metadata_was_deleted(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
        self.kv.delete_metadata_and_all_versions(name, mount_point=self.mount)
        assert not store.observe([name])[name].exists
        self.kv.update_metadata(name, custom_metadata={"made": "again"}, mount_point=self.mount)
        view = store.observe([name])[name]
        assert (view.current, view.highest) == (None, 2)
        promoted(store, name, 3)
        assert store.read(name) == text_of(3)

    def test_a_version_that_only_has_the_number_of_ours_is_foreign(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.kv.delete_metadata_and_all_versions(name, mount_point=self.mount)
        foreign = self.put_foreign(name, "by hand")
        assert foreign.endswith("?version=1")
        assert current_of(store, name) == Version(foreign, None)

    def test_an_altered_ledger_is_told(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.kv.create_or_update_secret(f"_rotation/{name}/ledger", {"highest": "many"}, mount_point=self.mount)
        assert "was altered" in str(store.observe([name])[name].trouble)
        with pytest.raises(StoreError, match="was altered"):
            store.stage(name, 2, text_of(2))

    def test_a_secret_that_the_policy_leaves_out_keeps_nobody_from_the_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that was declared after the runner's policy was deployed."""
        known, new = self.slot(), self.slot()
        promoted(self.open(), known, 1)
        rules = vault_policies.document(vault_policies.turn_secrets(self.mount, [known]))
        with self.openbao.policy(rules) as token:
            monkeypatch.setenv("VAULT_TOKEN", token)
            views = self.open().observe([known, new])
            assert (views[known].trouble, views[known].highest) == (None, 1)
            trouble = views[new].trouble
            assert isinstance(trouble, Unauthorized)
            assert "foundation stack" in trouble.remedy
            with pytest.raises(Unauthorized):
                self.open().observe([new])

    @pytest.mark.parametrize("settings", [{"max_versions": 1}, {"max_versions": 1, "cas_required": True}])
    def test_a_mount_that_keeps_one_version_and_demands_a_comparison_is_enough(self, settings: Fields) -> None:
        with self.openbao.mount("kv-v2") as mount:
            self.kv.configure(**settings, mount_point=mount)
            self.mount, store = mount, VaultKv({"mount": mount, "address": self.proxy.address})
            name = self.slot()
            for generation in (1, 2, 3):
                promoted(store, name, generation)
                store.discard(name, generation - 1)
            rejected(store, name, 4)
            view = store.observe([name])[name]
            assert Shape.of(view) == Shape(current=3, pending=4, previous=None, rejected=True, revision=0)
            store.discard(name, 4)
            assert store.read(name) == text_of(3)
            assert self.kv.list_secrets(f"_rotation/{name}", mount_point=mount)["data"]["keys"] == ["g3", "ledger"]

    # others

    def test_a_write_by_hand_after_an_accepted_promotion_can_be_adopted(self) -> None:
        name, dying = self.slot(), self.open()
        two_pending(dying, name)
        with self.at_call(dying, 5, Moment.BEFORE, die), pytest.raises(Killed):  # just before it writes the secret
            dying.promote(name, 2, dying.predict(name, 1))
        foreign = Version(self.put_foreign(name, "by hand"), None)
        store = self.open()
        view = store.observe([name])[name]
        assert (view.current, view.pending, view.promoting) == (foreign, store.predict(name, 2), True)
        store.stage(name, 3, store.read(name, foreign))
        store.promote(name, 3, foreign)
        assert self.shape(name) == Shape(current=3, pending=None, previous=2, rejected=False, revision=0)
        assert self.entry(name) == {"value": "by hand"}

    def test_nothing_is_staged_in_the_place_of_what_is_being_promoted(self) -> None:
        name, dying = self.slot(), self.open()
        two_pending(dying, name)
        with self.at_call(dying, 5, Moment.BEFORE, die), pytest.raises(Killed):
            dying.promote(name, 2, dying.predict(name, 1))
        store = self.open()
        with pytest.raises(Conflict, match="is being made current"):
            store.stage(name, 3, text_of(3))
        assert store.observe([name])[name].promoting
        store.promote(name, 2, store.predict(name, 1))
        assert store.read(name) == text_of(2)

    @pytest.mark.parametrize("nth", [4, 5], ids=["before it read the value", "before it wrote the secret"])
    def test_a_promoter_that_slept_through_later_promotions_changes_nothing(self, nth: int) -> None:
        name, slow, store = self.slot(), self.open(), self.open()
        two_pending(slow, name)

        def meanwhile() -> None:
            store.promote(name, 2, store.predict(name, 1))
            promoted(store, name, 3)
            store.discard(name, 2)

        with self.at_call(slow, nth, Moment.BEFORE, meanwhile), pytest.raises(Conflict):
            slow.promote(name, 2, slow.predict(name, 1))
        assert self.entry(name) == {"value": text_of(3).reveal()}
        assert self.shape(name) == Shape(current=3, pending=None, previous=None, rejected=False, revision=0)

    def test_the_version_of_another_secret_is_not_read(self) -> None:
        store, name, other = self.open(), self.slot(), self.slot()
        for each in (name, other):
            promoted(store, each, 1)
        self.put_foreign(other, "not yours")
        for version_id in (f"{self.mount}/data/{other}?version=2", f"{self.mount}/data/{name}", "anything"):
            with pytest.raises(StoreError, match="no version"):
                store.read(name, Version(version_id, None))

    # calls

    def test_a_rotation_makes_few_calls(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.proxy.clear()
        store.stage(name, 2, text_of(2))
        assert self.proxy.calls.total() == 4
        store.promote(name, 2, store.predict(name, 1))
        assert self.proxy.calls.total() == 4 + 6
        store.discard(name, 1)
        assert self.proxy.calls.total() == 4 + 6 + 6

    def test_observing_makes_two_calls_for_each_secret_and_reads_no_value(self) -> None:
        store, names = self.open(), [self.slot() for _ in range(12)]
        for name in names:
            promoted(store, name, 1)
        self.proxy.clear()
        store.observe(names)
        assert self.proxy.calls == dict.fromkeys(
            [f"GET /v1/{self.mount}/{path}" for n in names for path in (f"metadata/{n}", f"data/_rotation/{n}/ledger")],
            1,
        )

    def test_a_mount_or_a_namespace_that_is_not_there_is_told_from_a_slot_that_is_not(self) -> None:
        assert not self.open().observe(["tests/never-deployed"])["tests/never-deployed"].exists
        for wrong in ({"mount": "kv-elsewhere"}, {"namespace": "ghost"}):
            store = VaultKv({"address": self.openbao.address, "mount": self.mount, **wrong})
            with pytest.raises(StoreError, match="there is no KV engine at") as told:
                store.observe(["orders/db"])
            assert "vault secrets list" in told.value.remedy

    @pytest.mark.parametrize(("engine", "version"), [("kv", {"version": "1"}), ("transit", {})])
    def test_an_engine_that_keeps_no_versions_is_told_from_a_slot_that_is_not_there(
        self, engine: str, version: dict[str, str]
    ) -> None:
        with self.openbao.mount(engine, options=version) as mount:
            store = VaultKv({"address": self.openbao.address, "mount": mount})
            with pytest.raises(StoreError, match=f"the mount {mount} is no KV engine of version 2"):
                store.observe(["orders/db"])

    def test_an_unknown_option_is_a_wrong_declaration(self) -> None:
        with pytest.raises(DeclarationError, match="muont"):
            VaultKv({"muont": "secret"})

    def entry(self, name: str) -> Fields:
        """What a consumer reads."""
        fields: Fields = self.raw.read(f"{self.mount}/data/{name}")["data"]["data"]
        return fields
