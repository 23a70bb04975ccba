"""What the stacks of an environment declare, for a server that Terraform has no provider for here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rotation.deploy import STACK_FILE, alone, synth


def synthesized(project: Path, stacks: Sequence[str]) -> list[dict[str, Any]]:
    """Each of these stacks as Terraform's JSON. Raises :class:`~rotation.errors.KeyturnError` where synth fails."""
    with alone(project):
        folder = synth(project, stacks)
        return [json.loads((folder / stack / STACK_FILE).read_text(encoding="utf-8")) for stack in stacks]
