"""TLS certificates from OpenBao's PKI engine and from an authority in the store, proved by real handshakes."""

from __future__ import annotations

import json
import logging
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509

from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.tls_certificate import TlsCertificate
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy
from rotation.secret_value import SecretValue
from rotation.tls import Material
from rotation.tls.handshake import client_context, problem
from tests.contracts.credential_kind import SECRET, Make, OverlapContract, installed, issued, texts_of
from tests.fixtures.openbao import OpenBao, Proxy
from tests.fixtures.ports import closed_port
from tests.fixtures.tls import AUTHORITY, NAMES, Pki, Shelf, material, serving, shake_hands


class TestVaultPki(OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture
    def make(self, pki: Pki) -> Make:
        return pki.kind

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.OVERLAPPING)


class TestLocalCa(OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture
    def make(self, shelf: Shelf) -> Make:
        return shelf.local_ca

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.OVERLAPPING)


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "tls_certificate") is TlsCertificate


@pytest.fixture(params=["vault_pki", "local_ca"])
def kind(request: pytest.FixtureRequest) -> TlsCertificate:
    """Either issuer's."""
    if request.param == "local_ca":
        shelf: Shelf = request.getfixturevalue("shelf")
        return shelf.local_ca()
    pki: Pki = request.getfixturevalue("pki")
    return pki.kind()


def test_a_value_is_what_a_server_needs_and_a_client_trusts(kind: TlsCertificate) -> None:
    first = issued(kind, 1)
    fields = json.loads(first.value.reveal())
    assert fields.keys() == {"certificate", "chain", "private_key", "ca", "serial"}
    found = material(first)
    assert sorted(found.names) == sorted(NAMES)
    assert fields["serial"] == found.serial
    with serving(found) as server:
        context = client_context(kind.public_part(first)["ca"])
        for name in ("orders.test", "eu.orders.test", "127.0.0.1"):
            assert shake_hands(server.port, context, name)["serialNumber"].lower() == found.serial.replace(":", "")
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            shake_hands(server.port, context, "shop.test")
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            shake_hands(server.port, client_context(None))


@pytest.mark.parametrize("key_type", ["ec-p384", "rsa-2048"])
def test_a_key_is_of_the_declared_type(shelf: Shelf, key_type: str) -> None:
    kind = shelf.local_ca(key_type=key_type)
    first = issued(kind, 1)
    assert kind.check(first) is Acceptance.ACCEPTED
    assert material(first).key().key_size == int(re.sub(r"\D+", "", key_type))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command here")
def test_openssl_itself_verifies_it_as_strictly(kind: TlsCertificate, tmp_path: Path) -> None:
    first = issued(kind, 1)
    (tmp_path / "ca.pem").write_text(kind.public_part(first)["ca"])
    (tmp_path / "leaf.pem").write_text(material(first).certificate)
    argv = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "orders.test"]
    argv += ["-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "leaf.pem: OK\n", done.stderr


class TestWhatIsNotFitForUse:
    """Each is denied by its check, with a handshake or with the issuer's word."""

    def test_a_name_that_was_declared_later(self, kind: TlsCertificate, shelf: Shelf) -> None:
        first = issued(shelf.local_ca(names=["orders.test"]), 1)
        assert shelf.local_ca(names=["orders.test"]).check(first) is Acceptance.ACCEPTED
        assert shelf.local_ca().check(first) is Acceptance.DENIED

    def test_the_wrong_authority(self, pki: Pki, shelf: Shelf) -> None:
        assert pki.kind().check(issued(shelf.local_ca(), 1)) is Acceptance.DENIED
        assert shelf.local_ca().check(issued(pki.kind(), 1)) is Acceptance.DENIED

    def test_another_certificates_key(self, kind: TlsCertificate) -> None:
        one, other = material(issued(kind, 1)), material(issued(kind, 2))
        mixed = Material(one.certificate, other.private_key, one.chain, one.ca)
        assert kind.check(Credential(SECRET, 1, mixed.to_value())) is Acceptance.DENIED

    def test_the_wrong_usage(self, shelf: Shelf) -> None:
        server, client = shelf.local_ca(), shelf.local_ca(usages=["client"])
        both = shelf.local_ca(usages=["server", "client"])
        assert [kind.check(issued(both, 1)) for kind in (server, client, both)] == [Acceptance.ACCEPTED] * 3
        assert client.check(issued(server, 1)) is Acceptance.DENIED
        assert server.check(issued(client, 1)) is Acceptance.DENIED
        assert client.check(issued(client, 1)) is Acceptance.ACCEPTED

    def test_one_that_is_for_no_name(self, shelf: Shelf) -> None:
        found = material(issued(shelf.local_ca(), 1))
        authorities = shelf.authority().public_part(Credential(AUTHORITY, 1, shelf[AUTHORITY]))["ca"]
        assert problem(found, authorities, found.names[:1], ["server"]) is None
        assert problem(found, authorities, [], ["server"]) == "it is for no name that a client could ask for"

    def test_too_little_left_of_the_lifetime(self, shelf: Shelf) -> None:
        short = issued(shelf.local_ca(lifetime="PT1H"), 1)
        assert shelf.local_ca(lifetime="P1D").check(short) is Acceptance.ACCEPTED
        assert shelf.local_ca(lifetime="P1D", least_left=0.1).check(short) is Acceptance.DENIED

    def test_a_revoked_one(self, pki: Pki) -> None:
        kind = pki.kind()
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        kind.revoke(first, second)
        assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)

    @pytest.mark.parametrize("text", ["", "hunter2", "[]", "null", '{"certificate": "x", "private_key": "hunter2"}'])
    def test_what_is_no_certificate_is_said_without_quoting_it(self, shelf: Shelf, text: str) -> None:
        with pytest.raises(TargetError, match="generation 4 of orders/db is no certificate") as caught:
            shelf.local_ca().check(Credential(SECRET, 4, SecretValue(text)))
        assert "hunter2" not in "\n".join(texts_of(caught.value))


def test_an_expired_one_is_denied_and_nothing_is_left_to_revoke(
    pki: Pki, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = shelf.local_ca(lifetime="PT1M")
    with monkeypatch.context() as patched:
        patched.setattr("rotation.tls.issuers.local_ca.datetime", _AnHourAgo)
        patched.setattr(kind, "_problem", lambda *_: None)  # it would not be issued
        old = issued(kind, 1)
    assert kind.check(old) is Acceptance.DENIED
    pki.kind().revoke(old, None)  # the mount does not know it, and would refuse


class _AnHourAgo(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) - timedelta(hours=1)


# Revocation


def test_what_is_revoked_is_on_the_list_that_clients_load(pki: Pki, tmp_path: Path) -> None:
    kind = pki.kind()
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    listed = x509.load_pem_x509_crl(pki.client.secrets.pki.read_crl(mount_point=pki.mount).encode())
    assert [entry.serial_number for entry in listed] == [material(first).x509.serial_number]
    (tmp_path / "trusted.pem").write_text(material(first).ca + pki.client.secrets.pki.read_crl(mount_point=pki.mount))
    context = ssl.create_default_context(cafile=str(tmp_path / "trusted.pem"))
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    with serving(material(second)) as server:
        shake_hands(server.port, context)
        server.present(material(first))
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            shake_hands(server.port, context)


def test_a_certificate_that_came_back_as_a_newer_generation_is_not_revoked(pki: Pki) -> None:
    kind = pki.kind()
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    third = Credential(SECRET, 3, first.value)
    kind.revoke(second, third)
    kind.revoke(first, third)
    assert (kind.check(third), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.DENIED)


def test_a_certificate_of_somebody_elses_cannot_be_revoked_and_that_is_said(pki: Pki, shelf: Shelf) -> None:
    foreign = issued(shelf.local_ca(), 1)
    with pytest.raises(TargetError, match=rf"could not revoke the certificate {material(foreign).serial}.*not found"):
        pki.kind().revoke(foreign, installed(pki.kind(), 2))


# The issuer's part


def test_the_issuer_gets_a_signing_request_and_no_private_key(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    send = requests.Session.send

    def listen(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        sent.append(str(request.body))
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", listen)
    pem = material(issued(pki.kind(), 1)).private_key.reveal()
    assert "BEGIN CERTIFICATE REQUEST" in sent[0]
    assert not any("PRIVATE KEY" in body or pem.splitlines()[1] in body for body in sent)


def test_a_role_that_leaves_out_a_name_is_found_out_before_anything_is_stored(pki: Pki) -> None:
    pki.allow(use_csr_sans=True, allow_ip_sans=False)
    with pytest.raises(TargetError, match=r"could not get a certificate signed at .*/sign/orders: Vault answered 400"):
        pki.kind().issue(None)
    pki.allow(server_flag=False, client_flag=True)
    with pytest.raises(TargetError, match=r"that vault_pki signed is not fit for use: .*purpose"):
        pki.kind().issue(None)


def test_a_dead_server_is_unknown_to_check_and_unavailable_to_the_rest(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = installed(pki.kind(), 1), installed(pki.kind(), 2)
    dead = pki.kind(issuer=pki.issuer(address=f"http://127.0.0.1:{closed_port()}"))
    monkeypatch.setattr("rotation.vault.retrying", lambda call: call())
    assert dead.check(first) is Acceptance.UNKNOWN
    with pytest.raises(Unavailable):
        dead.issue(first)
    with pytest.raises(Unavailable):
        dead.revoke(first, second)


def test_a_lost_reply_is_asked_for_again(pki: Pki, openbao_proxy: Proxy) -> None:
    kind = pki.kind(issuer=pki.issuer(address=openbao_proxy.address))
    openbao_proxy.fault("lost after", "/sign/")
    openbao_proxy.fault("lost after", "/revoke")
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


@pytest.fixture
def least(pki: Pki, openbao: OpenBao, tmp_path: Path) -> Iterator[TlsCertificate]:
    """With a token that may do what the issuer's documentation names, and nothing else."""
    documentation = sys.modules[type(pki.kind()._issuer).__module__].__doc__ or ""
    rules = documentation[documentation.index('path "') : documentation.rindex("}") + 1]
    with openbao.policy(rules.replace('"pki/', f'"{pki.mount}/').replace("ROLE", "orders")) as token:
        (tmp_path / "token").write_text(token)
        auth = {"method": "token_file", "path": str(tmp_path / "token")}
        yield pki.kind(issuer=pki.issuer(auth=auth))


def test_the_documented_policy_is_enough_and_allows_no_more(least: TlsCertificate, pki: Pki) -> None:
    first = installed(least, 1)
    second = installed(least, 2, first)
    least.revoke(first, second)
    assert (least.check(first), least.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)
    pki.client.write_data(f"{pki.mount}/roles/other", data={"allow_any_name": True})
    other = {**least._options.issuer.model_extra, "role": "other", "kind": "vault_pki"}  # type: ignore[dict-item]
    with pytest.raises(Unauthorized):
        pki.kind(issuer=other).issue(None)


def test_no_private_key_gets_into_files_errors_or_logs(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The ssl module reads keys from files only: what is written there is kept, to be looked at here."""
    caplog.set_level(logging.DEBUG)
    written: list[str] = []
    write = Path.write_bytes

    def watch(path: Path, data: bytes) -> int:
        written.append(data.decode())
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", watch)
    kind = pki.kind(usages=["server", "client"])
    first = installed(kind, 1)
    assert kind.check(first) is Acceptance.ACCEPTED
    secret = material(first).private_key.reveal().splitlines()[1]
    assert written
    assert all("ENCRYPTED PRIVATE KEY" in text and secret not in text for text in written)
    assert secret not in caplog.text + repr(material(first)) + str(kind.public_part(first))


# Trust


def test_a_change_of_authority_in_the_mount_breaks_no_handshake(pki: Pki) -> None:
    """Servers and clients are turned at different times: every pair of neighbouring generations gets along."""
    kind = pki.kind()
    generations = [installed(kind, 1)]
    pki.add_root("two")
    generations.append(installed(kind, 2, generations[-1]))
    pki.sign_with("two")
    generations.append(installed(kind, 3, generations[-1]))
    pki.drop_root("one")
    generations.append(installed(kind, 4, generations[-1]))
    assert [len(x509.load_pem_x509_certificates(material(g).ca.encode())) for g in generations] == [1, 2, 2, 1]
    with serving(material(generations[0])) as server:
        for old, new in pairwise(generations):
            assert kind.missing(old, new) == ()
            for served in (old, new):
                server.present(material(served))
                for trusted in (old, new):
                    shake_hands(server.port, client_context(material(trusted).ca))
    issuers = [material(generation).x509.issuer.rfc4514_string() for generation in generations]
    assert issuers == ["CN=root one", "CN=root one", "CN=root two", "CN=root two"]


def test_an_authority_that_signs_before_it_is_trusted_is_turned_down(pki: Pki) -> None:
    kind = pki.kind()
    first = installed(kind, 1)
    pki.add_root("two")
    pki.sign_with("two")
    second = issued(kind, 2, first)
    (lack,) = kind.missing(first, second)
    assert lack.startswith("trust by clients that know generation 1's authorities only (")


def test_an_authority_that_is_taken_away_while_servers_still_use_it_is_missed(pki: Pki) -> None:
    kind = pki.kind()
    pki.add_root("two")
    first = installed(kind, 1)
    pki.sign_with("two")
    pki.drop_root("one")
    (lack,) = kind.missing(first, issued(kind, 2, first))
    assert lack.startswith("an authority for servers that still have generation 1 (")


def test_a_mount_whose_authority_is_gone_trusts_again_what_a_value_kept_of_it(pki: Pki) -> None:
    kind = pki.kind()
    first = installed(kind, 1)
    pki.drop_root("one")
    with pytest.raises(TargetError, match="knows no root") as told:
        kind.check(first)
    assert f"vault write {pki.mount}/issuers/import/cert" in told.value.remedy
    pki.client.write_data(f"{pki.mount}/issuers/import/cert", data={"pem_bundle": material(first).ca})
    assert kind.check(first) is Acceptance.ACCEPTED


def test_trust_may_be_declared_as_a_file(pki: Pki, shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(material(issued(pki.kind(), 1)).ca)
    kind = pki.kind(trust=str(tmp_path / "ca.pem"))
    first = installed(kind, 1)
    assert (kind.check(first), material(first).ca) == (Acceptance.ACCEPTED, "")
    assert kind.check(issued(shelf.local_ca(), 1)) is Acceptance.DENIED
    with pytest.raises(DeclarationError, match=r"the file .*none.pem cannot be read: FileNotFoundError"):
        pki.kind(trust=str(tmp_path / "none.pem")).check(first)


# Declarations


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"names": []}, "option names"),
        ({"names": ["Orders.test"]}, "neither a DNS name in lower case nor an IP address"),
        ({"names": ["orders .test"]}, "neither a DNS name"),
        ({"names": ["a.*.test"]}, "neither a DNS name"),
        ({"names": ["https://orders.test"]}, "neither a DNS name"),
        ({"usages": []}, "option usages"),
        ({"usages": ["email"]}, "option usages"),
        ({"key_type": "dsa"}, "option key_type"),
        ({"lifetime": "PT1S"}, "option lifetime"),
        ({"renew_after": 1}, "option renew_after"),
        ({"issuer": {"kind": "letters"}}, "has no 'letters'"),
        ({"issuer": {"kind": "local_ca"}}, "local_ca: option authority"),
        ({"issuer": {"kind": "vault_pki"}}, "vault_pki: option role"),
        ({"issuer": {"kind": "vault_pki", "role": "../x"}}, "vault_pki: option role"),
        ({"size": 4}, "option size"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(shelf: Shelf, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        shelf.local_ca(**options)


def test_what_it_does_is_said_beforehand(shelf: Shelf) -> None:
    signs, revokes = shelf.local_ca(names=["orders.test"]).operations(3, 2)
    assert signs == "local_ca signs a certificate for orders.test, for 30 days, 0:00:00"
    assert revokes == "local_ca revokes generation 2's certificate"


def test_it_is_due_when_the_declared_share_of_its_lifetime_is_over(shelf: Shelf) -> None:
    kind = shelf.local_ca(lifetime="P10D", renew_after=0.5)
    due = kind.renew_at(issued(kind, 1))
    assert abs(due - (datetime.now(UTC) + timedelta(days=5))) < timedelta(minutes=5)


def test_an_authority_that_is_none_signs_nothing(shelf: Shelf) -> None:
    shelf[AUTHORITY] = SecretValue("{}")
    with pytest.raises(TargetError, match=f"the authority {AUTHORITY} is no certificate with its private key"):
        shelf.local_ca().issue(None)
