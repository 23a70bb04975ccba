"""Version 2 of the KV engine, against OpenBao behind a proxy that loses requests and replies."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from rotation import vault
from rotation.stores import SecretStore
from rotation.stores.vault_kv import VALUE_BYTES, VaultKv
from tests.contracts.interruption import InterruptionContract
from tests.contracts.rewrapping import RewrappingContract
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import Moment, Trouble
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
        self.proxy, self.mount, self.runners, self.raw = proxy, mounted, runners, openbao.client()
        self.proxy.clear()

    def open(self) -> VaultKv:
        return next(self.runners)

    def slot(self) -> str:
        self.latest = f"tests/{uuid.uuid4().hex[:12]}"
        self.raw.secrets.kv.v2.update_metadata(
            self.latest, custom_metadata={"made-by": "a test"}, mount_point=self.mount
        )
        return self.latest

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
