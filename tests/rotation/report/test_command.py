"""The command where what it needs is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import rotation.report
from rotation.cli import main


def test_without_its_library_it_says_which_extra_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("page", "charts"):  # as if nothing had imported them yet
        monkeypatch.delitem(sys.modules, f"rotation.report.{module}", raising=False)
        monkeypatch.delattr(rotation.report, module, raising=False)
    monkeypatch.setitem(sys.modules, "pygal", None)
    assert main(["report", "--html", str(tmp_path / "posture.html")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: a report needs the package pygal, which is not installed",
        "  Install keyturn with the extra report.",
    ]
    assert not (tmp_path / "posture.html").exists()
