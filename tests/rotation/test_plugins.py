"""A plugin is found by its file's name; nothing else is imported, and nothing outside its folder can be named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rotation.signals
from rotation.credentials import CredentialKind
from rotation.credentials.random_token import RandomToken
from rotation.errors import DeclarationError, UsageError
from rotation.keys import KeyService
from rotation.manifest import Key, Plugin
from rotation.model import Ring, Strategy
from rotation.plugins import Plugins, load
from rotation.signals import Signal
from rotation.stores import SecretStore
from rotation.targets import DeployTarget
from tests.scenarios import ROTATE
from tests.test_crash import changes
from tests.world import CONSUMER, World, fresh
from tests.world_plugins import WorldPlugins

SIGNAL = """
from rotation.model import Health, Verdict
from rotation.signals import Signal

class Traffic(Signal):
    def __init__(self, options):
        self.options = options

    def read(self, secret, generation, since, now):
        return Verdict(Health.GOOD)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files are signals, too."""
    monkeypatch.setattr(rotation.signals, "__path__", [*rotation.signals.__path__, str(tmp_path)])
    for name in ("traffic", "needy", "broken"):
        monkeypatch.delitem(sys.modules, f"rotation.signals.{name}", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (SecretStore, "aws_secrets_manager"),
        (CredentialKind, "postgres_user"),
        (CredentialKind, "random_token"),
        (KeyService, "aws_kms"),
        (DeployTarget, "terraform"),
        (Signal, "http_health"),
        (Signal, "log_file"),
        (Signal, "tls_endpoint"),
    ],
)
def test_every_plugin_is_found_by_its_files_name(family: type[object], kind: str) -> None:
    found = load(family, kind)
    assert issubclass(found, family)
    assert found.__module__.endswith(f".{kind}")


def test_a_new_file_is_a_new_plugin(folder: Path) -> None:
    (folder / "traffic.py").write_text(SIGNAL)
    assert load(Signal, "traffic").__name__ == "Traffic"


@pytest.mark.parametrize("kind", ["no_such", "../stores/aws_secrets_manager", "os", "", "__init__", "log_file.py", "."])
def test_what_is_no_file_of_the_family_is_refused_and_told_what_there_is(kind: str) -> None:
    there = "http_health, log_file, tencent_cls, tls_endpoint"
    with pytest.raises(DeclarationError, match=rf"rotation.signals has no .* \(it has: {there}\)"):
        load(Signal, kind)


def test_an_absent_sdk_is_named(folder: Path) -> None:
    (folder / "needy.py").write_text("import an_sdk_that_nobody_has\n" + SIGNAL)
    with pytest.raises(UsageError, match="needy needs the package an_sdk_that_nobody_has") as caught:
        load(Signal, "needy")
    assert "extra" in caught.value.remedy


def test_only_the_plugin_that_is_asked_for_is_imported() -> None:
    """In a process of its own: an SDK that is imported stays imported."""
    child = "import sys; from rotation.plugins import load; from rotation.credentials import CredentialKind;"
    child += "load(CredentialKind, 'random_token'); print([m for m in ('boto3', 'psycopg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plugin_is_made_once_for_the_same_options(tmp_path: Path, folder: Path) -> None:
    (folder / "traffic.py").write_text(SIGNAL)
    world = World(tmp_path)
    ring = next(iter(world.manifest.consumers.values())).rings.popitem()[1]
    plugins = Plugins(tmp_path, world.manifest)
    same = [Plugin(kind="traffic", options={"ring": "canary"}) for _ in range(2)]
    (first,) = plugins.signals(ring.model_copy(update={"signals": (same[0],)}))
    (second,) = plugins.signals(ring.model_copy(update={"signals": (same[1],)}))
    (other,) = plugins.signals(ring.model_copy(update={"signals": (Plugin(kind="traffic"),)}))
    assert first is second
    assert first is not other


def test_a_kind_is_made_for_its_secret_with_its_strategy(tmp_path: Path) -> None:
    world = World(tmp_path)
    plugins = Plugins(tmp_path, world.manifest)
    token = world.secret().model_copy(
        update={
            "store": Plugin(kind="aws_secrets_manager", options={"region": "eu-central-1"}),
            "credential": Plugin(kind="random_token"),
        }
    )
    with pytest.raises(DeclarationError, match="random_token has no strategy alternating"):
        plugins.kind(token)
    assert isinstance(plugins.kind(token.model_copy(update={"strategy": "single"})), RandomToken)


def test_families_are_packages_with_one_plugin_in_each_file() -> None:
    for family in (SecretStore, CredentialKind, KeyService, DeployTarget, Signal):
        package: ModuleType = sys.modules[family.__module__]
        assert package.__file__ is not None
        assert Path(package.__file__).name == "__init__.py"


DECLARED = {
    "store": Plugin(kind="aws_secrets_manager", options={"region": "eu-central-1"}),
    "kind": Plugin(kind="random_token", options={"alphabet": "hex", "length": 40}),
    "key": Plugin(kind="aws_kms", options={"region": "eu-central-1"}),
    "target": Plugin(kind="terraform", options={"stack": "application"}),
    "signal": Plugin(kind="http_health", options={"url": "https://orders.example.com/health"}),
}


def declaring(world: World, changed: str, options: dict[str, object]) -> Plugins:
    """Plugins of a secret of whose declarations one has other options than it should."""
    plugin = DECLARED[changed]
    made = DECLARED | {changed: plugin.model_copy(update={"options": plugin.options | options})}
    secret = world.secret().model_copy(
        update={"store": made["store"], "credential": made["kind"], "key": "orders", "strategy": Strategy.OVERLAPPING}
    )
    consumer = world.manifest.consumers[CONSUMER]
    rings = {
        ring: declared.model_copy(update={"signals": (made["signal"],)}) for ring, declared in consumer.rings.items()
    }
    declared = world.manifest.model_copy(
        update={
            "secrets": {secret.name: secret},
            "keys": {"orders": Key(service=made["key"], reference="alias/orders")},
            "consumers": {CONSUMER: consumer.model_copy(update={"target": made["target"], "rings": rings})},
        }
    )
    return Plugins(world.project, declared)


@pytest.mark.parametrize(
    ("changed", "options", "says"),
    [
        ("store", {"regoin": "x"}, "orders/db: AWS: option regoin: there is no such option (it has: region)"),
        ("kind", {"lenght": 9}, "orders/db: random_token: option lenght: there is no such option (it has: alphabet"),
        ("kind", {"length": "long"}, "orders/db: random_token: option length: Input should be a valid integer"),
        ("key", {"regoin": "x"}, "the key alias/orders: AWS: option regoin: there is no such option (it has: region)"),
        (
            "target",
            {"stacks": 1},
            "orders-api: target terraform: option stacks: there is no such option (it has: stack)",
        ),
        ("signal", {"timeuot": 1}, "orders-api (canary): signal http_health: option timeuot: there is no such option"),
    ],
    ids=lambda value: value if isinstance(value, str) and value in DECLARED else "",
)
def test_a_wrong_option_is_told_with_whose_it_is_and_what_there_is(
    tmp_path: Path, changed: str, options: dict[str, object], says: str
) -> None:
    plugins = declaring(World(tmp_path), changed, options)
    with pytest.raises(DeclarationError) as refused:
        plugins.require(plugins._manifest.secrets.values())
    assert says in str(refused.value)


def test_all_that_is_declared_wrongly_is_told_at_once_and_what_is_right_is_made(tmp_path: Path) -> None:
    world = World(tmp_path)
    plugins = declaring(world, "signal", {"timeuot": 1})
    with pytest.raises(DeclarationError) as refused:
        plugins.require(plugins._manifest.secrets.values())
    assert str(refused.value).count("timeuot") == len(Ring)
    right = declaring(world, "signal", {})
    right.require(right._manifest.secrets.values())


def test_a_package_that_is_not_installed_is_left_to_who_uses_it(folder: Path, tmp_path: Path) -> None:
    (folder / "needy.py").write_text("import a_package_that_nobody_has\n")
    world = World(tmp_path / "project")
    consumer = world.manifest.consumers[CONSUMER]
    rings = {
        ring: declared.model_copy(update={"signals": (Plugin(kind="needy"),)})
        for ring, declared in consumer.rings.items()
    }
    plugins = declaring(world, "signal", {})
    consumers = {CONSUMER: plugins._manifest.consumers[CONSUMER].model_copy(update={"rings": rings})}
    left = Plugins(world.project, plugins._manifest.model_copy(update={"consumers": consumers}))
    left.require(left._manifest.secrets.values())


def test_a_rotation_with_a_wrong_signal_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signals would be read when the value is staged, installed and deployed."""
    world = fresh(tmp_path)

    def wrong(plugins: WorldPlugins, ring: object) -> tuple[Signal, ...]:
        raise DeclarationError("signal world: option rnig: there is no such option (it has: ring)")

    monkeypatch.setattr(WorldPlugins, "signals", wrong)
    result = world.run(ROTATE)
    assert isinstance(result.error, DeclarationError)
    assert "orders-api (canary): signal world: option rnig" in str(result.error)
    assert [call for call in world.calls if changes(call)] == []
