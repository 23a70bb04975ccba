"""GitHub's workflows: their own steps, run by act on the embedded environment, each job in a fresh clone.

OIDC, the approval of a GitHub environment and what GitHub does with concurrency groups cannot be seen here.
"""

from __future__ import annotations

import re

import pytest

from rotation.local.workflows import BRANCH, Ran
from rotation.model import Ring
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.project import SECRET, edit

pytestmark = pytest.mark.timeout(900)


class _Died(Exception):
    """The runner."""


def _succeeded(ran: Ran) -> str:
    assert ran.code == 0, ran.log[-6000:]
    return ran.log


def test_a_rotation_is_proposed_reviewed_merged_deployed_and_promoted(pipeline: Pipeline) -> None:
    before, candidate = pipeline.project.status(), pipeline.project.next_generation()
    move = f"{SECRET} {before['current']} → {candidate}"
    proposing, working = (
        pipeline.workflows({"KEYTURN_COMMIT": "branch"}),
        pipeline.workflows({"KEYTURN_COMMIT": "direct"}),
    )

    history = proposing.history()
    _succeeded(proposing.run("rotate", secrets=SECRET, trigger="manual", words='it\'s "time" $(touch /tmp/x)'))
    assert proposing.history() == history
    assert proposing.history("keyturn/local")[0] == f"Rotate in local: {move} (canary)"
    (proposed,) = pipeline.github.of("pulls")
    assert (proposed["head"], proposed["base"]) == ("keyturn/local", BRANCH)
    assert f"| {SECRET} | waits |" in proposed["body"]
    assert pipeline.project.load.generation(Ring.CANARY, SECRET) == before["current"]
    assert 'it\'s "time" $(touch /tmp/x)' in pipeline.project.run("audit", SECRET).stdout

    reviewing = pipeline.workflows({}, CHECKED_OUT="keyturn/local")
    number = proposed["number"]
    _succeeded(reviewing.run("plan", "pull_request", payload=pipeline.pull_request(number, "keyturn/local")))
    (comment,) = pipeline.github.of("issues/comments")
    assert comment["on"] == number
    assert move in comment["body"]

    proposing.merge("keyturn/local")
    log = _succeeded(working.run("deploy", "push"))
    assert pipeline.project.load.await_generation(Ring.STABLE, SECRET, candidate)
    assert working.history()[0] == f"Rotate in local: {move} (stable)"
    assert pipeline.pinned().count(f'"{SECRET}": {candidate}') == len(Ring)
    working.pull()
    row = pipeline.project.status()
    assert (row["current"], row["pending"]) == (candidate, None)
    assert f"| {SECRET} | promoted |" in log


def test_the_run_after_one_that_died_between_commit_and_deployment_finishes_its_rotation(pipeline: Pipeline) -> None:
    before, candidate = pipeline.project.status(), pipeline.project.next_generation()
    workflows = pipeline.workflows({"KEYTURN_COMMIT": "direct"})

    def die(line: str) -> None:
        if f"pushed to {BRANCH}" in line:
            raise _Died

    with pytest.raises(_Died):
        workflows.run("rotate", secrets=SECRET, follow=die)
    assert f'"{SECRET}": {candidate}' in pipeline.pinned()
    assert pipeline.project.load.generation(Ring.STABLE, SECRET) == before["current"]

    _succeeded(workflows.run("rotate", "schedule"))
    workflows.pull()
    row = pipeline.project.status()
    assert (row["current"], row["pending"]) == (candidate, None)
    assert pipeline.pinned().count(f'"{SECRET}": {candidate}') == len(Ring)
    assert re.findall(rf"→ {candidate} \((\w+)\)", "\n".join(workflows.history())) == ["stable", "canary"]


def test_drift_is_one_issue_that_is_closed_when_it_is_gone(pipeline: Pipeline) -> None:
    workflows = pipeline.workflows({})
    declared, other = "The orders application's login", "The login of orders"
    for old, new, state in ((declared, other, "open"), (other, declared, "closed")):
        edit(workflows.work / "stacks/estate.py", old, new)
        workflows.commit("Declared, and not deployed")
        _succeeded(workflows.run("drift", "schedule"))
        (issue,) = pipeline.github.of("issues")
        assert (issue["title"], issue["state"]) == ("Drift in secrets-local", state), issue["body"]


def test_a_forks_pull_request_is_reviewed_without_credentials_and_without_a_word_to_github(pipeline: Pipeline) -> None:
    calls = list(pipeline.github.calls)
    workflows = pipeline.workflows({})
    payload = pipeline.pull_request(9, BRANCH, owner="stranger/orders")
    log = _succeeded(workflows.run("plan", "pull_request", payload=payload))
    assert "Review a fork's stacks" in log
    assert "Plan local" not in log
    assert pipeline.github.calls == calls
