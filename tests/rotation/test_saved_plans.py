from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rotation import deploy, saved_plans
from rotation.errors import DeployError, GuardRefused, StalePlan, UsageError
from rotation.local import providers
from rotation.manifest import Manifest
from rotation.saved_plans import Applied, SavedPlans
from rotation.terraform import Json, Terraform, beyond
from tests.rotation.projects import Project

STACKS = ("foundation-local", "secrets-local", "application-local")
CANARY = "canary-value-of-a-secret"


class Plans:
    """A project of three small stacks, and the folder of their plans."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.project.declare(stacks=STACKS)
        self.folder = folder / "plans"
        for stack in STACKS:
            self.declare(stack, {"one": {"input": 1}})

    def declare(self, stack: str, resources: Mapping[str, Any], **blocks: Any) -> None:
        state = {"backend": {"local": {"path": str(self.project.folder / f"{stack}.tfstate")}}}
        content = {"terraform": state, "resource": {"terraform_data": resources}} | blocks
        (self.project.folder / f"{stack}.json").write_text(json.dumps(content), encoding="utf-8")

    def manifest(self, **changed: Any) -> Manifest:
        declared = {"environment": "local", "order": 0, "sources": "s" * 64, "stacks": STACKS, "pins": "pins.json"}
        return Manifest.model_validate(declared | changed)

    def make(self, *stacks: str) -> SavedPlans:
        return saved_plans.make(self.project.folder, self.manifest(), stacks or STACKS, self.folder)

    def apply(self, review: saved_plans.Review = lambda _: None, **changed: Any) -> dict[str, str]:
        said: list[Applied] = []
        saved_plans.apply(self.project.folder, self.manifest(**changed), self.folder, review, said.append)
        return {one.stack: one.outcome for one in said}

    def state(self, stack: str) -> bytes | None:
        path = self.project.folder / f"{stack}.tfstate"
        return path.read_bytes() if path.exists() else None


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def test_plans_are_applied_once_in_their_order_also_where_nothing_was_initialized(plans: Plans) -> None:
    made = plans.make()
    assert [plan.changes for plan in made.stacks] == [("create terraform_data.one",)] * 3
    shutil.rmtree(plans.project.folder / ".keyturn")  # another job, on another machine
    assert plans.apply() == dict.fromkeys(STACKS, "applied")
    before = [plans.state(stack) for stack in STACKS]
    assert list(plans.apply().items()) == [(stack, "applied before") for stack in STACKS]
    assert [plans.state(stack) for stack in STACKS] == before


def test_saved_plans_are_private_and_what_is_shown_of_them_holds_no_sensitive_value(plans: Plans) -> None:
    secret = f'${{sensitive("{CANARY}")}}'
    plans.declare(STACKS[0], {"one": {"input": secret}}, output={"told": {"value": secret, "sensitive": True}})
    plans.make()
    assert stat.S_IMODE(plans.folder.stat().st_mode) == 0o700
    for stack in STACKS:
        assert stat.S_IMODE(saved_plans.saved_file(plans.folder, stack).stat().st_mode) == 0o600
    readable = "".join(path.read_text(encoding="utf-8") for path in plans.folder.glob("*.json"))
    assert CANARY not in readable
    assert readable.count("(sensitive)") == 2


def test_the_review_gets_what_the_saved_plans_hold_and_its_refusal_applies_nothing(plans: Plans) -> None:
    plans.make()

    def refuse(documents: Mapping[str, Mapping[str, Json]]) -> None:
        assert [documents[stack]["resource_changes"][0]["address"] for stack in STACKS] == ["terraform_data.one"] * 3
        raise GuardRefused("no")

    with pytest.raises(GuardRefused):
        plans.apply(refuse)
    assert [plans.state(stack) for stack in STACKS] == [None] * 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plans:
    """Plans that nobody applies: each test spoils a copy of their folder."""
    plans = Plans(tmp_path_factory.mktemp("made"))
    plans.make()
    return plans


def _truncate(folder: Path) -> None:
    path = saved_plans.saved_file(folder, STACKS[1])
    path.write_bytes(path.read_bytes()[:100])


def _swap(folder: Path) -> None:
    shutil.copy(saved_plans.saved_file(folder, STACKS[0]), saved_plans.saved_file(folder, STACKS[1]))


def _edit_what_is_shown(folder: Path) -> None:
    path = saved_plans.shown_file(folder, STACKS[1])
    path.write_text(path.read_text(encoding="utf-8").replace("create", "update"), encoding="utf-8")


def _edit_index(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / saved_plans.INDEX
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def _truncate_index(folder: Path) -> None:
    path = folder / saved_plans.INDEX
    path.write_bytes(path.read_bytes()[:200])


def _move_a_digest(folder: Path) -> None:
    index = json.loads((folder / saved_plans.INDEX).read_text(encoding="utf-8"))
    index["stacks"][2]["digest"] = "0" * 64
    (folder / saved_plans.INDEX).write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncate, r"secrets-local\.tfplan was changed after it was made \(SHA-256 "),
        (_swap, r"secrets-local\.tfplan was changed after it was made \(SHA-256 "),
        (_edit_what_is_shown, r"secrets-local\.json was changed after it was made"),
        (
            lambda folder: saved_plans.saved_file(folder, STACKS[2]).unlink(),
            r"application-local\.tfplan cannot be read",
        ),
        (_truncate_index, r"plans\.json in plans is not a list of plans, or not a whole one"),
        (lambda folder: (folder / saved_plans.INDEX).unlink(), r"plans holds no plans: plans\.json: No such file"),
        (_edit_index('"format": 1', '"format": 9'), r"plans\.json in plans is not a list of plans"),
        (_edit_index('"terraform": "1.', '"terraform": "0.'), r"made by Terraform 0\.\S+, and here is 1\."),
        (_move_a_digest, r"plans\.json has another digest for application-local than its saved plan"),
    ],
    ids=[
        "truncated",
        "another stack's",
        "JSON edited",
        "gone",
        "index truncated",
        "no index",
        "format",
        "version",
        "digest",
    ],
)
def test_plans_that_were_changed_are_refused_before_anything_is_applied(
    made: Plans, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    folder = shutil.copytree(made.folder, tmp_path / "plans")
    spoil(folder)
    with pytest.raises(UsageError, match=said):
        saved_plans.apply(made.project.folder, made.manifest(), folder, lambda _: None, lambda _: None)
    assert [made.state(stack) for stack in STACKS] == [None] * 3


def test_plans_are_refused_when_what_they_were_made_from_moved(plans: Plans) -> None:
    plans.make()
    with pytest.raises(UsageError, match="the stacks were changed after these plans were made"):
        plans.apply(sources="t" * 64)
    with pytest.raises(UsageError, match="these plans are for local, not for staging"):
        plans.apply(environment="staging")
    plans.declare(STACKS[2], {"one": {"input": 2}})
    with pytest.raises(UsageError, match="the pins or the configuration of application-local moved"):
        plans.apply()
    assert [plans.state(stack) for stack in STACKS] == [None] * 3


def test_plans_of_another_terraform_are_refused_in_words(plans: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("terraform") is None:
        pytest.skip("there is no Terraform on PATH beside the packaged one")
    packaged = providers._own_terraform(plans.project.folder)
    with monkeypatch.context() as patched:
        patched.setenv("TERRAFORM_BINARY_NAME", str(packaged))
        made = plans.make(STACKS[0])
    if made.terraform == Terraform(plans.folder, deploy.terraform_environment(plans.folder, {})).version():
        pytest.skip("the Terraform on PATH is of the packaged one's version")
    with pytest.raises(UsageError, match=rf"made by Terraform {made.terraform}, and here is"):
        plans.apply()


def test_a_failure_stops_the_deployment_and_says_what_was_deployed(plans: Plans) -> None:
    broken = {"input": 1, "provisioner": [{"local-exec": {"command": "false"}}]}
    plans.declare(STACKS[1], {"one": broken})
    plans.make()
    with pytest.raises(DeployError, match=r"failed in secrets-local.*\(deployed before it: foundation-local\)"):
        plans.apply()
    assert plans.state(STACKS[2]) is None
    with pytest.raises(
        StalePlan, match=r"secrets-local was changed by someone else.*delete/create terraform_data\.one"
    ):
        plans.apply()  # what failed is to be made again, which nobody reviewed


def test_what_an_earlier_run_left_of_a_plan_is_applied(plans: Plans) -> None:
    chain = {"one": {"input": 1}, "two": {"input": "${terraform_data.one.id}"}}
    plans.declare(STACKS[0], chain)
    plans.make(STACKS[0])
    whole = (plans.project.folder / f"{STACKS[0]}.json").read_text(encoding="utf-8")
    plans.declare(STACKS[0], {"one": chain["one"]})  # as if it had been killed after the first
    deploy.deploy(plans.project.folder, STACKS[0], lambda _: None)
    (plans.project.folder / f"{STACKS[0]}.json").write_text(whole, encoding="utf-8")
    assert plans.apply() == {STACKS[0]: "applied the rest"}
    assert plans.make(STACKS[0]).empty


def test_a_stack_that_someone_else_changed_meanwhile_is_refused_with_what_would_happen(plans: Plans) -> None:
    plans.make(STACKS[0])
    mine = (plans.project.folder / f"{STACKS[0]}.json").read_text(encoding="utf-8")
    plans.declare(STACKS[0], {"another": {"input": 1}})
    deploy.deploy(plans.project.folder, STACKS[0], lambda _: None)
    (plans.project.folder / f"{STACKS[0]}.json").write_text(mine, encoding="utf-8")
    with pytest.raises(StalePlan, match=r"it would also delete terraform_data\.another") as caught:
        plans.apply()
    assert "keyturn deploy --out" in caught.value.remedy


def test_a_deployment_at_once_leaves_no_plan_behind_and_applies_nothing_that_is_refused(plans: Plans) -> None:
    def refuse(_: object) -> None:
        raise GuardRefused("no")

    folder, manifest = plans.project.folder, plans.manifest()
    with pytest.raises(GuardRefused):
        saved_plans.make_and_apply(folder, manifest, STACKS, refuse, lambda _: None)
    said: list[Applied] = []
    saved_plans.make_and_apply(folder, manifest, STACKS, lambda _: None, said.append)
    assert [one.outcome for one in said] == ["applied"] * 3
    assert not (folder / ".keyturn" / "deploying").exists()


def _plan(*resources: dict[str, Any], **outputs: Any) -> dict[str, Any]:
    return {"resource_changes": list(resources), "output_changes": outputs}


def _change(actions: list[str], before: Any, after: Any, unknown: Any = None, address: str = "a.b") -> dict[str, Any]:
    change = {"actions": actions, "before": before, "after": after, "after_unknown": unknown or {}}
    return {"address": address, "type": "a", "change": change}


CREATE = _change(["create"], None, {"name": "x"}, {"id": True})


@pytest.mark.parametrize(
    ("now", "more"),
    [
        (_plan(), []),
        (_plan(CREATE), []),
        (_plan(_change(["create"], None, {"name": "x", "id": 7})), []),
        (_plan(_change(["no-op"], {}, {}, address="a.other")), []),
        (_plan(_change(["create"], None, {"name": "y"}, {"id": True})), ["create a.b"]),
        (_plan(_change(["create"], None, {"name": "x", "extra": 1}, {"id": True})), ["create a.b"]),
        (_plan(_change(["update"], {"name": "w"}, {"name": "x"}, {"id": True})), ["update a.b"]),
        (_plan(_change(["delete", "create"], None, {"name": "x"}, {"id": True})), ["delete/create a.b"]),
        (_plan(_change(["delete"], {"name": "x"}, None, address="a.other")), ["delete a.other"]),
        (_plan(told={"actions": ["update"], "before": 1, "after": 2}), []),
        (_plan(told={"actions": ["update"], "before": 0, "after": 3}), ["update output told"]),
        (_plan(more={"actions": ["delete"], "before": 0, "after": None}), ["delete output more"]),
    ],
)
def test_the_rest_of_a_plan_does_nothing_that_was_not_reviewed(now: dict[str, Any], more: list[str]) -> None:
    reviewed = _plan(CREATE, told={"actions": ["create"], "before": None, "after": 2})
    assert beyond(reviewed, now) == more


def test_actions_of_providers_are_never_the_rest_of_a_plan() -> None:
    assert beyond(_plan(), _plan() | {"action_invocations": [{"address": "x"}]}) == ["action invocations"]
