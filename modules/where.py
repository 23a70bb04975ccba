"""The line of the user's file that declares something: errors at synth name it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_MODULES = str(Path(__file__).parent)
_PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Where:
    """A file, relative to the project where it is in there, and a line, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def here() -> Where:
    """The nearest line up the stack that is not in modules/, nor in generated code (dataclasses, jsii)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_code.co_filename):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    file = path.relative_to(_PROJECT) if path.is_relative_to(_PROJECT) else path.name
    return Where(str(file), frame.f_lineno)


def _is_inside(filename: str) -> bool:
    return filename.startswith((_MODULES, "<")) or "/jsii/" in filename
