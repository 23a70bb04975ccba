"""GitHub's workflows, run here: their own steps, by act, without GitHub and without Docker.

Below one folder stands what GitHub would give:

* ``origin.git``: the repository, bare. Every job starts in a fresh clone of it, as a runner without a disk would. The
  clone finds the embedded environment of the project, and what `make setup` installed, through links.
* ``work``: where act reads the workflows; its remote's address only names the repository.
* ``bin``: first on PATH; what is put there as ``gh`` stands for GitHub's API.
* ``actions/``: what stands for the actions of others, for none can be downloaded. Artifacts are folders in
  ``artifacts/``; the interpreter is the one that runs already; no role is assumed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rotation.errors import LocalError

REPOSITORY = "example/orders"
BRANCH = "main"
LIMIT = 600  # seconds that one workflow may take
# What a project's repository holds. The rest of a checkout is made by set-up, or belongs to keyturn's own development.
_DECLARED = ("main.py", "cdktf.json", "stacks", "modules")
_INSTALLED = ("pyproject.toml", "requirements.lock", "requirements-node.lock", "package.json", "package-lock.json")
_PROJECT = (*_DECLARED, *_INSTALLED, "Makefile", ".ci", ".github")
# What rotations write.
_FOLLOWERS = (Path("stacks/pins/local.json"), Path("stacks/config/rendered/local"))
_PINNED = re.compile(r"uses: (?P<action>[\w.-]+/[\w./-]+)@(?P<sha>[0-9a-f]{40})")
_KEPT = ("PATH", "LANG", "TMPDIR", "PYTHONPATH")
_QUIET = {"CHECKPOINT_DISABLE": "1", "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20"}

_CHECKOUT = """\
git init --quiet --initial-branch={branch} .
git remote add origin {origin}
git fetch --quiet origin '+refs/heads/*:refs/remotes/origin/*'
ref=${{REF:-${{CHECKED_OUT:-{branch}}}}}
if git show-ref --quiet "refs/remotes/origin/$ref"; then git checkout --quiet -B "$ref" "origin/$ref"
else git checkout --quiet --detach "$ref"; fi
installed() {{ # by links, and newer than what was cloned
  mkdir -p "$1"
  find "{project}/$1/" -mindepth 1 -maxdepth 1 ! -name .ready -exec ln -s -t "$1" {{}} +
  touch "$1/.ready"
}}
installed .venv
installed node_modules
mkdir -p .keyturn/terraform
ln -s -t .keyturn "{project}/.keyturn/local"
# Folders alone: Terraform's configuration names its own place, and would outlive this clone.
find "{project}/.keyturn/terraform/" -mindepth 1 -maxdepth 1 -type d -exec ln -s -t .keyturn/terraform {{}} +
"""
_UPLOAD = """\
mkdir -p "{artifacts}/$NAME"
if [ -d "$FROM_OR_TO" ]; then cp -a "$FROM_OR_TO/." "{artifacts}/$NAME"; else cp -a $FROM_OR_TO "{artifacts}/$NAME"; fi
"""
_DOWNLOAD = """\
mkdir -p "$FROM_OR_TO"
cp -a "{artifacts}/$NAME/." "$FROM_OR_TO"
"""
_NOTHING = "true\n"
_ACTIONS = {
    "actions/checkout": _CHECKOUT,
    "actions/upload-artifact": _UPLOAD,
    "actions/download-artifact": _DOWNLOAD,
    "actions/setup-python": _NOTHING,
    "aws-actions/configure-aws-credentials": _NOTHING,
}


@dataclass(frozen=True, slots=True)
class Ran:
    """A workflow that ended: act's exit code and its log."""

    code: int
    log: str


@dataclass(frozen=True)
class Workflows:
    """``project`` runs the embedded environment; its pins and rendered files are the repository's first ones, and its
    journal stands for the bucket. ``variables`` are more of the repository's (`vars.…`), ``environment`` more
    environment variables of every job."""

    project: Path
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def publish(self) -> None:
        """Make the repository from the project as it is, and push it; what was there before is replaced."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._git("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(self.origin), folder=self.folder)
        self._git("init", "--quiet", f"--initial-branch={BRANCH}", str(self.work), folder=self.folder)
        self._git("remote", "add", "origin", f"https://github.com/{REPOSITORY}.git")
        for name in _PROJECT:
            _copy(self.project / name, self.work / name)
        for name in (".venv", "node_modules", ".keyturn", "cdktf.out", "__pycache__"):
            with (self.work / ".git/info/exclude").open("a", encoding="utf-8") as ignored:
                ignored.write(f"{name}\n")
        self.commit("The project")
        for name, script in _ACTIONS.items():
            self._stand_in(name, script)

    def commit(self, message: str) -> None:
        """Commit what is in ``work``, and push it."""
        self._git("add", "--all")
        self._git("-c", "user.name=somebody", "-c", "user.email=somebody@localhost", "commit", "-qm", message)
        self._git("push", "--quiet", str(self.origin), f"HEAD:{BRANCH}")

    def clone(self, folder: Path) -> None:
        """A fresh clone of the repository, with what `make setup` installed: the checkout of any pipeline."""
        folder.mkdir()
        subprocess.run(["bash", "-euo", "pipefail", "-c", self._filled(_CHECKOUT)], cwd=folder, timeout=60, check=True)

    def merge(self, branch: str) -> None:
        """What the button on a pull request does, for a branch on top of the main one."""
        self._git("push", "--quiet", ".", f"{branch}:{BRANCH}", folder=self.origin)
        self.pull()

    def pull(self) -> None:
        """Bring ``work``, and the project's pins and rendered files, to what was pushed meanwhile."""
        self._git("fetch", "--quiet", str(self.origin), BRANCH)
        self._git("reset", "--quiet", "--hard", "FETCH_HEAD")
        for followed in _FOLLOWERS:
            if (self.work / followed).exists():
                _copy(self.work / followed, self.project / followed)

    def show(self, path: str, branch: str = BRANCH) -> str:
        """A file of the repository, as it was pushed."""
        return self._git("show", f"{branch}:{path}", folder=self.origin)

    def revision(self, branch: str = BRANCH) -> str:
        """The SHA of a branch's last commit in the repository."""
        return self._git("rev-parse", branch, folder=self.origin).strip()

    def history(self, branch: str = BRANCH) -> list[str]:
        """The subjects of the branch's commits, the newest first."""
        return self._git("log", "--format=%s", branch, folder=self.origin).splitlines()

    def run(
        self,
        workflow: str,
        event: str = "workflow_dispatch",
        *,
        payload: Mapping[str, object] | None = None,
        follow: Callable[[str], None] = lambda _: None,
        **inputs: str,
    ) -> Ran:
        """Run ``.github/workflows/<workflow>.yml`` for an event; ``follow`` gets each line of the log as it comes. When
        it raises, everything that runs is killed, as when a runner dies.

        An input's name has underscores for its hyphens. Raises :class:`LocalError` where act is not installed.
        """
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        event_file = self.folder / "event.json"
        event_file.write_text(json.dumps({"inputs": given, **(payload or {})}), encoding="utf-8")
        argv = [*self._act(workflow, event), "--eventpath", str(event_file)]
        with subprocess.Popen(
            argv,
            env=self._environment(),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # to be ended with all that it started
        ) as child:
            lines = []
            try:
                for line in child.stdout or ():
                    follow(line)
                    lines.append(line)
                child.wait(LIMIT)
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
        return Ran(child.returncode, "".join(lines))

    def _act(self, workflow: str, event: str) -> Iterator[str]:
        act = shutil.which("act", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if act is None:
            raise LocalError("act is not installed", "Run `make setup`: it comes with what develops keyturn.")
        yield from (act, event, "--directory", str(self.work), "--workflows", f".github/workflows/{workflow}.yml")
        yield from ("--platform", "ubuntu-latest=-self-hosted", "--no-skip-checkout", "--no-cache-server")
        yield from ("--action-cache-path", str(self.folder / "runners"), "--action-offline-mode")
        for action, sha in sorted(self._pinned()):
            yield from ("--local-repository", f"{action}@{sha}={self.folder / 'actions' / action}")
        journal = str(self.project.absolute() / ".keyturn" / "journal")
        local = {"KEYTURN_ENVIRONMENTS": '["local"]', "KEYTURN_JOURNAL": journal}
        for name, value in (local | dict(self.variables)).items():
            yield from ("--var", f"{name}={value}")
        for name, value in self.environment.items():
            yield from ("--env", f"{name}={value}")

    def _pinned(self) -> set[tuple[str, str]]:
        files = [*(self.work / ".github").rglob("*.yml")]
        return {
            (match["action"], match["sha"])
            for path in files
            for match in _PINNED.finditer(path.read_text(encoding="utf-8"))
        }

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        path = f"{self.folder / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return kept | {"PATH": path, "HOME": str(self.folder)} | _QUIET

    def _stand_in(self, name: str, script: str) -> None:
        folder = self.folder / "actions" / name
        folder.mkdir(parents=True)
        inputs = {"ref": "REF", "name": "NAME", "path": "FROM_OR_TO"}
        step = {
            "shell": "bash",
            "run": self._filled(script),
            "env": {variable: f"${{{{ inputs.{given} }}}}" for given, variable in inputs.items()},
        }
        action = {
            "name": name,
            "description": f"Stands for {name}",
            "inputs": {given: {"description": given} for given in inputs},
            "runs": {"using": "composite", "steps": [step]},
        }
        (folder / "action.yml").write_text(json.dumps(action), encoding="utf-8")  # JSON is YAML

    def _filled(self, script: str) -> str:
        return script.format(
            origin=self.origin, project=self.project.absolute(), artifacts=self.folder / "artifacts", branch=BRANCH
        )

    def _git(self, *arguments: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder or self.work, text=True, capture_output=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise LocalError(f"git {arguments[0]} failed: {done.stderr.strip()}", "Look into the folder of the clone.")
        return done.stdout


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy2(source, destination)
