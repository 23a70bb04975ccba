"""A file that goes along with a stack: copied beside it at synth, so that its path is the same on every machine."""

from __future__ import annotations

from pathlib import Path

from modules.cdk import AssetType, TerraformAsset
from modules.resource import Stack


def asset(stack: Stack, name: str, file: Path, *, built_by: str = "make lambda") -> str:
    """Copy the file, and return its path for Terraform. Where it is not there yet the stack warns, and its plan fails
    with the name of the file: who only synthesizes does not need it."""
    if not file.is_file():
        stack.warn(f"{stack.name} cannot be planned before {file.as_posix()} is built (`{built_by}`)")
        return file.as_posix()
    return TerraformAsset(stack, name, path=str(file.absolute()), type=AssetType.FILE).path
