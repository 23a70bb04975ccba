from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from rotation import terraform as module
from rotation.errors import DeployError
from rotation.terraform import Plan, Terraform, run, runner_environment
from tests.rotation import terraform_stacks as stacks


def _stack(tmp_path: Path, generation: int = 41, name: str = "stack") -> Path:
    return stacks.write(tmp_path / name, stacks.application(tmp_path / "state", generation))


def _applied(tmp_path: Path, folder: Path) -> Terraform:
    terraform = stacks.terraform(folder)
    terraform.plan(tmp_path / "plan")
    terraform.apply(tmp_path / "plan")
    return terraform


def test_a_plan_tells_what_changes_and_applying_it_does_just_that(tmp_path: Path) -> None:
    terraform = _applied(tmp_path, _stack(tmp_path, 41))
    _stack(tmp_path, 42)
    plan = terraform.plan(tmp_path / "plan")
    assert [(c.address, c.type, c.actions) for c in plan.changes] == [
        ("terraform_data.config", "terraform_data", ("update",)),
        ("terraform_data.pin", "terraform_data", ("update",)),
    ]
    assert plan.changes[1].before["input"] == {"orders/db": 41}
    assert plan.changes[1].after["input"] == {"orders/db": 42}
    assert [(o.name, o.actions) for o in plan.outputs] == [("deployed", ("update",))]
    terraform.apply(tmp_path / "plan")
    assert terraform.output() == {"deployed": {"orders-api/canary": {"orders/db": 42}}}
    assert terraform.plan(tmp_path / "plan").empty


def test_nothing_applied_has_no_outputs(tmp_path: Path) -> None:
    assert stacks.terraform(_stack(tmp_path)).output() == {}


def test_sensitive_outputs_and_attributes_are_not_given_out(tmp_path: Path) -> None:
    stack = stacks.application(tmp_path / "state")
    stack["resource"]["terraform_data"]["config"]["input"] = '${sensitive("canary-value")}'
    stack["output"]["hidden"] = {"value": '${sensitive("canary-value")}', "sensitive": True}
    terraform = stacks.terraform(stacks.write(tmp_path / "stack", stack))
    plan = terraform.plan(tmp_path / "plan")
    assert plan.changes[0].after["input"] == "(sensitive)"
    assert "canary-value" not in repr(plan)
    terraform.apply(tmp_path / "plan")
    assert terraform.output().keys() == {"deployed"}


def test_the_same_change_has_the_same_digest_in_another_run_and_folder(tmp_path: Path) -> None:
    _applied(tmp_path, _stack(tmp_path, 41))
    one = stacks.terraform(_stack(tmp_path, 42, "one")).plan(tmp_path / "plan")
    two = stacks.terraform(_stack(tmp_path, 42, "two")).plan(tmp_path / "plan")
    other = stacks.terraform(_stack(tmp_path, 43, "other")).plan(tmp_path / "plan")
    assert one == two
    assert one.digest != other.digest


def _document(**parts: Any) -> dict[str, Any]:
    return {"format_version": "1.2"} | parts


def _change(address: str = "a.b", actions: tuple[str, ...] = ("update",), **parts: Any) -> dict[str, Any]:
    change = {"actions": list(actions), "before": {"x": 1}, "after": {"x": 2}, "after_unknown": {}} | parts
    return {"address": address, "mode": "managed", "type": "a", "provider_name": "p", "change": change}


BASE = _document(resource_changes=[_change()])


@pytest.mark.parametrize(
    "other",
    [
        _document(resource_changes=[_change("a.c")]),
        _document(resource_changes=[_change(actions=("delete", "create"))]),
        _document(resource_changes=[_change(before={"x": 0})]),
        _document(resource_changes=[_change(after={"x": 3})]),
        _document(resource_changes=[_change(after_unknown={"id": True})]),
        _document(resource_changes=[_change(replace_paths=[["x"]])]),
        _document(resource_changes=[_change(importing={"id": "i"})]),
        _document(resource_changes=[_change() | {"previous_address": "a.a"}]),
        _document(resource_changes=[_change() | {"deposed": "00000000"}]),
        _document(resource_changes=[_change(), _change("a.c")]),
        BASE | {"output_changes": {"o": {"actions": ["create"], "before": None, "after": 1, "after_unknown": False}}},
        BASE | {"action_invocations": [{"address": "action.x.y", "type": "x", "name": "y"}]},
        BASE | {"deferred_changes": [{"reason": "unknown", "resource_change": _change("a.d")}]},
    ],
)
def test_the_digest_covers_everything_that_an_apply_would_do(other: dict[str, Any]) -> None:
    assert Plan.parse(other).digest != Plan.parse(BASE).digest


def test_the_digest_covers_neither_order_nor_time_nor_version_nor_what_stays() -> None:
    changes = [_change("a.c"), _change("a.b"), _change("a.d", actions=("no-op",))]
    plan = Plan.parse(_document(resource_changes=changes, timestamp="2026", terraform_version="1.15.5"))
    assert plan.digest == Plan.parse(_document(resource_changes=[_change("a.b"), _change("a.c")])).digest


def test_moves_and_imports_and_actions_and_deferrals_are_changes_too() -> None:
    moved = _change("a.new", actions=("no-op",)) | {"previous_address": "a.old"}
    imported = _change("a.imported", actions=("no-op",), importing={"id": "i"})
    action = {"address": "action.x.y", "type": "x", "name": "y"}
    deferred = {"reason": "unknown", "resource_change": _change("a.later")}
    plan = Plan.parse(
        _document(resource_changes=[moved, imported], action_invocations=[action], deferred_changes=[deferred])
    )
    assert [(c.address, c.actions) for c in plan.changes] == [
        ("a.imported", ("no-op",)),
        ("a.new", ("no-op",)),
        ("action.x.y", ("invoke",)),
        ("a.later", ("defer",)),
    ]


def test_masks_reach_into_nested_values_and_show_what_is_known_after_apply() -> None:
    change = _change(
        before=None,
        after={"list": [{"a": "s", "b": 1}, 2], "plain": 3},
        after_unknown={"id": True, "list": [{"a": False}]},
        after_sensitive={"list": [{"a": True}]},
    )
    (shown,) = Plan.parse(_document(resource_changes=[change])).changes
    assert shown.before is None
    assert shown.after == {"list": [{"a": "(sensitive)", "b": 1}, 2], "plain": 3, "id": "(known after apply)"}


def test_a_plan_of_an_unknown_format_is_refused() -> None:
    with pytest.raises(DeployError, match="a format that keyturn does not know"):
        Plan.parse({"format_version": "2.0"})


def test_a_failure_tells_the_summary_without_the_configuration(tmp_path: Path) -> None:
    stack = stacks.application(tmp_path / "state")
    check = [{"condition": '${path.module == "elsewhere"}', "error_message": "because canary-value"}]
    stack["resource"]["terraform_data"]["config"]["lifecycle"] = {"precondition": check}
    terraform = stacks.terraform(stacks.write(tmp_path / "stack", stack))
    with pytest.raises(DeployError) as caught:
        terraform.plan(tmp_path / "plan")
    assert str(caught.value) == "terraform plan failed in stack: Resource precondition failed"


def test_a_failure_of_a_command_without_json_tells_its_summary_too(tmp_path: Path) -> None:
    stack = stacks.application(tmp_path / "state") | {"terraform": {"required_version": "< 0.1"}}
    with pytest.raises(DeployError, match="terraform init failed in stack: Unsupported Terraform Core version"):
        stacks.terraform(stacks.write(tmp_path / "stack", stack))


def test_a_held_state_lock_tells_who_holds_it_and_how_to_free_it(tmp_path: Path) -> None:
    terraform = _applied(tmp_path, _stack(tmp_path, 41))
    _stack(tmp_path, 42)
    info = {"ID": "5c0e7f3a", "Who": "runner@elsewhere", "Operation": "OperationTypeApply", "Info": "", "Version": "1"}
    info |= {"Created": "2026-11-22T08:00:00Z", "Path": "state"}
    (tmp_path / ".state.lock.info").write_text(json.dumps(info), encoding="utf-8")
    with (tmp_path / "state").open("r+b") as state:
        fcntl.lockf(state, fcntl.LOCK_EX)
        with pytest.raises(DeployError) as caught:
            terraform.plan(tmp_path / "plan")
    assert "the state of stack is locked by runner@elsewhere since 2026-11-22" in str(caught.value)
    assert "OperationTypeApply" in str(caught.value)
    assert "terraform force-unlock 5c0e7f3a" in caught.value.remedy


def test_a_plan_that_was_overtaken_is_not_applied(tmp_path: Path) -> None:
    terraform = _applied(tmp_path, _stack(tmp_path, 41))
    _stack(tmp_path, 42)
    terraform.plan(tmp_path / "old plan")
    terraform.plan(tmp_path / "plan")
    terraform.apply(tmp_path / "plan")
    with pytest.raises(DeployError, match="someone else changed stack after it was planned"):
        terraform.apply(tmp_path / "old plan")


def test_neither_python_terraform_nor_this_logs_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _applied(tmp_path, _stack(tmp_path)).output()
        assert caplog.records == []
        logging.getLogger("python_terraform").critical("what it would log")
        logging.getLogger("python_terraform.tfstate").critical("what it would log")
    assert caplog.records == []


@pytest.mark.parametrize("name", ["TF_LOG", "TF_LOG_CORE", "TF_LOG_PROVIDER_AWS", "TERRAFORM_VAULT_LOG_BODY"])
def test_logs_of_request_bodies_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeployError, match=f"^{name} would write the bodies of requests") as caught:
        Terraform(tmp_path, stacks.environment(tmp_path) | {name: "trace"})
    assert caught.value.remedy.startswith(f"Unset {name}")
    Terraform(tmp_path, stacks.environment(tmp_path) | {name: "off"})


def test_a_machine_without_terraform_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="there is no terraform on PATH"):
        Terraform(tmp_path, {"PATH": str(tmp_path)})


def test_terraform_sees_the_runner_s_access_and_no_other_variable() -> None:
    passed = {"PATH": "p", "HOME": "h", "AWS_ROLE_ARN": "r", "VAULT_ADDR": "v", "TF_CLI_CONFIG_FILE": "c"}
    held_back = {"DB_PASSWORD": "x", "KEYTURN_JOURNAL": "x", "TF_VAR_password": "x", "TF_DATA_DIR": "x"}
    assert runner_environment(passed | held_back) == passed
    refused_later = {"TF_LOG": "trace", "TERRAFORM_VAULT_LOG_BODY": "true"}
    assert runner_environment(refused_later) == refused_later


def test_a_child_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.5)
    # A shell without a terminal lets what it starts in the background ignore interrupts.
    script = "sleep 100 & echo $! > pid; wait"
    begun = tmp_path / "pid"
    _stopped_once_it_has_begun(["sh", "-c", script], tmp_path, {"PATH": os.defpath}, begun, seconds=0.3)
    _await_end(int(begun.read_text()))


def _stopped_once_it_has_begun(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], begun: Path, seconds: float
) -> None:
    """Run it with a limit; on a machine that is busy with a longer one, for the limit is to come after its beginning,
    which a file shows."""
    while not begun.exists() or not begun.stat().st_size:
        started = time.monotonic()
        with pytest.raises(DeployError, match=f"it in .* took longer than {seconds:g} seconds and was stopped"):
            run(argv, folder, environment, limit=seconds, what="it")
        assert time.monotonic() - started < 90, "it was left to end by itself"
        seconds *= 3


def _await_end(pid: int) -> None:
    """Return once it runs no more; one that ended and waits for its parent's glance does not run."""
    with suppress(psutil.NoSuchProcess):
        for _ in range(1_000):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.02)
        pytest.fail(f"process {pid} still runs")


def test_an_apply_that_is_stopped_frees_the_state_and_can_be_run_again(tmp_path: Path) -> None:
    stack = stacks.application(tmp_path / "state")
    slow = {"provisioner": [{"local-exec": {"command": "echo yes > begun; sleep 100"}}]}
    stack["resource"]["terraform_data"]["config"] |= slow
    folder = stacks.write(tmp_path / "stack", stack)
    environment = stacks.environment(tmp_path)
    terraform = stacks.terraform(folder)
    argv = ["terraform", "apply", "-auto-approve"]
    _stopped_once_it_has_begun(argv, folder, environment, folder / "begun", seconds=3)
    _stack(tmp_path)
    terraform.plan(tmp_path / "plan")
    terraform.apply(tmp_path / "plan")
    assert terraform.output() == {"deployed": {"orders-api/canary": {"orders/db": 41}}}
