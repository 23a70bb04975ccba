"""A project to synthesize in: the real declarations, on templates and pins of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from main import PROJECT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example's templates, where nothing is pinned yet."""
    monkeypatch.delenv("CDKTF_OUTDIR", raising=False)
    templates = tmp_path / "stacks" / "config"
    templates.mkdir(parents=True)
    for template in (PROJECT / "stacks" / "config").glob("*.j2"):
        shutil.copy(template, templates)
    return tmp_path
