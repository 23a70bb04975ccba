"""Deploying to a function, on the emulated cloud: variables, versions and the traffic of an alias."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina

from rotation import pins, tencentcloud
from rotation.errors import (
    Conflict,
    DeclarationError,
    DeployError,
    GuardRefused,
    KeyturnError,
    LimitExceeded,
    Unauthorized,
)
from rotation.local.tencent.scf import Scf
from rotation.manifest import Consumer, ConsumerRing, Manifest, Plugin, Secret
from rotation.model import Ring, Strategy
from rotation.pins import Pins
from rotation.plugins import load
from rotation.targets import Deployment, DeployTarget
from rotation.targets.tencent_scf import GENERATIONS, OWNED, TencentScfTarget
from rotation.tencentcloud import Cloud
from tests.fixtures.scf import ScfFunction, zipped
from tests.fixtures.tencent import TencentCloud

CONSUMER, SECRET = "orders-api", "orders/db"
CANARY, STABLE = (CONSUMER, Ring.CANARY), (CONSUMER, Ring.STABLE)
CODE = """
import os
def main_handler(event, context):
    print("GENERATION", os.environ.get("DB_GENERATION"))
    return [os.environ.get("DB_GENERATION"), os.environ.get("LEVEL")]
"""
PINS = Path("pins.json")


@pytest.fixture(autouse=True)
def hurried(tencent: TencentCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the rates of the cloud, which other tests try, and with two attempts at most."""
    monkeypatch.setattr(tencent.cloud, "settings", replace(tencent.cloud.settings, throttled=False))
    monkeypatch.setattr(tencentcloud, "_OTHERS_PER_SECOND", 10_000)
    tencentcloud._limiter.cache_clear()
    with stamina.set_testing(True, attempts=2):
        yield
    tencentcloud._limiter.cache_clear()


class Estate:
    """A function that is the target of one consumer, and what a rollout does to deploy there."""

    def __init__(self, cloud: TencentCloud, project: Path) -> None:
        self.cloud = cloud
        self.project = project
        variables = [{"Key": "LEVEL", "Value": "info"}]
        self.function = ScfFunction.make(cloud, CODE, Environment={"Variables": variables})
        self.options = {**cloud.options, "function": self.function.name, "weight": 0.3}
        self.pins = Pins()

    def manifest(self, rings: tuple[Ring, ...] = tuple(Ring), form: str = "dotenv", consumers: int = 1) -> Manifest:
        moment = timedelta(seconds=1)
        secret = Secret(
            name=SECRET,
            stored_as="orders-db",
            store=Plugin(kind="none"),
            credential=Plugin(kind="none"),
            strategy=Strategy.ALTERNATING,
            **dict.fromkeys(("bake", "settle", "patience", "grace"), moment),
        )
        names = [CONSUMER, *(f"other-{number}" for number in range(1, consumers))]
        declared = {
            name: Consumer.model_validate(
                {
                    "name": name,
                    "template": Path("t"),
                    "format": form,
                    "secrets": (SECRET,),
                    "target": Plugin(kind="tencent_scf", options=self.options),
                    "rings": {ring: ConsumerRing(rendered=Path(f"{ring}.env"), addresses=()) for ring in rings},
                }
            )
            for name in names
        }
        return Manifest(
            environment="local", order=0, sources="s", pins=PINS, secrets={SECRET: secret}, consumers=declared
        )

    def target(self, **manifest: Any) -> TencentScfTarget:
        return TencentScfTarget(self.options, self.project, self.manifest(**manifest))

    def pin(self, ring: Ring, generation: int | None, *, more: str = "") -> None:
        self.pins = self.pins.with_(CONSUMER, ring, SECRET, generation)
        pins.write(self.project / PINS, self.pins)
        text = f"DB_SECRET='orders-db'\nDB_GENERATION='{generation}'\n{more}"
        (self.project / f"{ring}.env").write_text(text)

    def deploy(self, *rings: Ring, generation: int | None) -> Deployment:
        for ring in rings:
            self.pin(ring, generation)
        return self.target().apply([(CONSUMER, ring) for ring in rings])

    def deployed(self) -> dict[Ring, int]:
        return {ring: generations[SECRET] for (_, ring), generations in self.target().deployed().items()}

    # Looking

    def alias(self) -> tuple[str, dict[str, float]]:
        seen = self.function.ask("GetAlias", Name="$DEFAULT")
        return seen.FunctionVersion, {one.Version: one.Weight for one in seen.RoutingConfig.AdditionalVersionWeights}

    def versions(self) -> list[str]:
        listed = self.function.ask("ListVersionByFunction", Limit=100).FunctionVersion
        return [number for number in listed if number != "$LATEST"]

    def run(self, version: str) -> list[Any]:
        found: list[Any] = json.loads(self.function.call(version).RetMsg)
        return found

    def writes(self) -> Counter[str]:
        actions = ("UpdateFunctionConfiguration", "PublishVersion", "UpdateAlias")
        calls = self.cloud.faults.calls()
        return Counter({action: calls[f"scf.{action}"] for action in actions if calls.get(f"scf.{action}")})


@pytest.fixture
def estate(tencent: TencentCloud, tmp_path: Path) -> Estate:
    return Estate(tencent, tmp_path)


def test_it_is_found_by_its_name() -> None:
    assert load(DeployTarget, "tencent_scf") is TencentScfTarget


def test_a_canary_gets_some_of_the_calls_then_everybody_all_of_them(estate: Estate) -> None:
    assert estate.target().deployed() == {}
    first = estate.deploy(*Ring, generation=41)
    stable, weights = estate.alias()
    assert (estate.run(stable), weights) == (["41", "info"], {})
    assert estate.deployed() == {Ring.CANARY: 41, Ring.STABLE: 41}

    second = estate.deploy(Ring.CANARY, generation=42)
    main, weights = estate.alias()
    ((canary, weight),) = weights.items()
    assert (main, weight) == (stable, 0.3)
    assert (estate.run(stable), estate.run(canary)) == (["41", "info"], ["42", "info"])
    assert estate.deployed() == {Ring.CANARY: 42, Ring.STABLE: 41}
    assert second.digest != first.digest
    assert second.changed == (f"default/{estate.function.name}:$DEFAULT",)

    estate.deploy(Ring.STABLE, generation=42)
    assert estate.alias() == (canary, {})
    assert estate.deployed() == {Ring.CANARY: 42, Ring.STABLE: 42}
    printed = estate.function.call("$DEFAULT")
    assert json.loads(printed.RetMsg) == ["42", "info"]


def test_a_canary_that_is_taken_back_leaves_neither_traffic_nor_variables(estate: Estate) -> None:
    estate.deploy(*Ring, generation=41)
    before, versions = estate.alias(), estate.versions()
    estate.deploy(Ring.CANARY, generation=42)
    estate.deploy(Ring.CANARY, generation=41)
    assert estate.alias() == before
    assert len(estate.versions()) == len(versions) + 1  # the one of generation 41 is used again
    assert estate.function.variables()["DB_GENERATION"] == "41"


def test_the_first_candidate_s_canary_can_be_taken_back(estate: Estate) -> None:
    estate.deploy(Ring.CANARY, generation=1)
    main, weights = estate.alias()
    assert (estate.run(main), [estate.run(version) for version in weights]) == ([None, "info"], [["1", "info"]])
    assert estate.deployed() == {Ring.CANARY: 1}
    estate.deploy(Ring.CANARY, generation=None)
    assert estate.alias() == (main, {})
    assert estate.deployed() == {}
    assert estate.function.variables() == {"LEVEL": "info"}


def test_before_anything_is_changed_nobody_is_served_by_latest(estate: Estate, tencent: TencentCloud) -> None:
    tencent.faults.plan("scf.UpdateFunctionConfiguration", "deny", times=9)
    with pytest.raises(Unauthorized):
        estate.deploy(Ring.CANARY, generation=1)
    main, weights = estate.alias()
    assert main != "$LATEST"
    assert (estate.run(main), weights) == ([None, "info"], {})


def test_an_apply_that_finds_all_as_it_should_be_writes_nothing(estate: Estate, tencent: TencentCloud) -> None:
    first = estate.deploy(*Ring, generation=41)
    tencent.faults.forget_calls()
    again = estate.target().apply([CANARY, STABLE])
    assert estate.writes() == Counter()
    assert (again.digest, again.changed) == (first.digest, ())


def test_variables_of_others_stay_and_those_that_are_no_longer_rendered_go(estate: Estate) -> None:
    estate.pin(Ring.CANARY, 41, more="OLD_ONE='x'\n")
    estate.pin(Ring.STABLE, 41, more="OLD_ONE='x'\n")
    estate.target().apply([CANARY, STABLE])
    assert estate.function.variables() == {
        "LEVEL": "info",
        "DB_SECRET": "orders-db",
        "DB_GENERATION": "41",
        "OLD_ONE": "x",
        OWNED: "DB_GENERATION,DB_SECRET,OLD_ONE",
        GENERATIONS: "orders/db=41",
    }
    estate.deploy(*Ring, generation=42)
    assert estate.function.variables().keys() == {"LEVEL", "DB_SECRET", "DB_GENERATION", OWNED, GENERATIONS}


class _Killed(BaseException):
    """The program ends here."""


@pytest.mark.parametrize("action", ["UpdateFunctionConfiguration", "PublishVersion", "UpdateAlias"])
@pytest.mark.parametrize("applied", [False, True])
def test_an_apply_that_was_killed_at_a_write_goes_on_where_it_was(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, action: str, applied: bool
) -> None:
    estate.deploy(*Ring, generation=41)
    versions = estate.versions()
    ask = Cloud.call_once

    def dying(cloud: Cloud, service: str, asked: str, *arguments: Any) -> dict[str, Any]:
        if asked != action or applied:
            reply = ask(cloud, service, asked, *arguments)
        if asked == action:
            raise _Killed
        return reply

    with monkeypatch.context() as patched:
        patched.setattr(Cloud, "call_once", dying)
        with pytest.raises(_Killed):
            estate.deploy(Ring.CANARY, generation=42)
    assert estate.deployed()[Ring.STABLE] == 41
    estate.target().apply([CANARY])
    assert estate.deployed() == {Ring.CANARY: 42, Ring.STABLE: 41}
    assert len(estate.versions()) == len(versions) + 1


@pytest.mark.parametrize("kind", ["throttle", "internal", "http_error", "drop", "lost_reply", "cut", "charset"])
def test_trouble_of_a_moment_is_got_over(estate: Estate, tencent: TencentCloud, kind: str) -> None:
    estate.deploy(*Ring, generation=41)
    for action in ("GetAlias", "GetFunction", "UpdateFunctionConfiguration", "PublishVersion", "UpdateAlias"):
        tencent.faults.plan(f"scf.{action}", kind)
    versions = estate.versions()
    estate.deploy(Ring.CANARY, generation=42)
    assert estate.deployed() == {Ring.CANARY: 42, Ring.STABLE: 41}
    assert len(estate.versions()) == len(versions) + 1


@pytest.mark.parametrize("change", ["code", "Timeout", "variable DEBUG"])
def test_nothing_else_is_deployed_along(estate: Estate, change: str) -> None:
    estate.deploy(*Ring, generation=41)
    before = estate.alias()
    kept = [{"Key": name, "Value": value} for name, value in estate.function.variables().items()]
    if change == "code":
        estate.function.ask("UpdateFunctionCode", ZipFile=zipped({"index.py": CODE + "# new"}))
    elif change == "Timeout":
        estate.function.ask("UpdateFunctionConfiguration", Timeout=9)
    else:
        more = {"Key": "DEBUG", "Value": "1"}
        estate.function.ask("UpdateFunctionConfiguration", Environment={"Variables": [*kept, more]})
    with pytest.raises(GuardRefused, match=change):
        estate.deploy(Ring.CANARY, generation=42)
    assert estate.alias() == before
    assert estate.function.variables()["DB_GENERATION"] == "41"


def test_an_alias_that_somebody_moved_meanwhile_is_left_to_them(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate.deploy(*Ring, generation=41)
    ask = Cloud.call_once

    def meddled(cloud: Cloud, service: str, asked: str, *arguments: Any) -> dict[str, Any]:
        reply = ask(cloud, service, asked, *arguments)
        if asked == "PublishVersion":
            estate.function.ask("UpdateAlias", Name="$DEFAULT", FunctionVersion="1")
        return reply

    monkeypatch.setattr(Cloud, "call_once", meddled)
    with pytest.raises(Conflict, match="somebody else has moved the alias"):
        estate.deploy(Ring.CANARY, generation=42)
    assert estate.alias() == ("1", {})


def test_a_function_whose_change_failed_is_refused(estate: Estate, tencent: TencentCloud) -> None:
    estate.deploy(*Ring, generation=41)
    service = tencent.cloud.service(Scf)
    service.fails = True
    try:
        with pytest.raises(DeployError, match="UpdateFailed"):
            estate.deploy(Ring.CANARY, generation=42)
    finally:
        service.fails = False
    assert estate.alias()[1] == {}


def test_a_version_that_only_says_so_is_not_used(estate: Estate) -> None:
    estate.deploy(*Ring, generation=41)
    described = estate.function.ask("GetFunction", Qualifier=estate.alias()[0]).Description
    estate.function.ask("UpdateFunctionConfiguration", Environment={"Variables": [{"Key": "LEVEL", "Value": "info"}]})
    estate.function.settle()
    estate.function.publish(described)
    with pytest.raises(Conflict, match="has not the configuration"):
        estate.target().apply([CANARY])


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("LEVEL='debug'\n", DeployError, "LEVEL already"),
        ("SCF_THING='x'\n", DeclarationError, "SCF_THING is no name"),
        ("X='x'\n", DeclarationError, "X is no name"),
        ("BARE=''\n", DeclarationError, "BARE is empty"),
        (f"LONG='{'x' * 4096}'\n", LimitExceeded, "4096"),
    ],
)
def test_variables_that_cannot_be_are_refused_before_anything_is_changed(
    estate: Estate, line: str, error: type[KeyturnError], said: str
) -> None:
    estate.pin(Ring.CANARY, 41, more=line)
    with pytest.raises(error, match=said):
        estate.target().apply([CANARY])
    assert estate.function.variables() == {"LEVEL": "info"}
    assert estate.alias()[1] == {}


def test_a_consumer_without_a_canary_ring_is_deployed_at_once(estate: Estate) -> None:
    estate.pin(Ring.STABLE, 41)
    target = estate.target(rings=(Ring.STABLE,))
    target.apply([STABLE])
    assert target.deployed() == {STABLE: {SECRET: 41}}
    assert estate.alias()[1] == {}


def test_a_function_that_is_not_there_yet_has_nothing_deployed(estate: Estate) -> None:
    estate.options["function"] = "not-made-yet"
    assert estate.target().deployed() == {}
    with pytest.raises(DeployError, match="ResourceNotFound"):
        estate.deploy(Ring.CANARY, generation=41)


def test_what_cannot_be_a_target_is_refused_where_it_is_declared(estate: Estate) -> None:
    with pytest.raises(DeclarationError, match="is the target of orders-api, other-1"):
        estate.target(consumers=2)
    with pytest.raises(DeclarationError, match="variables are dotenv"):
        estate.target(form="yaml")
    for option, value in (("weight", 1), ("alias", None), ("stack", "x")):
        with pytest.raises(DeclarationError, match=f"target tencent_scf: option {option}"):
            TencentScfTarget({**estate.options, option: value}, estate.project, estate.manifest())
