from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from rotation import deploy as module
from rotation.deploy import deploy, guard, outputs, prepare, preview, saved_plan, synth
from rotation.errors import DeployError, GuardRefused
from rotation.terraform import OutputChange, Plan, ResourceChange
from tests.rotation import terraform_stacks as stacks
from tests.rotation.projects import STACK, Project, project

__all__ = ["project"]

ALLOWED = frozenset({"terraform_data.config", "terraform_data.pin"})
NOTHING = Plan.parse({"format_version": "1.2"}).digest


def _review(plan: Plan) -> None:
    guard(plan, ALLOWED)


def _deployed(project: Project, sources: str = "sources") -> object:
    return outputs(project.folder, STACK, sources).get("deployed")


def test_a_deployment_applies_the_reviewed_plan_and_says_what_it_changed(project: Project) -> None:
    seen: list[Plan] = []
    deployment = deploy(project.folder, STACK, seen.append)
    assert deployment.digest == seen[0].digest
    assert deployment.changed == ("terraform_data.config", "terraform_data.pin")
    assert _deployed(project) == {"orders-api/canary": {"orders/db": 41}}


def test_an_empty_plan_applies_nothing(project: Project) -> None:
    deploy(project.folder, STACK, _review)
    state = (project.folder / "state").read_bytes()
    deployment = deploy(project.folder, STACK, _review)
    assert (deployment.digest, deployment.changed) == (NOTHING, ())
    assert (project.folder / "state").read_bytes() == state


def test_a_refused_plan_is_not_applied(project: Project) -> None:
    deploy(project.folder, STACK, _review)
    other = {"terraform_data": {"someone_else_s": {"input": 1}}}
    project.generation(42, resource=other, output={"other": {"value": 1}})
    with pytest.raises(GuardRefused, match=r"delete terraform_data\.config, delete terraform_data\.pin, create"):
        deploy(project.folder, STACK, _review)
    assert _deployed(project) == {"orders-api/canary": {"orders/db": 41}}


def test_saved_plans_are_private_and_gone_afterwards(project: Project) -> None:
    terraform = prepare(project.folder, synth(project.folder, [STACK]) / STACK)
    plans = project.folder / ".keyturn" / "plans"
    plans.mkdir()
    (plans / "left-by-a-killed-run").touch()
    with saved_plan(project.folder, terraform) as (path, _):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(plans.iterdir()) == [path]
    assert list(plans.iterdir()) == []


def test_a_saved_plan_is_gone_also_when_the_plan_is_refused(project: Project) -> None:
    with pytest.raises(GuardRefused):
        deploy(project.folder, STACK, lambda plan: guard(plan, ()))
    assert list((project.folder / ".keyturn" / "plans").iterdir()) == []


def test_a_failed_apply_leaves_the_old_generation_deployed_and_a_second_one_repairs_it(project: Project) -> None:
    deploy(project.folder, STACK, _review)
    broken = stacks.application(project.folder / "state", 42)
    broken["resource"]["terraform_data"]["config"] |= {
        "triggers_replace": 42,
        "provisioner": [{"local-exec": {"command": "false"}}],
    }
    project.stack(broken)
    with pytest.raises(DeployError, match="terraform apply failed in application-local: local-exec provisioner error"):
        deploy(project.folder, STACK, lambda _: None)
    assert _deployed(project) == {"orders-api/canary": {"orders/db": 41}}
    project.generation(42)
    deploy(project.folder, STACK, lambda _: None)
    assert _deployed(project) == {"orders-api/canary": {"orders/db": 42}}


def test_an_overlay_is_previewed_with_the_digest_that_its_deployment_will_have(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    deploy(project.folder, STACK, _review)
    overlay = tmp_path_factory.mktemp("overlay")
    project.generation(42, overlay)
    plan = preview(project.folder, STACK, overlay)
    assert [c.address for c in plan.changes] == ["terraform_data.config", "terraform_data.pin"]
    assert preview(project.folder, STACK).empty
    project.generation(42)
    assert deploy(project.folder, STACK, _review).digest == plan.digest


def test_init_runs_only_when_providers_or_backend_changed(project: Project) -> None:
    folder = synth(project.folder, [STACK]) / STACK
    prepare(project.folder, folder)
    mark = folder / ".terraform" / "terraform.tfstate"
    first = mark.stat().st_ino
    prepare(project.folder, folder)
    assert mark.stat().st_ino == first
    elsewhere = stacks.application(project.folder / "moved state")
    project.stack(elsewhere)
    prepare(project.folder, synth(project.folder, [STACK]) / STACK)
    assert "moved state" in mark.read_text(encoding="utf-8")


def test_what_is_deployed_is_read_without_another_synth(project: Project) -> None:
    assert _deployed(project) is None
    before = project.synths
    assert _deployed(project) is None
    assert project.synths == before
    _deployed(project, sources="changed")
    assert project.synths == before + 1


def test_what_is_deployed_can_be_read_during_a_deployment(project: Project) -> None:
    deploy(project.folder, STACK, _review)
    _deployed(project)
    project.generation(42)
    seen: list[object] = []
    deploy(project.folder, STACK, lambda _: seen.append(_deployed(project)))
    assert seen == [{"orders-api/canary": {"orders/db": 41}}]


def test_deployments_of_one_project_take_turns(project: Project) -> None:
    begun, second_reviews = threading.Event(), threading.Event()
    together: list[bool] = []

    def slow(_: Plan) -> None:
        begun.set()
        together.append(second_reviews.wait(1.5))

    first = threading.Thread(target=deploy, args=(project.folder, STACK, slow))
    second = threading.Thread(target=deploy, args=(project.folder, STACK, lambda _: second_reviews.set()))
    first.start()
    assert begun.wait(30)
    second.start()
    first.join()
    second.join()
    assert together == [False]
    assert second_reviews.is_set()


def test_synth_runs_this_python_and_gets_none_of_the_runner_s_credentials(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-value")
    monkeypatch.setenv("KEYTURN_JOURNAL", "canary-value")
    monkeypatch.setenv("NODE_OPTIONS", "--no-warnings")
    synth(project.folder, [STACK])
    seen = json.loads((project.folder / "environment.json").read_text(encoding="utf-8"))
    assert "canary-value" not in seen.values()
    assert seen["NODE_OPTIONS"] == "--no-warnings"
    assert seen["KEYTURN_STACKS"] == STACK
    assert seen["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_an_error_of_the_app_comes_through_in_its_own_words(project: Project) -> None:
    project.declare(error="error: the window is empty\n  Correct the window.")
    with pytest.raises(DeployError) as caught:
        synth(project.folder, [STACK])
    assert str(caught.value) == "synth failed: the window is empty"
    assert caught.value.remedy == "Correct the window."


def test_an_app_that_just_dies_is_told_by_its_last_line(project: Project) -> None:
    (project.folder / "app.py").write_text("import no_such_module", encoding="utf-8")
    with pytest.raises(DeployError, match="synth failed: ModuleNotFoundError: No module named 'no_such_module'"):
        synth(project.folder, [STACK])


def test_a_stack_that_no_app_declares_is_named(project: Project) -> None:
    with pytest.raises(DeployError, match="the app declares no stack application-moon"):
        synth(project.folder, ["application-moon"])


def test_a_project_without_an_app_is_told_so(project: Project) -> None:
    (project.folder / "cdktf.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DeployError, match="names no app"):
        synth(project.folder, [STACK])


def test_a_stack_without_a_backend_is_refused_for_its_state_could_not_be_found_again(project: Project) -> None:
    project.generation(41, terraform={})
    with pytest.raises(DeployError, match="application-local declares no backend"):
        _deployed(project)


def _plan(*changes: ResourceChange, outputs: tuple[OutputChange, ...] = ()) -> Plan:
    return Plan(changes, outputs, "digest")


@pytest.mark.parametrize(
    "plan",
    [
        _plan(),
        _plan(ResourceChange("a.b", "a", ("create",)), ResourceChange("a.c", "a", ("update",))),
        _plan(ResourceChange("data.d.e", "d", ("read",))),
        _plan(outputs=(OutputChange("deployed", ("update",)),)),
    ],
)
def test_the_guard_lets_through_what_a_rotation_may_change(plan: Plan) -> None:
    guard(plan, {"a.b", "a.c"})


@pytest.mark.parametrize(
    ("plan", "offence"),
    [
        (_plan(ResourceChange("a.x", "a", ("update",))), "update a.x"),
        (_plan(ResourceChange("a.b", "a", ("delete",))), "delete a.b"),
        (_plan(ResourceChange("a.b", "a", ("delete", "create"))), "delete/create a.b"),
        (_plan(ResourceChange("a.b", "a", ("create", "delete"))), "create/delete a.b"),
        (_plan(ResourceChange("a.b", "a", ("forget",))), "forget a.b"),
        (_plan(ResourceChange("a.b", "a", ("no-op",))), "no-op a.b"),
        (_plan(ResourceChange("a.b", "a", ("invoke",))), "invoke a.b"),
        (_plan(ResourceChange("a.b", "a", ("defer",))), "defer a.b"),
        (_plan(outputs=(OutputChange("other", ("update",)),)), "update output other"),
    ],
)
def test_the_guard_refuses_everything_else(plan: Plan, offence: str) -> None:
    with pytest.raises(GuardRefused) as caught:
        guard(plan, {"a.b"})
    assert str(caught.value) == f"the plan would also {offence}"
    assert "cdktf diff" in caught.value.remedy


def test_the_guard_lets_go_only_of_what_is_pinned_no_more() -> None:
    plan = _plan(ResourceChange("a.b", "a", ("delete",)))
    guard(plan, {"a.b"}, removable={"a.b"})
    with pytest.raises(GuardRefused, match=r"delete a\.b$"):
        guard(plan, {"a.b"}, removable={"a.c"})


def test_the_guard_names_the_first_offences_and_counts_the_rest() -> None:
    plan = _plan(*(ResourceChange(f"a.{n}", "a", ("create",)) for n in range(5)))
    with pytest.raises(GuardRefused, match=r"create a\.0, create a\.1, create a\.2 and 2 more$"):
        guard(plan, ())


def test_a_deployment_that_never_ends_is_not_waited_for_forever(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    def deploy_meanwhile(_: Plan) -> None:
        with pytest.raises(DeployError, match="another deployment of this project"):
            deploy(project.folder, STACK, _review)

    deploy(project.folder, STACK, deploy_meanwhile)
