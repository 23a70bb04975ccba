"""The Jenkinsfile, as far as it can be tried without a Jenkins: read by a Groovy parser, and the script of each `sh`
step run in its order on the embedded environment, each agent in a fresh clone, with what Jenkins would set around."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rotation.local.workflows import BRANCH, Workflows
from rotation.model import Ring
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.project import SECRET
from tests.jenkins.jenkinsfile import JENKINSFILE, Command, commands

LIMIT = 300  # seconds that one step may take
AGENTS = {
    "Prepare": ("Set up", "Synthesize", "Review a fork", "Plan", "Review"),
    "Act": ("Set up again", "Deploy", "Rotate", "Drift"),
}
PARSER = """
def unit = new org.codehaus.groovy.control.CompilationUnit()
unit.addSource(new File(args[0]))
unit.compile(org.codehaus.groovy.control.Phases.SEMANTIC_ANALYSIS)
"""


@pytest.fixture(scope="module")
def file() -> tuple[Command, ...]:
    return commands()


def steps(file: Sequence[Command]) -> list[Command]:
    return [command for command in file if command.name == "sh"]


# What is in the file


def test_a_person_is_waited_for_without_an_agent_and_before_anything_is_applied(file: Sequence[Command]) -> None:
    names = [(command.within, command.name, command.text) for command in file]
    approve = ("pipeline", "stages", "Approve")
    assert (approve, "input", None) in names
    assert not [command for command in file if command.within == approve and command.name == "agent"]
    order = [command.text for command in file if command.name in ("sh", "stage")]
    assert order.index("Approve") < order.index('.ci/deploy "$ENVIRONMENT" --from plans')


def test_the_code_of_a_pull_request_is_synthesized_with_no_credentials_bound(file: Sequence[Command]) -> None:
    bound = {command.within[4] for command in file if command.name == "credentials" and len(command.within) > 4}
    assert bound == {"Plan", "Deploy", "Rotate", "Drift"}
    assert all("steps" in step.within for step in steps(file))


def test_a_token_is_bound_for_both_clouds_and_each_has_its_role() -> None:
    text = JENKINSFILE.read_text(encoding="utf-8")
    for variable in ("WEB_IDENTITY_TOKEN_FILE = credentials('keyturn-token')", 'ROLE_ARN = "${env.KEYTURN_'):
        assert text.count(f"AWS_{variable}") == text.count(f"TENCENTCLOUD_{variable}") > 0


def test_git_s_credentials_are_bound_for_the_one_step_that_pushes(file: Sequence[Command]) -> None:
    assert [step.text for step in steps(file) if "withCredentials" in step.within] == ['.ci/rotate "$ENVIRONMENT"']


def test_every_script_is_one_text_into_which_groovy_puts_nothing(file: Sequence[Command]) -> None:
    text = JENKINSFILE.read_text(encoding="utf-8")
    assert len(steps(file)) == text.count(" sh '")
    assert 'sh "' not in text
    assert "'''" not in text


def test_every_script_that_a_step_calls_is_there_and_may_be_run(file: Sequence[Command]) -> None:
    called = {word for step in steps(file) for word in (step.text or "").split() if word.startswith(".ci/")}
    assert called
    assert all(os.access(JENKINSFILE.parent / path, os.X_OK) for path in called)


def test_what_stands_in_no_agent_here_stands_in_none_there(file: Sequence[Command]) -> None:
    there = {agent: [c.text for c in file if c.name == "stage" and agent in c.within] for agent in AGENTS}
    assert there == {agent: list(stages) for agent, stages in AGENTS.items()}


def test_a_mistake_in_the_file_would_be_found(tmp_path: Path) -> None:
    broken = tmp_path / "Jenkinsfile"
    broken.write_text("pipeline {\n    stages {\n        stage('Plan' {\n        }\n    }\n}\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"(?i)unexpected|token"):
        commands(broken)


@pytest.mark.skipif(shutil.which("groovy") is None, reason="groovy is not installed: `make test-jenkins` does it")
def test_groovy_itself_compiles_the_file(tmp_path: Path) -> None:
    (tmp_path / "parse.groovy").write_text(PARSER, encoding="utf-8")
    java = Path(os.path.realpath(shutil.which("java") or "/usr/bin/java"))

    def compiled(file: Path) -> subprocess.CompletedProcess[str]:
        argv = ["groovy", str(tmp_path / "parse.groovy"), str(file)]
        variables = {**os.environ, "JAVA_HOME": str(java.parents[1])}
        return subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False)

    done = compiled(JENKINSFILE)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "Broken"
    broken.write_text(
        JENKINSFILE.read_text(encoding="utf-8").replace("agent none", "agent none }", 1), encoding="utf-8"
    )
    assert compiled(broken).returncode != 0


# What it does


@dataclass
class Build:
    """One build of the job. ``plans`` is what is stashed, ``ran`` the scripts in the order in which they ran."""

    workflows: Workflows
    file: Sequence[Command]
    folder: Path
    variables: Mapping[str, str]
    ran: list[str] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)

    def run(self, *stages: str, **parameters: str) -> Path:
        """Run these stages in the file's order, as their `when` would choose them; returns the last workspace."""
        workspace = self.folder
        for agent, its in AGENTS.items():
            chosen = [stage for stage in its if stage in stages]
            if not chosen:
                continue
            workspace = self.folder / agent
            self.workflows.clone(workspace)
            if (self.folder / "stash").exists():
                shutil.copytree(self.folder / "stash", workspace / "plans")
            for step in steps(self.file):
                if agent in step.within and set(chosen) & set(step.within):
                    self._step(step, workspace, parameters)
            if (workspace / "plans").exists() and agent == "Prepare":
                shutil.copytree(workspace / "plans", self.folder / "stash")
        return workspace

    def _step(self, step: Command, workspace: Path, parameters: Mapping[str, str]) -> None:
        script = step.text or ""
        path = f"{workspace}/node_modules/.bin:{workspace}/.venv/bin:{os.environ['PATH']}"
        summary = {"Rotate": "rotation.md", "Drift": "drift.md"}
        named = next((summary[stage] for stage in summary if stage in step.within), "")
        variables = {**self.variables, **parameters, "PATH": path, "KEYTURN_BRANCH": BRANCH, "KEYTURN_SUMMARY": named}
        done = subprocess.run(
            ["sh", "-xe", "-c", script],  # as the durable-task plugin runs it
            cwd=workspace,
            env={name: value for name, value in variables.items() if value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.ran.append(script)
        self.transcript += [done.stdout, done.stderr]
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


@pytest.fixture
def build(pipeline: Pipeline, file: tuple[Command, ...], tmp_path: Path) -> Build:
    variables = {
        name: value for name, value in pipeline.project.variables.items() if name in ("HOME", "LANG", "TMPDIR")
    }
    journal = str(pipeline.project.path / ".keyturn/journal")
    return Build(pipeline.workflows({}), file, tmp_path, variables | {"KEYTURN_JOURNAL": journal})


@pytest.mark.timeout(900)
def test_the_stages_plan_review_deploy_and_rotate(pipeline: Pipeline, build: Build) -> None:
    before, candidate = pipeline.project.status()["current"], pipeline.project.next_generation()

    workspace = build.run(
        *("Set up", "Synthesize", "Plan", "Review", "Set up again", "Deploy", "Rotate"),
        ENVIRONMENT="local",
        SECRETS=SECRET,
        TRIGGER="manual",
        WORDS="because",
    )

    left_out = {"Review a fork", "Drift"}
    assert build.ran == [step.text for step in steps(build.file) if left_out.isdisjoint(step.within)]
    assert "keyturn" in (workspace.parent / "Prepare" / "review.md").read_text(encoding="utf-8")
    assert pipeline.project.status()["current"] == candidate
    assert pipeline.pinned().count(f'"{SECRET}": {candidate}') == len(Ring)
    assert build.workflows.history()[:2] == [
        f"Rotate in local: {SECRET} {before} → {candidate} ({ring})" for ring in reversed(Ring)
    ]
    assert "promoted" in (workspace / "rotation.md").read_text(encoding="utf-8")
    assert "manual: because" in pipeline.project.run("audit", SECRET).stdout
    pipeline.project.transcript.extend(build.transcript)


def test_the_drift_stage_leaves_a_report(build: Build) -> None:
    workspace = build.run("Set up again", "Drift", ENVIRONMENT="local")
    assert "reports" in json.loads((workspace / "drift.json").read_text(encoding="utf-8"))
    assert (workspace / "drift.md").read_text(encoding="utf-8")


def test_a_fork_is_reviewed_from_its_stacks_alone(build: Build) -> None:
    workspace = build.run("Set up", "Synthesize", "Review a fork", CHANGE_TARGET=BRANCH)
    assert "no plan" in (workspace / "review.md").read_text(encoding="utf-8").lower()
