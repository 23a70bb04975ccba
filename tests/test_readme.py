"""The README is true: its reference is the program's, and what it says to copy works."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rotation import pins
from rotation.manifest import Manifest
from rotation.model import Reference, Ring
from rotation.pins import Pins
from rotation.render import regenerate
from tests.readme import README, block, reference, written

PROJECT = README.parent


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help differently in each version")
def test_the_command_reference_is_the_programs_own() -> None:
    assert reference() == written(), "run `make readme`"


def test_the_secret_of_the_readme_can_be_declared_by_copying_it(tmp_path: Path) -> None:
    project = _copy(tmp_path / "project")
    estate = project / "stacks" / "estate.py"
    text = estate.read_text(encoding="utf-8")
    for kind in ("secrets", "consumers"):
        opening = f"        {kind}=(\n"
        assert text.count(opening) == 1
        text = text.replace(opening, opening + block(f"declare: {kind}"))
    estate.write_text(text, encoding="utf-8")
    (project / "stacks" / "config" / "billing.toml.j2").write_text(block("declare: template"), encoding="utf-8")

    done = subprocess.run([sys.executable, "main.py"], cwd=project, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    for environment in ("local", "staging", "production"):
        manifest = Manifest.load(project, environment)
        assert manifest.secret("billing/db").credential.kind == "postgres_user"
        assert [consumer.name for consumer in manifest.consumers_of("billing/db")] == ["billing"]
    assert _rendered(project)["database"]["generation"] == 1


def test_every_exit_code_of_the_readme_is_one_of_the_programs() -> None:
    from rotation import exit_codes

    table = README.read_text(encoding="utf-8").partition("| Exit code |")[2]
    codes = [int(line.split("|")[1]) for line in table.splitlines()[2:7]]
    assert codes == [getattr(exit_codes, name) for name in ("DONE", "FAILED", "CHANGES", "WAITING", "BLOCKED")]


def _copy(project: Path) -> Path:
    project.mkdir()
    for name in ("main.py", "cdktf.json"):
        shutil.copy(PROJECT / name, project)
    for name in ("stacks", "modules"):
        shutil.copytree(
            PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "local*", "rendered")
        )
    return project


def _rendered(project: Path) -> dict[str, dict[str, object]]:
    """The configuration of the README's application, from its template."""
    manifest = Manifest.load(project, "staging")
    held = Pins().with_("billing", Ring.CANARY, "billing/db", 1)
    pins.write(project / manifest.pins, held)
    known = {("billing/db", 1): Reference("staging/billing/db", "arn:aws:secretsmanager:…", "g0000000001-…", 1)}
    (file,) = regenerate(project, manifest, held, known)
    return tomllib.loads(file.path.read_text(encoding="utf-8"))
