"""Small stacks that need no provider, for tests with the real Terraform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rotation.local.providers import path_with_terraform
from rotation.terraform import Terraform, runner_environment

CONTENT = "content-of-the-configuration"


def application(state: Path, generation: int = 41, **blocks: Any) -> dict[str, Any]:
    """A stack as an application's: a configuration object, its pin, and the output that says what is deployed."""
    resources = {
        "config": {"input": f"{CONTENT} {generation}"},
        "pin": {"input": {"orders/db": generation}, "depends_on": ["terraform_data.config"]},
    }
    return {
        "terraform": {"backend": {"local": {"path": str(state)}}},
        "resource": {"terraform_data": resources},
        "output": {"deployed": {"value": {"orders-api/canary": "${terraform_data.pin.output}"}}},
    } | blocks


def write(folder: Path, stack: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cdk.tf.json").write_text(json.dumps(stack), encoding="utf-8")
    return folder


def environment(project: Path) -> dict[str, str]:
    """What Terraform gets to see, with a Terraform on PATH on any machine."""
    return runner_environment() | {"PATH": path_with_terraform(project), "CHECKPOINT_DISABLE": "1"}


def terraform(folder: Path) -> Terraform:
    """Terraform in the folder of a stack, initialized, that waits for nobody's lock."""
    made = Terraform(folder, environment(folder), lock_patience=0)
    made.init()
    return made
