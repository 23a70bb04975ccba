"""The account of Tencent Cloud that the conformance suites are run with."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from rotation.errors import KeyturnError
from rotation.options import parse
from rotation.tencentcloud import Cloud, Connection, Manner, connect

ENDPOINT = "KEYTURN_TENCENT_ENDPOINT"
WANTED = "KEYTURN_TENCENT_CONFORMANCE"


def require_wanted() -> None:
    """Skip the module that is being imported, unless Tencent Cloud itself is to be asked."""
    if os.environ.get(WANTED) != "1":
        pytest.skip(f"Tencent Cloud itself is asked: `make test-tencent`, or {WANTED}=1", allow_module_level=True)


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, and where. ``options`` is what plugins take."""

    cloud: Cloud
    options: Mapping[str, Any]

    @classmethod
    def of_environment(cls) -> Account:
        """Raises :class:`KeyturnError` where there are no credentials, or they are not taken."""
        options = {"endpoint": os.environ[ENDPOINT]} if os.environ.get(ENDPOINT) else {}
        cloud = connect(parse(Connection, options, plugin=ENDPOINT))
        cloud.call_once("sts", "GetCallerIdentity", {}, Manner("ask who this is", KeyturnError, requires=("UserId",)))
        return cls(cloud, options)

    def ask(self, service: str, action: str, **parameters: Any) -> Mapping[str, Any]:
        """What a service answers."""
        return self.cloud.call(service, action, parameters, Manner(f"ask for {action}", KeyturnError))


def name() -> str:
    """A name that nothing else has."""
    return f"keyturn-conformance-{uuid.uuid4().hex[:12]}"
