"""A consumer's rings carry their rendered file and their pins, where there are any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules.app_config import AppConfig, Files
from modules.declarations import Consumer
from modules.resource import Stack
from rotation.errors import DeclarationError
from rotation.manifest import Plugin
from rotation.model import Ring
from rotation.pins import Pins
from tests.modules.conftest import NEW, OLD, aws, synthesized

CANARY = Path("stacks/config/rendered/staging/canary/orders-api.yaml")
PINNED = Pins().with_("orders-api", Ring.CANARY, "orders/db", 42).with_("orders-api", Ring.CANARY, "orders/api", 7)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a template and one rendered file."""
    _write(tmp_path / "app.yaml.j2", "")
    _write(tmp_path / CANARY, "generation: 42\n")
    return tmp_path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _config(stack: Stack, files: Files, pinned: Pins = PINNED, version: str = NEW, **arguments: Any) -> AppConfig:
    said: dict[str, Any] = {"template": Path("app.yaml.j2"), "signals": {}, "secrets": ("orders/db",), **arguments}
    consumer = Consumer(said.pop("name", "orders-api"), format="yaml", **said)
    return AppConfig(stack, aws(version), consumer, environment="staging", place="config", files=files, pinned=pinned)


@pytest.mark.parametrize(("version", "kind"), [(OLD, "aws_s3_bucket_object"), (NEW, "aws_s3_object")])
def test_a_ring_has_its_file_and_its_pins(
    make_stack: Callable[..., Stack], project: Path, version: str, kind: str
) -> None:
    stack = make_stack(version)
    config = _config(stack, Files(project), version=version)

    assert synthesized(stack)["resource"] == {
        kind: {
            "config-orders-api-canary": {
                "bucket": "config",
                "key": "orders-api/canary.yaml",
                "content": "generation: 42\n",
                "content_type": "text/plain; charset=utf-8",
                "etag": "074341f8e572ba21532293a04fa99964",
            }
        },
        "terraform_data": {
            "pins-orders-api-canary": {
                "input": {"orders/api": 7, "orders/db": 42},
                "depends_on": [f"{kind}.config-orders-api-canary"],
            }
        },
    }
    assert config.deployed == {"orders-api/canary": "${terraform_data.pins-orders-api-canary.output}"}


def test_a_consumer_with_a_target_of_its_own_is_not_in_the_stack(
    make_stack: Callable[..., Stack], project: Path
) -> None:
    stack = make_stack(NEW)
    target = Plugin(kind="tencent_scf", options={"function": "orders-api"})
    config = _config(stack, Files(project), target=target)
    assert "resource" not in synthesized(stack)
    assert config.deployed == {}
    assert config.declared.target == target
    assert {ring.addresses for ring in config.declared.rings.values()} == {()}


def test_the_manifest_names_the_addresses_that_a_pin_changes(stack: Stack, project: Path) -> None:
    signal = Plugin(kind="http_health", options={"url": "http://127.0.0.1:1/health"})
    declared = _config(stack, Files(project), signals={Ring.CANARY: (signal,)}).declared

    written = {f"{kind}.{name}" for kind, named in synthesized(stack)["resource"].items() for name in named}
    assert set(declared.rings[Ring.CANARY].addresses) == written
    assert declared.rings[Ring.CANARY].rendered == CANARY
    assert declared.rings[Ring.CANARY].signals == (signal,)
    assert declared.rings[Ring.STABLE].signals == ()
    assert declared.target == Plugin(kind="terraform", options={"stack": "secrets-staging"})


@pytest.mark.parametrize("pinned", [Pins(), Pins().with_("orders-api", Ring.STABLE, "orders/db", 42)])
def test_a_ring_without_pins_or_without_a_file_has_nothing(stack: Stack, project: Path, pinned: Pins) -> None:
    config = _config(stack, Files(project), pinned)

    assert "resource" not in synthesized(stack)
    assert config.deployed == {}
    assert set(config.declared.rings) == set(Ring)


def test_what_terraform_would_read_as_a_template_is_kept_from_it(stack: Stack, project: Path) -> None:
    _write(project / CANARY, 'a: "${aws_kms_key.x.arn} %{ if true }"\n')
    _config(stack, Files(project))

    content = synthesized(stack)["resource"]["aws_s3_object"]["config-orders-api-canary"]["content"]
    assert content == 'a: "$${aws_kms_key.x.arn} %%{ if true }"\n'


def test_the_files_of_an_overlay_go_first(project: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "ahead"
    _write(overlay / CANARY, "generation: 43\n")
    files = Files(project, overlay)

    assert files.find(CANARY) == overlay / CANARY
    assert files.find(Path("app.yaml.j2")) == project / "app.yaml.j2"


def test_a_template_that_is_not_there_is_refused(stack: Stack, project: Path) -> None:
    with pytest.raises(
        DeclarationError, match=r"test_app_config\.py:\d+: the template nope\.j2 of orders-api does not"
    ):
        _config(stack, Files(project), template=Path("nope.j2"))


def test_what_the_manifest_would_refuse_names_its_line(stack: Stack, project: Path) -> None:
    with pytest.raises(DeclarationError, match=r"test_app_config\.py:\d+: the consumer Orders: name: String should"):
        _config(stack, Files(project), name="Orders")
