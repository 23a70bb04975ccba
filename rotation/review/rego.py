"""Rules in Rego, the language of Open Policy Agent, evaluated by rego-cpp.

A file is of the package ``keyturn`` and has the rules ``deny`` and ``warn``, sets of messages: strings, or objects with
``msg`` and, where they concern one resource, ``address`` and ``stack``. ``input`` is the normalized document
(:mod:`rotation.review.document`). The dialect is Rego v1: ``deny contains msg if { … }``; ``deny[msg] { … }`` is
understood, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import regopy

from rotation.errors import UsageError
from rotation.review import rules
from rotation.review.document import Document
from rotation.review.rules import Finding, Verdict

_VERDICTS = {"deny": Verdict.REFUSE, "warn": Verdict.WARN}
_CORRECT = "Correct the file, and run the command again: nothing is passed by a rule that cannot be asked."


def rule(file: str, text: str) -> rules.Rule:
    """The rule that a file's text is; its name is the file's without the ending. Raises :class:`UsageError` for a text
    that does not compile, and its check for one that cannot be evaluated or says nothing that is a message."""
    interpreter = regopy.Interpreter()
    interpreter.strict_built_in_errors = True  # else a rule whose function fails would find nothing
    try:
        interpreter.add_module(file, text)
    except regopy.RegoError as error:
        raise UsageError(f"the rules {file} do not compile: {_first(str(error))}", _CORRECT) from error

    def check(document: Document) -> Iterator[Finding]:
        interpreter.set_input(document.data())
        answers = {name: _query(interpreter, file, name) for name in _VERDICTS}
        if all(answer is None for answer in answers.values()):
            raise UsageError(f"{file} declares neither deny nor warn in the package keyturn", _CORRECT)
        for name, answer in answers.items():
            for message in _messages(answer, file):
                yield _finding(_VERDICTS[name], message, file)

    return rules.Rule(file.removesuffix(".rego"), f"the project's rules of {file}", check)


def _query(interpreter: regopy.Interpreter, file: str, name: str) -> Any:
    """What a rule of the package says, None where there is no such rule."""
    try:
        output = str(interpreter.query(f"data.keyturn.{name}"))
        if output == "undefined":
            return None
        (answer,) = json.loads(output)["expressions"]  # an error's output is no JSON
    except (regopy.RegoError, ValueError, KeyError) as error:
        raise UsageError(f"{name} of {file} cannot be evaluated: {_first(str(error))}", _CORRECT) from error
    return answer


def _messages(answer: Any, file: str) -> list[Any]:
    """The members of a set. What `deny[msg] { … }` makes is an object whose names are the messages."""
    if isinstance(answer, dict):
        return [json.loads(name) if name.startswith("{") else name for name in answer]
    if answer is None or isinstance(answer, list):
        return answer or []
    raise UsageError(f"{file} yields {json.dumps(answer)[:80]}, not a set of messages", _CORRECT)


def _finding(verdict: Verdict, message: Any, file: str) -> Finding:
    if isinstance(message, str):
        return Finding(verdict, message)
    if isinstance(message, dict) and isinstance(message.get("msg"), str):
        return Finding(verdict, message["msg"], str(message.get("stack", "")), str(message.get("address", "")))
    raise UsageError(f"{file} yields a message that is neither a string nor an object with msg", _CORRECT)


def _first(text: str) -> str:
    """What regopy says of an error, without its tree."""
    found = re.search(r"\(errormsg \d+:([^)]*)\)", text)
    return found[1] if found else (text.strip().splitlines() or ["it gave no reason"])[0][:200]
