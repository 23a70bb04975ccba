"""Access keys of a CAM user, on the emulated Tencent Cloud."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import stamina

from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.tencent_cam_key import TencentCamKey
from rotation.errors import DeclarationError, TargetError, Unavailable
from rotation.model import Acceptance, Credential, Leftover, Strategy, Usage
from rotation.secret_value import SecretValue
from rotation.tencentcloud import Cloud
from tests.contracts.credential_kind import SECRET, Make, OverlapContract, TargetContract, installed, issued, texts_of
from tests.contracts.staging import ATTEMPTS
from tests.fixtures.ports import closed_port
from tests.fixtures.tencent import REGION, TencentCloud, ask

_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Robot:
    """A CAM user without keys."""

    tencent: TencentCloud
    name: str
    cam: Any = field(repr=False)

    @classmethod
    def of(cls, tencent: TencentCloud) -> Robot:
        name, cam = tencent.name("robot"), tencent.client("cam")
        ask(cam, "AddUser", Name=name, Remark="the robot, ask Ann")
        return cls(tencent, name, cam)

    @property
    def uin(self) -> int:
        uin: int = ask(self.cam, "GetUser", Name=self.name).Uin
        return uin

    @property
    def remark(self) -> str:
        return str(ask(self.cam, "GetUser", Name=self.name).Remark)

    def keys(self) -> dict[str, str]:
        found = ask(self.cam, "ListAccessKeys", TargetUin=self.uin).AccessKeys
        return {key.AccessKeyId: key.Status for key in found}

    def kind(self, strategy: Strategy = Strategy.OVERLAPPING, **options: Any) -> TencentCamKey:
        given = {"user": self.name, **self.tencent.options, **options}
        return TencentCamKey(given, strategy, lambda _: SecretValue(""))


@dataclass(frozen=True)
class _Stranger:
    """Somebody whose key the cloud does not know."""

    key: str

    def get_credential_info(self) -> tuple[str, str, str | None]:
        return "AKIDstranger", self.key, None


def key_of(credential: Credential) -> str:
    return str(json.loads(credential.value.reveal())["SecretId"])


@pytest.fixture
def robot(tencent: TencentCloud) -> Robot:
    return Robot.of(tencent)


@pytest.fixture
def kind(robot: Robot) -> TencentCamKey:
    return robot.kind()


class TestTencentCamKey(TargetContract, OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture(autouse=True)
    def without_pauses(self) -> Any:
        with stamina.set_testing(True, attempts=ATTEMPTS):
            yield

    @pytest.fixture
    def make(self, robot: Robot) -> Make:
        return robot.kind

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.OVERLAPPING)

    @pytest.fixture
    def unreachable(self, robot: Robot, kind: TencentCamKey) -> CredentialKind:
        """Its values come from elsewhere: CAM makes them."""
        dead = robot.kind(endpoint=f"http://127.0.0.1:{closed_port()}")
        dead.issue = kind.issue  # type: ignore[method-assign]
        return dead

    @pytest.fixture
    def unauthorized(self, robot: Robot, administrator: SecretValue) -> CredentialKind:
        refused = robot.kind()
        signer = _Stranger(self.hidden_part(administrator))
        refused._cloud = Cloud(REGION, robot.tencent.options["endpoint"], credentials=signer)
        return refused

    def hidden_part(self, value: SecretValue) -> str:
        return str(json.loads(value.reveal())["SecretKey"])

    @pytest.fixture
    def administrator(self, tencent: TencentCloud) -> SecretValue:
        return SecretValue(json.dumps({"SecretId": tencent.key.secret_id, "SecretKey": tencent.key.secret_key}))

    def test_no_value_gets_into_errors_or_logs(  # type: ignore[override]
        self,
        kind: CredentialKind,
        unreachable: CredentialKind,
        unauthorized: CredentialKind,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As the contract has it, with two keys at a time."""
        caplog.set_level(logging.DEBUG)
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        third = issued(kind, 3, second)
        unreachable.check(third)
        errors = [
            self._error_of(lambda: kind.install(first, None)),
            self._error_of(lambda: unreachable.install(third, second)),
            self._error_of(lambda: unauthorized.install(third, second)),
            self._error_of(lambda: kind.check(Credential(SECRET, 5, SecretValue(third.value.reveal()[:-1])))),
        ]
        seen = "\n".join([*(text for e in errors for text in texts_of(e)), caplog.text])
        assert "superseded" in seen
        for value in (first.value, second.value, third.value):
            assert self.hidden_part(value) not in seen


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "tencent_cam_key") is TencentCamKey


def test_a_key_is_switched_off_until_it_is_installed_and_deleted_when_it_is_revoked(
    kind: TencentCamKey, robot: Robot
) -> None:
    first = issued(kind, 1)
    assert robot.keys() == {key_of(first): "Inactive"}
    kind.install(first, None)
    second = installed(kind, 2, first)
    assert robot.keys() == {key_of(first): "Active", key_of(second): "Active"}
    kind.revoke(first, second)
    assert robot.keys() == {key_of(second): "Active"}
    assert robot.remark == f"the robot, ask Ann keyturn:{key_of(second)[-8:]}=2"


def test_a_third_key_waits_for_the_retirement_of_the_first(kind: TencentCamKey, robot: Robot) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    with pytest.raises(TargetError, match="has 2 access keys already") as refused:
        kind.issue(second)
    assert "keyturn retire" in refused.value.remedy
    assert set(robot.keys()) == {key_of(first), key_of(second)}


class TestOrphans:
    """What a run leaves behind that dies before it has staged the value."""

    @pytest.mark.parametrize("fault", ["lost_reply", "cut"])
    def test_a_key_whose_answer_was_lost_is_replaced_at_once(
        self, kind: TencentCamKey, robot: Robot, fault: str
    ) -> None:
        first = installed(kind, 1)
        robot.tencent.faults.plan("cam.CreateAccessKey", fault)
        with stamina.set_testing(True, attempts=ATTEMPTS):
            second = installed(kind, 2, first)
        assert robot.keys() == {key_of(first): "Active", key_of(second): "Active"}

    def test_one_that_could_not_be_switched_off_is_found_by_the_next_run(
        self, kind: TencentCamKey, robot: Robot
    ) -> None:
        first = installed(kind, 1)
        robot.tencent.faults.plan("cam.UpdateAccessKey", "drop", times=ATTEMPTS * ATTEMPTS)
        with stamina.set_testing(True, attempts=ATTEMPTS), pytest.raises(Unavailable):
            kind.issue(first)
        robot.tencent.faults.clear()
        (orphan,) = set(robot.keys()) - {key_of(first)}
        assert robot.keys()[orphan] == "Active"
        second = installed(kind, 2, first)
        assert robot.keys() == {key_of(first): "Active", key_of(second): "Active"}

    def test_one_is_shown_and_removed(self, kind: TencentCamKey, robot: Robot) -> None:
        first = installed(kind, 1)
        orphan = issued(kind, 2, first)
        assert kind.leftovers([first, orphan]) == ()
        (left,) = kind.leftovers([first])
        assert left == Leftover(key_of(orphan), retired=True, sessions=0)
        for _ in range(2):
            kind.lock_out(left.principal, [first])
        assert robot.keys() == {key_of(first): "Active"}

    def test_somebody_else_s_key_and_an_installed_one_stay(self, kind: TencentCamKey, robot: Robot) -> None:
        first = installed(kind, 1)
        other = ask(robot.cam, "CreateAccessKey", TargetUin=robot.uin, Description="by-hand").AccessKey.AccessKeyId
        assert kind.leftovers([first]) == (Leftover(other, retired=False, sessions=0),)
        for key in (other, key_of(first)):
            with pytest.raises(TargetError, match="left alone"):
                kind.lock_out(key, [first])
        with pytest.raises(TargetError, match="already"):
            kind.issue(first)
        assert set(robot.keys()) == {key_of(first), other}


def test_a_key_from_before_keyturn_is_replaced_and_deleted(kind: TencentCamKey, robot: Robot) -> None:
    made = ask(robot.cam, "CreateAccessKey", TargetUin=robot.uin).AccessKey
    value = {"SecretId": made.AccessKeyId, "SecretKey": made.SecretAccessKey}
    legacy = Credential(SECRET, 1, SecretValue(json.dumps(value)))
    assert kind.check(legacy) is Acceptance.ACCEPTED
    second = installed(kind, 2, legacy)
    assert kind.check(legacy) is Acceptance.ACCEPTED
    kind.revoke(legacy, second)
    assert (kind.check(legacy), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


def test_the_day_of_the_last_use_is_told_a_day_late(kind: TencentCamKey, tencent: TencentCloud) -> None:
    tencent.clock.stop()  # else midnight might come in between
    first = installed(kind, 1)
    kind.check(first)
    assert kind.usage(first, None) == Usage(sessions=0, marker="never")
    today = f"{tencent.clock.moment():%Y-%m-%d}"
    tencent.clock.advance(_DAY)
    kind._cloud = Cloud(REGION, tencent.options["endpoint"], clock=tencent.clock.now)
    assert kind.usage(first, None) == Usage(sessions=0, marker=today)
    assert kind.usage(first, replace(first, generation=2)) is None, "it is the current key's"


def test_checks_of_many_keys_share_a_connection_and_nothing_else(
    kind: TencentCamKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = installed(kind, 1)
    unknown = json.dumps(json.loads(first.value.reveal()) | {"SecretId": "AKIDthere-is-no-such-key"})
    stranger = Credential(SECRET, 2, SecretValue(unknown))
    made: list[str] = []
    make = Cloud._made

    def noted(cloud: Cloud, service: str) -> object:
        made.append(service)
        return make(cloud, service)

    monkeypatch.setattr(Cloud, "_made", noted)
    kind._cloud = Cloud(REGION, kind._options.endpoint)
    answers = [kind.check(each) for each in (first, stranger, first, stranger)]
    assert answers == [Acceptance.ACCEPTED, Acceptance.DENIED] * 2
    assert made == ["sts"]
    kind.probe()  # as the runner, still


@pytest.mark.parametrize("text", ["", "not json: hunter2", '{"SecretId": "hunter2"}', '{"SecretKey": ["hunter2"]}'])
def test_a_value_of_another_shape_is_refused_without_showing_it(kind: TencentCamKey, text: str) -> None:
    with pytest.raises(TargetError, match="generation 7 of orders/db is no access key") as caught:
        kind.check(Credential(SECRET, 7, SecretValue(text)))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_user_that_is_not_there_is_refused(robot: Robot) -> None:
    robot.kind().probe()
    with pytest.raises(TargetError, match="nobody"):
        robot.kind(user="nobody").probe()


@pytest.mark.parametrize(("options", "reason"), [({"user": ""}, "user"), ({"colour": "red"}, "colour")])
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        TencentCamKey({"user": "robot", "region": REGION} | options, Strategy.OVERLAPPING, lambda _: SecretValue(""))
