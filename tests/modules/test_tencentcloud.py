"""What is declared on Tencent Cloud: keys, slots, policies, trust, the function with its timers, and no value."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modules.declarations import Consumer, Credential, Estate, Key, Pace, Secret
from modules.encryption_key import EncryptionKey
from modules.managed_secret import ManagedSecret
from modules.resource import Resource, Stack
from modules.rotation_schedule import RotationSchedule
from modules.rotation_trigger import RotationTrigger, Trigger, rotate_by_store
from modules.runner_identity import RunnerIdentity, github_actions
from modules.schema import Schema
from modules.secretless import refusals
from modules.tencentcloud import VERSION, TencentCloud
from modules.vendor import AccountTrust, OidcTrust, Places, Trust
from modules.where import here
from rotation.buckets import cos
from rotation.errors import DeclarationError
from rotation.keys import Wrapped
from rotation.keys.tencent_kms import TencentKms
from rotation.local.embedded.local_tencent.declared import provision
from rotation.model import Strategy
from rotation.secret_value import SecretValue
from rotation.stores.tencent_ssm import TencentSsm
from rotation.tencentcloud import Connection, connect
from tests.fixtures.cos import CosPlace
from tests.fixtures.tencent import TencentCloud as EmulatedCloud
from tests.modules.conftest import bare_stack, only, synthesized

UIN, REGION = "100000000001", "ap-guangzhou"
SECRET = f"qcs::ssm:{REGION}:uin/{UIN}:secret/creatorUin/{UIN}/staging--"
KEY = f"qcs::kms:{REGION}:uin/{UIN}:key/creatorUin/{UIN}/${{tencentcloud_kms_key.key-orders.id}}"
BUCKET, JOURNAL = "keyturn-config-1250000000", ("keyturn-journal-1250000000", "journals")
STATE = ("keyturn-state-1250000000", "keyturn/application-staging.tfstate")
GITHUB = github_actions("example/orders", "staging", audience="sts.tencentcloudapi.com")
JENKINS = OidcTrust(issuer="https://jenkins.example.com/oidc", audience="tencent", claims={"sub": "job/rotate"})
ESTATE = Estate(
    keys=(Key("orders"),),
    secrets=(
        Secret(
            "orders/db",
            Credential("mysql_user", reads=("staging--orders--db-admin",)),
            strategy=Strategy.ALTERNATING,
            description="The login",
            key="orders",
            readers=("orders-api", "reports"),
            tags={"team": "${orders}"},
        ),
        Secret("orders/token", Credential("random_token"), strategy=Strategy.OVERLAPPING, key="orders", sealed=True),
        Secret("orders/spare", Credential("random_token"), strategy=Strategy.OVERLAPPING),
    ),
)
PACE = Pace(*[timedelta(seconds=1)] * 4)


def cloud(**others: Any) -> TencentCloud:
    return TencentCloud("staging", REGION, UIN, **others)


def _stack(vendor: TencentCloud) -> Stack:
    stack = bare_stack()
    vendor.provide(stack)
    return stack


def _foundation(vendor: TencentCloud, *trusts: Trust, estate: Estate = ESTATE, deletion_days: int = 30) -> Stack:
    stack = _stack(vendor)
    keys = {
        key.name: EncryptionKey(stack, vendor, key, deletion_days=deletion_days, readers=("orders-api",)).address
        for key in estate.keys
    }
    places = Places(BUCKET, state=STATE, journal=JOURNAL)
    RunnerIdentity(stack, vendor, estate, keys=keys, places=places, trusts=trusts or (AccountTrust(),))
    return stack


def _slots(vendor: TencentCloud, *, recovery_days: int = 7, estate: Estate = ESTATE) -> Stack:
    stack = _stack(vendor)
    for secret in estate.secrets:
        ManagedSecret(stack, vendor, secret, pace=PACE, recovery_days=recovery_days)
    return stack


def _triggered(vendor: TencentCloud, estate: Estate = ESTATE, **others: Any) -> Stack:
    stack = _stack(vendor)
    trigger = replace(Trigger(runtime="CustomRuntime", archive=Path("build/scf.zip")), **others)
    vendor = replace(vendor, python_layer=("python", 3))
    keys = {"orders": KEY}
    RotationTrigger(stack, vendor, estate, trigger, environment="staging", keys=keys, journal=JOURNAL)
    return stack


def _allowed(resources: Mapping[str, Any], prefix: str) -> dict[str, list[str]]:
    """The resources by action, in all the policies whose names begin so."""
    allowed: dict[str, list[str]] = {}
    for name, policy in resources["tencentcloud_cam_policy"].items():
        document = json.loads(policy["document"])
        assert document["version"] == "2.0"
        for statement in document["statement"] if name.startswith(prefix) else ():
            assert statement["effect"] == "allow"
            for action in statement["action"]:
                allowed.setdefault(action, []).extend(statement["resource"])
    return allowed


def _slot_of(name: str) -> dict[str, Any]:
    return {"tencentcloud_ssm_secret": {"slot": {"secret_name": name, "tags": {}}}}


# ── keys and slots ──


def test_a_key_is_enabled_renews_itself_and_says_how_long_it_can_be_brought_back() -> None:
    key = synthesized(_foundation(cloud()))["resource"]["tencentcloud_kms_key"]["key-orders"]

    assert {name: value for name, value in key.items() if name not in {"//", "description", "tags"}} == {
        "alias": "keyturn-staging-orders",
        "key_usage": "ENCRYPT_DECRYPT",
        "is_enabled": True,
        "key_rotation_enabled": True,
        "pending_delete_window_in_days": 30,
    }


def test_a_slot_is_a_secret_with_a_recovery_window_and_never_a_version() -> None:
    content = synthesized(_slots(cloud()))

    slots = content["resource"]["tencentcloud_ssm_secret"]
    assert {name: slot["secret_name"] for name, slot in slots.items()} == {
        "orders--db": "staging--orders--db",
        "orders--token": "staging--orders--token",
        "orders--spare": "staging--orders--spare",
    }
    assert all(slot["recovery_window_in_days"] == 7 and slot["is_enabled"] for slot in slots.values())
    assert slots["orders--db"]["tags"] == {"team": "$${orders}", "keyturn:environment": "staging"}
    assert not any("version" in kind for kind in content["resource"])
    assert list(refusals(content)) == []


def test_that_nothing_can_be_brought_back_is_said_too() -> None:
    slots = synthesized(_slots(cloud(), recovery_days=0))["resource"]["tencentcloud_ssm_secret"]

    assert all(slot["recovery_window_in_days"] == 0 for slot in slots.values())


def test_a_slot_s_key_is_looked_up_by_its_exact_alias_and_another_one_never_replaces_the_secret() -> None:
    content = synthesized(_slots(cloud()))

    sought = content["data"]["tencentcloud_kms_keys"]
    assert sought["key-orders"]["search_key_alias"] == "keyturn-staging-orders"
    assert len(sought) == 1, "two secrets of one key look it up once"
    slots = content["resource"]["tencentcloud_ssm_secret"]
    assert slots["orders--db"]["kms_key_id"] == slots["orders--token"]["kms_key_id"] == "${local.key-orders}"
    assert 'if one.alias == "keyturn-staging-orders"][0]' in content["locals"]["key-orders"]
    assert "kms_key_id" not in slots["orders--spare"]
    assert slots["orders--db"]["lifecycle"] == {"ignore_changes": ["kms_key_id"]}


@pytest.mark.parametrize("carrier", ["tencentcloud_ssm_secret_version", "tencentcloud_ssm_secret_version_v2"])
def test_a_version_is_refused_even_with_a_write_only_value(carrier: str) -> None:
    stack = _slots(cloud())
    stack.add_override(f"resource.{carrier}.mine", {"secret_name": "x", "version_id": "v", "secret_string_wo": "x"})

    ((_, what),) = refusals(stack.to_terraform())
    assert "declare the slot alone" in what


def test_readers_are_roles_that_get_a_policy_for_just_that_secret() -> None:
    resources = synthesized(_slots(cloud()))["resource"]

    assert _allowed(resources, "") == {"ssm:GetSecretValue": [f"{SECRET}orders--db"]}
    attached = resources["tencentcloud_cam_role_policy_attachment_by_name"].values()
    assert {(end["role_name"], end["policy_name"]) for end in attached} == {
        ("orders-api", "${tencentcloud_cam_policy.read-orders--db.name}"),
        ("reports", "${tencentcloud_cam_policy.read-orders--db.name}"),
    }


def test_store_and_keys_are_named_for_the_rotation() -> None:
    there, here_ = cloud(), cloud(endpoint="http://127.0.0.1:7000")

    assert (there.store().kind, there.key_service().kind) == ("tencent_ssm", "tencent_kms")
    assert there.store().options == there.key_service().options == {"region": REGION}
    assert here_.store().options == {"region": REGION, "endpoint": "http://127.0.0.1:7000"}
    assert TencentSsm(here_.store().options), "the store takes these options"
    (provider,) = synthesized(_stack(there))["provider"]["tencentcloud"]
    assert provider == {"region": REGION, "allowed_account_ids": [UIN]}


def test_names_hold_no_slash_and_tell_the_environment() -> None:
    assert cloud().stored_as("orders/db") == "staging--orders--db"
    assert cloud().key_reference("orders/inner") == "keyturn-staging-orders--inner"


# ── who may what ──


def test_the_runner_may_turn_its_secrets_and_keys_and_put_their_configuration_and_nothing_else() -> None:
    consumer = f"qcs::cos:{REGION}:uid/1250000000:"
    may = _allowed(synthesized(_foundation(cloud(app_id="1250000000")))["resource"], "runner-may")

    turned = [f"{SECRET}orders--{name}" for name in ("db", "token", "spare")]
    for action in ("PutSecretValue", "UpdateSecret", "DeleteSecretVersion", "ListSecretVersionIds"):
        assert may[f"ssm:{action}"] == turned
    assert may["ssm:GetSecretValue"] == [*turned, f"{SECRET}orders--db-admin"]
    assert may["kms:RotateKey"] == may["kms:GenerateDataKey"] == may["kms:Decrypt"] == [KEY]
    locks = [f"{consumer}{STATE[0]}/{STATE[1]}.tflock", f"{consumer}{JOURNAL[0]}/{JOURNAL[1]}/*"]
    assert may["cos:DeleteObject"] == locks, "the state's lock and the lease, and nothing else"
    assert f"{consumer}{STATE[0]}/{STATE[1]}" in may["cos:PutObject"]
    too_much = {
        "ssm:DeleteSecret",
        "ssm:DisableSecret",
        "ssm:CreateSecret",
        "kms:ScheduleKeyDeletion",
        "kms:DisableKey",
    }
    assert too_much.isdisjoint(may)
    assert not any("*" in action for action in may)


def test_the_runner_may_call_just_what_the_store_calls(tencent: EmulatedCloud) -> None:
    may = _allowed(synthesized(_foundation(cloud()))["resource"], "runner-may")
    name = tencent.name()
    provision(connect(Connection(**tencent.options)), [{"resource": _slot_of(name)}])
    tencent.faults.forget_calls()

    store = TencentSsm(tencent.options).under(lambda: None)
    store.stage(name, 1, SecretValue("one"))
    store.promote(name, 1, None)
    store.stage(name, 2, SecretValue("two"))
    store.promote(name, 2, store.observe([name])[name].current)
    store.stage(name, 3, SecretValue("three"))
    store.reject(name, 3)
    store.discard(name, 3)

    called = {call.replace(".", ":") for call in tencent.faults.calls()}
    assert called == {action for action in may if action.startswith("ssm:")}


def test_the_runner_may_turn_what_the_declared_kinds_turn_in_the_cloud_and_nothing_for_others() -> None:
    kinds = {
        "orders/cam": Credential("tencent_cam_key", {"user": "orders-ci"}),
        "orders/product": Credential("tencent_product_secret", {"product_secret": "made-by-ssm"}),
        "orders/db": Credential("mysql_user"),
    }
    secrets = tuple(Secret(name, kind, strategy=Strategy.OVERLAPPING) for name, kind in kinds.items())
    content = synthesized(_foundation(cloud(), estate=Estate(secrets=secrets)))
    may = _allowed(content["resource"], "runner-may")

    assert content["data"]["tencentcloud_cam_users"]["user-of-orders--cam"]["name"] == "orders-ci"
    user = f"qcs::cam::uin/{UIN}:uin/${{local.user-of-orders--cam}}"
    assert may["cam:CreateAccessKey"] == may["cam:DeleteAccessKey"] == [user]
    assert may["ssm:RotateProductSecret"] == [f"{SECRET.removesuffix('staging--')}made-by-ssm"]
    assert may["ssm:RotateProductSecret"][0] in may["ssm:GetSecretValue"]


def test_the_runner_may_call_just_what_the_key_service_calls(
    tencent: EmulatedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tencent.cloud.tasks, "seconds", 0.05)
    may = _allowed(synthesized(_foundation(cloud()))["resource"], "runner-may")
    alias, context = tencent.name("keyturn-key"), {"keyturn:secret": "orders/token"}
    key = {"alias": alias, "description": "d", "key_usage": "ENCRYPT_DECRYPT"}
    provision(connect(Connection(**tencent.options)), [{"resource": {"tencentcloud_kms_key": {"key": key}}}])
    tencent.faults.forget_calls()

    service = TencentKms(tencent.options)
    service.observe([alias])
    made = service.data_key(alias, context)
    service.rotate(alias)
    (anew,) = service.rewrap(alias, [Wrapped(made.wrapped, context)])
    assert service.unwrap(alias, anew, context) == made.plaintext

    called = {call.replace(".", ":") for call in tencent.faults.calls()}
    assert called == {action for action in may if action.startswith("kms:")}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("tencent_cam_key", {}),
        ("tencent_cam_key", {"user": "*"}),
        ("tencent_cam_key", {"user": 'x" || true'}),
        ("tencent_product_secret", {}),
        ("tencent_product_secret", {"product_secret": "orders*"}),
    ],
)
def test_a_kind_that_does_not_say_what_it_turns_gets_nothing(kind: str, options: dict[str, str]) -> None:
    greedy = Secret("orders/cam", Credential(kind, options), strategy=Strategy.OVERLAPPING)
    with pytest.raises(DeclarationError, match=f"orders/cam: {kind} needs the option"):
        _foundation(cloud(), estate=Estate(secrets=(greedy,)))


def test_where_another_vendor_has_the_configuration_the_runner_reaches_no_bucket() -> None:
    may = _allowed(synthesized(_foundation(cloud()))["resource"], "runner-may")

    assert not any(action.startswith(("cos:", "tag:")) for action in may)


def test_who_turns_nothing_here_and_only_deploys_gets_nothing_but_configuration_and_journal() -> None:
    consumer = Consumer("orders-api", template=Path("x"), format="yaml", secrets=(), signals={})
    resources = synthesized(_foundation(cloud(app_id="1250000000"), estate=Estate(consumers=(consumer,))))["resource"]

    may = _allowed(resources, "runner-may")
    assert all(action.startswith(("cos:", "tag:")) for action in may)
    assert f"qcs::cos:{REGION}:uid/1250000000:{BUCKET}/orders-api/*" in may["cos:PutObject"]


def test_secrets_and_keys_are_named_by_who_makes_them() -> None:
    vendor = cloud(creator="100000000777")
    may = _allowed(synthesized(_foundation(vendor))["resource"], "runner-may")

    (admin,) = set(may["ssm:GetSecretValue"]) - set(may["ssm:PutSecretValue"])
    assert admin == f"qcs::ssm:{REGION}:uin/{UIN}:secret/creatorUin/100000000777/staging--orders--db-admin"


def test_many_secrets_are_as_many_policies_as_hold_them_all() -> None:
    names = [f"team/secret-{number}" for number in range(200)]
    kind = Credential("random_token")
    estate = Estate(secrets=tuple(Secret(name, kind, strategy=Strategy.OVERLAPPING) for name in names))
    resources = synthesized(_foundation(cloud(), estate=estate))["resource"]

    policies = resources["tencentcloud_cam_policy"]
    assert len(policies) > 4
    assert all(len(policy["document"]) <= 6144 for policy in policies.values())
    assert len({policy["name"] for policy in policies.values()}) == len(policies)
    assert len(resources["tencentcloud_cam_role_policy_attachment_by_name"]) == len(policies)
    assert _allowed(resources, "runner-may")["ssm:PutSecretValue"] == [
        f"{SECRET}team--secret-{number}" for number in range(200)
    ]


def test_an_application_opens_what_is_sealed_and_no_other_key() -> None:
    may = _allowed(synthesized(_foundation(cloud()))["resource"], "open-orders")

    assert may == {"kms:Decrypt": [KEY]}


def test_the_account_is_trusted_without_the_word_root_which_terraform_does_not_take() -> None:
    role = synthesized(_foundation(cloud(), AccountTrust()))["resource"]["tencentcloud_cam_role"]["runner-role"]

    (statement,) = json.loads(role["document"])["statement"]
    assert statement["principal"] == {"qcs": [f"qcs::cam::uin/{UIN}:uin/{UIN}"]}
    assert role["console_login"] is False


def test_a_pipeline_is_trusted_by_issuer_audience_and_subject(tmp_path: Path) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text('{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]}')
    resources = synthesized(_foundation(cloud(signing_keys={GITHUB.issuer: keys}), GITHUB))["resource"]

    (issuer,) = resources["tencentcloud_cam_role_sso"].values()
    assert base64.b64decode(issuer["identity_key"]) == keys.read_bytes()
    assert (issuer["identity_url"], issuer["client_ids"]) == (GITHUB.issuer, ["sts.tencentcloudapi.com"])
    assert issuer["auto_rotate_key"] == 1
    assert issuer["lifecycle"] == {"ignore_changes": ["identity_key"]}
    (statement,) = json.loads(resources["tencentcloud_cam_role"]["runner-role"]["document"])["statement"]
    assert statement["principal"]["federated"] == [f"qcs::cam::uin/{UIN}:oidc-provider/{issuer['name']}"]
    assert statement["condition"] == {
        "string_equal": {
            "oidc:iss": [GITHUB.issuer],
            "oidc:aud": ["sts.tencentcloudapi.com"],
            "oidc:sub": ["repo:example/orders:environment:staging"],
        }
    }


def test_issuers_that_are_registered_already_need_no_keys_and_are_found_by_their_names() -> None:
    trusts = [replace(trust, registered=True) for trust in (GITHUB, JENKINS)]
    resources = synthesized(_foundation(cloud(), *trusts))["resource"]

    assert "tencentcloud_cam_role_sso" not in resources
    assert "oidc-provider/jenkins-example-com-oidc" in resources["tencentcloud_cam_role"]["runner-role"]["document"]
    assert (
        "oidc-provider/token-actions-githubusercontent-com"
        in resources["tencentcloud_cam_role"]["runner-role"]["document"]
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "there are no signing keys of"),
        ("{", "cannot be read: JSONDecodeError"),
        ("{}", "cannot be read: KeyError"),
        ('{"keys": []}', "not public keys alone"),
        ('{"keys": [{"kty": "RSA", "d": "CANARY"}]}', "not public keys alone"),
        ('{"keys": [{"kty": "oct", "k": "CANARY"}]}', "not public keys alone"),
        ('{"keys": "CANARY"}', "cannot be read: TypeError"),
    ],
)
def test_signing_keys_that_are_missing_or_not_public_are_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text(text or "")
    vendor = cloud(signing_keys={GITHUB.issuer: keys} if text else {})

    with pytest.raises(DeclarationError, match=reason) as caught:
        _foundation(vendor, GITHUB)
    assert "CANARY" not in str(caught.value)
    assert "jwks_uri" in caught.value.remedy


def test_claims_that_cam_does_not_look_at_are_refused() -> None:
    claims = {"sub": "repo:example/orders:environment:staging", "repository_owner": "example"}
    with pytest.raises(DeclarationError, match="the claim sub alone, not at repository_owner"):
        _foundation(cloud(), replace(GITHUB, claims=claims, registered=True))


def test_a_role_that_nobody_could_take_is_refused() -> None:
    with pytest.raises(DeclarationError, match="has to trust somebody"):
        RunnerIdentity(_stack(cloud()), cloud(), Estate(), keys={}, places=Places(BUCKET), trusts=())


# ── the function ──


def test_the_function_runs_with_a_role_of_its_own_and_nothing_is_left_to_a_default() -> None:
    resources = synthesized(_triggered(cloud(app_id="1250000000")))["resource"]

    (function,) = resources["tencentcloud_scf_function"].values()
    said = {"timeout": 300, "mem_size": 512, "runtime": "CustomRuntime", "func_type": "Event", "namespace": "default"}
    assert said.items() <= function.items()
    assert function["enable_public_net"] is True
    assert function["async_run_enable"] == "FALSE"
    assert function["layers"] == [{"layer_name": "python", "layer_version": 3}]
    assert function["environment"] == {
        "KEYTURN_ENVIRONMENT": "staging",
        "KEYTURN_JOURNAL": "cos://keyturn-journal-1250000000/journals",
        "KEYTURN_COS_REGION": REGION,
    }
    assert function["role"] == "${tencentcloud_cam_role.function-role.name}"
    (statement,) = json.loads(resources["tencentcloud_cam_role"]["function-role"]["document"])["statement"]
    assert statement["principal"] == {"service": ["scf.qcloud.com"]}
    (topic,) = resources["tencentcloud_cls_topic"].values()
    assert topic["period"] == 90


def test_the_function_s_role_turns_what_nobody_consumes_and_only_looks_at_the_rest() -> None:
    consumer = Consumer("orders-api", template=Path("x"), format="yaml", secrets=("orders/db",), signals={})
    estate = replace(ESTATE, consumers=(consumer,))
    may = _allowed(synthesized(_triggered(cloud(app_id="1250000000"), estate))["resource"], "function-may")

    turned = [f"{SECRET}orders--token", f"{SECRET}orders--spare"]
    assert may["ssm:PutSecretValue"] == may["ssm:UpdateSecret"] == turned
    assert may["ssm:ListSecretVersionIds"] == [*turned, f"{SECRET}orders--db"]
    assert "kms:RotateKey" not in may
    assert may["cos:PutObject"] == [f"qcs::cos:{REGION}:uid/1250000000:{JOURNAL[0]}/{JOURNAL[1]}/*"]


def test_the_function_may_call_just_what_its_journal_calls(
    cos_place: CosPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = _allowed(synthesized(_triggered(cloud(app_id="1250000000")))["resource"], "function-may")
    monkeypatch.setattr(cos, "KEPT", timedelta(seconds=-1))
    monkeypatch.setattr(cos, "HISTORY", 1)
    cos_place.cloud.faults.forget_calls()

    bucket = cos.CosBucket(cos_place.url)
    etag = None
    for body in (b"1", b"2", b"3"):
        etag = bucket.write("local.sqlite3", body, etag)
    assert bucket.read("local.sqlite3")

    called = {call.replace(".", ":") for call in cos_place.cloud.faults.calls()}
    assert called == {action for action in may if action.startswith("cos:")}


def test_a_function_s_journal_must_be_somebody_s() -> None:
    with pytest.raises(DeclarationError, match=r"test_tencentcloud\.py:\d+: .* no app_id says whose it is"):
        _triggered(cloud())


def test_ticks_are_timers_of_seven_fields_and_old_ones_are_dropped() -> None:
    secrets = (
        replace(ESTATE.secrets[1], schedule=RotationSchedule(cron="30 3 * * 1", timezone="Asia/Shanghai")),
        replace(ESTATE.secrets[2], schedule=RotationSchedule(cron="30 19 * * 0")),
        Secret(
            "orders/later",
            Credential("random_token"),
            strategy=Strategy.OVERLAPPING,
            schedule=RotationSchedule(cron="0 3 L * *", jitter=timedelta(hours=1)),
        ),
    )
    resources = synthesized(_triggered(cloud(app_id="1"), replace(ESTATE, secrets=secrets)))["resource"]

    triggers = resources["tencentcloud_scf_trigger"].values()
    assert {trigger["trigger_desc"] for trigger in triggers} == {"0 0 * * * * *", "0 30 3 * * 1 *"}, "the same moment"
    assert all(trigger["enable"] == "OPEN" and trigger["type"] == "timer" for trigger in triggers)
    (ticks,) = resources["tencentcloud_scf_function_event_invoke_config"].values()
    assert ticks["async_trigger_config"] == {"retry_config": [{"retry_num": 0}], "msg_ttl": 3600}


def test_a_cron_that_no_timer_can_say_is_refused_where_it_is_declared() -> None:
    nightly = RotationSchedule(cron="0 3 * * *", timezone="Europe/Berlin")
    estate = Estate(secrets=(replace(ESTATE.secrets[2], schedule=nightly, where=here()),))

    with pytest.raises(DeclarationError, match=r"test_tencentcloud\.py:\d+: SCF has no timer for .*Berlin") as caught:
        _triggered(cloud(app_id="1"), estate)
    assert "Asia/Shanghai" in caught.value.remedy


def test_a_function_without_a_python_that_is_new_enough_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"test_tencentcloud\.py:\d+: SCF has no Python that is new enough"):
        RotationTrigger(
            _stack(cloud()),
            cloud(app_id="1"),
            ESTATE,
            Trigger(runtime="CustomRuntime"),
            environment="staging",
            keys={"orders": KEY},
            journal=JOURNAL,
        )


def test_a_function_s_network_is_one_subnet_of_a_named_network() -> None:
    resources = synthesized(_triggered(cloud(app_id="1", vpc="vpc-1"), subnets=("subnet-1",)))["resource"]

    (function,) = resources["tencentcloud_scf_function"].values()
    assert (function["vpc_id"], function["subnet_id"]) == ("vpc-1", "subnet-1")


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"runtime": "python3.12"}, "no runtime of SCF"),
        ({"runtime": "Python3.10"}, "needs Python 3.11"),
        ({"architecture": "arm64"}, "x86_64, not on arm64"),
        ({"memory": 500}, "steps of 128 MB"),
        ({"security_groups": ("sg-1",)}, "no security groups"),
        ({"subnets": ("subnet-1",)}, "a network that must be named"),
    ],
)
def test_what_scf_does_not_have_is_refused_where_it_is_declared(others: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason) as caught:
        _triggered(cloud(app_id="1"), **others)
    assert "test_tencentcloud.py:" in str(caught.value)


def test_the_store_rotates_nothing_through_a_function() -> None:
    trigger = Trigger(runtime="CustomRuntime", by_store={"orders/spare": 30})
    with pytest.raises(DeclarationError, match="SSM calls no function to rotate orders/spare"):
        rotate_by_store(_stack(cloud()), cloud(), trigger)


# ── configuration, and what cannot be ──


def test_configuration_objects_are_private_in_a_versioned_bucket_that_is_never_emptied() -> None:
    stack, vendor = _stack(cloud()), cloud()
    vendor.config_place(stack, BUCKET, here())
    vendor.config_object(stack, "a", BUCKET, "orders-api/canary.yaml", "generation: ${1}\n", here())

    bucket, config = only(stack, "tencentcloud_cos_bucket"), only(stack, "tencentcloud_cos_bucket_object")
    assert (bucket["acl"], bucket["versioning_enable"], bucket["force_clean"]) == ("private", True, False)
    assert config["content"] == "generation: $${1}\n"
    md5 = hashlib.md5(b"generation: ${1}\n", usedforsecurity=False).hexdigest()
    assert (config["acl"], config["etag"]) == ("private", md5)


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda: _foundation(cloud(), deletion_days=31), "7 to 30 days on Tencent Cloud, not 31"),
        (lambda: _slots(cloud(), recovery_days=31), "0 to 30 days on Tencent Cloud, not 31"),
        (
            lambda: _foundation(cloud(), estate=Estate(keys=(Key("orders", native_days=90),))),
            "every 90 days, and .* only knows every 365",
        ),
        (lambda: _foundation(cloud(), estate=Estate(keys=(Key("k" * 60),))), "longer than 60 characters"),
        (
            lambda: _slots(cloud(), estate=Estate(secrets=(replace(ESTATE.secrets[2], name="s" * 120),))),
            "longer than 128 characters",
        ),
    ],
)
def test_what_the_cloud_would_refuse_is_refused_at_synth(declare: Any, reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason) as caught:
        declare()
    assert "test_tencentcloud.py:" in str(caught.value)


def test_the_schema_is_the_pinned_version_s() -> None:
    with pytest.raises(DeclarationError, match="there is no argument recovery_window_in_day; did you mean recovery_w"):
        Resource(_stack(cloud()), "x", "tencentcloud_ssm_secret", {"secret_name": "x", "recovery_window_in_day": 7})
    known = Schema.load("tencentcloud", VERSION)
    assert known.problems_of_data("tencentcloud_kms_keys", {"search_key_alia": "x"}) == [
        "there is no argument search_key_alia; did you mean search_key_alias?"
    ]
    assert known.problems_of_data("tencentcloud_kms_key", {}) == [
        f"the schema of tencentcloudstack/tencentcloud {VERSION} has no tencentcloud_kms_key;"
        " did you mean tencentcloud_kms_keys?"
    ]
