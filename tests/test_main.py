"""``python main.py``, as the CDK's command line and the rotation run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from main import PROJECT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's declarations, to be changed."""
    for name in ("main.py", "cdktf.json"):
        shutil.copy(PROJECT / name, tmp_path)
    for folder in ("stacks", "modules"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "rendered"))
    for pins in (tmp_path / "stacks" / "pins").glob("*.json"):
        pins.unlink()
    return tmp_path


def _run(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    unset = ("CDKTF_OUTDIR", "KEYTURN_STACKS", "KEYTURN_OVERLAY", "KEYTURN_CDK")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "main.py"]
    # rotation is installed where the tests run; modules and stacks are those of the working directory.
    return subprocess.run(
        command, cwd=project, env=environment | variables, capture_output=True, text=True, check=False, timeout=120
    )


def _written(folder: Path) -> dict[str, Any]:
    """Every stack by name, without the CDK's own version."""
    stacks = {}
    for path in sorted(folder.glob("stacks/*/cdk.tf.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["//"]["metadata"].pop("version")
        stacks[path.parent.name] = content
    return stacks


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_cdktf_and_cdktn_write_the_same(copy: Path, tmp_path: Path) -> None:
    by_cdk = {}
    manifests = {}
    for cdk in ("cdktf", "cdktn"):
        done = _run(copy, KEYTURN_CDK=cdk, CDKTF_OUTDIR=str(tmp_path / cdk))
        assert (done.returncode, done.stderr) == (0, "")
        by_cdk[cdk] = _written(tmp_path / cdk)
        manifests[cdk] = {p.name: p.read_text() for p in (copy / "cdktf.out" / "manifests").iterdir()}

    assert len(by_cdk["cdktf"]) == 15
    assert by_cdk["cdktf"] == by_cdk["cdktn"]
    assert manifests["cdktf"] == manifests["cdktn"]
    versions = {
        json.loads((tmp_path / cdk / "stacks" / "secrets-local" / "cdk.tf.json").read_text())["//"]["metadata"][
            "version"
        ]
        for cdk in by_cdk
    }
    assert len(versions) == 2, "both runs used the same CDK"


def test_the_same_declarations_write_the_same_bytes(copy: Path, tmp_path: Path) -> None:
    for run in ("first", "second"):
        assert _run(copy, CDKTF_OUTDIR=str(tmp_path / run)).returncode == 0

    for path in (tmp_path / "first").rglob("*.json"):
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()


def test_an_unknown_cdk_is_refused(copy: Path) -> None:
    _fails(_run(copy, KEYTURN_CDK="pulumi"), "error: KEYTURN_CDK is 'pulumi'", "Set it to cdktf or cdktn")


def test_only_the_named_stacks_are_written(copy: Path, tmp_path: Path) -> None:
    done = _run(copy, KEYTURN_STACKS="application-local, secrets-local", CDKTF_OUTDIR=str(tmp_path / "out"))

    assert done.returncode == 0
    assert set(_written(tmp_path / "out")) == {"application-local", "secrets-local"}
    assert not (copy / "cdktf.out").exists()


def test_an_unknown_stack_is_refused_with_those_that_there_are(copy: Path) -> None:
    _fails(
        _run(copy, KEYTURN_STACKS="application-qa"),
        r"error: there is no stack application-qa \(there are: foundation-local, ",
        "Name declared stacks in KEYTURN_STACKS",
    )


def test_a_wrong_declaration_is_two_lines_that_name_its_place(copy: Path) -> None:
    _edit(copy / "stacks" / "estate.py", 'Key("orders")', 'Key("orders", native_days=90)')

    _fails(
        _run(copy),
        r"error: stacks/estate\.py:\d+: foundation-local/key-orders \(aws_kms_key\): "
        "there is no argument rotation_period_in_days",
        "Correct the declaration and run `cdktf synth`.",
    )
    assert not (copy / "cdktf.out" / "manifests").exists()


def test_an_unsatisfiable_schedule_is_two_lines_that_name_its_place(copy: Path) -> None:
    _edit(copy / "stacks" / "estate.py", "jitter=timedelta(days=1)", "jitter=timedelta(days=40)")

    _fails(
        _run(copy),
        r"error: stacks/estate\.py:\d+: this schedule cannot be kept: jitter of 40 days",
        "Correct the declaration",
    )


def test_a_value_on_its_way_into_state_is_two_lines_and_writes_no_manifest(copy: Path) -> None:
    _edit(
        copy / "stacks" / "secrets.py",
        "        self.secrets: dict",
        "        from modules.resource import Resource\n"
        '        parameter = {"name": "t", "type": "SecureString", "value": "hunter2"}\n'
        '        if environment.name == "local":\n'
        '            Resource(self, "token", "aws_ssm_parameter", parameter)\n'
        "        self.secrets: dict",
    )

    done = _run(copy)

    _fails(
        done,
        r"error: stacks/secrets\.py:\d+: secrets-local/token \(aws_ssm_parameter\) sets value: .* kept in state",
        "Take it out of the stacks",
    )
    assert "hunter2" not in done.stderr
    assert not (copy / "cdktf.out" / "manifests").exists()


def test_hand_mangled_pins_are_two_lines(copy: Path) -> None:
    (copy / "stacks" / "pins").mkdir(exist_ok=True)
    (copy / "stacks" / "pins" / "local.json").write_text('{"format": 1, "pins": {"orders-api": {"canary": {"a": 0}}}}')

    _fails(_run(copy), r"error: the pins local\.json are not valid at pins", "Take the file back")


def _make_the_token_single(copy: Path) -> None:
    declared = 'strategy=Strategy.{},\n                description="The token'
    _edit(copy / "stacks" / "estate.py", declared.format("OVERLAPPING"), declared.format("SINGLE"))


def test_a_warning_is_one_line_on_stderr_and_not_fatal(copy: Path) -> None:
    _make_the_token_single(copy)

    done = _run(copy)

    assert done.returncode == 0
    assert re.fullmatch(r"warning: stacks/estate\.py:\d+: orders/api-token has the strategy single: .*\n", done.stderr)


def test_the_cdktf_command_line_synthesizes_and_shows_a_warning_once(copy: Path) -> None:
    _make_the_token_single(copy)
    folders = (str(PROJECT / "node_modules" / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "CHECKPOINT_DISABLE": "1", "CI": "1"}

    done = subprocess.run(
        ["cdktf", "synth"], cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=240
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(_written(copy / "cdktf.out")) == 15
    manifests = {path.stem for path in (copy / "cdktf.out" / "manifests").iterdir()}
    assert manifests == {"local", "local-tencent", "local-vault", "staging", "production"}
    shown = " ".join((done.stdout + done.stderr).split())
    assert shown.count("has the strategy single") == 5  # once for each environment's stack


def _fails(done: subprocess.CompletedProcess[str], what: str, remedy: str) -> None:
    """Exit code 1 with two lines, the first by a pattern, and nothing more."""
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert re.match(what, first), first
    assert second.startswith(f"  {remedy}"), second
