"""Sealed values in a real store under a real transit key: new material, new envelopes, and the end of old material."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina

from rotation import pins as pins_file
from rotation.engine import Engine
from rotation.errors import KeyServiceError, LeaseHeld, StoreError, Unavailable, UsageError
from rotation.journal import Journal
from rotation.keys import MaterialVersions
from rotation.keys.vault_transit import VaultTransit
from rotation.manifest import Consumer, ConsumerRing, Key, Manifest, Plugin, Secret
from rotation.model import Place, Ring, Strategy, Version
from rotation.pins import Pins
from rotation.plugins import Plugins
from rotation.rekey import raise_minimum, rewrap, rotate_key, weaknesses
from rotation.sealing import seal, wrapping
from rotation.secret_value import SecretValue
from rotation.targets import Deployment, DeployTarget
from tests.contracts.staging import ATTEMPTS, CANARY
from tests.fixtures.aws import AwsApi
from tests.fixtures.openbao import OpenBao, Proxy

_numbers = itertools.count(1)
GRACE = timedelta(minutes=5)
ONE, TWO, PLAIN = "orders/api-token", "orders/webhook", "orders/plain"
KV = "vault_kv"
IN_EACH_STORE = pytest.mark.parametrize("estate", [KV, "aws_secrets_manager"], indirect=True)
VALUE = SecretValue(f"{CANARY} of everybody")


class RecordingTarget(DeployTarget):
    """Deploys to nowhere, and says once that it changed something when it was ``stale``."""

    def __init__(self) -> None:
        self.applied: list[Sequence[Place]] = []
        self.stale = False

    def deployed(self) -> dict[Place, dict[str, int]]:
        return {}

    def apply(self, places: Sequence[Place]) -> Deployment:
        self.applied.append(places)
        changed = ("terraform_data.configuration",) if self.stale else ()
        self.stale = False
        return Deployment("0" * 64, changed)


class PluginsWithTarget(Plugins):
    def __init__(self, project: Path, manifest: Manifest, target: RecordingTarget) -> None:
        super().__init__(project, manifest)
        self._target = target

    def target(self, consumer: Consumer) -> DeployTarget:
        return self._target


class Estate:
    """Two secrets that one transit key seals and one that is not sealed, each of generation 1 and used by one consumer.

    ``said`` is what the commands said. The runner's clock is ``later`` than the servers'.
    """

    def __init__(self, folder: Path, proxy: Proxy, mount: str, key: str, store: Plugin) -> None:
        self.folder = folder
        self.proxy = proxy
        self.store = store
        self.service = VaultTransit({"address": proxy.address, "mount": mount})
        self.key = key
        self.target = RecordingTarget()
        self.said: list[str] = []
        self.later = timedelta(0)
        self.prefix = f"rekey-{next(_numbers)}"
        options = {"address": proxy.address, "mount": mount}
        keys = Plugin(kind="vault_transit", options=options)
        aws = Plugin(kind="aws_kms", options={"region": "us-east-1"})
        self.manifest = Manifest(
            environment="test",
            order=0,
            sources="",
            pins=Path("pins.json"),
            keys={
                "orders": Key(service=keys, reference=key),
                "aws": Key(service=aws, reference="alias/orders"),
            },
            secrets={name: self._secret(name) for name in (ONE, TWO, PLAIN)},
            consumers={"orders-api": self._consumer()},
        )
        self.plugins = PluginsWithTarget(folder, self.manifest, self.target)
        (folder / "orders-api.yaml.j2").write_text(
            f'one: {{{{ secrets["{ONE}"].version_id }}}}\ntwo: {{{{ secrets["{TWO}"].version_id }}}}\n',
            encoding="utf-8",
        )

    def _secret(self, name: str) -> Secret:
        return Secret(
            name=name,
            stored_as=f"{self.prefix}/{name}",
            store=self.store,
            credential=Plugin(kind="random_token"),
            strategy=Strategy.OVERLAPPING,
            key=None if name == PLAIN else "orders",
            sealed=name != PLAIN,
            bake=timedelta(0),
            settle=timedelta(0),
            patience=timedelta(0),
            grace=GRACE,
        )

    def _consumer(self) -> Consumer:
        return Consumer(
            name="orders-api",
            template=Path("orders-api.yaml.j2"),
            format="yaml",
            secrets=(ONE, TWO),
            target=Plugin(kind="terraform"),
            rings={ring: ConsumerRing(rendered=Path(f"{ring}.yaml"), addresses=()) for ring in Ring},
        )

    def engine(self) -> Engine:
        journal = Journal(self.folder / "journal.sqlite3")
        return Engine(self.folder, self.manifest, self.plugins, journal, clock=lambda: datetime.now(UTC) + self.later)

    def secret(self, name: str = ONE) -> Secret:
        return self.manifest.secrets[name]

    def pin(self, **generations: int) -> None:
        pins = {ONE: generations.get("one", 1), TWO: generations.get("two", 1)}
        pins_file.write(self.folder / "pins.json", Pins.made_of({("orders-api", ring): pins for ring in Ring}))

    def stage(self, name: str, generation: int, value: SecretValue = VALUE) -> None:
        self.engine().custody.stage(self.secret(name), generation, value)

    def promote(self, name: str, generation: int) -> None:
        store = self.plugins.store(self.secret(name))
        store.promote(self.secret(name).stored_as, generation, self.current(name))

    def current(self, name: str = ONE) -> Version | None:
        return self.engine().observer.stored([self.secret(name)], fresh=True)[name].current

    def material(self, name: str = ONE) -> int:
        """The number of the key's material that seals a secret's current value."""
        version = self.current(name)
        assert version is not None
        seen = wrapping(self.engine().custody.stored(self.secret(name), version))
        assert seen is not None
        return self.service.version_of(seen.wrapped)

    def opened(self, name: str) -> SecretValue:
        version = self.current(name)
        assert version is not None
        return self.engine().custody.read(self.secret(name), version).value

    def rotate(self) -> None:
        rotate_key(self.manifest, "orders", self.plugins, self.engine().journal)

    def rewrap(self, *, outside: bool = False) -> dict[str, str]:
        return rewrap(self.manifest, "orders", self.engine(), self.said.append, outside=outside)

    def raise_minimum(self, key: str = "orders") -> dict[str, str]:
        return raise_minimum(self.manifest, key, self.engine(), self.said.append)

    def versions(self) -> MaterialVersions:
        return self.service.versions(self.key)

    def trail(self) -> list[tuple[str, str, str]]:
        with Journal(self.folder / "journal.sqlite3") as journal:
            return [(entry.secret, entry.event, entry.detail) for entry in journal.trail()]


@pytest.fixture
def estate(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    vault_environment: OpenBao,
    openbao_proxy: Proxy,
    kv_mount: str,
    transit_mount: str,
) -> Iterator[Estate]:
    """An estate in the store that the test's parameter names, KV by default; only its keys are behind the proxy."""
    client: Any = vault_environment.client()
    client.secrets.transit.create_key("orders", derived=True, mount_point=transit_mount)
    kind = getattr(request, "param", KV)
    store = Plugin(kind=kind, options={"mount": kv_mount} if kind == KV else {})
    api: AwsApi | None = None if kind == KV else request.getfixturevalue("aws_environment")
    estate = Estate(tmp_path, openbao_proxy, transit_mount, "orders", store)
    for name in (ONE, TWO, PLAIN):
        slot = estate.secret(name).stored_as
        if api is None:
            client.secrets.kv.v2.update_metadata(slot, custom_metadata={"made-by": "a test"}, mount_point=kv_mount)
        else:
            api.client("secretsmanager").create_secret(Name=slot)
        estate.stage(name, 1)
        estate.promote(name, 1)
    estate.pin()
    openbao_proxy.clear()
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield estate


# Re-wrapping


@IN_EACH_STORE
def test_every_sealed_value_moves_to_the_new_material_in_one_call_and_nothing_is_unwrapped(estate: Estate) -> None:
    estate.rotate()
    estate.proxy.clear()
    assert estate.rewrap() == {}
    calls = {call.rpartition("/v1/")[2].split("/", 1)[1]: times for call, times in estate.proxy.calls.items()}
    assert calls == {"keys/orders": 1, "rewrap/orders": 1}
    assert [estate.material(name) for name in (ONE, TWO)] == [2, 2]
    assert [estate.opened(name) for name in (ONE, TWO, PLAIN)] == [VALUE] * 3
    assert [(v.generation, v.revision) for name in (ONE, TWO) if (v := estate.current(name))] == [(1, 1), (1, 1)]
    assert estate.target.applied == [[("orders-api", ring)] for ring in Ring]
    current = estate.current(ONE)
    assert current is not None
    assert current.version_id in (estate.folder / "canary.yaml").read_text(encoding="utf-8")
    before = estate.plugins.store(estate.secret()).predict(estate.secret().stored_as, 1)
    assert estate.engine().custody.read(estate.secret(), before).value == VALUE


def test_rewrapping_again_leaves_what_is_under_the_latest_material(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    before = estate.current()
    estate.rewrap()
    assert estate.current() == before
    assert [times for call, times in estate.proxy.calls.items() if "/rewrap/" in call] == [1]


def test_killed_between_two_secrets_a_rewrap_is_finished_by_the_next_run(estate: Estate) -> None:
    estate.rotate()
    store = estate.plugins.store(estate.secret())
    at_once = type(store).rewrap  # type: ignore[attr-defined]

    def dies_at_the_second(self: Any, name: str, expected: Version, value: SecretValue) -> Version:
        if name == estate.secret(TWO).stored_as:
            raise KeyboardInterrupt
        made: Version = at_once(self, name, expected, value)
        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(store), "rewrap", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            estate.rewrap()
    assert [estate.material(name) for name in (ONE, TWO)] == [2, 1]
    first = estate.current(ONE)
    assert estate.rewrap() == {}
    assert [estate.material(name) for name in (ONE, TWO)] == [2, 2]
    assert estate.current(ONE) == first
    assert estate.target.applied == [[("orders-api", ring)] for ring in Ring]


def test_keys_that_cannot_be_reached_leave_every_envelope_and_the_deployment_as_they_were(estate: Estate) -> None:
    estate.rotate()
    before = [estate.current(name) for name in (ONE, TWO)]
    estate.proxy.fault("answered", "/rewrap/", times=ATTEMPTS, status=503)
    with pytest.raises(Unavailable):
        estate.rewrap()
    assert [estate.current(name) for name in (ONE, TWO)] == before
    assert estate.target.applied == []


# Raising the minimum


@IN_EACH_STORE
def test_the_minimum_is_raised_once_nothing_older_is_left_and_the_grace_is_over(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    held = estate.raise_minimum()
    assert held.keys() == {ONE, TWO}
    assert "its grace ends at" in held[ONE]
    assert estate.versions() == MaterialVersions(latest=2, minimum=1)
    estate.later = GRACE
    assert estate.raise_minimum() == {}
    assert estate.versions() == MaterialVersions(latest=2, minimum=2)
    assert estate.trail()[-2:] == [
        ("key orders", "raises the minimum", "1 → 2 of 2"),
        ("key orders", "minimum raised", "1 → 2 of 2"),
    ]
    assert [estate.opened(name) for name in (ONE, TWO)] == [VALUE, VALUE]


def test_raising_a_raised_minimum_does_nothing(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    estate.later = GRACE
    estate.raise_minimum()
    trail = estate.trail()
    assert estate.raise_minimum() == {}
    assert estate.trail() == trail
    assert "latest material alone" in estate.said[-1]


def test_a_value_under_older_material_holds_the_minimum_and_is_named(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    estate.rotate()
    estate.stage(ONE, 2)
    estate.promote(ONE, 2)
    estate.pin(one=2)
    estate.plugins.store(estate.secret()).discard(estate.secret().stored_as, 1)
    estate.later = GRACE
    assert estate.raise_minimum() == {TWO: "it is sealed with material 2 of 3: re-wrap it (--rewrap-only)"}
    assert estate.versions() == MaterialVersions(latest=3, minimum=2)
    assert estate.opened(TWO) == VALUE


@pytest.mark.parametrize("promoted", [False, True], ids=["in flight", "previous not retired"])
def test_an_envelope_that_a_rollback_needs_holds_the_minimum(estate: Estate, promoted: bool) -> None:
    estate.rotate()
    estate.stage(ONE, 2)
    if promoted:
        estate.promote(ONE, 2)
    assert estate.rewrap().keys() == {ONE}
    estate.later = GRACE
    held = estate.raise_minimum()
    assert held == {ONE: "its previous generation is not retired yet" if promoted else "a rotation is in flight"}
    assert estate.versions() == MaterialVersions(latest=2, minimum=1)
    if promoted:
        old = Version(estate.plugins.store(estate.secret()).predict(estate.secret().stored_as, 1).version_id, 1)
        assert estate.engine().custody.read(estate.secret(), old).value == VALUE


def test_a_consumer_that_was_not_deployed_holds_the_minimum(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap(outside=True)
    assert estate.target.applied == []
    estate.later = GRACE
    estate.target.stale = True
    held = estate.raise_minimum()
    assert "deployed only now: terraform_data.configuration" in held[ONE]
    assert estate.versions() == MaterialVersions(latest=2, minimum=1)
    assert estate.raise_minimum() == {}
    assert estate.versions() == MaterialVersions(latest=2, minimum=2)


def test_an_envelope_from_before_the_declaration_changed_is_seen_too(estate: Estate) -> None:
    name = estate.secret(PLAIN).stored_as
    former = seal(VALUE, name=name, generation=2, key=estate.key, service=estate.service)
    store = estate.plugins.store(estate.secret(PLAIN))
    store.stage(name, 2, former)
    secret = estate.secret(PLAIN).model_copy(update={"key": "orders"})
    estate.manifest = estate.manifest.model_copy(update={"secrets": estate.manifest.secrets | {PLAIN: secret}})
    estate.rotate()
    estate.rewrap()
    estate.later = GRACE
    assert estate.raise_minimum() == {PLAIN: "a rotation is in flight"}
    estate.promote(PLAIN, 2)
    store.discard(name, 1)
    assert estate.raise_minimum() == {PLAIN: "it is sealed with material 1 of 2: re-wrap it (--rewrap-only)"}
    assert estate.versions() == MaterialVersions(latest=2, minimum=1)


def test_a_foreign_value_in_a_sealed_secrets_place_holds_the_minimum(
    estate: Estate, vault_environment: OpenBao, kv_mount: str
) -> None:
    estate.rotate()
    estate.rewrap()
    vault_environment.client().secrets.kv.v2.create_or_update_secret(
        estate.secret(TWO).stored_as, {"value": "by hand"}, mount_point=kv_mount
    )
    estate.later = GRACE
    assert estate.raise_minimum() == {TWO: "it has no value of keyturn's"}
    assert estate.versions().minimum == 1


def test_another_runner_at_work_keeps_the_minimum_as_it_is(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    estate.later = GRACE
    with estate.engine().journal.lease([TWO]), pytest.raises(LeaseHeld):
        estate.raise_minimum()
    assert estate.versions().minimum == 1


def test_a_lost_reply_to_the_raise_is_looked_after_and_audited(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    estate.later = GRACE
    estate.proxy.fault("lost after", "/config")
    assert estate.raise_minimum() == {}
    assert estate.versions() == MaterialVersions(latest=2, minimum=2)
    assert estate.trail()[-1][1] == "minimum raised"


def test_killed_before_the_raise_the_trail_tells_what_was_meant(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: VaultTransit, key: str, version: int) -> None:
        raise KeyboardInterrupt

    estate.rotate()
    estate.rewrap()
    estate.later = GRACE
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(VaultTransit, "raise_minimum", dies)
        with pytest.raises(KeyboardInterrupt):
            estate.raise_minimum()
    assert estate.trail()[-1][1] == "raises the minimum"
    assert estate.raise_minimum() == {}
    assert estate.versions().minimum == 2


def test_a_damaged_envelope_stops_the_raise(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    version = estate.current()
    assert version is not None
    envelope = json.loads(estate.engine().custody.stored(estate.secret(), version).stored.reveal())
    damaged = SecretValue(json.dumps(envelope | {"wrapped": "no base64!"}))
    estate.plugins.store(estate.secret()).stage(estate.secret().stored_as, 2, damaged)
    estate.later = GRACE
    with pytest.raises(StoreError, match="was altered"):
        estate.raise_minimum()
    assert estate.versions().minimum == 1


def test_a_service_without_such_a_minimum_says_what_to_do_instead(estate: Estate) -> None:
    with pytest.raises(KeyServiceError, match="aws_kms keeps all material") as refused:
        estate.raise_minimum("aws")
    assert "declare a new key" in refused.value.remedy


def test_an_undeclared_key_is_named_with_those_that_are(estate: Estate) -> None:
    with pytest.raises(UsageError, match="no key 'invoices'") as refused:
        estate.raise_minimum("invoices")
    assert "aws, orders" in refused.value.remedy


def test_a_key_that_seals_nothing_keeps_its_minimum(estate: Estate) -> None:
    plain = {
        name: secret.model_copy(update={"key": None, "sealed": False})
        for name, secret in estate.manifest.secrets.items()
    }
    estate.manifest = estate.manifest.model_copy(update={"secrets": plain})
    estate.rotate()
    assert estate.raise_minimum() == {}
    assert estate.versions() == MaterialVersions(latest=2, minimum=1)


def test_an_exportable_and_deletable_key_is_told(
    estate: Estate, vault_environment: OpenBao, transit_mount: str
) -> None:
    plugins = estate.plugins
    assert weaknesses(estate.manifest, "orders", plugins) == []
    vault_environment.client().secrets.transit.update_key_configuration(
        "orders", exportable=True, deletion_allowed=True, mount_point=transit_mount
    )
    assert weaknesses(estate.manifest, "orders", plugins) == [
        "its material can be exported",
        "one call deletes it for good",
    ]


def test_what_is_said_and_audited_holds_no_value(estate: Estate) -> None:
    estate.rotate()
    estate.rewrap()
    estate.later = GRACE
    estate.raise_minimum()
    assert CANARY not in str(estate.said) + str(estate.trail())
    assert all(CANARY.encode() not in path.read_bytes() for path in estate.folder.rglob("*") if path.is_file())
