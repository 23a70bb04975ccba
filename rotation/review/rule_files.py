"""Rules from files of the project: Python (:mod:`rotation.review.rules`) or Rego (:mod:`rotation.review.rego`).

A file that does not compile, or fails while it is evaluated, is an error: it never passes for "nothing found".
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from rotation.errors import UsageError
from rotation.review.document import Document
from rotation.review.rules import Finding, Rule

_CORRECT = "Correct the file, and run the command again: nothing is passed by a rule that cannot be asked."


def load(paths: Sequence[Path]) -> list[Rule]:
    """The rules of these files. Raises :class:`UsageError` for a file that is none."""
    return [each for path in paths for each in _load(path)]


def _load(path: Path) -> list[Rule]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the rules {path.name} cannot be read: {error.strerror}", _CORRECT) from error
    except ValueError as error:
        raise UsageError(f"the rules {path.name} are not UTF-8", _CORRECT) from error
    if path.suffix == ".rego":
        return [_rego(path, text)]
    if path.suffix == ".py":
        return _python(path)
    raise UsageError(f"the rules {path.name} are neither Python (.py) nor Rego (.rego)", _CORRECT)


def _python(path: Path) -> list[Rule]:
    spec = importlib.util.spec_from_file_location(f"keyturn_rules_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"the rules {path.name} cannot be loaded", _CORRECT)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever somebody else's code raises; an exit, too
        raise UsageError(f"the rules {path.name} cannot be loaded: {_told(error)}", _CORRECT) from error
    found = [value for value in vars(module).values() if isinstance(value, Rule)]
    if not found:
        raise UsageError(f"{path.name} declares no rule", "Make rules with @rule of rotation.review.rules.")
    return [Rule(each.name, each.about, _Guarded(path.name, each)) for each in found]


class _Guarded:
    """A rule of somebody else's: what it raises, or yields that is no finding, is an error of its file."""

    def __init__(self, file: str, rule: Rule) -> None:
        self._file = file
        self._rule = rule

    def __call__(self, document: Document) -> Iterable[Finding]:
        try:
            found = list(self._rule.check(document))
        except (Exception, SystemExit) as error:  # whatever somebody else's code raises; an exit, too
            raise UsageError(f"the rule {self._rule.name} of {self._file} failed: {_told(error)}", _CORRECT) from error
        for finding in found:
            if not isinstance(finding, Finding):
                raise UsageError(
                    f"the rule {self._rule.name} of {self._file} yields {type(finding).__name__}, not findings",
                    _CORRECT,
                )
        return found


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _rego(path: Path, text: str) -> Rule:
    try:
        from rotation.review import rego
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the rules {path.name} need the package {error.name}, which is not installed",
            "Install keyturn with the extra `policy`.",
        ) from error
    return rego.rule(path.name, text)
