"""The pipeline's scripts: what they commit and push, what they write to GitHub, and how they fail."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.fixtures import github_api
from tests.fixtures.github_api import GitHub
from tests.fixtures.project import CHECKOUT

SCRIPTS = CHECKOUT / ".ci"
PINS = "stacks/pins/staging.json"
LIMIT = 60  # seconds that one script may take


def _run(*argv: str, folder: Path, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **(variables or {})}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)


@dataclass(frozen=True, slots=True)
class Repository:
    """A clone whose project is in a folder of it, and its bare remote."""

    clone: Path
    origin: Path

    @property
    def project(self) -> Path:
        return self.clone / "project"

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@localhost")
        done = _run("git", *identity, *arguments, folder=folder or self.project)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, generation: int, path: str = PINS) -> None:
        file = self.project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pins = {"orders-api": {"canary": {"orders/db": generation}}}
        file.write_text(json.dumps({"format": 1, "pins": pins}), encoding="utf-8")

    def commit_rotation(
        self, way: str, message: str = "Rotate", environment: str = "staging"
    ) -> subprocess.CompletedProcess[str]:
        return _run(str(SCRIPTS / "commit-rotation"), environment, way, message, folder=self.project)

    def pushed(self, branch: str = "main") -> list[str]:
        return self.git("log", "--format=%s", branch, folder=self.origin).splitlines()

    def branches(self) -> set[str]:
        return set(self.git("for-each-ref", "--format=%(refname:short)", folder=self.origin).splitlines())

    def somebody_pushes(self, path: str, text: str) -> None:
        other = self.clone.parent / "other"
        self.git("clone", "--quiet", str(self.origin), str(other), folder=self.clone.parent)
        (other / path).write_text(text, encoding="utf-8")
        self.git("add", "--all", folder=other)
        self.git("commit", "--quiet", "--message", "Somebody's", folder=other)
        self.git("push", "--quiet", folder=other)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "clone", tmp_path / "origin.git")
    (made.project / "stacks/pins").mkdir(parents=True)
    made.git("init", "--quiet", "--bare", "--initial-branch=main", str(made.origin), folder=tmp_path)
    made.git("init", "--quiet", "--initial-branch=main", str(made.clone), folder=tmp_path)
    made.git("remote", "add", "origin", str(made.origin))
    made.write(41)
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "The project")
    made.git("push", "--quiet", "origin", "main")
    return made


# Committing


def test_nothing_new_is_no_commit_and_no_failure(repository: Repository) -> None:
    done = repository.commit_rotation("direct")
    assert (done.returncode, done.stdout) == (0, "nothing to commit for staging\n")
    assert repository.pushed() == ["The project"]


def test_what_a_rotation_of_this_environment_wrote_is_pushed_and_nothing_else(repository: Repository) -> None:
    repository.write(42)
    repository.write(7, "stacks/pins/production.json")
    (repository.project / "stacks/pins/.staging.json.0a1b2c3d.tmp").write_text("half", encoding="utf-8")
    rendered = repository.project / "stacks/config/rendered/staging/canary"
    rendered.mkdir(parents=True)
    (rendered / "orders-api.yaml").write_text("generation: 42\n", encoding="utf-8")
    assert repository.commit_rotation("direct", "Rotate in staging").returncode == 0
    assert repository.pushed() == ["Rotate in staging", "The project"]
    changed = repository.git("show", "--name-only", "--format=", "main", folder=repository.origin).splitlines()
    assert changed == ["project/stacks/config/rendered/staging/canary/orders-api.yaml", f"project/{PINS}"]


def test_the_embedded_environments_pins_are_committed_though_they_are_ignored(repository: Repository) -> None:
    (repository.clone / ".gitignore").write_text("/project/stacks/pins/local*.json\n", encoding="utf-8")
    repository.write(2, "stacks/pins/local.json")
    assert repository.commit_rotation("direct", environment="local").returncode == 0
    assert repository.pushed()[0] == "Rotate"


def test_a_push_that_came_first_goes_below(repository: Repository) -> None:
    repository.somebody_pushes("README", "new\n")
    repository.write(42)
    assert repository.commit_rotation("direct").returncode == 0
    assert repository.pushed() == ["Rotate", "Somebody's", "The project"]


def test_the_same_pins_moved_by_somebody_else_are_not_overwritten(repository: Repository) -> None:
    repository.somebody_pushes(f"project/{PINS}", "{}\n")
    repository.write(42)
    done = repository.commit_rotation("direct")
    assert done.returncode == 1
    assert "somebody else changed the rotation's files on main" in done.stderr
    assert repository.pushed() == ["Somebody's", "The project"]


def test_a_detached_checkout_says_where_to_push(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "--detach")
    repository.write(42)
    done = repository.commit_rotation("direct")
    assert done.returncode == 1
    assert "no branch is checked out" in done.stderr


def test_a_proposal_is_written_anew_and_withdrawn_when_nothing_is_left_of_it(repository: Repository) -> None:
    for generation in (42, 43):
        repository.git("checkout", "--quiet", "main")
        repository.write(generation)
        assert repository.commit_rotation("branch", f"Rotate to {generation}").returncode == 0
    assert repository.pushed("keyturn/staging") == ["Rotate to 43", "The project"]
    assert repository.pushed() == ["The project"]
    repository.git("checkout", "--quiet", "main")
    repository.write(43)
    assert "proposes this already" in repository.commit_rotation("branch").stdout
    repository.git("checkout", "--quiet", "main")
    assert "nothing left to propose" in repository.commit_rotation("branch").stdout
    assert repository.branches() == {"main"}


@pytest.mark.parametrize("arguments", [("staging",), ("../x", "direct", "m"), ("staging", "sideways", "m")])
def test_wrong_arguments_are_refused(repository: Repository, arguments: tuple[str, ...]) -> None:
    done = _run(str(SCRIPTS / "commit-rotation"), *arguments, folder=repository.project)
    assert done.returncode == 1
    assert "Use: .ci/commit-rotation" in done.stderr


# Rotating


@pytest.fixture(scope="module")
def rotate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pipeline_rotate", SCRIPTS / "rotate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_commit_says_what_moved(rotate: ModuleType) -> None:
    before = {("orders-api", ring, "orders/db"): 41 for ring in ("canary", "stable")}
    after = {**before, ("orders-api", "canary", "orders/db"): 42, ("orders-api", "canary", "orders/new"): 1}
    assert rotate.describe(before, after) == "orders/db 41 → 42 (canary), orders/new none → 1 (canary)"
    assert rotate.describe(before, before) == ""


def test_a_summary_stays_a_table_whatever_a_reason_says(rotate: ModuleType) -> None:
    pipeline = rotate.Pipeline("staging", direct=True)
    pipeline.codes.add(4)
    pipeline.states["orders/db"] = {"state": "blocked", "reason": "a|b\n<script>", "remedy": "Ask."}
    assert pipeline.summary().splitlines()[-1] == "| orders/db | blocked | a\\|b &lt;script> Ask. |"
    assert "needs a person" in pipeline.summary().splitlines()[0]


_KEYTURN = """\
#!/bin/sh
echo "$@" >> calls
[ -z "$GH_TOKEN" ] || echo "has the token" >> calls
echo "$ANSWER"
exit "$CODE"
"""


@pytest.fixture
def pipeline(repository: Repository) -> Repository:
    """A project whose keyturn gives a prepared answer, and writes down what it was asked."""
    (repository.project / "main.py").touch()
    program = repository.clone.parent / "bin/keyturn"
    program.parent.mkdir()
    program.write_text(_KEYTURN, encoding="utf-8")
    program.chmod(0o755)
    return repository


def _rotate(
    pipeline: Repository, code: int, answer: object, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    path = f"{pipeline.clone.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "CODE": str(code), "ANSWER": json.dumps(answer), "GH_TOKEN": "canary-token", **variables}
    argv = (sys.executable, str(SCRIPTS / "rotate.py"), "staging", *arguments)
    return _run(*argv, folder=pipeline.project, variables=given)


def _waits() -> dict[str, object]:
    return {"secrets": {"orders/db": {"state": "wait", "reason": "in its grace", "outside": False, "until": None}}}


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (4, 4), (1, 1)])
def test_waiting_is_no_failure_and_a_need_for_a_person_is_one(pipeline: Repository, code: int, expected: int) -> None:
    summary = pipeline.clone.parent / "summary.md"
    done = _rotate(pipeline, code, _waits(), "--due", KEYTURN_SUMMARY=str(summary))
    assert done.returncode == expected, done.stderr
    assert "| orders/db | waits | in its grace |" in summary.read_text(encoding="utf-8")


def test_what_is_in_flight_comes_before_what_is_due_and_nothing_sees_the_token(pipeline: Repository) -> None:
    _rotate(pipeline, 0, {"secrets": {}}, "--due", "--reason", "schedule: nightly; rm -rf x")
    calls = (pipeline.project / "calls").read_text(encoding="utf-8").splitlines()
    common = "--environment staging --no-apply --json"
    assert calls == [
        f"rotate {common}",
        f"rotate {common} --due --reason schedule: nightly; rm -rf x --",
        f"retire {common} --wait 0",
    ]


def test_a_deployment_that_changes_nothing_ends_the_run(pipeline: Repository) -> None:
    (pipeline.clone.parent / "bin/cdktf").symlink_to("/bin/true")
    waits = {"secrets": {"orders/db": {"state": "wait", "reason": "to be deployed", "outside": True}}}
    done = _rotate(pipeline, 3, waits, KEYTURN_DEPLOY="cdktf")
    assert done.returncode == 1
    assert "error: a deployment changed nothing" in done.stderr


def test_a_secret_that_needs_a_person_does_not_hold_up_the_deployment_of_another(pipeline: Repository) -> None:
    program = pipeline.clone.parent / "bin/cdktf"
    program.write_text("#!/bin/sh\necho deployed >> calls\n", encoding="utf-8")
    program.chmod(0o755)
    states = {
        "orders/db": {"state": "wait", "reason": "to be deployed", "outside": True},
        "orders/token": {"state": "blocked", "reason": "denied", "remedy": "Ask."},
    }
    done = _rotate(pipeline, 4, {"secrets": states}, KEYTURN_DEPLOY="cdktf")
    assert "deployed" in (pipeline.project / "calls").read_text(encoding="utf-8").splitlines()
    assert "| orders/token | blocked | denied Ask. |" in done.stderr


def test_an_unknown_way_to_commit_is_refused_before_anything_is_done(pipeline: Repository) -> None:
    done = _rotate(pipeline, 0, {}, KEYTURN_COMMIT="sometimes")
    assert (done.returncode, done.stderr) == (
        1,
        "error: KEYTURN_COMMIT is 'sometimes'\n  Set it to direct or branch.\n",
    )
    assert not (pipeline.project / "calls").exists()


# Writing to GitHub


@pytest.fixture
def github(tmp_path: Path) -> Path:
    github_api.install(tmp_path / "bin", tmp_path / "github.json")
    return tmp_path


def _github(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    found = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}" if path is None else path
    variables = {"PATH": found, "GITHUB_REPOSITORY": "example/orders", "GITHUB_REF_NAME": "main"}
    argv = (sys.executable, str(SCRIPTS / "github.py"), *arguments)
    return _run(*argv, folder=folder, variables=variables)


def _file(folder: Path, text: str) -> str:
    (folder / "text").write_text(text, encoding="utf-8")
    return str(folder / "text")


def test_a_review_is_one_comment_that_is_updated(github: Path) -> None:
    for verdict in ("refused", "passes"):
        text = f"<!-- keyturn review: staging -->\n### {verdict}\n"
        assert _github(github, "comment", "7", _file(github, text)).returncode == 0
    (comment,) = GitHub(github / "github.json").of("issues/comments")
    assert comment["on"] == 7
    assert "### passes" in comment["body"]


def test_a_stranger_with_the_same_marker_gets_no_say(github: Path) -> None:
    text = "<!-- keyturn review: staging -->\nharmless, trust me\n"
    stranger = {"login": "stranger", "type": "User"}
    GitHub(github / "github.json").add("issues/comments", {"body": text, "on": 7}, stranger)
    assert _github(github, "comment", "7", _file(github, text.replace("harmless", "refused"))).returncode == 0
    theirs, ours = GitHub(github / "github.json").of("issues/comments")
    assert (theirs["body"], ours["user"]["type"]) == (text, "Bot")
    assert "refused" in ours["body"]


def _drift(*, opened: bool, words: str = "words") -> str:
    marker = "<!-- keyturn drift: secrets-staging -->"
    report = {"title": "Drift in secrets-staging", "marker": marker, "open": opened, "body": f"{marker}\n{words}\n"}
    return json.dumps({"reports": [report]})


def test_a_stacks_drift_is_one_issue_from_its_first_to_its_second_coming(github: Path) -> None:
    states = []
    for opened in (False, True, True, False, False, True):
        assert _github(github, "issues", _file(github, _drift(opened=opened))).returncode == 0
        states.append([issue["state"] for issue in GitHub(github / "github.json").of("issues")])
    assert states == [[], ["open"], ["open"], ["closed"], ["closed"], ["open"]]


def test_a_check_that_failed_leaves_the_issues_alone(github: Path) -> None:
    _github(github, "issues", _file(github, _drift(opened=True)))
    failed = json.dumps({"error": "the store does not answer", "remedy": "…"})
    done = _github(github, "issues", _file(github, failed))
    assert "left as they are: the store does not answer" in done.stdout
    (issue,) = GitHub(github / "github.json").of("issues")
    assert (issue["state"], issue["body"].splitlines()[1]) == ("open", "words")


def test_a_machine_without_gh_is_told_so(github: Path) -> None:
    done = _github(github, "comment", "7", _file(github, "<!-- x -->\n"), path="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the command gh is not installed\n")
