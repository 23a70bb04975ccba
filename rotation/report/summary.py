"""What `keyturn report` prints about the page that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rotation.report import Report
from rotation.report.posture import ALARMING


def document(report: Report, file: Path, page: str) -> dict[str, Any]:
    """For machines: the page, and what a pipeline may want to act on."""
    return {
        "environment": report.environment,
        "file": file,
        "bytes": len(page.encode()),
        "secrets": {str(state): count for state, count in report.counts.items()},
        "trail": {"lines": report.trail.lines, "flaw": report.trail.flaw},
        "drift": None if report.drift is None else sum(finding.counts for finding in report.drift.findings),
    }


def lines(report: Report, file: Path, page: str) -> list[str]:
    """For people."""
    total = len(report.standings)
    alarms = sum(count for state, count in report.counts.items() if state in ALARMING)
    told = [f"{file}: {_size(len(page.encode()))}, {total} secrets, {alarms} of them need attention"]
    if report.trail.flaw is not None:
        told.append(f"warning: {report.trail.flaw}; the page says so (see `keyturn audit`)")
    return told


def _size(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB" if size >= 1_000_000 else f"{size / 1_000:.0f} kB"
