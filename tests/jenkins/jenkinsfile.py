"""Read the Jenkinsfile with a Groovy parser: its blocks, and the scripts of its `sh` steps in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groovy_parser.parser import digest_lark_tree, parse_groovy_content

JENKINSFILE = Path(__file__).parents[2] / "Jenkinsfile"
Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """A call such as `sh 'x'` or a block such as `stage('Plan') { … }`. ``within`` are the blocks around it, from the
    outside, each as its name or, for a stage, its title; ``text`` is its first string, None without one."""

    name: str
    text: str | None
    within: tuple[str, ...]


def commands(path: Path = JENKINSFILE) -> tuple[Command, ...]:
    """All commands, in the order of the file. The parser raises for what is no Groovy."""
    return tuple(_commands(digest_lark_tree(parse_groovy_content(path.read_text(encoding="utf-8"))), ()))


def _commands(node: Node, within: tuple[str, ...]) -> Iterator[Command]:
    children = [child for child in node.get("children", ()) if child]
    if node.get("rule", ("",))[-1] != "command_expression":
        for child in children:
            yield from _commands(child, within)
        return
    name = next(leaf["value"] for leaf in _leaves(children[0]) if leaf["leaf"] == "IDENTIFIER")
    text = next((leaf["value"] for leaf in _leaves(node) if leaf["leaf"] == "STRING_LITERAL"), None)
    yield Command(name, text, within)
    inside = (*within, text or name) if name == "stage" else (*within, name)
    for child in children:
        yield from _commands(child, inside)


def _leaves(node: Node) -> Iterator[Node]:
    """The leaves of a node, without those in its blocks."""
    if "leaf" in node:
        yield node
    if node.get("rule", ("",))[-1] != "block":
        for child in node.get("children", ()):
            yield from _leaves(child or {})
