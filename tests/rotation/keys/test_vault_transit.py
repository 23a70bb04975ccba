"""Vault's transit engine, against OpenBao and a proxy before it."""

from __future__ import annotations

import base64
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import stamina

from rotation.errors import DeclarationError, KeyServiceError, Unauthorized, Unavailable
from rotation.keys import MaterialVersions, Wrapped
from rotation.keys.vault_transit import BATCH, VaultTransit
from rotation.sealing import Placed, rewrap, seal, unseal, wrapping
from rotation.secret_value import SecretValue
from tests.contracts.key_service import CONTEXT, KeyServiceContract
from tests.contracts.staging import ATTEMPTS, CANARY, Trouble, told_by
from tests.fixtures.openbao import Fate, OpenBao, Proxy

_STATUS = {Trouble.THROTTLED: 429, Trouble.BROKEN: 500, Trouble.DENIED: 403}
VALUE = SecretValue(f"{CANARY} é \U0001f511")
NAME = "local/orders/api-token"


class Transit:
    """A mount of the server, looked at and prepared past the proxy."""

    def __init__(self, server: OpenBao, proxy: Proxy, mount: str) -> None:
        self.server = server
        self.proxy = proxy
        self.mount = mount
        self.raw: Any = server.client()

    def service(self, mount: str | None = None) -> VaultTransit:
        return VaultTransit({"address": self.proxy.address, "mount": mount or self.mount})

    def key(self, **declared: Any) -> str:
        name = f"key-{uuid.uuid4()}"
        self.raw.secrets.transit.create_key(name, **{"derived": True} | declared, mount_point=self.mount)
        return name

    def read(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.raw.secrets.transit.read_key(key, mount_point=self.mount)["data"]
        return found

    def configure(self, key: str, **values: Any) -> None:
        self.raw.secrets.transit.update_key_configuration(key, **values, mount_point=self.mount)

    def soft_delete(self, key: str) -> None:
        self.raw.adapter.delete(f"/v1/{self.mount}/keys/{key}/soft-delete")

    def trouble(self, kind: Trouble, times: int = 1, after: int = 0, match: str = "") -> None:
        self.proxy.clear()
        if kind in _STATUS:
            self.proxy.fault("answered", match, times=times, after=after, status=_STATUS[kind])
        else:
            fate: Fate = "lost before" if kind is Trouble.DROPPED else "lost after"
            self.proxy.fault(fate, match, times=times, after=after)

    def calls(self, what: str) -> int:
        return sum(times for call, times in self.proxy.calls.items() if what in call)


@pytest.fixture
def transit(openbao_proxy: Proxy, transit_mount: str, vault_environment: OpenBao) -> Transit:
    return Transit(vault_environment, openbao_proxy, transit_mount)


class TestVaultTransit(KeyServiceContract):
    @pytest.fixture(autouse=True)
    def server(self, transit: Transit) -> None:
        self.transit = transit

    def open(self) -> VaultTransit:
        return self.transit.service()

    def key(self) -> str:
        return self.transit.key()

    def disable(self, key: str) -> None:
        self.transit.soft_delete(key)

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        self.transit.trouble(kind, times, after)

    def rotations(self, key: str) -> int:
        return int(self.transit.read(key)["latest_version"]) - 1

    @pytest.fixture(autouse=True)
    def a_second_apart(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Transit tells whole seconds: rotations whose times are compared have to be a second apart."""
        if request.function.__name__ == "test_observing_shows_the_last_rotation":
            at_once = VaultTransit.rotate

            def rotate(service: VaultTransit, key: str) -> None:
                at_once(service, key)
                time.sleep(1.0)

            monkeypatch.setattr(VaultTransit, "rotate", rotate)


# Materials


def sealed(transit: Transit, key: str, *, name: str = NAME, generation: int = 42) -> Placed:
    envelope = seal(VALUE, name=name, generation=generation, key=key, service=transit.service())
    return Placed(envelope, name, generation)


def version(transit: Transit, value: Placed) -> int:
    seen = wrapping(value)
    assert seen is not None
    return transit.service().version_of(seen.wrapped)


def test_the_keys_facts_are_observed(transit: Transit) -> None:
    key = transit.key(exportable=True)
    transit.configure(key, deletion_allowed=True, auto_rotate_period="24h")
    view = transit.service().observe([key])[key]
    assert (view.exportable, view.deletable, view.automatic) == (True, True, True)


def test_a_key_that_has_given_up_its_first_material_still_shows_its_last_rotation(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    service.rotate(key)
    before = service.observe([key])
    service.raise_minimum(key, 2)
    assert service.observe([key]) == before


@pytest.mark.parametrize(("kind", "derived"), [("aes256-gcm96", False), ("rsa-2048", False), ("ed25519", True)])
def test_a_key_that_binds_no_context_wraps_nothing(transit: Transit, kind: str, derived: bool) -> None:
    service, key = transit.service(), transit.key(key_type=kind, derived=derived)
    assert service.observe([key])[key].enabled
    with pytest.raises(KeyServiceError, match="cannot bind") as refused:
        service.data_key(key, CONTEXT)
    assert "derived=true" in refused.value.remedy
    assert transit.calls("datakey") == 0


def test_a_rewrapped_data_key_is_the_same_under_the_latest_material_and_the_same_context(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    before = service.data_key(key, CONTEXT)
    service.rotate(key)
    (anew,) = service.rewrap(key, [Wrapped(before.wrapped, CONTEXT)])
    assert [service.version_of(wrapped) for wrapped in (before.wrapped, anew)] == [1, 2]
    assert service.unwrap(key, anew, CONTEXT) == before.plaintext
    with pytest.raises(KeyServiceError):
        service.unwrap(key, anew, CONTEXT | {"keyturn:generation": "43"})


def test_one_altered_data_key_fails_its_batch_and_the_error_says_whose_it_is(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    contexts = [{"keyturn:secret": name} for name in ("orders/db", "orders/other")]
    good, bad = (Wrapped(service.data_key(key, context).wrapped, context) for context in contexts)
    moved = Wrapped(bad.key, {"keyturn:secret": "orders/moved"})
    with pytest.raises(KeyServiceError, match="keyturn:secret=orders/moved"):
        service.rewrap(key, [good, moved])


@pytest.mark.parametrize("wrapped", [b"", b"AQICAHi", b"vault:v0:AAAA", b"vault:vx:AAAA", b"vault:v1", b"\xff\xfe"])
def test_what_transit_never_wrapped_is_refused_before_anything_is_sent(transit: Transit, wrapped: bytes) -> None:
    with pytest.raises(KeyServiceError, match="none of transit's"):
        transit.service().version_of(wrapped)


def test_a_thousand_sealed_values_are_rewrapped_in_five_calls_and_stay_the_same(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    values = [sealed(transit, key, generation=number) for number in range(1, 11)]
    service.rotate(key)
    transit.proxy.clear()
    anew = rewrap(values * 100, key=key, service=service)
    assert transit.proxy.calls == {f"POST /v1/{transit.mount}/rewrap/{key}": 1_000 // BATCH}
    for value, envelope in zip(values, anew[-10:], strict=True):
        assert version(transit, Placed(envelope, value.name, value.generation)) == 2
        assert unseal(envelope, name=NAME, generation=value.generation, service=service) == VALUE


def test_what_another_key_has_sealed_is_sealed_again_with_this_one(transit: Transit) -> None:
    service, key, former = transit.service(), transit.key(), transit.key()
    values = [sealed(transit, former), sealed(transit, key)]
    for value, envelope in zip(values, rewrap(values, key=key, service=service), strict=True):
        seen = wrapping(Placed(envelope, NAME, value.generation))
        assert seen is not None
        assert seen.key == key
        assert unseal(envelope, name=NAME, generation=value.generation, service=service) == VALUE


def test_the_minimum_ends_the_use_of_older_material_and_never_falls(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    old = service.data_key(key, CONTEXT)
    service.rotate(key)
    service.rotate(key)
    service.raise_minimum(key, 3)
    service.raise_minimum(key, 2)
    assert service.versions(key) == MaterialVersions(latest=3, minimum=3)
    with pytest.raises(KeyServiceError, match="too old"):
        service.unwrap(key, old.wrapped, CONTEXT)
    with pytest.raises(KeyServiceError, match="too old"):
        service.rewrap(key, [Wrapped(old.wrapped, CONTEXT)])


def test_a_minimum_above_the_latest_material_is_refused(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    with pytest.raises(KeyServiceError, match="latest key version is 1"):
        service.raise_minimum(key, 2)
    assert service.versions(key) == MaterialVersions(latest=1, minimum=1)


# Troubles


@pytest.mark.parametrize("trouble", [t for t in Trouble if t is not Trouble.DENIED], ids=lambda t: t.value)
@pytest.mark.parametrize("what", ["/rewrap/", "/config", "/keys/"])
def test_a_passing_trouble_leaves_data_keys_rewrapped_and_the_minimum_raised(
    transit: Transit, trouble: Trouble, what: str
) -> None:
    service, key = transit.service(), transit.key()
    before = service.data_key(key, CONTEXT)
    service.rotate(key)
    transit.trouble(trouble, match=what)
    with stamina.set_testing(True, attempts=ATTEMPTS):
        (anew,) = service.rewrap(key, [Wrapped(before.wrapped, CONTEXT)])
        service.raise_minimum(key, 2)
    assert service.unwrap(key, anew, CONTEXT) == before.plaintext
    assert service.versions(key) == MaterialVersions(latest=2, minimum=2)


def test_a_rotation_whose_reply_is_lost_is_not_sent_again(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    transit.trouble(Trouble.LOST_REPLY, match="/rotate")
    with stamina.set_testing(True, attempts=ATTEMPTS):
        service.rotate(key)
    assert transit.calls("/rotate") == 1
    assert transit.read(key)["latest_version"] == 2


def test_a_sealed_server_is_unavailable_and_answers_again_when_it_is_unsealed(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    before = service.data_key(key, CONTEXT)
    acts: list[Callable[[], object]] = [
        lambda: service.observe([key]),
        lambda: service.rotate(key),
        lambda: service.data_key(key, CONTEXT),
        lambda: service.unwrap(key, before.wrapped, CONTEXT),
        lambda: service.rewrap(key, [Wrapped(before.wrapped, CONTEXT)]),
        lambda: service.raise_minimum(key, 1),
    ]
    with transit.server.sealed(), stamina.set_testing(True, attempts=ATTEMPTS):
        for act in acts:
            with pytest.raises(Unavailable):
                act()
    assert service.unwrap(key, before.wrapped, CONTEXT) == before.plaintext
    assert transit.read(key)["latest_version"] == 1


def test_a_deleted_key_is_missing_and_what_it_wrapped_is_lost(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    wrapped = service.data_key(key, CONTEXT).wrapped
    transit.configure(key, deletion_allowed=True)
    transit.raw.secrets.transit.delete_key(key, mount_point=transit.mount)
    assert not service.observe([key])[key].exists
    acts: list[Callable[[], object]] = [
        lambda: service.data_key(key, CONTEXT),
        lambda: service.unwrap(key, wrapped, CONTEXT),
        lambda: service.rewrap(key, [Wrapped(wrapped, CONTEXT)]),
        lambda: service.versions(key),
    ]
    for act in acts:
        with pytest.raises(KeyServiceError):
            act()


def test_a_soft_deleted_key_is_not_rotated_and_the_error_says_how_to_have_it_back(transit: Transit) -> None:
    service, key = transit.service(), transit.key()
    transit.soft_delete(key)
    with pytest.raises(KeyServiceError, match="soft-deleted") as refused:
        service.rotate(key)
    assert "soft-delete-restore" in refused.value.remedy
    assert transit.read(key)["latest_version"] == 1


def test_a_mount_that_is_not_there_has_no_keys(transit: Transit) -> None:
    service, key = transit.service("transit-elsewhere"), transit.key()
    assert not service.observe([key])[key].exists
    with pytest.raises(KeyServiceError):
        service.rotate(key)


def test_the_runner_needs_no_more_than_what_it_does(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    key = transit.key()
    allowed = ("rotate", "datakey/plaintext", "decrypt", "rewrap")
    paths = [f"{transit.mount}/keys/{key}/rotate", *(f"{transit.mount}/{what}/{key}" for what in allowed[1:])]
    rules = "".join(f'path "{path}" {{ capabilities = ["update"] }}\n' for path in paths)
    rules += f'path "{transit.mount}/keys/{key}" {{ capabilities = ["read"] }}\n'
    with transit.server.policy(rules) as token:
        monkeypatch.setenv("TRANSIT_TOKEN", token)
        auth = {"method": "token", "variable": "TRANSIT_TOKEN"}
        service = VaultTransit({"address": transit.proxy.address, "mount": transit.mount, "auth": auth})
        before = service.data_key(key, CONTEXT)
        service.rotate(key)
        (anew,) = service.rewrap(key, [Wrapped(before.wrapped, CONTEXT)])
        assert service.unwrap(key, anew, CONTEXT) == before.plaintext
        with pytest.raises(Unauthorized):
            service.raise_minimum(key, 2)
    assert transit.read(key)["min_decryption_version"] == 1


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(DeclarationError, match="key service vault_transit: option mout"):
        VaultTransit({"address": "http://127.0.0.1:1", "mout": "transit"})


def test_nothing_that_goes_wrong_tells_a_value_a_data_key_or_the_token(
    transit: Transit, caplog: pytest.LogCaptureFixture
) -> None:
    service, key = transit.service(), transit.key()
    value = sealed(transit, key)
    seen = wrapping(value)
    assert seen is not None
    plaintext = service.unwrap(key, seen.wrapped, {"keyturn:secret": NAME, "keyturn:generation": "42"})
    elsewhere = Placed(value.stored, "local/orders/other", 42)
    with caplog.at_level(logging.DEBUG), stamina.set_testing(True, attempts=ATTEMPTS):
        told = told_by(partial(rewrap, [elsewhere], key=key, service=service))
        transit.trouble(Trouble.LOST_REPLY, times=ATTEMPTS, match="/decrypt/")
        told += told_by(partial(unseal, value.stored, name=NAME, generation=42, service=service))
    encoded = base64.b64encode(plaintext).decode()
    for text in (CANARY, repr(plaintext), plaintext.hex(), encoded, transit.server.token):
        assert text not in told + caplog.text + repr(value)
