#!/usr/bin/env python3
"""Write to GitHub what a pipeline found: one comment, one issue or one pull request, found again and updated.

    .ci/github.py comment NUMBER FILE             on a pull request: the text of `keyturn review`
    .ci/github.py issues FILE                     one for each stack: the reports of `keyturn drift --json`
    .ci/github.py pull-request BRANCH TITLE FILE  onto the branch that the workflow runs on

A comment or issue is known by the hidden marker on its first line, and only where a bot wrote it: anybody can write a
marker. It is updated, and no second one is made. Needs the `gh` command with GH_TOKEN, and Python's standard library;
GITHUB_REPOSITORY is "owner/name".
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LIMIT = 65_536  # characters of a comment or an issue, of GitHub
LABEL = "keyturn"  # of its issues: so few are looked through

Json = dict[str, Any]


class Failed(Exception):
    """GitHub was not reached, or refused. Has what happened, and what to do."""


def api(method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
    """One call of GitHub's REST API below repos/<owner>/<name>; a list comes whole, all its pages in one."""
    repository = os.environ["GITHUB_REPOSITORY"]
    argv = ["gh", "api", "--method", method, f"repos/{repository}/{path}"]
    argv += ["--paginate", "--slurp"] if method == "GET" else ["--input", "-"]
    body = json.dumps(fields) if fields is not None else None
    try:
        done = subprocess.run(argv, input=body, stdout=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed("the command gh is not installed", "Install it on the runner; GitHub's own have it.") from error
    if done.returncode != 0:
        raise Failed(f"GitHub refused {method} {path}", "See what `gh` says above, and the job's permissions.")
    answer = json.loads(done.stdout)
    return [item for page in answer for item in page] if method == "GET" else answer


def ours(items: Iterable[Json], marker: str) -> Json | None:
    """The first item that a bot wrote under this marker."""
    for item in items:
        if str(item.get("body") or "").startswith(marker) and item["user"]["type"] == "Bot":
            return item
    return None


def comment(number: int, file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    found = ours(api("GET", f"issues/{number}/comments?per_page=100"), text.partition("\n")[0])
    if found is None:
        return str(api("POST", f"issues/{number}/comments", {"body": text})["html_url"])
    return str(api("PATCH", f"issues/comments/{found['id']}", {"body": text})["html_url"])


def issues(file: Path) -> str:
    """Open, update, close or reopen the one issue of each report. A check that came to no end changes none."""
    document = json.loads(file.read_text(encoding="utf-8"))
    if "error" in document:
        return f"the issues are left as they are: {document['error']}"
    there = api("GET", f"issues?state=all&labels={LABEL}&per_page=100")
    return "\n".join(_issue(report, ours(there, report["marker"])) for report in document["reports"])


def _issue(report: Mapping[str, Any], found: Json | None) -> str:
    fields = {"title": report["title"], "body": report["body"]}
    if report["open"] and found is None:
        return str(api("POST", "issues", fields | {"labels": [LABEL]})["html_url"])
    if found is None or (not report["open"] and found["state"] == "closed"):
        return f"{report['title']}: none, and no issue to close"
    state = {"state": "open"} if report["open"] else {"state": "closed", "state_reason": "completed"}
    return str(api("PATCH", f"issues/{found['number']}", fields | state)["html_url"])


def pull_request(branch: str, title: str, file: Path) -> str:
    """Open a pull request from the branch, or update the one that is open; none where the branch is not there."""
    there = subprocess.run(
        ["git", "ls-remote", "--exit-code", "origin", f"refs/heads/{branch}"], stdout=subprocess.DEVNULL, check=False
    )
    if there.returncode != 0:
        return f"there is no branch {branch}: nothing to propose"
    owner = os.environ["GITHUB_REPOSITORY"].partition("/")[0]
    fields: Json = {"title": title, "body": file.read_text(encoding="utf-8")[:LIMIT]}
    opened = api("GET", f"pulls?state=open&head={owner}:{branch}")
    if opened:
        return str(api("PATCH", f"pulls/{opened[0]['number']}", fields)["html_url"])
    base = os.environ["GITHUB_REF_NAME"]
    return str(api("POST", "pulls", fields | {"head": branch, "base": base})["html_url"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=".ci/github.py", description="Write to GitHub what a pipeline found.")
    what = parser.add_subparsers(dest="what", required=True)
    commented = what.add_parser("comment")
    commented.add_argument("number", type=int)
    reported = what.add_parser("issues")
    proposed = what.add_parser("pull-request")
    proposed.add_argument("branch")
    proposed.add_argument("title")
    for command in (commented, reported, proposed):
        command.add_argument("file", type=Path)
    return parser.parse_args()


def main() -> int:
    options = _options()
    try:
        if options.what == "comment":
            outcome = comment(options.number, options.file)
        elif options.what == "issues":
            outcome = issues(options.file)
        else:
            outcome = pull_request(options.branch, options.title, options.file)
    except Failed as error:
        print("error: {}\n  {}".format(*error.args), file=sys.stderr)  # noqa: T201
        return 1
    print(outcome)  # noqa: T201  # the job's log says where it is
    return 0


if __name__ == "__main__":
    sys.exit(main())
