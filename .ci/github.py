#!/usr/bin/env python3
"""Write to GitHub what a pipeline found: one comment, one issue or one pull request, found again and updated.

    .ci/github.py comment NUMBER MARKER FILE      the comment on a pull request
    .ci/github.py issues FILE                     the issues of `keyturn drift --json`, one for each stack
    .ci/github.py pull-request BRANCH TITLE FILE  onto the branch that is checked out

A comment or issue is known by a hidden marker on its first line, and only where a bot wrote it: anybody can write a
marker. It is updated, and no second one is made. A text over GitHub's limit is cut at a line. Needs the `gh` command
with GH_TOKEN, and Python's standard library; GITHUB_REPOSITORY is "owner/name".
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
CUT = "\n\n*The rest does not fit here: see the job's summary.*\n"

Json = dict[str, Any]


class Failed(Exception):
    """`gh` failed, and has said why."""


def api(method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
    """One call of GitHub's REST API below repos/<owner>/<name>; a list comes whole, all its pages in one."""
    repository = os.environ["GITHUB_REPOSITORY"]
    argv = ["gh", "api", "--method", method, f"repos/{repository}/{path}"]
    argv += ["--paginate", "--slurp"] if method == "GET" else ["--input", "-"]
    body = json.dumps(fields) if fields is not None else None
    done = subprocess.run(argv, input=body, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed
    answer = json.loads(done.stdout)
    return [item for page in answer for item in page] if method == "GET" else answer


def within_limit(text: str) -> str:
    if len(text) <= LIMIT:
        return text
    kept = text[: LIMIT - len(CUT)]
    return kept[: kept.rfind("\n") + 1 or None] + CUT


def ours(items: Iterable[Json], marker: str) -> Json | None:
    """The first item that a bot wrote under this marker."""
    for item in items:
        if str(item.get("body") or "").startswith(marker) and item["user"]["type"] == "Bot":
            return item
    return None


def comment(number: int, marker: str, file: Path) -> str:
    hidden = f"<!-- {marker} -->"
    body = {"body": within_limit(f"{hidden}\n{file.read_text(encoding='utf-8')}")}
    found = ours(api("GET", f"issues/{number}/comments?per_page=100"), hidden)
    if found is None:
        return str(api("POST", f"issues/{number}/comments", body)["html_url"])
    return str(api("PATCH", f"issues/comments/{found['id']}", body)["html_url"])


def issues(file: Path) -> str:
    """Open, update, close or reopen the one issue of each report. A check that came to no end changes none."""
    document = json.loads(file.read_text(encoding="utf-8"))
    if "error" in document:
        return f"the issues are left as they are: {document['error']}"
    there = api("GET", f"issues?state=all&labels={LABEL}&per_page=100")
    return "\n".join(_issue(report, ours(there, report["marker"])) for report in document["reports"])


def _issue(report: Mapping[str, Any], found: Json | None) -> str:
    fields = {"title": report["title"], "body": within_limit(report["body"])}
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
    fields: Json = {"title": title, "body": within_limit(file.read_text(encoding="utf-8"))}
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
    commented.add_argument("marker")
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
            outcome = comment(options.number, options.marker, options.file)
        elif options.what == "issues":
            outcome = issues(options.file)
        else:
            outcome = pull_request(options.branch, options.title, options.file)
    except Failed:
        print("error: GitHub did not take it\n  See what `gh` says above.", file=sys.stderr)  # noqa: T201
        return 1
    print(outcome)  # noqa: T201  # the job's log says where it is
    return 0


if __name__ == "__main__":
    sys.exit(main())
