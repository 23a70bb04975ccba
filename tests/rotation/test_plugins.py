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
from rotation.manifest import Plugin
from rotation.plugins import Plugins, load
from rotation.signals import Signal
from rotation.stores import SecretStore
from rotation.targets import DeployTarget
from tests.world import World

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
