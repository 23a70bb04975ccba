"""Tencent Cloud's Secrets Manager, on the emulator."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest
import stamina

from rotation.errors import Conflict, DeclarationError, LimitExceeded, StoreError, Unavailable
from rotation.local.tencent.cloud import Settings
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore, tencent_ssm
from rotation.stores.tencent_ssm import CURRENT, TencentSsm
from rotation.tencentcloud import Cloud, Manner
from tests.contracts.staging import Moment, Shape, current_of, promoted, rejected, text_of, two_current
from tests.fixtures.tencent import TencentCloud
from tests.rotation.stores.ssm_runners import RunnersLine, SsmContract, SsmHarness, TroubleAhead, nothing
from tests.tencent_line import Emulated


class Harness(SsmHarness):
    """Secrets in a cloud of each test's own."""

    @pytest.fixture(autouse=True)
    def server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rates and patience have tests of their own."""
        monkeypatch.setattr(tencent_ssm, "_LOOKS", (0.0, 0.0, 0.01, 0.02))
        self.emulated, self.ahead = Emulated.begin(monkeypatch), TroubleAhead()

    def ask(self, action: str, **parameters: Any) -> Mapping[str, Any]:
        return self.emulated.ask(action, **parameters)

    def line(self) -> RunnersLine:
        return RunnersLine(self.emulated, self.ahead)

    def slot(self) -> str:
        return self.slot_called(f"secret-{uuid.uuid4().hex[:12]}")


class TestTencentSsm(Harness, SsmContract): ...


class TestWhatIsSpecial(Harness):
    """What SSM's own ways ask for: a look that is old, few versions, no comparison."""

    def test_without_a_leasenothing_becomes_current(self) -> None:
        name, store = self.slot(), TencentSsm({}, RunnersLine(self.emulated, self.ahead))
        store.stage(name, 1, text_of(1))
        with pytest.raises(StoreError, match="lease"):
            store.promote(name, 1, None)
        assert CURRENT not in self.emulated.values(name)
        store.under(nothing).promote(name, 1, None)
        with pytest.raises(StoreError, match="lease"):
            store.rewrap(name, store.predict(name, 1), SecretValue("envelope"))
        assert store.read(name) == text_of(1)

    def test_consumers_read_a_copy_and_the_staged_value_stays_beside_it(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 41)
        store.stage(name, 42, text_of(42))
        assert set(self.emulated.values(name)) == {CURRENT, "g0000000041", "g0000000042"}
        store.promote(name, 42, store.predict(name, 41))
        values = self.emulated.values(name)
        assert values.pop("g0000000042.decided") == "promoting"
        assert values == {
            CURRENT: text_of(42).reveal(),
            "g0000000041": text_of(41).reveal(),
            "g0000000042": text_of(42).reveal(),
        }

    def test_never_more_than_five_versions_are_in_use(self) -> None:
        """Two rotations, a rollback while the old value is kept, a rejected candidate, and re-wraps."""
        store, name = self.open(), self.slot()
        most: list[int] = []
        with self.at_every_call(store, Moment.AFTER, lambda: most.append(len(self.emulated.values(name)))):
            promoted(store, name, 1)
            for envelope in ("1", "2", "3"):
                view = store.observe([name])[name]
                assert view.current is not None
                store.rewrap(name, view.current, SecretValue(envelope))
            promoted(store, name, 2)
            store.stage(name, 3, store.read(name, Version("g0000000001-r3", 1, 3)))  # a rollback
            store.promote(name, 3, store.predict(name, 2))
            rejected(store, name, 4)
            store.discard(name, 4)
            rejected(store, name, 5)
            store.discard(name, 2)
            store.discard(name, 5)
            promoted(store, name, 6)
        assert max(most) == 5
        assert self.shape(name) == Shape(current=6, pending=None, previous=3, rejected=False, revision=0)

    def test_a_candidate_with_an_older_generations_value_is_not_current_before_it_is_promoted(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        store.stage(name, 2, text_of(1))
        assert self.shape(name) == Shape(current=1, pending=2, previous=None, rejected=False, revision=0)
        store.promote(name, 2, store.predict(name, 1))
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)

    def test_what_is_overwritten_with_an_older_value_is_seen_and_promoted_again(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
        self.put_foreign(name, text_of(1).reveal())
        view = store.observe([name])[name]
        assert (view.current, view.pending, view.promoting) == (store.predict(name, 1), store.predict(name, 2), True)
        with pytest.raises(Conflict, match="overwritten"):
            store.under(nothing).confirm(name, 2)
        with pytest.raises(Conflict, match="current"):
            store.discard(name, 1)
        store.promote(name, 2, view.current)
        store.under(nothing).confirm(name, 2)
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)

    def test_what_terraform_has_left_is_no_value_and_is_swept(self) -> None:
        store, name = self.open(), self.slot()
        self.emulated.ask("PutSecretValue", SecretName=name, VersionId="default", SecretString="default")
        assert self.shape(name) == Shape(None, None, None, False, 0)
        promoted(store, name, 1)
        assert "default" not in self.emulated.values(name)

    def test_a_decision_that_was_altered_stops_everything(self) -> None:
        store, name = self.open(), self.slot()
        rejected(store, name, 1)
        self.emulated.ask("UpdateSecret", SecretName=name, VersionId="g0000000001.decided", SecretString="perhaps")
        trouble = store.observe([name])[name].trouble
        assert "altered" in str(trouble)
        assert trouble is not None
        assert "Put promoting or rejected back into its version g….decided" in trouble.remedy
        with pytest.raises(StoreError, match="altered"):
            store.stage(name, 2, text_of(2))
        self.emulated.ask("UpdateSecret", SecretName=name, VersionId="g0000000001.decided", SecretString="rejected")
        assert self.shape(name) == Shape(current=None, pending=1, previous=None, rejected=True, revision=0)

    def test_a_secret_with_as_many_versions_as_ssm_keeps_says_so(self) -> None:
        store, name = self.open(), self.slot()
        for number in range(10):
            self.emulated.ask("PutSecretValue", SecretName=name, VersionId=f"by-hand-{number}", SecretString="x")
        with pytest.raises(LimitExceeded) as refused:
            store.stage(name, 1, text_of(1))
        assert "delete those of others there" in refused.value.remedy
        assert len(self.emulated.values(name)) == 10

    def test_a_disabled_or_deleted_secret_is_told_as_its_own_trouble_and_loses_nothing(self) -> None:
        """DeleteSecret asks for DisableSecret first, and RestoreSecret brings a disabled secret back."""
        store, name, other = self.open(), self.slot(), self.slot()
        two_current(store, name)
        promoted(store, other, 7)
        before = self.shape(name)
        for acts, remedy in (
            (["DisableSecret"], "Enable the secret in SSM"),
            (["DeleteSecret"], "RestoreSecret"),
            (["RestoreSecret"], "Enable the secret in SSM"),
        ):
            for act in acts:
                self.emulated.ask(
                    act, SecretName=name, **({"RecoveryWindowInDays": 7} if act == "DeleteSecret" else {})
                )
            views = store.observe([name, other])
            trouble = views[name].trouble
            assert isinstance(trouble, StoreError)
            assert remedy in trouble.remedy
            assert not views[name].exists
            assert current_of(store, other) == store.predict(other, 7)
            with pytest.raises(StoreError) as refused:
                store.stage(name, 3, text_of(3))
            assert refused.value.remedy == trouble.remedy
        self.emulated.ask("EnableSecret", SecretName=name)
        assert self.shape(name) == before
        assert store.read(name) == text_of(2)

    def test_a_binary_value_of_others_is_foreign(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.emulated.ask("UpdateSecret", SecretName=name, VersionId=CURRENT, SecretBinary="/wAB")
        assert current_of(store, name) == Version(CURRENT, None)
        with pytest.raises(StoreError, match="no text") as caught:
            store.read(name)
        assert caught.value.__context__ is None

    def test_the_limit_of_a_value_can_be_raised(self) -> None:
        with pytest.raises(DeclarationError, match="value_bytes"):
            TencentSsm({"value_bytes": 32769}, RunnersLine(self.emulated, self.ahead))
        store, name = TencentSsm({"value_bytes": 5000}, RunnersLine(self.emulated, self.ahead)), self.slot()
        self.emulated.cloud.settings = Settings(value_limit=32768, throttled=False)
        store.stage(name, 1, SecretValue("x" * 5000))
        with pytest.raises(LimitExceeded, match="5000"):
            store.stage(name, 2, SecretValue("x" * 5001))

    def test_an_older_state_is_never_taken_for_news(self) -> None:
        """A replica that lags shows the secret as before its last writes, for a few calls or for good."""
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        rejected(store, name, 2)
        self.ahead.lags(calls=2, writes=3)
        assert self.shape(name, store) == Shape(current=1, pending=2, previous=None, rejected=True, revision=0)
        self.ahead.lags(calls=1000, writes=3)
        with pytest.raises(Unavailable, match="does not stay the same"):
            store.observe([name])

    def test_what_was_written_is_waited_for(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        for act in (
            lambda: store.stage(name, 2, text_of(2)),
            lambda: store.promote(name, 2, store.predict(name, 1)),
            lambda: store.discard(name, 1),
        ):
            self.ahead.lags(calls=2, writes=1, after_writes=1)
            act()
        assert self.shape(name, store) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)

    def shape(self, name: str, store: SecretStore | None = None) -> Shape:
        return Shape.of((store or self.open()).observe([name])[name])


@pytest.mark.parametrize("fault", ["drop", "lost_reply", "cut", "http_error", "internal", "charset"])
def test_a_rotation_on_the_wire_is_whole_whatever_happens_to_its_writes(tencent: TencentCloud, fault: str) -> None:
    """Over HTTP: the put, the promotion and the deletion each meet the fault once."""
    cloud = Cloud(tencent.region, f"http://{tencent.endpoint}")
    store, name = TencentSsm({}, cloud).under(nothing), tencent.name()
    for action, version_id in (("CreateSecret", {"SecretString": "default"}), ("DeleteSecretVersion", {})):
        cloud.call("ssm", action, {"SecretName": name, "VersionId": "default", **version_id}, Manner("do", StoreError))
    with stamina.set_testing(True, attempts=3):
        for action in ("PutSecretValue", "UpdateSecret", "DeleteSecretVersion"):
            tencent.faults.plan(f"ssm.{action}", fault)
        two_current(store, name)
        store.discard(name, 1)
    view = store.observe([name])[name]
    assert Shape.of(view) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)
    assert store.read(name) == text_of(2)
