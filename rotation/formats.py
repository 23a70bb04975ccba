"""The formats of application configuration: how a template quotes a value in each, and whether a text is valid.

Checking is stricter than most readers of these formats: a key that is there twice is refused everywhere, because which
of the two an application would take is its parser's secret.
"""

from __future__ import annotations

import configparser
import dataclasses
import io
import json
import re
import tomllib
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Never

import javaproperties
import yaml
from dotenv.parser import parse_stream


class Malformed(ValueError):
    """A text that is not valid in its format. ``line`` counts from 1, None where the parser does not tell."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def check(text: str, fmt: str) -> None:
    """Raise :class:`Malformed` unless the text is valid and says something. ``fmt`` is a key of :data:`QUOTES`."""
    if not text.strip():
        raise Malformed("it is empty")
    _CHECKS[fmt](text)


def _check_yaml(text: str) -> None:
    try:
        yaml.load(text, _StrictYaml)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Malformed(error.problem or "not YAML", mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise Malformed(str(error).splitlines()[0]) from error


class _StrictYaml(yaml.SafeLoader):
    """Refuses a key that is there twice, as YAML does and PyYAML does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is there twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _check_json(text: str) -> None:
    def no_constant(name: str) -> Never:
        raise Malformed(f"{name} is not JSON")

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_duplicates((key, None) for key, _ in pairs)
        return dict(pairs)

    try:
        json.loads(text, object_pairs_hook=no_duplicates, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise Malformed(error.msg, error.lineno) from error


def _check_toml(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        raise Malformed(str(error)[: line.start()] if line else str(error), int(line[1]) if line else None) from error


def _check_ini(text: str) -> None:
    try:
        configparser.ConfigParser(interpolation=None).read_string(text)
    except configparser.ParsingError as error:
        line = error.errors[0][0] if getattr(error, "errors", None) else getattr(error, "lineno", None)
        raise Malformed("neither a [section], nor an option of one", line) from error
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        what = f"the option {error.option!r}" if hasattr(error, "option") else f"the section [{error.section}]"
        raise Malformed(f"{what} is there twice", error.lineno) from error


def _check_dotenv(text: str) -> None:
    keys: list[tuple[str, int | None]] = []
    for binding in parse_stream(io.StringIO(text)):
        source = binding.original.string
        # The blank lines before a binding belong to it; its own line is the one on which its text starts.
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            raise Malformed("not of the form NAME=value", line)
        if binding.key is not None:
            keys.append((binding.key, line))
    _refuse_duplicates(keys)


def _check_properties(text: str) -> None:
    keys: list[tuple[str, int | None]] = []
    line = 1
    try:
        for element in javaproperties.parse(text):
            if isinstance(element, javaproperties.KeyValue):
                keys.append((element.key, line))
            line += len(element.source.splitlines())
    except javaproperties.InvalidUEscapeError as error:
        raise Malformed(str(error)) from error
    _refuse_duplicates(keys)


def _refuse_duplicates(keys: Iterable[tuple[str, int | None]]) -> None:
    seen = set()
    for key, line in keys:
        if key in seen:
            raise Malformed(f"the key {key!r} is there twice", line)
        seen.add(key)


def _quote_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _quote_yaml(value: object) -> str:
    """A double-quoted string, or a number, list or mapping on one line."""
    plain = _plain(value)
    style = '"' if isinstance(plain, str) else None
    text: str = yaml.safe_dump(plain, default_style=style, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def _quote_toml(value: object) -> str:
    """A basic string, or a number or list: JSON's syntax, but that TOML knows no surrogate pairs and no raw DEL."""
    return json.dumps(value, ensure_ascii=False, default=_refuse_in("TOML")).replace("\x7f", "\\u007f")


def _quote_ini(value: object) -> str:
    text = _scalar(value, "INI")
    if text != text.strip() or len(text.splitlines()) > 1:
        raise ValueError("INI cannot hold a line break, nor blanks at either end of a value")
    return text


def _quote_dotenv(value: object) -> str:
    """Single quotes, which every reader (shells too) takes as they are; what does not fit in them is refused."""
    text = _scalar(value, "dotenv")
    if re.search(r"['\\\r\n]", text):
        raise ValueError("a single quote, backslash or line break does not read the same everywhere in dotenv")
    return f"'{text}'"


def _quote_properties(value: object) -> str:
    return javaproperties.escape(_scalar(value, "properties"))


def _scalar(value: object, fmt: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return _refuse_in(fmt)(value)


def _refuse_in(fmt: str) -> Callable[[object], Never]:
    def refuse(value: object) -> Never:
        raise TypeError(f"a {type(value).__name__} cannot be written as one value in {fmt}; name one of its fields")

    return refuse


def _plain(value: object) -> object:
    """What a template knows as an object (a reference), as the mapping that it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


_CHECKS: dict[str, Callable[[str], None]] = {
    "yaml": _check_yaml,
    "json": _check_json,
    "toml": _check_toml,
    "ini": _check_ini,
    "dotenv": _check_dotenv,
    "properties": _check_properties,
}

# By format, which is also the filter's name in templates. TypeError or ValueError for what a format cannot hold.
QUOTES: dict[str, Callable[[object], str]] = {
    "yaml": _quote_yaml,
    "json": _quote_json,
    "toml": _quote_toml,
    "ini": _quote_ini,
    "dotenv": _quote_dotenv,
    "properties": _quote_properties,
}
