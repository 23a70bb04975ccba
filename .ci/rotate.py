#!/usr/bin/env python3
"""Rotate in one environment, as a pipeline does: rotate → commit → deploy → go on, until nothing can be done now.

What is in flight comes first: a rotation whose run died is finished. Then what was asked for is begun, and at last
previous generations that are out of use are retired. Every push comes before the deployment that follows from it, so
that the repository is never behind what runs.

    .ci/rotate.py ENVIRONMENT [--due] [--initialize] [--reason TEXT] [--override REASON] [SECRET …]

Without secrets and without --due only what is in flight is gone on with. Variables:

- KEYTURN_COMMIT: direct (default; commits go onto the branch that is checked out, and are deployed from here) or branch
  (they are proposed on keyturn/ENVIRONMENT; the pipeline deploys and goes on after the merge)
- KEYTURN_DEPLOY: keyturn (default) or cdktf
- KEYTURN_SUMMARY: a file that the outcome is appended to, in Markdown

Exit code 0: done, or waiting for what only time or a merge brings; 1: an error; 4: rolled back, or blocked: needs a
person. Needs Python's standard library, and keyturn on PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DONE, FAILED, WAITING, BLOCKED = 0, 1, 3, 4
WORST_FIRST = (FAILED, BLOCKED, WAITING, DONE)
ROUNDS = 30  # deployments of one run: more than a rotation of every ring needs, and an end to what does not move
SCRIPTS = Path(__file__).parent
IN_WORDS = {DONE: "done", FAILED: "failed", WAITING: "waiting", BLOCKED: "rolled back, or blocked: needs a person"}
TOKENS = ("GH_TOKEN", "GITHUB_TOKEN")  # for git's pushes; nothing that runs the project's code needs them

Pins = Mapping[tuple[str, str, str], int]  # by consumer, ring and secret


class Failed(Exception):
    """A step other than `keyturn rotate` failed, and has said why."""


@dataclass
class Pipeline:
    """One run in the project's folder. ``states`` is how each secret was left, ``code`` the worst exit code."""

    environment: str
    direct: bool
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    codes: set[int] = field(default_factory=set)

    @property
    def code(self) -> int:
        return next((code for code in WORST_FIRST if code in self.codes), DONE)

    def turn(self, *arguments: str) -> None:
        """One `keyturn rotate`, and whatever deployments it needs to go on."""
        before: tuple[str, ...] = ()
        for _ in range(ROUNDS):
            code, outcome = self._keyturn("rotate", *arguments)
            committed = self.direct and self._commit()
            self._note(outcome)
            waits = tuple(_waits_for_deployment(outcome)) if self.direct else ()
            if not waits:
                self.codes.add(code)
                return
            self.codes |= {code} - {WAITING}  # what failed or needs a person does not hold up the others
            if waits == before and not committed:
                say("error: a deployment changed nothing\n  Look at its log above, and run `keyturn status`.")
                raise Failed
            run(str(SCRIPTS / "deploy"), self.environment, "application")
            arguments, before = (), waits
        say(f"error: no end after {ROUNDS} deployments\n  Look at `keyturn status`; the next run goes on.")
        raise Failed

    def retire(self) -> None:
        """Retire what is out of use. That something else is to be kept a while is no news."""
        code, outcome = self._keyturn("retire", "--wait", "0")
        if code not in (DONE, WAITING):
            self.codes.add(code)
            self._note(outcome)

    def _keyturn(self, command: str, *arguments: str) -> tuple[int, Mapping[str, Any]]:
        argv = ["keyturn", command, "--environment", self.environment, "--no-apply", "--json", *arguments]
        done = subprocess.run(argv, env=_without_tokens(), stdout=subprocess.PIPE, text=True, check=False)
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            return done.returncode or FAILED, {}

    def propose(self) -> None:
        """Push what the whole run wrote, for a pull request. An error that moved nothing leaves the last proposal."""
        if FAILED not in self.codes or self._moves():
            self._commit()

    def _commit(self) -> bool:
        """Commit what the rotation wrote, and push it; tells whether there was anything."""
        message = f"Rotate in {self.environment}: {self._moves() or 'configuration and evidence'}"
        before = _revision("HEAD")
        text = run(str(SCRIPTS / "commit-rotation"), self.environment, "direct" if self.direct else "branch", message)
        if text.startswith("nothing to commit"):
            return False
        if _revision("HEAD^") != before:  # the commit went on top of somebody else's
            synthesize()
        return True

    def _moves(self) -> str:
        return describe(_pins(self.environment, "HEAD"), _pins(self.environment))

    def _note(self, outcome: Mapping[str, Any]) -> None:
        self.states.update(outcome.get("secrets", {}))
        if "error" in outcome:
            self.states["—"] = {"state": "failed", "reason": outcome["error"], "remedy": outcome.get("remedy", "")}

    def summary(self) -> str:
        """The outcome in Markdown."""
        lines = [f"### Rotation in {self.environment}: {IN_WORDS.get(self.code, 'failed')}", ""]
        if not self.states:
            return "\n".join([*lines, "Nothing was due, and nothing was in flight.", ""])
        lines += ["| Secret | Outcome | |", "|---|---|---|"]
        for secret, state in sorted(self.states.items()):
            words = [state.get("reason", ""), state.get("remedy", ""), _until(state)]
            lines.append(f"| {secret} | {_outcome(state)} | {cell(' '.join(filter(None, words)))} |")
        return "\n".join([*lines, ""])


def describe(before: Pins, after: Pins) -> str:
    """What moved, as `orders/db 41 → 42 (canary)`, by secret and ring; empty where nothing did."""
    moves: dict[str, set[str]] = {}
    for place in sorted(before.keys() | after.keys()):
        _, ring, secret = place
        old, new = before.get(place), after.get(place)
        if old != new:
            moves.setdefault(f"{secret} {old or 'none'} → {new or 'none'}", set()).add(ring)
    return ", ".join(f"{move} ({', '.join(sorted(rings))})" for move, rings in moves.items())


def cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table, whatever is in it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _outcome(state: Mapping[str, Any]) -> str:
    words = {"wait": "waits", "done": str(state.get("ending", "done"))}
    return words.get(str(state.get("state")), str(state.get("state", "unknown")))


def _until(state: Mapping[str, Any]) -> str:
    return f"(until {state['until']})" if state.get("until") else ""


def _revision(name: str) -> str:
    return subprocess.run(["git", "rev-parse", name], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def synthesize() -> None:
    run(sys.executable, "main.py")


def _waits_for_deployment(outcome: Mapping[str, Any]) -> Iterator[str]:
    for secret, state in sorted(outcome.get("secrets", {}).items()):
        if state.get("state") == "wait" and state.get("outside"):
            yield f"{secret}: {state.get('reason')}"


def _pins(environment: str, revision: str | None = None) -> Pins:
    path = f"stacks/pins/{environment}.json"
    if revision is None:
        text = Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
    else:
        argv = ["git", "show", f"{revision}:./{path}"]
        text = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return {
        (consumer, ring, secret): generation
        for consumer, rings in (json.loads(text)["pins"] if text else {}).items()
        for ring, pinned in rings.items()
        for secret, generation in pinned.items()
    }


def run(*argv: str) -> str:
    """Run a step whose output belongs into the log; raise :class:`Failed` if it fails. Returns what it printed."""
    environment = None if argv[0].endswith("commit-rotation") else _without_tokens()
    with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
        lines = []
        for line in child.stdout or ():
            say(line.rstrip("\n"))
            lines.append(line)
    if child.returncode != 0:
        say(f"error: {Path(argv[0]).name} ended with {child.returncode}\n  The next run goes on from what is there.")
        raise Failed
    return "".join(lines)


def _without_tokens() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in TOKENS}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # a pipeline's log


def asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=".ci/rotate.py", description="Rotate in one environment of a pipeline.")
    parser.add_argument("environment")
    parser.add_argument("secrets", nargs="*", metavar="SECRET")
    parser.add_argument("--due", action="store_true")
    parser.add_argument("--initialize", action="store_true")
    parser.add_argument("--reason", default="manual")
    parser.add_argument("--override", default="", metavar="REASON")
    return parser.parse_intermixed_args(arguments)


def to_begin(options: argparse.Namespace) -> list[str]:
    """The arguments of the `keyturn rotate` that begins what was asked for; none where only what is in flight was."""
    if not (options.secrets or options.due or options.initialize):
        return []
    flags = [f"--{name}" for name in ("due", "initialize") if getattr(options, name)]
    override = ["--override", options.override] if options.override else []
    return [*flags, "--reason", options.reason, *override, "--", *options.secrets]


def main() -> int:
    options = asked(sys.argv[1:])
    way = os.environ.get("KEYTURN_COMMIT") or "direct"
    if way not in ("direct", "branch"):
        say(f"error: KEYTURN_COMMIT is {way!r}\n  Set it to direct or branch.")
        return FAILED
    pipeline = Pipeline(options.environment, direct=way == "direct")
    try:
        synthesize()
        pipeline.turn()
        if begin := to_begin(options):
            pipeline.turn(*begin)
        pipeline.retire()
        if not pipeline.direct:
            pipeline.propose()
    except Failed:
        pipeline.codes.add(FAILED)
    summary = pipeline.summary()
    say(f"\n{summary}")
    if path := os.environ.get("KEYTURN_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{summary}\n")
    return DONE if pipeline.code in (DONE, WAITING) else pipeline.code


if __name__ == "__main__":
    sys.exit(main())
