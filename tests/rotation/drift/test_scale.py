"""How many calls a look at a large estate makes, against the local AWS API, which counts them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rotation.drift import Class, Way
from rotation.drift.check import check
from rotation.engine import Engine
from rotation.journal import Journal
from tests.bench.drifting import engine_of, names
from tests.bench.stock import slots
from tests.fixtures.aws import AwsApi

MANY = 1_000
READS = (Way.STORED, Way.LIVE, Way.CONSUMED)


@pytest.fixture(scope="module")
def stocked(aws_api: AwsApi) -> AwsApi:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (("AWS_ENDPOINT_URL", aws_api.endpoint), ("AWS_ACCESS_KEY_ID", "a")):
            patched.setenv(name, value)
        patched.setenv("AWS_SECRET_ACCESS_KEY", "b")
        slots(aws_api, names(MANY))
    return aws_api


@pytest.fixture
def engine(stocked: AwsApi, aws_environment: AwsApi, tmp_path: Path) -> Iterator[Engine]:
    with engine_of(tmp_path, MANY) as made:
        yield made


def calls(aws: AwsApi) -> dict[str, int]:
    return {call: count for call, count in aws.calls().items() if not call.startswith("sts.")}


def test_a_look_makes_one_call_for_a_hundred_secrets(engine: Engine, stocked: AwsApi) -> None:
    stocked.forget_calls()
    assert check(engine, READS).findings == ()
    assert calls(stocked) == {"secretsmanager.ListSecrets": MANY // 100}


def test_what_a_list_accuses_is_looked_at_again_and_nothing_else(engine: Engine, stocked: AwsApi) -> None:
    accused = names(MANY)[:3]
    client = stocked.client("secretsmanager")
    for name in accused:
        client.put_secret_value(SecretId=name, SecretString="by hand", VersionStages=["AWSPENDING"])
    stocked.forget_calls()
    found = check(engine, READS).findings
    assert [finding.found for finding in found] == [Class.UNEXPECTED] * len(accused)
    assert calls(stocked) == {"secretsmanager.ListSecrets": MANY // 100, "secretsmanager.DescribeSecret": len(accused)}


def test_the_journal_is_asked_as_often_for_many_secrets_as_for_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = Journal._all

    def counted(journal: Journal, query: str, *rest: object) -> object:
        asked.append(query)
        return original(journal, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "_all", counted)
    check(engine, READS)
    assert len(asked) < 20


def test_files_that_are_not_committed_are_found_in_a_checkout(engine: Engine) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    project, pins = engine.project, engine.project / engine.manifest.pins
    pins.parent.mkdir(parents=True, exist_ok=True)
    pins.write_text('{"format": 1, "pins": {}}\n')
    for argv in (["init", "-q"], ["add", str(pins)], ["commit", "-qm", "Pins"]):
        subprocess.run([*git, *argv], cwd=project, check=True, timeout=30)
    assert check(engine, [Way.CONSUMED]).findings == ()
    pins.write_text('{"format": 1, "pins": { }}\n')
    (finding,) = check(engine, [Way.CONSUMED]).findings
    assert finding.address == f"consumed:{engine.manifest.pins}:uncommitted"
    assert finding.counts
