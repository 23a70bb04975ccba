"""The sample function ``orders-receipts`` on the emulated Tencent Cloud: it tells which generation it is configured
with. It stands for one that reads its token from SSM, by the name and version in its variables."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotation.errors import LocalError
from rotation.local.embedded.local_tencent import REGION, LocalTencent
from rotation.local.environment import place_of
from rotation.retries import until
from rotation.tencentcloud import Cloud, Connection, Manner, connect

NAME = "orders-receipts"
GENERATION = "API_TOKEN_GENERATION"  # of its variables
_ALIAS = "$DEFAULT"
_CODE = f"""\
import os

def main_handler(event, context):
    return os.environ.get("{GENERATION}", "0")
"""


class _Absent(LocalError):
    """There is no such function."""


def have_function(cloud: Cloud) -> None:
    """Make the function where there is none, and wait until it can be called. Raises :class:`LocalError`."""
    doing = _manner("look for the function")
    try:
        cloud.call("scf", "GetFunction", {"FunctionName": NAME}, doing)
    except _Absent:
        made = {"Code": {"ZipFile": _archive()}, "Handler": "index.main_handler", "Runtime": "Python3.10"}
        cloud.call_once("scf", "CreateFunction", {"FunctionName": NAME, **made}, _manner("make the function"))
    until(
        lambda: cloud.call("scf", "GetFunction", {"FunctionName": NAME}, doing)["Status"],
        lambda status: status == "Active",
        what=f"the function {NAME}",
        seconds=30,
    )


class Receipts:
    """The function as its callers meet it. The process has the runner's variables."""

    def __init__(self, project: Path) -> None:
        endpoint = place_of(project, LocalTencent.name).server
        self._cloud = connect(Connection(region=REGION, endpoint=endpoint))

    def serving(self) -> str:
        """The version that gets all calls. Raises :class:`LocalError` while they are divided."""
        alias = self._ask("GetAlias", {"Name": _ALIAS})
        if (alias["RoutingConfig"] or {}).get("AdditionalVersionWeights"):
            raise LocalError(f"the calls of {NAME} are divided between versions")
        return str(alias["FunctionVersion"])

    def call(self, qualifier: str = _ALIAS) -> str:
        """What it answers: the generation that it is configured with."""
        return str(self._ask("Invoke", {"Qualifier": qualifier})["Result"]["RetMsg"]).strip('"')

    def variables(self) -> dict[str, str]:
        """Those of the version that serves."""
        seen = self._ask("GetFunction", {"Qualifier": self.serving()})
        return {each["Key"]: each["Value"] for each in seen["Environment"]["Variables"]}

    def _ask(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return self._cloud.call("scf", action, {"FunctionName": NAME, **parameters}, _manner(f"{action}:"))


def _manner(doing: str) -> Manner:
    return Manner(f"{doing} {NAME}", LocalError, {"ResourceNotFound": _Absent})


def _archive() -> str:
    """Its code as SCF takes it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("index.py", _CODE)
    return base64.b64encode(written.getvalue()).decode()
