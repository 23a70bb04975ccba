"""The measuring itself, on commands whose figures are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench.measure import Command, medians, variables
from tests.bench.report import Figure, Section, as_json, as_text

_EATS = "import time; eaten = b'x' * 60_000_000; time.sleep(2)"  # long enough to be looked at on a busy machine, too
_PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_EATS!r}], check=True)"


def test_the_memory_of_a_command_is_its_childrens_too(tmp_path: Path) -> None:
    seen = Command([sys.executable, "-c", _PARENT], tmp_path, variables()).memory()
    assert 60 < seen.largest < 120
    assert seen.largest < seen.together < seen.largest + 60


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    command = Command([sys.executable, "-c", "raise SystemExit('it broke')"], tmp_path, variables())
    with pytest.raises(RuntimeError, match="it broke"):
        command.seconds()


def test_commands_run_in_turn_and_the_first_round_does_not_count() -> None:
    order = []
    values = {"a": iter([100.0, 1.0, 5.0, 3.0]), "b": iter([100.0, 2.0, 2.0, 9.0])}

    def run(name: str) -> float:
        order.append(name)
        return next(values[name])

    assert medians({"a": lambda: run("a"), "b": lambda: run("b")}, times=3) == {"a": 3.0, "b": 2.0}
    assert "".join(order) == "abababab"


def test_an_aim_that_is_missed_is_said() -> None:
    figures = (Figure("slow", 4, "s", at_most=3), Figure("fast", 30, "×", at_least=20), Figure("free", 1, "s"))
    section = Section("Title", "The method.", figures)
    slow, fast, free = (
        line for line in as_text([section]).splitlines() if line.strip().startswith(("slow", "fa", "fr"))
    )
    assert "NOT met" in slow
    assert fast.rstrip().endswith("met")
    assert "NOT" not in fast
    assert "met" not in free
    (document,) = json.loads(as_json([section]))
    assert [figure["met"] for figure in document["figures"]] == [False, True, None]
