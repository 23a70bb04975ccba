"""What a run tells the person at its terminal, or in the log of its pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rotation.exit_codes import BLOCKED
from rotation.notifications import Notifier
from rotation.opening import Purpose
from rotation.output import Output
from rotation.session import Session
from tests.world import NAME, PATIENT, fresh


def test_what_is_blocked_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = fresh(tmp_path)
    world.faults.silent_signals = True
    engine, output = world.engine(), Output(machine=False)
    at_work = Session(engine, output, PATIENT.total_seconds(), Notifier((), "test", engine.journal, output.warn))
    code = at_work.run(argparse.Namespace(no_apply=False, wait=None), [NAME], Purpose.ROTATE)
    engine.journal.close()
    assert code == BLOCKED
    said, remedy = capsys.readouterr().err.splitlines()
    assert said.startswith(f"blocked: {NAME}: the canary ring gave no clear verdict on generation 2")
    assert remedy.startswith("  Look at")
