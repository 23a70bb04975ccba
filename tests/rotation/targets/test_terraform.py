from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation import pins
from rotation.errors import DeclarationError, DeployError, GuardRefused
from rotation.manifest import Consumer, ConsumerRing, Manifest, Plugin, Secret
from rotation.model import Ring, Strategy
from rotation.pins import Pins
from rotation.plugins import load
from rotation.targets import DeployTarget
from tests.rotation.projects import STACK, Project, project

__all__ = ["project"]

CANARY = ("orders-api", Ring.CANARY)
STABLE = ("orders-api", Ring.STABLE)


def _manifest() -> Manifest:
    moment = timedelta(seconds=1)
    secret = Secret(
        name="orders/db",
        stored_as="local/orders/db",
        store=Plugin(kind="none"),
        credential=Plugin(kind="none"),
        strategy=Strategy.ALTERNATING,
        **dict.fromkeys(("bake", "settle", "patience", "grace"), moment),
    )
    rings = {
        Ring.CANARY: ConsumerRing(rendered=Path("c"), addresses=("terraform_data.config", "terraform_data.pin")),
        Ring.STABLE: ConsumerRing(rendered=Path("s"), addresses=("terraform_data.stable",)),
    }
    consumer = Consumer(
        name="orders-api",
        template=Path("t"),
        format="yaml",
        secrets=("orders/db",),
        target=Plugin(kind="terraform", options={"stack": STACK}),
        rings=rings,
    )
    return Manifest(
        environment="local",
        order=0,
        sources="sources",
        pins=Path("p"),
        secrets={"orders/db": secret},
        consumers={"orders-api": consumer},
    )


def _target(project: Project, **options: Any) -> DeployTarget:
    return load(DeployTarget, "terraform")(options or {"stack": STACK}, project.folder, _manifest())


def test_a_place_is_deployed_only_once_it_was_applied(project: Project) -> None:
    target = _target(project)
    assert target.deployed() == {}
    deployment = target.apply([CANARY])
    assert deployment.changed == ("terraform_data.config", "terraform_data.pin")
    assert target.deployed() == {CANARY: {"orders/db": 41}}
    project.generation(42)
    assert target.apply([CANARY]).digest != deployment.digest
    assert target.deployed() == {CANARY: {"orders/db": 42}}


def test_only_the_places_that_are_asked_for_may_change(project: Project) -> None:
    target = _target(project)
    with pytest.raises(GuardRefused, match=r"create terraform_data\.config, create terraform_data\.pin$"):
        target.apply([STABLE])
    assert target.deployed() == {}
    target.apply([STABLE, CANARY])
    assert target.deployed() == {CANARY: {"orders/db": 41}}


def test_a_place_loses_its_configuration_only_when_it_has_no_pins(project: Project) -> None:
    target = _target(project)
    both = Pins().with_("orders-api", Ring.CANARY, "orders/db", 41).with_("orders-api", Ring.STABLE, "orders/db", 41)
    pins.write(project.folder / "p", both)
    stable = {"stable": {"input": {"orders/db": 41}}}
    canary = {"config": {"input": "text"}, "pin": {"input": {"orders/db": 41}}}
    project.generation(41, resource={"terraform_data": canary | stable})
    target.apply([CANARY, STABLE])

    project.generation(41, resource={"terraform_data": stable}, output={"deployed": {"value": {}}})
    with pytest.raises(GuardRefused, match=r"delete terraform_data\.config, delete terraform_data\.pin$"):
        target.apply([CANARY])
    pins.write(project.folder / "p", both.with_("orders-api", Ring.CANARY, "orders/db", None))
    target.apply([CANARY])
    assert target.deployed() == {}


@pytest.mark.parametrize("value", [{"orders-api/moon": {"orders/db": 1}}, {"orders-api/canary": "41"}, 41])
def test_an_output_of_another_shape_is_refused(project: Project, value: object) -> None:
    project.generation(41, output={"deployed": {"value": value}})
    target = _target(project)
    target.apply([CANARY])
    with pytest.raises(DeployError, match="the output deployed of application-local does not map consumer/ring"):
        target.deployed()


@pytest.mark.parametrize("options", [{"stak": STACK}, {"stack": STACK, "more": 1}, {"stack": 1}])
def test_options_that_are_not_valid_are_refused(project: Project, options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="target terraform"):
        _target(project, **options)
