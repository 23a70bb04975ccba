"""Requests to COS: signed as the official SDK signs them, and answers of every kind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rotation.cos import Cos, authorization
from rotation.errors import JournalError, KeyturnError, Unauthorized, Unavailable, UsageError
from tests.fixtures.cos import CosPlace
from tests.fixtures.ports import closed_port
from tests.fixtures.tencent import REGION

HOST = f"journal-1250000000.cos.{REGION}.myqcloud.com"
VALIDITY = "1799999940;1800000300"
WRITTEN = {
    "host": HOST,
    "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==",
    "content-type": "application/octet-stream",
    "x-cos-forbid-overwrite": "true",
    "x-cos-meta-keyturn-write": "a b/c~d",
    "x-cos-security-token": "t+/=",
}


# Computed by CosS3Auth of cos-python-sdk-v5 1.9.44, with its clock at 1,800,000,000.
@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "signature"),
    [
        ("PUT", "/journals/local.lease.json/0000000001", {}, WRITTEN, "1ad2a451b3b8488c60521de9a4acba1e88e24aaf"),
        (
            "GET",
            "/",
            {"prefix": "journals/local.sqlite3/", "max-keys": "1000", "marker": "a b"},
            {"host": HOST},
            "770e2acf6d02b418b58b9bf247726a28e922f2cf",
        ),
    ],
)
def test_signatures_are_those_of_the_official_sdk(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], signature: str
) -> None:
    signed = authorization("AKIDexample", "not-a-real-key", VALIDITY, method, path, query, headers)
    assert signed == (
        f"q-sign-algorithm=sha1&q-ak=AKIDexample&q-sign-time={VALIDITY}&q-key-time={VALIDITY}"
        f"&q-header-list={';'.join(sorted(headers))}&q-url-param-list={';'.join(sorted(query))}"
        f"&q-signature={signature}"
    )


def test_a_region_of_its_own_comes_before_the_runner_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENCENTCLOUD_REGION", "ap-shanghai")
    assert "ap-shanghai" in Cos("bucket-1")._host
    monkeypatch.setenv("KEYTURN_COS_REGION", "ap-beijing")
    assert "ap-beijing" in Cos("bucket-1")._host
    monkeypatch.delenv("KEYTURN_COS_REGION")
    monkeypatch.delenv("TENCENTCLOUD_REGION")
    with pytest.raises(UsageError, match="no region is set for the bucket bucket-1"):
        Cos("bucket-1")


def test_a_temporary_key_needs_its_token(cos_place: CosPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = cos_place.cloud.cloud.identities.assume("keyturn-runner", "100000000001", 600)
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", temporary.secret_id)
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", temporary.secret_key)
    with pytest.raises(Unauthorized, match="InvalidToken"):
        cos_place.cos.get("one")
    monkeypatch.setenv("TENCENTCLOUD_TOKEN", temporary.token)
    assert cos_place.cos.get("one") is None


class _Strange(BaseHTTPRequestHandler):
    """A server that answers as no COS does."""

    def do_GET(self) -> None:
        status, body = self.path.strip("/").split("/", 1)
        self.send_response_only(int(status))
        if body != "no-date":
            self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def strange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cos]:
    monkeypatch.setenv("TENCENTCLOUD_REGION", REGION)
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "AKIDexample")
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "CANARY-key")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Strange) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("KEYTURN_COS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        try:
            yield Cos("journal-1250000000")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("key", "error", "said"),
    [
        ("200/no-date", Unavailable, "the answer has no date"),
        ("502/x", Unavailable, "COS answered 502"),
        ("429/x", Unavailable, "COS answered 429"),
        ("302/x", JournalError, "COS answered 302"),
        ("400/x", JournalError, "COS answered 400"),
        ("401/x", Unauthorized, "COS answered 401"),
    ],
)
def test_what_no_cos_answers_is_named(strange: Cos, key: str, error: type[KeyturnError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        strange.get(key)
    assert "CANARY" not in repr(caught.value) + repr(caught.value.__context__)


def test_a_list_that_is_none_is_not_taken_for_an_empty_one(strange: Cos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strange, "_server", f"{strange._server}/200/x?")
    with pytest.raises(Unavailable, match="cannot be read"):
        strange.below("journals/")


def test_where_nobody_listens_no_answer_comes(strange: Cos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strange, "_server", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(Unavailable, match="no answer came through, ConnectionError") as caught:
        strange.get("one")
    assert caught.value.__context__ is None, "it would hold the signed request"
