"""What the README takes from the program. ``python -m tests.readme`` rewrites its command reference."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rotation.cli import parser

README = Path(__file__).parent.parent / "README.md"
_HELP = re.compile(r"<!-- help -->\n.*?<!-- /help -->", re.DOTALL)


def commands() -> str:
    """The help of the program and of each command, as it is on a terminal of 100 columns."""
    os.environ["COLUMNS"] = "100"
    top = parser()
    (subparsers,) = (
        action for action in top._actions if hasattr(action, "choices") and isinstance(action.choices, dict)
    )
    parts = [f"```\n{top.format_help()}```"]
    for name, sub in dict(subparsers.choices or {}).items():
        parts.append(
            f"<details><summary><code>keyturn {name}</code></summary>\n\n```\n{sub.format_help()}```\n\n</details>"
        )
    return "\n\n".join(parts)


def reference() -> str:
    """The command reference that the README holds now."""
    found = _HELP.search(README.read_text(encoding="utf-8"))
    assert found, "the README has no command reference"
    return found.group()


def written() -> str:
    """The command reference that the README must hold."""
    return f"<!-- help -->\n{commands()}\n<!-- /help -->"


def block(marker: str) -> str:
    """The text of the code block behind ``<!-- marker -->``."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"the README has no block {marker}"
    return found.group(1)


if __name__ == "__main__":
    README.write_text(_HELP.sub(lambda _: written(), README.read_text(encoding="utf-8")), encoding="utf-8")
