"""Runners that have nothing but what git and a bucket keep: each command runs in a fresh folder."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rotation.journal import Journal
from rotation.model import Ring
from tests.fixtures.ports import closed_port
from tests.fixtures.project import LIMIT, SECRET, Completed, Project
from tests.rotation.test_notifications import Webhook, webhook

pytestmark = pytest.mark.timeout(600)

BUCKET = "keyturn-journals"
KEPT_BY_GIT = ("main.py", "cdktf.json", "package.json", "stacks", "modules")
COMMITTED = (Path("stacks/pins/local.json"), Path("stacks/config/rendered/local"))


@dataclass
class Pipeline:
    """The runs of one repository: what a run leaves in its folder is lost, but for what it commits."""

    project: Project
    folder: Path
    hook: Webhook
    runs: int = 0
    variables: dict[str, str] = field(default_factory=dict)

    def runner(self) -> Project:
        """A fresh checkout, synthesized. The servers of the embedded environment are elsewhere."""
        self.runs += 1
        path = self.folder / f"runner-{self.runs}"
        (path / ".keyturn").mkdir(parents=True)
        (path / ".keyturn/local").symlink_to(self.project.path / ".keyturn/local")
        (path / "node_modules").symlink_to(self.project.path / "node_modules")
        for name in KEPT_BY_GIT:
            _copy(self.project.path / name, path / name)
        journal = {"KEYTURN_JOURNAL": f"s3://{BUCKET}/shop", "KEYTURN_NOTIFY": self.hook.url}
        runner = replace(self.project, path=path, variables={**self.project.variables, **journal, **self.variables})
        done = runner.synth()
        assert done.code == 0, done.stderr
        return runner

    def run(self, *arguments: str, expect: int = 0, **variables: str) -> Completed:
        runner = self.runner()
        done = runner.run(*arguments, expect=expect, **variables)
        self.commit(runner)
        return done

    def commit(self, runner: Project) -> None:
        for kept in COMMITTED:
            _copy(runner.path / kept, self.project.path / kept)

    def journal(self) -> Path:
        """A copy of the journal in the bucket."""
        path = self.folder / "look.sqlite3"
        got = self.project.aws.client("s3").get_object(Bucket=BUCKET, Key="shop/local.sqlite3")
        path.write_bytes(got["Body"].read())
        return path

    def names(self) -> set[str]:
        listed = self.project.aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
        return {entry["Key"] for entry in listed}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.fixture
def pipeline(project: Project, tmp_path: Path) -> Iterator[Pipeline]:
    project.aws.client("s3").create_bucket(Bucket=BUCKET)
    with webhook() as hook:
        yield Pipeline(project, tmp_path, hook)
    project.transcript.extend(f"{path} {body}" for path, body in hook.requests)  # searched for values at the end
    project.run("rotate")  # the journal of the other tests did not see any of this


def test_a_whole_life_on_runners_without_a_disk(pipeline: Pipeline) -> None:
    project = pipeline.project
    project.run("retire", SECRET)  # what an earlier test has left would be retired first
    before, candidate = project.status()["current"], project.next_generation()
    with project.watched():
        pipeline.run("rotate", SECRET)
        _tells(pipeline, f"promoted: {SECRET}: {before} → {candidate}")
        with Journal(pipeline.journal()) as journal:
            promoted = journal.notes(SECRET)["promoted"]
        assert promoted.generation == candidate

        forgetful = pipeline.run("retire", SECRET, "--wait", "0", expect=3, KEYTURN_JOURNAL="s3://no-such-bucket/x")
        warning, follows = forgetful.stderr.splitlines()[:2]
        assert warning.startswith("warning: the journal s3://no-such-bucket/x/local.sqlite3 cannot be reached: ")
        assert "grace times start anew" in follows
        assert project.status()["previous"] == before  # nothing is revoked early

        pipeline.run("retire", SECRET)
    assert project.status()["previous"] is None
    with Journal(pipeline.journal()) as journal:
        assert journal.notes(SECRET)["promoted"] == promoted
        events = [entry.event for entry in journal.trail(SECRET)]
    assert [event for event in events if event in ("opened", "stage", "promote", "promoted", "retire")] == [
        "opened",
        "stage",
        "promote",
        "promoted",
        "retire",
    ]
    assert "shop/local.lease.json" not in pipeline.names()


def test_the_second_of_two_pipelines_changes_nothing_and_a_cancelled_one_is_taken_up_again(pipeline: Pipeline) -> None:
    project = pipeline.project
    candidate = project.next_generation()
    pipeline.variables = {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "shop", "GITHUB_RUN_ID": "7"}
    first, second = pipeline.runner(), pipeline.runner()
    with project.watched():
        with first.start("rotate", SECRET) as running, project.held_up():
            _has_said(running, "stage")
            refused = second.run("rotate", SECRET, expect=1)
            looked = second.run("status", SECRET)
            running.send_signal(signal.SIGTERM)
            stdout, stderr = running.communicate(timeout=LIMIT)
        assert running.returncode == 130, stdout + stderr
        pipeline.commit(first)
        what, remedy = refused.stderr.splitlines()
        assert what.startswith(f"error: another runner (process {running.pid} on ")
        assert "https://git.example/shop/actions/runs/7" in what
        assert "its lease ends by itself" in remedy
        assert looked.stderr == ""
        assert "shop/local.lease.json" not in pipeline.names()
        with Journal(pipeline.journal()) as journal:
            assert journal.open_rotations() == (SECRET,)

        done = pipeline.run("rotate", KEYTURN_NOTIFY=f"json://127.0.0.1:{closed_port()}/T0KEN")
    assert done.stderr.startswith("warning: notification 1 of 1 could not be sent: ")
    assert "T0KEN" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) == 2
    assert project.status()["current"] == candidate
    assert project.load.pins(SECRET) == dict.fromkeys(Ring, candidate)


def _tells(pipeline: Pipeline, line: str) -> None:
    (message,) = pipeline.hook.messages
    assert message.splitlines() == ["keyturn local: 1 promoted", line]


def _has_said(running: subprocess.Popen[str], word: str) -> None:
    assert running.stdout is not None
    while word not in (line := running.stdout.readline()):
        assert line, "it ended before"
