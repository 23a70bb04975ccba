"""Certificates from an ACME directory, OpenBao's: accounts, proofs of names, errors in words, and what is not sent.

All tests at port 80 are in this one file, since each file's tests run in one process.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rotation.credentials import CredentialKind
from rotation.credentials.tls_certificate import TlsCertificate
from rotation.errors import DeclarationError, KeyturnError, TargetError, Unauthorized, Unavailable, UsageError
from rotation.model import Acceptance, Credential, Strategy
from rotation.secret_value import SecretValue
from rotation.tls import Material, key_text, new_key
from rotation.tls.handshake import client_context
from rotation.tls.http_challenge import from_here
from rotation.tls.issuers import Signed
from tests.contracts.credential_kind import Make, OverlapContract, installed, issued, texts_of
from tests.fixtures.acme import ACCOUNT, EXTERNAL, HERE, AcmeDirectory
from tests.fixtures.openbao import Proxy
from tests.fixtures.ports import closed_port, free_port
from tests.fixtures.tls import material, serving, shake_hands


class TestAcme(OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture
    def make(self, acme: AcmeDirectory) -> Make:
        return acme.kind

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.OVERLAPPING)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again."""
    for module in ("rotation.tls.acme", "rotation.tls.issuers.acme", "rotation.tls.http_challenge"):
        monkeypatch.setattr(f"{module}.retrying", lambda call: call())


def test_a_directory_s_certificate_serves_its_names_to_whoever_trusts_the_declared_roots(acme: AcmeDirectory) -> None:
    found = material(issued(acme.kind(), 1))
    assert sorted(found.names) == ["127.0.0.1", "localhost"]
    assert found.ca == "", "clients know the roots of a directory by another way"
    with serving(found) as server:
        for name in found.names:
            assert shake_hands(server.port, client_context(acme.trust.read_text()), name)


def test_without_declared_roots_the_public_ones_must_do(acme: AcmeDirectory) -> None:
    with pytest.raises(TargetError, match=r"that acme signed is not fit for use: .*issuer certificate"):
        acme.kind(trust=None).issue(None)


def test_orders_at_the_same_time_share_the_port(acme: AcmeDirectory) -> None:
    kind = acme.kind()
    with ThreadPoolExecutor(4) as runners:
        values = list(runners.map(lambda _: kind.issue(None), range(8)))
    assert len({value.reveal() for value in values}) == 8
    socket.create_server(("127.0.0.1", 80)).close()  # nobody listens any more


# Accounts


def test_one_account_is_made_and_used_ever_after(acme: AcmeDirectory) -> None:
    first = installed(acme.kind(), 1)
    second = installed(acme.kind(), 2, first)
    acme.kind().revoke(first, second)
    assert acme.accounts() == 1


def test_an_account_that_must_be_known_beforehand_is_let_in_once_and_stays(acme: AcmeDirectory) -> None:
    acme.admit("always-required")
    with pytest.raises(Unauthorized, match="could not make an ACME account: externalAccountRequired"):
        acme.kind().issue(None)
    acme.introduce()
    kind = acme.kind(issuer=acme.issuer(external_account=EXTERNAL))
    first = installed(kind, 1)
    assert kind.check(installed(kind, 2, first)) is Acceptance.ACCEPTED, "what let it in is spent, and not needed again"
    assert acme.accounts() == 1


def test_what_lets_nobody_in_is_said(acme: AcmeDirectory) -> None:
    acme.admit("always-required")
    acme.introduce()
    given = json.loads(acme.shelf[EXTERNAL].reveal())
    acme.shelf[EXTERNAL] = SecretValue(json.dumps(given | {"kid": "another"}))
    with pytest.raises(Unauthorized, match="could not make an ACME account: unauthorized"):
        acme.kind(issuer=acme.issuer(external_account=EXTERNAL)).issue(None)
    assert acme.accounts() == 0


@pytest.mark.parametrize("text", ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"])
def test_an_account_key_that_is_none_is_said_without_quoting_it(acme: AcmeDirectory, text: str) -> None:
    acme.shelf[ACCOUNT] = SecretValue(text)
    with pytest.raises(TargetError, match=f"the secret {ACCOUNT} is no key of an ACME account") as caught:
        acme.kind().issue(None)
    assert "hunter2" not in "\n".join(texts_of(caught.value))


@pytest.mark.parametrize("text", ["hunter2", "[]", '{"kid": "hunter2"}', '{"kid": "x", "hmac_key": "hunter2é"}'])
def test_an_external_account_that_is_none_is_said_without_quoting_it(acme: AcmeDirectory, text: str) -> None:
    acme.shelf[EXTERNAL] = SecretValue(text)
    with pytest.raises(TargetError, match=f"the secret {EXTERNAL} is no external account") as caught:
        acme.kind(issuer=acme.issuer(external_account=EXTERNAL)).issue(None)
    assert "hunter2" not in "\n".join(texts_of(caught.value))


def test_an_account_with_an_rsa_key_signs_as_well(acme: AcmeDirectory) -> None:
    acme.shelf[ACCOUNT] = key_text(new_key("rsa-2048"))
    kind = acme.kind(issuer=acme.issuer(contact=["mailto:security@example.com"]))
    assert kind.check(installed(kind, 1)) is Acceptance.ACCEPTED


# Proofs


def test_a_webroot_shows_the_proof_and_is_empty_again(acme: AcmeDirectory, tmp_path: Path) -> None:
    """The web server at port 80 is Python's own, which shows a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            seen.append(self.path)

    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 80), partial(Quiet, directory=str(tmp_path / "www")))
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        kind = acme.kind(issuer=acme.issuer(webroot=str(tmp_path / "www")))
        assert kind.check(installed(kind, 1)) is Acceptance.ACCEPTED
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(seen) == 2, "one for each name"
    assert not [path for path in (tmp_path / "www").rglob("*") if path.is_file()]


def test_a_name_that_is_not_ours_is_said_with_what_the_directory_saw(
    acme: AcmeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers at port 80: this runner does so at another one."""
    monkeypatch.setattr("rotation.tls.issuers.acme.PATIENCE", 1.0)
    elsewhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(TargetError, match=r"found no proof of localhost: .*failed to fetch path http://localhost/"):
        acme.kind(issuer=acme.issuer(listen=elsewhere)).issue(None)
    host, _, port = elsewhere.partition(":")
    socket.create_server((host, int(port))).close()  # nobody listens any more


def test_a_port_that_somebody_else_has_is_unavailable(acme: AcmeDirectory, at_once: None) -> None:
    with (
        socket.create_server(("127.0.0.1", 80)),
        pytest.raises(Unavailable, match=f"cannot answer ACME challenges at {HERE}: another program listens there"),
    ):
        acme.kind().issue(None)


def test_two_orders_that_share_a_challenge_may_end_in_any_order() -> None:
    address = f"127.0.0.1:{free_port()}"
    url = f"http://{address}/shared"
    with ExitStack() as first, from_here(address, "/shared", "text"):
        first.enter_context(from_here(address, "/shared", "text"))
        assert requests.get(url, timeout=5).text == "text"
        first.close()
        assert requests.get(url, timeout=5).status_code == 404, "the server itself goes on for the other one"


@pytest.mark.parametrize("address", ["192.0.2.1:8402", "127.0.0.1:70000"])
def test_an_address_that_cannot_be_listened_at_is_said(acme: AcmeDirectory, address: str) -> None:
    with pytest.raises(UsageError, match=f"cannot answer ACME challenges at {address}"):
        acme.kind(issuer=acme.issuer(listen=address)).issue(None)


@pytest.mark.parametrize(
    ("names", "reason"), [(["*.localhost"], "a wildcard needs the challenge dns-01"), (["127.0.0.1"], "comes first")]
)
def test_what_cannot_be_proved_is_refused_before_anything_is_ordered(
    acme: AcmeDirectory, names: list[str], reason: str
) -> None:
    with pytest.raises(DeclarationError, match=reason):
        acme.kind(names=names).issue(None)
    assert acme.accounts() == 0


# Revocation


def test_what_is_revoked_is_denied_and_on_the_list_that_it_names(acme: AcmeDirectory) -> None:
    kind = acme.kind()
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    kind.revoke(first, second)
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


def test_a_certificate_that_the_old_account_ordered_is_good_when_the_account_is_closed(acme: AcmeDirectory) -> None:
    accounts, certificates = acme.account(), acme.kind()
    old = Credential(ACCOUNT, 1, acme.shelf[ACCOUNT])
    certificate = installed(certificates, 1)
    new = installed(accounts, 2, old)
    acme.shelf[ACCOUNT] = new.value
    accounts.revoke(old, new)
    assert certificates.check(certificate) is Acceptance.ACCEPTED
    with pytest.raises((TargetError, Unauthorized), match=f"could not revoke .*{material(certificate).serial}"):
        certificates.revoke(certificate, None)


def test_a_list_that_another_authority_signed_is_not_believed(acme: AcmeDirectory, at_once: None) -> None:
    kind = acme.kind()
    found = material(issued(kind, 1))
    with pytest.raises(Unavailable, match="it is not signed by its issuer"):
        kind._issuer.is_revoked(Signed(found.certificate, ""), "")


def test_a_list_that_cannot_be_loaded_is_unknown_to_check(
    acme: AcmeDirectory, openbao_proxy: Proxy, at_once: None
) -> None:
    acme.be_at(openbao_proxy.address)
    kind = acme.kind()
    first = issued(kind, 1)
    openbao_proxy.fault("lost before", "/crl")
    assert kind.check(first) is Acceptance.UNKNOWN
    openbao_proxy.fault("answered", "/crl", status=404)
    assert kind.check(first) is Acceptance.UNKNOWN
    assert kind.check(first) is Acceptance.ACCEPTED


# Faults


@pytest.mark.parametrize("path", ["new-account", "new-order", "/http-01", "finalize", "/cert", "revoke-cert"])
def test_a_lost_reply_is_asked_for_again(acme: AcmeDirectory, openbao_proxy: Proxy, path: str) -> None:
    acme.be_at(openbao_proxy.address)
    openbao_proxy.fault("lost after", path)
    kind = acme.kind()
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)
    assert acme.accounts() == 1


def test_a_lost_reply_to_a_new_account_finds_the_account(acme: AcmeDirectory, openbao_proxy: Proxy) -> None:
    acme.be_at(openbao_proxy.address)
    openbao_proxy.fault("lost after", "new-account", after=1)
    assert acme.kind().issue(None)
    assert acme.accounts() == 1


def test_a_run_that_died_between_order_and_proof_leaves_nothing_in_the_way(
    acme: AcmeDirectory, openbao_proxy: Proxy, at_once: None
) -> None:
    acme.be_at(openbao_proxy.address)
    for left_at in ("/http-01", "finalize"):
        openbao_proxy.fault("lost before", left_at)
        with pytest.raises(Unavailable):
            acme.kind().issue(None)
        assert acme.kind().issue(None)
    socket.create_server(("127.0.0.1", 80)).close()


def test_a_nonce_that_was_used_is_replaced(acme: AcmeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    send, refused = requests.Session.send, []
    used: list[str] = []

    def replay(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = send(session, request, **options)
        if "badNonce" in answer.text:
            refused.append(request.url)
        elif nonce := answer.headers.get("Replay-Nonce"):
            used.append(nonce)
            if len(used) == 3:  # whatever comes next is signed with the nonce of the first request
                answer.headers["Replay-Nonce"] = used[0]
        return answer

    monkeypatch.setattr(requests.Session, "send", replay)
    assert acme.kind().issue(None)
    assert len(refused) == 1


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Answers in the directory's place: new orders, or what else is at an address with this end."""

    def plant(status: int, problem: dict[str, Any], path: str = "/new-order", **headers: str) -> None:
        send = requests.Session.send

        def fake(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            found = send(session, request, **options)
            if str(request.url).endswith(path):
                found.status_code, found._content = status, json.dumps(problem).encode()
                found.headers["Content-Type"] = "application/problem+json"
                found.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
                for hook in request.hooks["response"]:
                    hook(found)
            return found

        monkeypatch.setattr(requests.Session, "send", fake)

    return plant


def _problem(code: str) -> dict[str, Any]:
    return {"type": f"urn:ietf:params:acme:error:{code}", "detail": "said so"}


@pytest.mark.parametrize(
    ("given", "seconds"), [("7", 7), ("Sun, 06 Nov 1994 08:49:37 GMT", 0), ("soon", None), ("", None)]
)
def test_a_rate_limit_is_unavailable_for_as_long_as_it_says(
    acme: AcmeDirectory, answer: Callable[..., None], at_once: None, given: str, seconds: float | None
) -> None:
    answer(429, _problem("rateLimited"), Retry_After=given)
    with pytest.raises(Unavailable, match="could not order a certificate: rateLimited: said so") as caught:
        acme.kind().issue(None)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("status", "problem", "error", "words"),
    [
        (403, _problem("unauthorized"), Unauthorized, "could not order a certificate: unauthorized: said so"),
        (400, _problem("rejectedIdentifier"), TargetError, "rejectedIdentifier: said so"),
        (400, _problem("caa") | {"subproblems": [_problem("dns")]}, TargetError, "caa: said so: dns: said so"),
        (500, _problem("serverInternal"), Unavailable, "serverInternal"),
        (503, {"errors": ["sealed"]}, Unavailable, "could not order a certificate: the server answered 503"),
        (404, {"what": "no"}, TargetError, "the server answered 404, which is not ACME"),
    ],
)
def test_a_refusal_is_said_in_keyturn_s_words(
    acme: AcmeDirectory,
    answer: Callable[..., None],
    at_once: None,
    status: int,
    problem: dict[str, Any],
    error: type[KeyturnError],
    words: str,
) -> None:
    answer(status, problem)
    with pytest.raises(error, match=words):
        acme.kind().issue(None)


def test_an_answer_without_a_certificate_is_said(
    acme: AcmeDirectory, answer: Callable[..., None], at_once: None
) -> None:
    answer(200, {}, path="/cert")
    with pytest.raises(TargetError, match="could not get a certificate signed: the server answered 200, which is not"):
        acme.kind().issue(None)


def test_what_is_no_directory_is_said(acme: AcmeDirectory, at_once: None) -> None:
    wrong = {"/v1/sys/health": "it has no newNonce", "/v1/none/acme/directory": "403", "/ui/": "which is not ACME"}
    for path, words in wrong.items():
        url = acme.server.address + path
        with pytest.raises(TargetError, match=f"could not read the ACME directory {url}: .*{words}"):
            acme.kind(issuer=acme.issuer(directory=url)).issue(None)


def test_a_dead_directory_is_unavailable_and_does_not_touch_what_is_in_use(acme: AcmeDirectory, at_once: None) -> None:
    first = installed(acme.kind(), 1)
    dead = acme.kind(issuer=acme.issuer(directory=f"http://127.0.0.1:{closed_port()}/directory"))
    with pytest.raises(Unavailable, match="could not read the ACME directory"):
        dead.issue(first)
    with pytest.raises(Unavailable):
        dead.revoke(first, None)
    assert dead.check(first) is Acceptance.ACCEPTED, "its roots and its list are not the directory's"


def test_a_server_whose_certificate_is_not_trusted_is_told_from_one_without_tls(
    acme: AcmeDirectory, at_once: None
) -> None:
    with serving(material(issued(acme.kind(), 1))) as server:
        unknown = acme.kind(issuer=acme.issuer(directory=f"https://localhost:{server.port}/directory"))
        with pytest.raises(UsageError, match="certificate is not trusted") as caught:
            unknown.issue(None)
    assert "REQUESTS_CA_BUNDLE" in caught.value.remedy
    plain = acme.kind(issuer=acme.issuer(directory=f"{acme.server.address.replace('http', 'https', 1)}/directory"))
    with pytest.raises(Unavailable, match="the TLS handshake failed"):
        plain.issue(None)


# Secrecy


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All requests: their addresses, headers and bodies, with what is signed in the clear."""
    seen: list[str] = []
    send = requests.Session.send

    def listen(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        seen.append(f"{request.url}\n{request.headers}")
        if request.body:
            body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
            seen.append(body)
            seen.extend(_opened(part) for part in json.loads(body).values() if isinstance(part, str))
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", listen)
    return seen


def _opened(text: str) -> str:
    """The text of a part of a JWS; other texts become something else."""
    return base64.urlsafe_b64decode(text + "=" * 3).decode(errors="replace")


def _private_parts(material: Material | SecretValue) -> list[str]:
    """A private key's number and its text, in the ways that it could be written."""
    pem = material.private_key.reveal() if isinstance(material, Material) else material.reveal()
    number = load_pem_private_key(pem.encode(), None).private_numbers().private_value  # type: ignore[union-attr]
    octets = number.to_bytes(32, "big")
    encoded = [encode(octets).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    first, second = pem.splitlines()[1:3]  # the third line is of the public key, which is sent
    return [octets.hex(), str(number), *encoded, first, second]


def test_no_private_key_is_in_any_request_or_log(
    acme: AcmeDirectory, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    acme.admit("always-required")
    acme.introduce()
    sent.clear()
    kind: TlsCertificate = acme.kind(issuer=acme.issuer(external_account=EXTERNAL))
    first = installed(kind, 1)
    assert kind.check(first) is Acceptance.ACCEPTED
    kind.revoke(first, None)
    everything = "\n".join([*sent, caplog.text])
    assert '"csr"' in everything
    assert '"externalAccountBinding"' in everything
    hidden = _private_parts(material(first)) + _private_parts(acme.shelf[ACCOUNT])
    hidden.append(json.loads(acme.shelf[EXTERNAL].reveal())["hmac_key"])
    assert [part for part in hidden if part in everything] == []


# Declarations


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"directory": "ftp://example.com/x"}, "acme: option directory"),
        ({"webroot": "/www", "listen": HERE}, "acme: .*give either listen or webroot"),
        ({"listen": None}, "acme: .*give either listen or webroot"),
        ({"listen": "80"}, "acme: option listen"),
        ({"contact": ["security@example.com"]}, "acme: option contact"),
        ({"challenge": "dns-01"}, "acme: option challenge"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(others: dict[str, Any], reason: str) -> None:
    declared = {"kind": "acme", "directory": "https://ca.example.com/directory", "account": ACCOUNT, "listen": HERE}
    with pytest.raises(DeclarationError, match=reason):
        TlsCertificate({"issuer": declared | others, "names": ["a.test"]}, Strategy.OVERLAPPING, lambda _: _none())


def _none() -> SecretValue:
    raise AssertionError("a secret was read")
