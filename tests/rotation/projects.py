"""A project whose app writes stacks for Terraform without cdktf, for tests of the way from synth to apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.rotation import terraform_stacks as stacks

STACK = "application-local"
_APP = """\
import json, os, pathlib, sys
project = pathlib.Path(__file__).parent
overlay = pathlib.Path(os.environ.get("KEYTURN_OVERLAY", project))
(project / "environment.json").write_text(json.dumps(dict(os.environ)))
declared = json.loads((project / "declared.json").read_text())
if "error" in declared:
    sys.exit(declared["error"])
planned = overlay / "stack.json"
for name in os.environ["KEYTURN_STACKS"].split(","):
    if name in declared["stacks"]:
        folder = pathlib.Path(os.environ["CDKTF_OUTDIR"], "stacks", name)
        folder.mkdir(parents=True, exist_ok=True)
        own = project / f"{name}.json"
        text = (own if own.exists() else planned if planned.exists() else project / "stack.json").read_text()
        (folder / "cdk.tf.json").write_text(text)
with (project / "synths").open("a") as log:
    log.write("synth\\n")
"""


class Project:
    """``folder`` holds the app, its stack and the state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cdktf.json").write_text('{"language": "python", "app": "python app.py"}', encoding="utf-8")
        (folder / "app.py").write_text(_APP, encoding="utf-8")
        self.declare(stacks=[STACK])
        self.generation(41)

    def declare(self, **declared: Any) -> None:
        (self.folder / "declared.json").write_text(json.dumps(declared), encoding="utf-8")

    def stack(self, stack: dict[str, Any], folder: Path | None = None) -> None:
        ((folder or self.folder) / "stack.json").write_text(json.dumps(stack, indent=1), encoding="utf-8")

    def generation(self, generation: int, folder: Path | None = None, **blocks: Any) -> None:
        """Let the stack carry this generation; ``blocks`` replace its own."""
        self.stack(stacks.application(self.folder / "state", generation, **blocks), folder)

    @property
    def synths(self) -> int:
        return len((self.folder / "synths").read_text(encoding="utf-8").splitlines())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
