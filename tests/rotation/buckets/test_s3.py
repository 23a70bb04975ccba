"""Buckets that keep conditions, as S3 does, and buckets that speak S3's language and leave them out."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

from rotation.buckets import Bucket
from rotation.buckets.s3 import S3Bucket
from rotation.errors import Conflict, UsageError
from rotation.journal_place import open_journal
from rotation.settings import Settings
from tests.contracts.bucket import BucketContract, Plan
from tests.fixtures.aws import AwsApi


@pytest.fixture(autouse=True)
def few_attempts() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


class TestS3(BucketContract):
    nowhere = "s3://nowhere-to-be-found/x"

    @pytest.fixture
    def url(self, aws_environment: AwsApi) -> Iterator[str]:
        aws_environment.client("s3").create_bucket(Bucket="contract")
        yield f"s3://contract/{uuid.uuid4().hex}"
        aws_environment.clear_faults()
        aws_environment.set_clock(0)

    @pytest.fixture
    def bucket(self, url: str) -> Bucket:
        return S3Bucket(url)

    @pytest.fixture
    def another(self, url: str) -> Bucket:
        return S3Bucket(url)

    @pytest.fixture
    def plan(self, aws_environment: AwsApi) -> Plan:
        return lambda operation, kind, times: aws_environment.faults("s3", operation, kind, times=times)

    @pytest.fixture
    def skew(self, aws_environment: AwsApi) -> Callable[[float], None]:
        return aws_environment.set_clock

    @pytest.fixture
    def secrets(self, url: str) -> tuple[str, ...]:
        return (os.environ["AWS_SECRET_ACCESS_KEY"],)


class Lenient(ThreadingHTTPServer):
    """A server of objects that keeps just the conditions of ``keeps``, of If-None-Match and If-Match."""

    def __init__(self, keeps: frozenset[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Objects)
        self.keeps = keeps
        self.objects: dict[str, bytes] = {}

    def refuses(self, path: str, headers: dict[str, str]) -> bool:
        there = path in self.objects
        absent_only = headers.get("If-None-Match") == "*" and "If-None-Match" in self.keeps
        other_only = "If-Match" in headers and "If-Match" in self.keeps
        return there and (absent_only or (other_only and headers["If-Match"] != '"same"'))


class _Objects(BaseHTTPRequestHandler):
    server: Lenient
    protocol_version = "HTTP/1.1"  # which says at once whether to go on with a body

    def do_GET(self) -> None:
        self._reply(200 if self.path in self.server.objects else 404, self.server.objects.get(self.path, b""))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses(self.path, dict(self.headers)):
            return self._reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.server.objects[self.path] = body
        return self._reply(200, b"")

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.path, None)
        self._reply(204, b"")

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"same"')
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def lenient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lenient]:
    with Lenient(frozenset(request.param)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("lenient", [(), ("If-None-Match",), ("If-Match",)], indirect=True)
def test_a_bucket_that_leaves_out_a_condition_is_refused_at_the_first_write(lenient: Lenient, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not keep the conditions of a write"):
        S3Bucket("s3://journals/orders").write("one", b"1", None)
    settings = Settings(project=tmp_path, journal="s3://journals/orders")
    with (
        open_journal(settings, "staging", lambda *_: None) as journal,
        pytest.raises(UsageError, match="does not keep the conditions of a write"),
        journal.lease(["orders/db"]),
    ):
        pytest.fail("two runners could have this lease")


@pytest.mark.parametrize("lenient", [("If-Match", "If-None-Match")], indirect=True)
def test_a_bucket_that_keeps_conditions_is_as_good_as_s3(lenient: Lenient) -> None:
    bucket = S3Bucket("s3://journals/orders")
    bucket.write("one", b"1", None)
    assert lenient.objects["/journals/orders/one"] == b"1"


def test_the_proof_is_made_once_and_changes_nothing(aws_environment: AwsApi) -> None:
    aws_environment.client("s3").create_bucket(Bucket="proven")
    bucket = S3Bucket("s3://proven/orders")
    aws_environment.forget_calls()
    etag = bucket.write("one", b"1", None)
    assert aws_environment.calls()["s3.PutObject"] == 3
    etag = bucket.write("one", b"2", etag)
    assert aws_environment.calls()["s3.PutObject"] == 4
    with pytest.raises(Conflict):
        bucket.write("one", b"3", None)
    found = bucket.read("one")
    assert found is not None
    assert (found.body, found.etag) == (b"2", etag)
