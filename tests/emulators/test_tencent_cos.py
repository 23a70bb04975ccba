"""The emulated COS on the wire: what was altered after it was signed is refused, and nothing happens."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from rotation.cos import Cos, authorization
from tests.fixtures.cos import APP_ID, CosPlace
from tests.fixtures.tencent import REGION, running_tencent

Change = Callable[["Sent"], "Sent"]


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire."""

    method: str = "PUT"
    path: str = "/one"
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"honest"

    def signed(self, place: CosPlace, key: str | None = None, validity: str | None = None) -> Sent:
        headers = {"host": f"{place.cos.name}.cos.{REGION}.myqcloud.com", **self.headers}
        now = int(time.time())
        told = authorization(
            place.cloud.key.secret_id,
            key or place.cloud.key.secret_key,
            validity or f"{now - 600};{now + 600}",
            self.method,
            self.path,
            self.query,
            headers,
        )
        return replace(self, headers={**headers, "authorization": told})

    def send(self, place: CosPlace) -> tuple[int, str]:
        connection = http.client.HTTPConnection(place.cloud.endpoint, timeout=60)
        asked = f"{self.path}?{urlencode(self.query)}" if self.query else self.path
        connection.request(self.method, asked, self.body, self.headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_what_is_signed_is_done(cos_place: CosPlace) -> None:
    assert Sent().signed(cos_place).send(cos_place)[0] == 200
    found = cos_place.cos.get("one")
    assert found is not None
    assert found.body == b"honest"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sent: replace(sent, path="/another"), "SignatureDoesNotMatch"),
        (lambda sent: replace(sent, method="DELETE"), "SignatureDoesNotMatch"),
        (lambda sent: replace(sent, headers=sent.headers | {"x-cos-meta-a": "forged"}), "SignatureDoesNotMatch"),
        (lambda sent: replace(sent, body=b"forged"), "BadDigest"),
        (lambda sent: replace(sent, query={"versioning": ""}), "AccessDenied"),
        (lambda sent: replace(sent, headers=sent.headers | {"authorization": "none"}), "AccessDenied"),
    ],
    ids=["path", "method", "header", "body", "parameter", "no signature"],
)
def test_what_was_altered_after_it_was_signed_is_refused(cos_place: CosPlace, change: Change, code: str) -> None:
    honest = Sent(headers={"content-md5": "7q8Rjl2XJwrPxM2NqVVYkQ==", "x-cos-meta-a": "honest"})
    status, told = change(honest.signed(cos_place)).send(cos_place)
    assert status >= 400
    assert f"<Code>{code}</Code>" in told
    assert cos_place.cos.get("one") is None


def test_another_key_and_another_time_are_refused(cos_place: CosPlace) -> None:
    assert "SignatureDoesNotMatch" in Sent().signed(cos_place, key="another").send(cos_place)[1]
    now = int(time.time())
    for validity in (f"{now - 7200};{now - 3600}", f"{now + 3600};{now + 7200}"):
        assert "Request has expired" in Sent().signed(cos_place, validity=validity).send(cos_place)[1]
    assert cos_place.keys() == []


def test_a_header_that_forbids_overwriting_counts_where_versioning_never_was_on(cos_place: CosPlace) -> None:
    forbidden = Sent(headers={"x-cos-forbid-overwrite": "true"})
    assert forbidden.signed(cos_place).send(cos_place)[0] == 200
    assert forbidden.signed(cos_place).send(cos_place)[0] == 409
    assert Sent(body=b"overwritten").signed(cos_place).send(cos_place)[0] == 200
    cos_place.version("Enabled")
    assert forbidden.signed(cos_place).send(cos_place)[0] == 200
    cos_place.version("Suspended")
    assert forbidden.signed(cos_place).send(cos_place)[0] == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/one"), ("DELETE", "/"), ("HEAD", "/")])
def test_what_is_not_emulated_says_so(cos_place: CosPlace, method: str, path: str) -> None:
    assert Sent(method=method, path=path).signed(cos_place).send(cos_place)[0] == 501


def test_objects_outlive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENCENTCLOUD_REGION", REGION)
    for count in range(2):
        with running_tencent(tmp_path / "cloud.sqlite") as running, pytest.MonkeyPatch.context() as patch:
            for name, value in running.environment.items():
                patch.setenv(name, value)
            patch.setenv("KEYTURN_COS_ENDPOINT", f"http://{running.endpoint}")
            cos = Cos(f"kept-{APP_ID}")
            if count == 0:
                cos._ask("PUT", "", "make the bucket")
                cos.put_new("one", b"kept", {})
            found = cos.get("one")
            assert found is not None
            assert found.body == b"kept"
