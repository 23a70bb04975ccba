"""The stacks of the example, and the manifests that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from main import PROJECT, build_app
from modules.aws import Aws
from modules.declarations import Credential, Estate, Secret
from modules.rotation_trigger import Trigger
from modules.runner_identity import github_actions
from modules.tencentcloud import TencentCloud
from modules.vault import Vault
from rotation import pins
from rotation.errors import DeclarationError, LocalError
from rotation.local.embedded.local_tencent.declared import provision
from rotation.manifest import FOLDER, Manifest
from rotation.model import Reference, Ring, Strategy
from rotation.tencentcloud import Cloud, Manner
from stacks.environments import CosState, Environment, environments, local_tencent, local_vault
from stacks.estate import estate
from tests.fixtures.aws import AwsApi, running_aws_api
from tests.fixtures.tencent import TencentCloud as EmulatedCloud
from tests.stacks.terraform import terraform

ENVIRONMENTS = ("local", "local-tencent", "local-vault", "staging", "production")


def _stack(project: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project / "cdktf.out" / "stacks" / name / "cdk.tf.json").read_text())
    return content


def _pin(project: Path, environment: str, generation: int) -> None:
    """Pin the canary of orders-api and put a rendered file there."""
    pinned = pins.Pins().with_("orders-api", Ring.CANARY, "orders/db", generation)
    path = project / "stacks" / "pins" / f"{environment}.json"
    path.parent.mkdir(exist_ok=True)
    pins.write(path, pinned)
    rendered = project / "stacks" / "config" / "rendered" / environment / "canary" / "orders-api.yaml"
    rendered.parent.mkdir(parents=True, exist_ok=True)
    rendered.write_text(f"generation: {generation}\n", encoding="utf-8")


def test_every_stack_of_every_environment_is_written(project: Path) -> None:
    build_app(project).synth()

    written = {path.name for path in (project / "cdktf.out" / "stacks").iterdir()}
    assert written == {f"{part}-{e}" for part in ("foundation", "secrets", "application") for e in ENVIRONMENTS}


def test_stacks_need_nothing_of_each_other(project: Path) -> None:
    build_app(project).synth()

    manifest = json.loads((project / "cdktf.out" / "manifest.json").read_text())
    assert all(stack["dependencies"] == [] for stack in manifest["stacks"].values())
    for name in manifest["stacks"]:
        assert "terraform_remote_state" not in json.dumps(_stack(project, name))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_manifest_is_read_back_as_it_was_declared(project: Path, environment: str) -> None:
    synthesis = build_app(project)
    synthesis.synth()

    assert synthesis.manifests is not None
    (declared,) = [manifest for manifest in synthesis.manifests if manifest.environment == environment]
    assert Manifest.load(project, environment) == declared
    on_vault = environment == "local-vault"
    assert set(declared.secrets) == {"orders/db", "orders/api-token"} | ({"orders/tls"} if on_vault else set())
    names = {"local-vault": "orders/db", "local-tencent": "local-tencent--orders--db"}
    assert declared.secrets["orders/db"].stored_as == names.get(environment, f"{environment}/orders/db")
    assert declared.secrets["orders/api-token"].sealed
    keys = {"local-vault": "orders", "local-tencent": "keyturn-local-tencent-orders"}
    assert declared.keys["orders"].reference == keys.get(environment, f"alias/keyturn-{environment}-orders")
    assert declared.pins == Path("stacks/pins") / f"{environment}.json"
    consumer = declared.consumers["orders-api"]
    assert consumer.target.options == {"stack": f"application-{environment}"}
    assert (project / consumer.template).is_file()
    assert all(consumer.rings[ring].signals for ring in Ring)


@pytest.mark.parametrize(("environment", "provider"), [("local-vault", "vault"), ("local-tencent", "tencentcloud")])
def test_only_the_application_stack_is_terraform_s_here_where_the_provider_is_no_python_package(
    project: Path, environment: str, provider: str
) -> None:
    build_app(project).synth()

    assert Manifest.load(project, environment).stacks == (f"application-{environment}",)
    application = _stack(project, f"application-{environment}")
    assert application["terraform"]["required_providers"].keys() == {"aws"}
    assert application["resource"]["aws_s3_bucket"]["config"]["bucket"] == f"keyturn-{environment}-config"
    for part in ("foundation", "secrets"):
        declared = _stack(project, f"{part}-{environment}")
        assert declared["terraform"]["required_providers"].keys() == {provider}
        assert not any(kind.startswith(("aws_s3", "tencentcloud_cos")) for kind in declared["resource"])


def test_an_environment_can_be_all_on_tencent_cloud(project: Path) -> None:
    def elsewhere(folder: Path) -> tuple[Environment, ...]:
        vendor = TencentCloud("tencent", "ap-guangzhou", "100000000001", app_id="1250000000", python_layer=("p", 1))
        there = replace(
            local_tencent(folder),
            name="tencent",
            vendor=vendor,
            state=CosState("keyturn-state-1250000000", "ap-guangzhou"),
            config="keyturn-config-1250000000",
            configured_by=None,
            provisioned=frozenset(),
            trigger=Trigger(runtime="CustomRuntime", archive=folder / "scf.zip"),
            journal=("keyturn-state-1250000000", "journals"),
        )
        return (there,)

    _pin(project, "tencent", 41)
    synthesis = build_app(project, environments=elsewhere)
    synthesis.synth()

    manifest = Manifest.load(project, "tencent")
    assert manifest.stacks == ("foundation-tencent", "secrets-tencent", "application-tencent")
    for name in manifest.stacks:
        declared = _stack(project, name)["terraform"]
        assert declared["required_providers"].keys() == {"tencentcloud"}
        assert declared["backend"]["cos"]["key"] == f"keyturn/{name}.tfstate"
    canary = manifest.consumers["orders-api"].rings[Ring.CANARY]
    assert canary.addresses[0] == "tencentcloud_cos_bucket_object.config-orders-api-canary"
    resources = _stack(project, "application-tencent")["resource"]
    assert resources["tencentcloud_cos_bucket_object"]["config-orders-api-canary"]["content"] == "generation: 41\n"
    assert "tencentcloud_cos_bucket" in _stack(project, "foundation-tencent")["resource"]
    assert any("make scf" in warning for warning in synthesis.warnings)


def test_what_is_declared_for_the_emulated_tencent_cloud_can_be_put_in_place_there(
    project: Path, tencent: EmulatedCloud
) -> None:
    stacks = [f"{part}-local-tencent" for part in ("foundation", "secrets")]
    build_app(project, only=stacks).synth()
    cloud = Cloud(tencent.region, f"http://{tencent.endpoint}")

    provision(cloud, [_stack(project, name) for name in stacks])

    look = Manner("look", LocalError)
    (key,) = cloud.call("kms", "ListKeyDetail", {"SearchKeyAlias": "keyturn-local-tencent-orders"}, look)[
        "KeyMetadatas"
    ]
    for name in ("orders--db", "orders--api-token"):
        slot = cloud.call("ssm", "DescribeSecret", {"SecretName": f"local-tencent--{name}"}, look)
        assert (slot["Status"], slot["KmsKeyId"]) == ("Enabled", key["KeyId"])


def test_an_environment_on_vault_must_say_who_holds_its_configuration(project: Path) -> None:
    def forgetful(folder: Path) -> tuple[Environment, ...]:
        return (replace(local_vault(folder), configured_by=None),)

    with pytest.raises(DeclarationError, match="Vault holds no configuration objects"):
        build_app(project, environments=forgetful)


def test_a_real_environment_on_vault_deploys_its_configuration_to_aws_as_a_role_of_its_own(project: Path) -> None:
    """Its secrets are Vault's: nobody gets rights on any at AWS."""
    github = github_actions("example/orders", "on-vault")

    def on_vault(folder: Path) -> tuple[Environment, ...]:
        return (
            replace(
                environments(folder)[-1],
                name="on-vault",
                vendor=Vault("on-vault", "https://vault.example.com"),
                configured_by=Aws("on-vault", "eu-central-1", "444455556666", version="6.69.1"),
                trusts=(replace(github, audience="https://vault.example.com"),),
                config_trusts=(github,),
                config="on-vault-config",
                rehearsal=None,
            ),
        )

    build_app(project, environments=on_vault).synth()

    foundation, application = (_stack(project, f"{part}-on-vault") for part in ("foundation", "application"))
    assert foundation["terraform"]["required_providers"].keys() == {"aws", "vault"}
    assert foundation["resource"]["aws_s3_bucket"]["config"]["bucket"] == "on-vault-config"
    role = foundation["resource"]["aws_iam_role"]["runner"]
    assert "sts.amazonaws.com" in role["assume_role_policy"]
    assert "vault.example.com" not in role["assume_role_policy"]
    policy = json.loads(foundation["resource"]["aws_iam_role_policy"]["runner-may"]["policy"])
    listed = [s["Action"] if isinstance(s["Action"], list) else [s["Action"]] for s in policy["Statement"]]
    assert {action.partition(":")[0] for actions in listed for action in actions} == {"s3"}
    assert {s["Sid"] for s in policy["Statement"]} >= {"PutConfiguration", "KeepState", "KeepJournal"}
    assert "resource" not in application, "whoever deploys it has no rights on the bucket itself, or on the role"


def test_a_whole_synth_removes_the_manifests_of_environments_that_are_gone(project: Path) -> None:
    old = project / FOLDER / "qa.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")

    build_app(project).synth()

    assert sorted(path.stem for path in old.parent.iterdir()) == sorted(ENVIRONMENTS)


def test_some_stacks_alone_leave_the_manifests_as_they_are(project: Path) -> None:
    build_app(project, only=["application-local"]).synth()

    assert [path.name for path in (project / "cdktf.out" / "stacks").iterdir()] == ["application-local"]
    assert not (project / FOLDER).exists()


def test_the_application_stack_tells_what_was_applied(project: Path) -> None:
    _pin(project, "staging", 41)
    build_app(project, only=["application-staging", "application-local"]).synth()

    assert _stack(project, "application-staging")["output"] == {
        "deployed": {"value": {"orders-api/canary": "${terraform_data.pins-orders-api-canary.output}"}}
    }
    assert _stack(project, "application-local")["output"] == {"deployed": {"value": {}}}


def test_an_overlay_plans_ahead_of_the_pins(project: Path, tmp_path: Path) -> None:
    _pin(project, "staging", 41)
    ahead = tmp_path / "ahead"
    (ahead / "stacks").mkdir(parents=True)
    _pin(ahead, "staging", 42)

    build_app(project, only=["application-staging"], overlay=ahead).synth()

    resources = _stack(project, "application-staging")["resource"]
    assert resources["terraform_data"]["pins-orders-api-canary"]["input"] == {"orders/db": 42}
    assert resources["aws_s3_object"]["config-orders-api-canary"]["content"] == "generation: 42\n"


def _rendered(template: str, environment_name: str) -> Any:
    names = ("orders/db", "orders/api-token")
    references = {name: Reference(f"local/{name}", f"arn:{name}", f"g{name}", 7) for name in names}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    environment.filters["yaml"] = json.dumps  # JSON's strings are YAML's
    text = (PROJECT / "stacks" / "config" / template).read_text(encoding="utf-8")
    whole = environment.from_string("{% autoescape false %}" + text + "{% endautoescape %}")
    rendered = whole.render(environment=environment_name, ring="canary", consumer="orders-api", secrets=references)
    return tuple(yaml.safe_load(rendered)["secrets"][name] for name in names)


def test_the_template_renders_to_what_the_application_reads() -> None:
    database, token = _rendered("orders-api.yaml.j2", "local")

    assert database == {"arn": "arn:orders/db", "name": "local/orders/db", "version_id": "gorders/db", "generation": 7}
    assert token["sealed_with"] == "alias/keyturn-local-orders"


def test_the_template_for_tencent_cloud_names_secret_version_and_key() -> None:
    database, token = _rendered("orders-api.tencent.yaml.j2", "local-tencent")

    assert database == {"name": "local/orders/db", "version_id": "gorders/db", "generation": 7}
    assert token["sealed_with"] == "keyturn-local-tencent-orders"


@pytest.fixture(scope="module")
def own_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsApi]:
    """An AWS API where the example's names are free."""
    with running_aws_api(tmp_path_factory.mktemp("aws")) as api:
        yield api


def test_the_local_stacks_apply_cleanly_and_then_have_no_changes(project: Path, own_aws: AwsApi) -> None:
    endpoints = {"aws": own_aws.endpoint, "applications": dict.fromkeys(Ring, "http://127.0.0.1:9")}
    (project / ".keyturn" / "local").mkdir(parents=True)
    (project / ".keyturn" / "local" / "endpoints.json").write_text(json.dumps(endpoints))
    parts = ("foundation-local", "secrets-local", "application-local")
    _pin(project, "local", 41)
    build_app(project, only=parts).synth()

    for part in parts:
        folder = project / "cdktf.out" / "stacks" / part
        assert terraform(folder, "init")[0] == 0
        assert terraform(folder, "apply", "-auto-approve")[0] == 0
        assert terraform(folder, "plan", "-detailed-exitcode")[0] == 0

    _pin(project, "local", 42)
    build_app(project, only=parts).synth()
    code, plan = terraform(project / "cdktf.out" / "stacks" / "application-local", "plan", "-detailed-exitcode")
    assert code == 2
    assert '"orders/db" = 41 -> 42' in plan
    assert "+ generation: 42" in plan
    assert "Plan: 0 to add, 2 to change, 0 to destroy." in plan


def test_terraform_itself_finds_what_is_looked_up_on_tencent_cloud_and_resolves_the_policies(
    project: Path, tmp_path: Path
) -> None:
    def with_a_user(environment: Environment) -> Estate:
        kind = Credential("tencent_cam_key", {"user": "orders-ci"})
        return replace(
            estate(environment),
            secrets=(Secret("orders/ci", kind, strategy=Strategy.OVERLAPPING, key="orders"),),
            consumers=(),
        )

    stacks = [f"{part}-local-tencent" for part in ("foundation", "secrets")]
    build_app(project, estate=with_a_user, environments=lambda folder: (local_tencent(folder),), only=stacks).synth()
    found: dict[str, Any] = {}
    for name in stacks:
        found |= _stack(project, name)["locals"]
    policy = _stack(project, stacks[0])["resource"]["tencentcloud_cam_policy"]["runner-may"]["document"]
    # The data sources answer as the provider's would: with more than was asked for.
    answers = {
        "data.tencentcloud_kms_keys.key-orders.key_list": [
            {"alias": "keyturn-local-tencent-orders-2", "key_id": "no"},
            {"alias": "keyturn-local-tencent-orders", "key_id": "the-key"},
        ],
        "data.tencentcloud_cam_users.user-of-orders--ci.user_list": [{"name": "orders-ci", "uin": 100000001001}],
    }
    text = json.dumps(
        {"locals": found, "output": {"policy": {"value": policy}, "key": {"value": "${local.key-orders}"}}}
    )
    text = text.replace("tencentcloud_kms_key.key-orders.id", "local.key-orders")
    for number, source in enumerate(answers):
        text = text.replace(source, f"local.answer-{number}")
    written = json.loads(text)
    written["locals"] |= {f"answer-{number}": answer for number, answer in enumerate(answers.values())}
    folder = tmp_path / "looked-up"
    folder.mkdir()
    (folder / "cdk.tf.json").write_text(json.dumps(written), encoding="utf-8")

    assert terraform(folder, "init")[0] == 0
    code, told = terraform(folder, "apply", "-auto-approve")
    assert code == 0, told
    outputs = json.loads((folder / "terraform.tfstate").read_text())["outputs"]
    assert outputs["key"]["value"] == "the-key"
    resources = [
        resource
        for statement in json.loads(outputs["policy"]["value"])["statement"]
        for resource in statement["resource"]
    ]
    assert "qcs::cam::uin/100000000001:uin/100000001001" in resources
    assert any(resource.endswith("key/creatorUin/100000000001/the-key") for resource in resources)
