"""Declares, with the prebuilt AWS bindings, the resources of stacks that were synthesized before, and synthesizes them.

Usage: ``python prebuilt.py SYNTHESIZED_FOLDER OUT_FOLDER``. It runs by itself, with the bindings on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from cdktf import App, TerraformStack

BINDINGS = "cdktf_cdktf_provider_aws"


def declare(app: App, name: str, synthesized: dict[str, Any]) -> None:
    stack = TerraformStack(app, name)
    _class("aws_provider")(stack, "aws", region=synthesized["provider"]["aws"][0]["region"])
    for kind, resources in synthesized.get("resource", {}).items():
        for resource, block in resources.items():
            arguments = {argument: value for argument, value in block.items() if argument != "//"}
            _class(kind)(stack, resource, **arguments)


def _class(kind: str) -> Any:
    """The binding of a resource: jsii renamed some, whose names would also be those of their properties, to …A."""
    module = importlib.import_module(f"{BINDINGS}.{kind.removeprefix('aws_')}")
    name = "AwsProvider" if kind == "aws_provider" else "".join(map(str.capitalize, kind.split("_")[1:]))
    return getattr(module, name, None) or getattr(module, f"{name}A")


def main(source: Path, out: Path) -> None:
    app = App(outdir=str(out))
    for folder in sorted((source / "stacks").iterdir()):
        declare(app, folder.name, json.loads((folder / "cdk.tf.json").read_text(encoding="utf-8")))
    app.synth()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
