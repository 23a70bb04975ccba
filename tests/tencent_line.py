"""Tencent Cloud without a network: signed requests go straight into the emulated cloud.

It is for tests that make thousands of calls, or that keep a request back on its way. What is sent is what the client
signs for the real cloud, and the emulated one checks it as it checks what comes over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tencentcloud.common.http.request import RequestInternal

from rotation import tencentcloud
from rotation.local.tencent.cloud import Cloud as EmulatedCloud
from rotation.local.tencent.cloud import Settings
from rotation.local.tencent.records import Records
from rotation.local.tencent.wire import ApiError, Request, refusal, reply

HOST, REGION = "emulated.test:80", "ap-guangzhou"


@dataclass(frozen=True, slots=True)
class Emulated:
    """An emulated cloud that no port leads to, without rates."""

    cloud: EmulatedCloud

    @classmethod
    def begin(cls, patch: pytest.MonkeyPatch) -> Emulated:
        """Make one, with its key in the environment and no rates on either side."""
        cloud = EmulatedCloud(Records(), Settings(throttled=False))
        cloud.names.add(HOST)
        key = cloud.identities.make_key(cloud.identities.account)
        patch.setenv("TENCENTCLOUD_SECRET_ID", key.secret_id)
        patch.setenv("TENCENTCLOUD_SECRET_KEY", key.secret_key)
        patch.delenv("TENCENTCLOUD_TOKEN", raising=False)
        without_rates(patch)
        return cls(cloud)

    def ask(self, action: str, **parameters: Any) -> Mapping[str, Any]:
        """What SSM answers to somebody who is no runner."""
        line = Line(self, self.cloud.clock.now)
        manner = tencentcloud.Manner(action, AssertionError)  # type: ignore[arg-type]  # it ends the test
        return line.call_once("ssm", action, parameters, manner)

    def slot(self, name: str) -> str:
        """A secret as Terraform's provider makes it."""
        self.ask("CreateSecret", SecretName=name, VersionId="default", SecretString="default")
        self.ask("DeleteSecretVersion", SecretName=name, VersionId="default")
        return name

    def values(self, name: str) -> dict[str, str]:
        """All versions of a secret."""
        listed = self.ask("ListSecretVersionIds", SecretName=name)["Versions"] or []
        ids = [each["VersionId"] for each in listed]
        return {each: self.ask("GetSecretValue", SecretName=name, VersionId=each)["SecretString"] for each in ids}

    def arrive(self, request: Request, writes_behind: int = 0) -> bytes:
        """Let the cloud look at a request, now; one that reads may be shown what was there some writes ago."""
        try:
            return reply(self.cloud.answer(request, writes_behind))
        except ApiError as error:
            return refusal(error)


def without_rates(patch: pytest.MonkeyPatch) -> None:
    """Let runners call as often as they like."""
    patch.setattr(tencentcloud, "_limiter", lambda *_: _Unlimited())


class Line(tencentcloud.Cloud):
    """One runner's way to the emulated cloud. ``clock`` is the runner's, in Unix seconds."""

    def __init__(self, emulated: Emulated, clock: Callable[[], float]) -> None:
        super().__init__(REGION, f"http://{HOST}", clock=clock)
        self.emulated = emulated

    def _send(self, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> bytes:
        return self.emulated.arrive(self._signed(service, action, parameters, signed_at), self.behind(action))

    def behind(self, action: str) -> int:
        """By how many writes the cloud is behind that this call is shown."""
        del action
        return 0

    def _signed(self, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> Request:
        made = RequestInternal(HOST, "POST", "/", header={})
        options = {tencentcloud._SIGNED_AT: signed_at, tencentcloud._SIGNED_BY: self._credentials}
        self._client(service)._build_req_inter(action, dict(parameters), made, options)
        headers = {name.lower(): value for name, value in made.header.items()}
        return Request("POST", "/", headers, made.data.encode())


class _Unlimited:
    def try_acquire(self, name: str) -> None:
        pass
