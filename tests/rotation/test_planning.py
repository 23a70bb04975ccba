from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation.credentials.postgres_user import PostgresUser
from rotation.credentials.random_token import RandomToken
from rotation.errors import UsageError
from rotation.manifest import Manifest, Plugin
from rotation.model import Ring, Strategy
from rotation.pins import Pins
from rotation.pins import write as write_pins
from rotation.planning import PlannedRotation, PlannedStack, RotationPlan, describe, plan_rotations
from rotation.secret_value import SecretValue
from rotation.terraform import Plan
from tests.world import CONSUMER, World, fresh


def _rotation(**changed: Any) -> PlannedRotation:
    declared: dict[str, Any] = {
        "secret": "orders/db",
        "store": "aws_secrets_manager: production/orders/db",
        "credential": "postgres_user",
        "strategy": Strategy.ALTERNATING,
        "current": 41,
        "to": 42,
        "resumes": False,
        "places": ("orders-api/canary", "orders-api/stable"),
        "readers": ("arn:aws:iam::1:role/orders",),
        "steps": ("stage generation 42", "retire generation 41"),
        "operations": ("ALTER ROLE orders_app_b",),
        "bake": timedelta(minutes=15),
        "settle": timedelta(minutes=10),
        "grace": timedelta(days=3),
        "irreversible": "step 2, retire generation 41",
    }
    return PlannedRotation.model_validate(declared | changed)


def _plan(**changed: Any) -> RotationPlan:
    stack = PlannedStack(stack="application-production", digest="d" * 64, changes=("update a.b",))
    declared: dict[str, Any] = {
        "environment": "production",
        "made_at": datetime.now(UTC),
        "sources": "s" * 64,
        "rotations": (_rotation(),),
        "terraform": (stack,),
    }
    return RotationPlan.model_validate(declared | changed).digested()


def _written(folder: Path, plan: RotationPlan) -> Path:
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    return path


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = _plan()
    assert RotationPlan.load(_written(tmp_path, plan)) == plan


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[: len(text) // 2], r"plan\.json is not a rotation plan, or not a whole one"),
        (lambda text: text.replace('"to": 42', '"to": 43'), r"plan\.json was changed after it was made"),
        (lambda text: text.replace("15M", "1M"), r"plan\.json was changed after it was made"),
        (lambda text: text.replace('"format": 2', '"format": 1'), r"plan\.json is a rotation plan of format 1, not 2"),
        (lambda text: text.replace('"secret"', '"secrets"'), r"plan\.json is not a rotation plan$"),
        (lambda _: "[]", r"plan\.json is not a rotation plan$"),
        (lambda _: '{"format_version": "1.2"}', r"plan\.json is not a rotation plan$"),
    ],
)
def test_a_plan_that_is_not_as_it_was_made_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    path = _written(tmp_path, _plan())
    text = path.read_text(encoding="utf-8")
    assert spoil(text) != text
    path.write_text(spoil(text), encoding="utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        RotationPlan.load(path)
    assert "keyturn plan --out" in caught.value.remedy


STACK = PlannedStack(stack="application-production", digest="e" * 64, changes=())


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"sources": "t" * 64}, "the stacks (digest ssssssssssss → tttttttttttt) moved"),
        ({"rotations": (_rotation(current=42, to=43),)}, "the secrets orders/db moved"),
        (
            {"terraform": (STACK,)},
            "the Terraform plan of application-production (digest dddddddddddd → eeeeeeeeeeee) moved",
        ),
        ({"terraform": ()}, "the Terraform plan of application-production (digest dddddddddddd → none) moved"),
        ({"environment": "staging"}, "the environment moved"),
        ({"sources": "t" * 64, "terraform": (STACK,)}, "(digest ssssssssssss → tttttttttttt) and the Terraform plan"),
    ],
)
def test_a_plan_is_refused_when_something_moved_and_what_moved_is_named(now: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        _plan().refuse_if_moved(_plan(**now))
    assert said in str(caught.value)


def test_a_plan_made_again_from_the_same_is_the_same() -> None:
    _plan().refuse_if_moved(_plan(made_at=datetime.now(UTC) + timedelta(hours=1)))


def test_people_read_who_is_concerned_what_the_target_sees_and_what_is_final() -> None:
    text = "\n".join(describe(_plan()))
    for said in (
        "orders/db: 41 → 42 (rotates; alternating)",
        "in the target: ALTER ROLE orders_app_b",
        "blast radius: orders-api/canary, orders-api/stable",
        "read by: arn:aws:iam::1:role/orders",
        "cannot be undone: step 2, retire generation 41",
    ):
        assert said in text


def _unread(_: str) -> SecretValue:
    raise AssertionError("a plan reads no value")


OPTIONS = {"administrator": "db-admin", "username_base": "orders_app", "owner_role": "orders_owner", "dbname": "orders"}


@pytest.mark.parametrize(
    ("strategy", "current", "said"),
    [
        (Strategy.ALTERNATING, None, "CREATE ROLE orders_app_a LOGIN with a new verifier, for generation 42"),
        (Strategy.ALTERNATING, 41, "orders_app_a or orders_app_b, the one that generation 41 does not use,"),
        (Strategy.ALTERNATING, 41, "when generation 41 is retired: ALTER ROLE of its user NOLOGIN PASSWORD NULL"),
        (
            Strategy.SINGLE,
            41,
            "ALTER ROLE orders_app LOGIN with a new verifier, for generation 42: generation 41 is denied",
        ),
    ],
)
def test_what_is_done_in_a_database_is_told_without_asking_it(
    strategy: Strategy, current: int | None, said: str
) -> None:
    assert said in "\n".join(PostgresUser(OPTIONS, strategy, _unread).operations(42, current))


def test_a_token_has_no_target_to_do_anything_in() -> None:
    (said,) = RandomToken({}, Strategy.OVERLAPPING, _unread).operations(42, 41)
    assert said.startswith("nothing")


def test_a_plan_is_json_that_says_its_format(tmp_path: Path) -> None:
    content = json.loads(_written(tmp_path, _plan()).read_text(encoding="utf-8"))
    assert (content["format"], content["rotations"][0]["grace"]) == (2, "P3D")


class _TwoConsumers(World):
    """A world whose second secret belongs to a consumer of its own, in the stack of the first."""

    @property
    def manifest(self) -> Manifest:
        declared = super().manifest
        both = declared.consumers[CONSUMER].model_copy(
            update={"target": Plugin(kind="terraform", options={"stack": "application-test"})}
        )
        rings = {ring: its.model_copy(update={"rendered": Path(f"{ring}/worker")}) for ring, its in both.rings.items()}
        consumers = {
            CONSUMER: both.model_copy(update={"secrets": self.names[:1]}),
            "worker": both.model_copy(update={"name": "worker", "secrets": self.names[1:], "rings": rings}),
        }
        return declared.model_copy(update={"consumers": consumers})


def test_a_plan_asks_nothing_of_a_consumer_that_uses_none_of_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the stores of the secrets that are planned, and of their neighbours, were asked."""
    names = ("orders/db", "orders/worker")
    world = _TwoConsumers(tmp_path, names=names, parts=fresh(tmp_path, names=names).parts)
    manifest, pins = world.manifest, Pins()
    for consumer in manifest.consumers.values():
        for ring in Ring:
            pins = pins.with_(consumer.name, ring, consumer.secrets[0], 1)
    write_pins(tmp_path / manifest.pins, pins)
    previewed: list[set[Path]] = []

    def preview(project: Path, stack: str, overlay: Path) -> Plan:
        previewed.append({file.relative_to(overlay) for file in overlay.rglob("*") if file.is_file()})
        return Plan((), (), "d" * 64)

    monkeypatch.setattr("rotation.deploy.preview", preview)
    engine = world.engine()
    plan = plan_rotations(engine, {"orders/db"})
    engine.journal.close()
    assert [rotation.secret for rotation in plan.rotations] == ["orders/db"]
    assert previewed == [{manifest.pins, manifest.consumers[CONSUMER].rings[Ring.CANARY].rendered}]
