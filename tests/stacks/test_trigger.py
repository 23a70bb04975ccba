"""The function's resources: applied by the real provider 3.39.0 to the local AWS API, checked against both schemas."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest

from main import Synthesis, build_app
from modules.declarations import Credential, Estate, Secret
from modules.rotation_schedule import RotationSchedule
from modules.rotation_trigger import Trigger, asked_every
from rotation.errors import DeclarationError
from rotation.manifest import Dispatch
from rotation.model import Ring, Strategy
from stacks.environments import Environment, environments
from stacks.estate import estate
from tests.fixtures.aws import AwsApi, running_aws_api
from tests.stacks.terraform import terraform

PIPELINE = Dispatch(
    kind="github", url="https://api.github.com/repos/o/r/actions/workflows/rotate.yml/dispatches", token="ci/token"
)
SPARE = Secret("orders/spare", Credential("random_token"), strategy=Strategy.OVERLAPPING)


def _more(environment: Environment) -> Estate:
    declared = estate(environment)
    return replace(declared, secrets=(*declared.secrets, SPARE))


def _with(trigger: Trigger) -> Callable[[Path], tuple[Environment, ...]]:
    return lambda project: tuple(
        replace(environment, trigger=trigger, journal=("keyturn-journal", "orders"))
        for environment in environments(project)
    )


def _synth(project: Path, trigger: Trigger, only: tuple[str, ...]) -> Synthesis:
    synthesis = build_app(project, _more, _with(trigger), only=only)
    synthesis.synth()
    return synthesis


def _trigger(project: Path, **others: Any) -> Trigger:
    archive = project / "build" / "lambda.zip"
    archive.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("handler.py", "")
    return replace(Trigger(archive=archive, dispatch=PIPELINE), **others)


def _resources(project: Path, stack: str) -> dict[str, Any]:
    content = json.loads((project / "cdktf.out" / "stacks" / stack / "cdk.tf.json").read_text())
    resources: dict[str, Any] = content["resource"]
    return resources


@pytest.fixture(scope="module")
def own_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsApi]:
    with running_aws_api(tmp_path_factory.mktemp("aws")) as api:
        yield api


def test_the_function_applies_cleanly_and_then_has_no_changes(project: Path, own_aws: AwsApi) -> None:
    endpoints = {"aws": own_aws.endpoint, "applications": dict.fromkeys(Ring, "http://127.0.0.1:9")}
    (project / ".keyturn" / "local").mkdir(parents=True)
    (project / ".keyturn" / "local" / "endpoints.json").write_text(json.dumps(endpoints))
    # 3.39 knows Python 3.8 at most.
    trigger = _trigger(project, runtime="python3.8", by_store={"orders/spare": 30, "orders/db": None})
    stacks = ("foundation-local", "secrets-local")
    synthesis = _synth(project, trigger, stacks)
    for stack in stacks:
        folder = project / "cdktf.out" / "stacks" / stack
        for arguments in (("init",), ("apply", "-auto-approve"), ("plan", "-detailed-exitcode")):
            code, told = terraform(folder, *arguments)
            assert code == 0, told
    function = own_aws.client("lambda").get_function(FunctionName="keyturn-local")["Configuration"]
    assert function["Timeout"] == 300
    assert function["Environment"]["Variables"].keys() == {"KEYTURN_ENVIRONMENT", "KEYTURN_JOURNAL", "KEYTURN_DISPATCH"}
    (rule,) = own_aws.client("events").list_rules()["Rules"]
    assert rule["ScheduleExpression"] == "rate(1 hour)"
    (target,) = own_aws.client("events").list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"] == function["FunctionArn"]
    policy = json.loads(own_aws.client("lambda").get_policy(FunctionName="keyturn-local")["Policy"])
    callers = {statement["Principal"]["Service"]: statement["Condition"] for statement in policy["Statement"]}
    assert callers.keys() == {"events.amazonaws.com", "secretsmanager.amazonaws.com"}
    assert all(callers.values()), "a service may call for anybody"
    spare = own_aws.client("secretsmanager").describe_secret(SecretId="local/orders/spare")
    assert spare["RotationLambdaARN"] == function["FunctionArn"]
    assert any("orders/spare is rotated at once" in warning for warning in synthesis.warnings)


@pytest.mark.parametrize("environment", ["local", "staging"])
def test_the_functions_role_reaches_no_more_than_it_needs(project: Path, environment: str) -> None:
    _synth(project, _trigger(project), (f"foundation-{environment}", f"secrets-{environment}"))
    resources = _resources(project, f"foundation-{environment}")
    policy = json.loads(resources["aws_iam_role_policy"]["function-may"]["policy"])
    statements = {statement["Sid"]: statement for statement in policy["Statement"]}
    turned, seen = json.dumps(statements["TurnSecrets"]), json.dumps(statements["LookAtSecrets"])
    assert "orders/spare" in turned
    assert "orders/db" not in turned, "what has consumers is the pipeline's"
    assert "orders/db" in seen
    assert "GetSecretValue" not in seen
    assert statements["ReadAdministrators"]["Resource"] == [
        next(arn for arn in statements["ReadAdministrators"]["Resource"] if "ci/token" in arn)
    ]
    assert "KeepState" not in statements
    assert "PutConfiguration" not in statements
    assert "aws_secretsmanager_secret_rotation" not in _resources(project, f"secrets-{environment}")


def test_only_names_are_in_the_functions_environment(project: Path) -> None:
    _synth(project, _trigger(project), ("foundation-staging",))
    function = _resources(project, "foundation-staging")["aws_lambda_function"]["function"]
    variables = function["environment"]["variables"]
    assert json.loads(variables.pop("KEYTURN_DISPATCH")) == PIPELINE.model_dump()
    assert variables == {"KEYTURN_ENVIRONMENT": "staging", "KEYTURN_JOURNAL": "s3://keyturn-journal/orders"}
    assert function["reserved_concurrent_executions"] == 1


def test_an_archive_that_is_not_built_yet_is_a_warning_at_synth(project: Path) -> None:
    synthesis = _synth(project, Trigger(archive=project / "none.zip"), ("foundation-staging",))
    assert any("make lambda" in warning for warning in synthesis.warnings)


def test_a_trigger_without_a_journal_in_a_bucket_is_refused(project: Path) -> None:
    def forgetful(folder: Path) -> tuple[Environment, ...]:
        return tuple(replace(e, trigger=_trigger(project), journal=None) for e in environments(folder))

    with pytest.raises(DeclarationError, match="a function forgets"):
        build_app(project, _more, forgetful, only=("foundation-staging",))


def test_an_environment_without_a_trigger_has_no_function(project: Path) -> None:
    build_app(project, only=("foundation-staging",)).synth()
    assert "aws_lambda_function" not in _resources(project, "foundation-staging")


def test_a_network_and_another_architecture_are_declared_where_they_are_asked_for(project: Path) -> None:
    trigger = _trigger(project, architecture="arm64", subnets=("subnet-1",), security_groups=("sg-1",))
    _synth(project, trigger, ("foundation-staging",))
    resources = _resources(project, "foundation-staging")
    function = resources["aws_lambda_function"]["function"]
    assert function["architectures"] == ["arm64"]
    assert function["vpc_config"] == {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}
    assert "JoinNetwork" in resources["aws_iam_role_policy"]["function-may"]["policy"]


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"timeout": 60}, "between 120"),
        ({"timeout": 901}, "between 120"),
        ({"by_store": {"orders/none": 30}}, "not declared"),
        ({"by_store": {"orders/db": 30}}, "has a schedule"),
        ({"by_store": {"orders/spare": 1001}}, "1 to 1000 days"),
        ({"dispatch": Dispatch(kind="jenkins", url="http://ci.example.com", token="t")}, "in clear"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_declared(project: Path, others: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason) as refused:
        build_app(project, _more, _with(_trigger(project, **others)), only=("foundation-staging",))
    assert "test_trigger.py:" in str(refused.value)


def test_an_older_provider_takes_no_other_architecture(project: Path) -> None:
    with pytest.raises(DeclarationError, match="architectures"):
        build_app(project, _more, _with(_trigger(project, architecture="arm64")), only=("foundation-local",))


@pytest.mark.parametrize(
    ("schedule", "minutes"),
    [
        (RotationSchedule(every=timedelta(days=30)), 60),
        (RotationSchedule(cron="0 3 * * 1"), 60),
        (RotationSchedule(every=timedelta(days=30), windows=({"opens": time(9), "closes": time(10)},)), 30),
        (RotationSchedule(every=timedelta(days=30), windows=({"opens": time(23, 50), "closes": time(0, 20)},)), 15),
        (RotationSchedule(every=timedelta(days=30), windows=({"opens": time(22)},)), 60),
        (RotationSchedule(every=timedelta(minutes=20)), 10),
        (RotationSchedule(every=timedelta(minutes=4)), 5),
    ],
)
def test_it_is_asked_so_often_that_no_window_is_missed(schedule: RotationSchedule, minutes: int) -> None:
    yearly = RotationSchedule(every=timedelta(days=365)).declared
    assert asked_every([yearly, schedule.declared]) == timedelta(minutes=minutes)


def test_without_schedules_nothing_is_asked() -> None:
    assert asked_every([]) is None
