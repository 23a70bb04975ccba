"""What becomes of Terraform when its runner is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from rotation.errors import DeployError
from rotation.terraform import run
from tests.rotation import terraform_stacks as stacks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")

_RUNNER = """\
import json, sys
from pathlib import Path
from rotation.terraform import run
argv, folder, environment = json.load(sys.stdin)
run(argv, Path(folder), environment, limit=100, what="it")
"""


@contextmanager
def _runner(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", _RUNNER], stdin=subprocess.PIPE, text=True) as runner:
        assert runner.stdin is not None
        json.dump([argv, str(folder), dict(environment)], runner.stdin)
        runner.stdin.close()
        try:
            yield runner
        finally:
            runner.kill()


def _await(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_killed_runner_s_terraform_keeps_what_it_has_made_and_frees_the_state(tmp_path: Path) -> None:
    stack = stacks.application(tmp_path / "state")
    stack["resource"]["terraform_data"]["pin"]["provisioner"] = [
        {"local-exec": {"command": "echo $PPID > begun; sleep 100"}}
    ]
    folder = stacks.write(tmp_path / "stack", stack)
    stacks.terraform(folder)
    with _runner(["terraform", "apply", "-auto-approve"], folder, stacks.environment(tmp_path)) as runner:
        _await(lambda: (folder / "begun").exists() and (folder / "begun").read_text().strip() != "")
        terraform = int((folder / "begun").read_text())
        runner.kill()
    _await(lambda: not psutil.pid_exists(terraform))
    state = json.loads((tmp_path / "state").read_text())
    assert "config" in {resource["name"] for resource in state["resources"]}
    stacks.write(folder, stacks.application(tmp_path / "state"))
    terraform_again = stacks.terraform(folder)
    terraform_again.plan(tmp_path / "plan")
    terraform_again.apply(tmp_path / "plan")
    assert terraform_again.output() == {"deployed": {"orders-api/canary": {"orders/db": 41}}}


@pytest.mark.parametrize("ignoring", [False, True], ids=["in the foreground", "in the background of a script"])
def test_a_killed_runner_s_child_is_interrupted_and_may_still_print(tmp_path: Path, ignoring: bool) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignoring else signal.default_int_handler)
    try:
        _kill_and_listen(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def _kill_and_listen(tmp_path: Path) -> None:
    script = "trap 'echo goodbye && touch said; exit' INT; touch begun; while :; do sleep 0.02; done"
    with _runner(["sh", "-c", script], tmp_path, {"PATH": os.defpath}) as runner:
        _await((tmp_path / "begun").exists)
        os.kill(runner.pid, signal.SIGKILL)
        _await((tmp_path / "said").exists)


def test_a_child_ends_by_a_broken_pipe_as_it_would_in_a_shell(tmp_path: Path) -> None:
    done = run(["sh", "-c", "kill -PIPE $$"], tmp_path, {"PATH": os.defpath}, limit=10, what="it")
    assert done.returncode == -signal.SIGPIPE


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run(["no-such-program"], tmp_path, {"PATH": os.defpath}, limit=10, what="it")
    assert done.returncode == 1
    assert done.stderr == "error: no-such-program cannot be started: No such file or directory\n"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="it cannot be started: No such file or directory"):
        run(["sh", "-c", "true"], tmp_path / "nowhere", {"PATH": os.defpath}, limit=10, what="it")
