"""Quote a line of somebody else's text without what looks like a credential in it."""

from __future__ import annotations

import re
from collections.abc import Collection

MASK = "••••"
LONGEST = 200  # characters that are quoted
_LOOKED_AT = 2_000  # characters: the patterns' time grows with the square

_NAME = r"[\w-]*(?:passw|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization)[\w-]*"
_VALUE = r"""(?:"[^"]*"|'[^']*'|(?:bearer\s+|basic\s+)?[^\s,;&]+)"""
_CREDENTIALS = (
    re.compile(r"(?P<before>://)(?P<value>[^\s/@]+)(?=@)"),  # user:password@host
    re.compile(rf"""(?i)(?P<before>{_NAME}["']?\s*[=:]\s*)(?P<value>{_VALUE})"""),
    re.compile(r"(?i)(?P<before>\b(?:bearer|basic)\s+)(?P<value>\S+)"),
    re.compile(r"(?P<before>)(?P<value>(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+/=-]{20,})"),  # a long random run
)


def redact(line: str, keep: Collection[str] = ()) -> str:
    """The line, at most :data:`LONGEST` characters of it, with a mask for each value that looks like a credential.

    A heuristic for evidence: a program that writes a short password by itself into its log defeats it. What is in
    ``keep`` is known to be a name.
    """

    def mask(found: re.Match[str]) -> str:
        return found[0] if found["value"] in keep else found["before"] + MASK

    if len(line) > _LOOKED_AT:
        line = line[:_LOOKED_AT].rpartition(" ")[0]  # the first part of a credential might not look like one
    for pattern in _CREDENTIALS:
        line = pattern.sub(mask, line)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
