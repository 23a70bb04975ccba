"""Projects of any number of secrets, in folders of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rotation.model import Ring
from tests.bench.measure import Command, variables
from tests.fixtures.project import copy_declarations, edit

HERE = Path(__file__).parent
PYTHON = sys.executable
CONSUMER = "bench-api"
BUCKET = "keyturn-local-config"

_TEMPLATE = '{"version_id": {{ secrets["bench/token-0000"].version_id | json }}}\n'
_SYNTH_LOCAL = """\
from pathlib import Path
from main import build_app
from stacks.environments import local
project = Path.cwd()
build_app(project, environments=lambda _: (local(project),)).synth()
"""


def example(folder: Path) -> Path:
    """A project with the example estate in four environments, as it comes."""
    folder.mkdir()
    copy_declarations(folder)
    return folder


def of_size(folder: Path, secrets: int, aws: str = "http://127.0.0.1:4566") -> Path:
    """A project of so many secrets, one of which has a consumer; ``aws`` is the URL of its local AWS API."""
    example(folder)
    (folder / "stacks" / "estate.py").write_text((HERE / "declared.py").read_text(encoding="utf-8"), encoding="utf-8")
    edit(folder / "stacks" / "estate.py", "SECRETS = 10", f"SECRETS = {secrets}")
    (folder / "stacks" / "config" / f"{CONSUMER}.json.j2").write_text(_TEMPLATE, encoding="utf-8")
    place = {"host": "127.0.0.1", "port": 5432}
    endpoints = {"aws": aws, "postgresql": place, "applications": dict.fromkeys(Ring, aws)}
    local = folder / ".keyturn" / "local"
    local.mkdir(parents=True)
    (local / "endpoints.json").write_text(json.dumps(endpoints), encoding="utf-8")
    return folder


def synth(project: Path) -> Command:
    """Synthesize everything, by the project's own main.py."""
    return Command([PYTHON, "main.py"], project, variables())


def synth_local(project: Path) -> Command:
    """Synthesize the three stacks of the environment local, and its manifest."""
    return Command([PYTHON, "-c", _SYNTH_LOCAL], project, variables())


def keyturn(project: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> Command:
    return Command([PYTHON, "-m", "rotation", *arguments], project, variables(), codes)
