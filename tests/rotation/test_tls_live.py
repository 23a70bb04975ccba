"""A certificate is rotated under live servers: the real engine, OpenBao's KV and PKI engines, and clients that connect
without a pause. Only the deployment is made up: it lets each ring's server load what its configuration names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from rotation.engine import Engine, Purpose, Request, Result
from rotation.journal import Journal
from rotation.local.demo.load import within
from rotation.local.demo.tls_clients import Seen, clients
from rotation.manifest import Consumer, ConsumerRing, Manifest, Plugin, Secret
from rotation.model import Credential, Done, Ending, Place, Ring, StoreView, Strategy
from rotation.plugins import Plugins
from rotation.renewal import TOPIC
from rotation.secret_value import SecretValue
from rotation.targets import Deployment, DeployTarget
from rotation.tls import Material
from tests.fixtures.tls import Pki, TlsServer, material, serving

NAME, CONSUMER = "orders/tls", "web"
TEMPLATE = (
    '{"path": {{ secrets["orders/tls"].version_id | json }}, "generation": {{ secrets["orders/tls"].generation }}}'
)
WAIT = timedelta(seconds=60)


@dataclass
class Site(DeployTarget):
    """A server for each ring, which reads its configuration and then the store, as an application does."""

    folder: Path
    pki: Pki
    servers: Mapping[Ring, TlsServer]
    loaded: dict[Place, dict[str, int]] = field(default_factory=dict)
    before: Callable[[Ring, int], None] | None = None

    def deployed(self) -> dict[Place, dict[str, int]]:
        return dict(self.loaded)

    def apply(self, places: Sequence[Place]) -> Deployment:
        for place in places:
            config = json.loads((self.folder / f"{place[1]}.json").read_text())
            if self.before is not None:
                self.before(place[1], config["generation"])
            self.servers[place[1]].present(self.read(config["path"]))
            self.loaded[place] = {NAME: config["generation"]}
        return Deployment("0" * 64, tuple(ring for _, ring in places))

    def read(self, path: str) -> Material:
        """What a consumer gets from the store: the value's fields are the entry's."""
        fields = self.pki.client.read(path)["data"]["data"]
        return Material(fields["certificate"], SecretValue(fields["private_key"]), fields["chain"], fields["ca"])


class SitePlugins(Plugins):
    def __init__(self, site: Site, manifest: Manifest) -> None:
        super().__init__(site.folder, manifest)
        self._site = site

    def target(self, consumer: Consumer) -> DeployTarget:
        return self._site


@dataclass
class Live:
    site: Site
    manifest: Manifest

    def run(self, **request: object) -> Result:
        """A new runner."""
        with Journal(self.site.folder / "journal.sqlite3") as journal:
            engine = Engine(self.site.folder, self.manifest, SitePlugins(self.site, self.manifest), journal)
            return engine.run([NAME], Request(wait=WAIT, **request))[NAME]  # type: ignore[arg-type]

    @property
    def view(self) -> StoreView:
        secret = self.manifest.secrets[NAME]
        return Plugins(self.site.folder, self.manifest).store(secret).observe([secret.stored_as], fresh=True)[NAME]

    @property
    def renewal(self) -> tuple[int, str]:
        """The generation that the journal knows a date for, and the date."""
        with Journal(self.site.folder / "journal.sqlite3") as journal:
            note = journal.noted(TOPIC)[NAME]
        return note.generation, note.detail

    @property
    def revoked(self) -> set[int]:
        text = self.site.pki.client.secrets.pki.read_crl(mount_point=self.site.pki.mount)
        return {entry.serial_number for entry in x509.load_pem_x509_crl(text.encode())}


@pytest.fixture
def live(pki: Pki, kv_mount: str, tmp_path: Path) -> Iterator[Live]:
    """The first generation is deployed to both rings."""
    pki.client.secrets.kv.v2.update_metadata(NAME, custom_metadata={"owner": "orders"}, mount_point=kv_mount)
    (tmp_path / "web.json.j2").write_text(TEMPLATE)
    unknown = material(Credential(NAME, 0, pki.kind().issue(None)))
    (tmp_path / "ca.pem").write_text(unknown.ca)
    with ExitStack() as stack:
        servers = {ring: stack.enter_context(serving(unknown)) for ring in Ring}
        made = Live(Site(tmp_path, pki, servers), _declared(tmp_path, pki, kv_mount, servers))
        result = made.run(initialize=True)
        assert isinstance(result.decision, Done), result
        yield made


def _declared(folder: Path, pki: Pki, kv_mount: str, servers: Mapping[Ring, TlsServer]) -> Manifest:
    credential = Plugin(kind="tls_certificate", options={"issuer": pki.issuer(), "names": ["orders.test", "127.0.0.1"]})
    secret = Secret(
        name=NAME,
        stored_as=NAME,
        store=Plugin(kind="vault_kv", options={"mount": kv_mount}),
        credential=credential,
        strategy=Strategy.OVERLAPPING,
        bake=timedelta(seconds=1),
        settle=timedelta(seconds=1),
        patience=timedelta(seconds=30),
        grace=timedelta(seconds=1),
    )
    watching = {"secret": NAME, "server_name": "orders.test", "timeout": 10, "ca_file": str(folder / "ca.pem")}
    rings = {
        ring: ConsumerRing(
            rendered=Path(f"{ring}.json"),
            addresses=(),
            signals=(Plugin(kind="tls_endpoint", options=watching | {"endpoint": server.endpoint}),),
        )
        for ring, server in servers.items()
    }
    consumer = Consumer(
        name=CONSUMER,
        template=Path("web.json.j2"),
        format="json",
        secrets=(NAME,),
        target=Plugin(kind="site"),
        rings=rings,
    )
    return Manifest(
        environment="test",
        order=0,
        sources="",
        pins=Path("pins.json"),
        secrets={NAME: secret},
        consumers={CONSUMER: consumer},
    )


def watching(live: Live, authorities: str) -> AbstractContextManager[Mapping[Ring, Seen]]:
    ports = {ring: server.port for ring, server in live.site.servers.items()}
    return clients(ports, authorities, "orders.test")


def leaf(live: Live, generation: int) -> Material:
    view = live.view
    version = next(v for v in (view.current, view.pending, view.previous) if v and v.generation == generation)
    return live.site.read(version.version_id)


def serial_of(live: Live, generation: int) -> int:
    return leaf(live, generation).x509.serial_number


def test_a_certificate_is_rotated_and_the_old_one_revoked_without_a_failed_handshake(live: Live) -> None:
    first = serial_of(live, 1)
    with watching(live, (live.site.folder / "ca.pem").read_text()) as seen:
        assert within(lambda: all(each.kinds == [first] for each in seen.values()))
        result = live.run()
        assert isinstance(result.decision, Done), result
        assert (result.decision.ending, result.decision.generation) == (Ending.PROMOTED, 2)
        second = serial_of(live, 2)
        assert within(lambda: all(each.kinds == [first, second] for each in seen.values()))
        assert live.revoked == set()
        assert live.renewal == (2, leaf(live, 2).at(2 / 3).isoformat())
        retired = live.run(purpose=Purpose.RETIRE)
        assert isinstance(retired.decision, Done), retired
        assert live.revoked == {first}
    for ring in Ring:
        assert seen[ring].failures == []
        assert seen[ring].kinds == [first, second]
    assert live.view.previous is None


def test_a_certificate_that_clients_refuse_is_taken_back_and_revoked_before_everybody_gets_it(
    live: Live, pki: Pki
) -> None:
    """The canary's clients lose their trust as soon as it has the new one."""
    first = serial_of(live, 1)
    other = pki.client.read(f"{pki.mount}/issuer/{pki.add_root('two')}/json")["data"]["certificate"]
    trusted = (live.site.folder / "ca.pem").read_text()

    with watching(live, trusted) as seen:
        assert within(lambda: all(each.kinds == [first] for each in seen.values()))

        def distrust(ring: Ring, generation: int) -> None:
            if generation == 1:  # it is taken back when it has been met
                assert within(lambda: len(seen[ring].kinds) == 2)
            (live.site.folder / "ca.pem").write_text(other if generation == 2 else trusted)

        live.site.before = distrust
        result = live.run()
    assert isinstance(result.decision, Done), result
    assert result.decision.ending is Ending.ROLLED_BACK
    canary, stable = (seen[ring].kinds for ring in (Ring.CANARY, Ring.STABLE))
    assert stable == [first]
    assert canary[0] == first
    assert live.revoked == set(canary[1:])
    assert len(live.revoked) == 1
    current = live.view.current
    assert current is not None
    assert current.generation == 1
