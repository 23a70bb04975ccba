"""Deploy one stack by a saved plan: synth → init where needed → plan → review → apply exactly that plan.

* Works below .keyturn: ``synth/`` (stacks and their providers), ``plans/`` (one file while it is applied, for this user
  only: a saved plan holds state) and ``outputs/`` (a folder per stack that knows its backend and nothing else, so that
  reading what is deployed needs no provider and disturbs no deployment).
* One deployment at a time per project: they share those folders. Terraform's own state lock covers other machines.
* Synth runs the project's own code, a pull request's perhaps: it gets none of the runner's credentials.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rotation.errors import DeployError, GuardRefused
from rotation.file_lock import held
from rotation.files import write_atomically
from rotation.targets import Deployment
from rotation.terraform import Plan, ResourceChange, Terraform, run, runner_environment

WORK = Path(".keyturn")
SYNTH = WORK / "synth"
STACK_FILE = "cdk.tf.json"  # the name that cdktf gives it
DATA = ".terraform"  # what init makes in a stack's folder
INITIALIZED = "initialized-for"  # in DATA: the fingerprint of what it was made for
DEPLOYED = "deployed"  # the output in which an application stack keeps what its places were deployed with

PATIENCE = 600.0  # seconds that a deployment waits for another one of the same project

_SYNTH_GETS = re.compile(r"PATH|HOME|USER|LANG|LC_.*|TMPDIR|VIRTUAL_ENV|(JSII|CDKTF|NODE|PYTHON).*|CHECKPOINT_DISABLE")
_GUARDED_ACTIONS = (("create",), ("update",))


def synth(project: Path, stacks: Sequence[str], overlay: Path | None = None) -> Path:
    """Run the project's app for these stacks alone and return the folder that holds one folder for each.

    ``overlay`` is a folder whose pins and rendered files win over the project's, to plan a rotation ahead.
    """
    try:
        app = json.loads((project / "cdktf.json").read_text(encoding="utf-8"))["app"]
    except (OSError, ValueError, KeyError) as error:
        raise DeployError(
            f"cdktf.json of {project.name} names no app", 'Give it one: {"app": "python main.py"}.'
        ) from error
    environment = {name: value for name, value in os.environ.items() if _SYNTH_GETS.fullmatch(name)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment |= {"KEYTURN_STACKS": ",".join(stacks), "CDKTF_OUTDIR": str(project / SYNTH)}
    if overlay is not None:
        environment["KEYTURN_OVERLAY"] = str(overlay)
    done = run(shlex.split(app), project, environment, limit=300, what="synth")
    if done.returncode != 0:
        raise _synth_error(done.stderr)
    folder = project / SYNTH / "stacks"
    for stack in stacks:
        if not (folder / stack / STACK_FILE).is_file():
            raise DeployError(f"the app declares no stack {stack}", "Compare its name with those in main.py.")
    return folder


def prepare(project: Path, folder: Path) -> Terraform:
    """Terraform in a stack's folder, initialized if its providers or its backend changed since it last was."""
    settings = _settings(folder)
    environment = terraform_environment(project, settings)
    terraform = Terraform(folder, environment)
    fingerprint = _fingerprint(settings, environment)
    mark = folder / DATA / INITIALIZED
    if not mark.is_file() or mark.read_text(encoding="utf-8") != fingerprint:
        # Versions are pinned by the stacks; a lock file left from other versions would only refuse them.
        (folder / ".terraform.lock.hcl").unlink(missing_ok=True)
        terraform.init()
        write_atomically(mark, fingerprint)
    return terraform


def terraform_environment(project: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """What Terraform gets to see for a stack with these settings (its ``terraform`` block).

    A stack whose providers are those of the embedded environment gets them from there; any other one gets them from
    where the user's own Terraform configuration says.
    """
    from rotation.local import providers

    environment = runner_environment() | _keys_of_job()
    if providers.carried(settings.get("required_providers", {})):
        return environment | providers.tool_environment(project)
    return environment | {"PATH": providers.path_with_terraform(project)}


def _keys_of_job() -> dict[str, str]:
    """Keys for Terraform where keyturn itself assumes a role on Tencent Cloud: the provider cannot ask GitHub for the
    job's identity."""
    if not os.environ.get("TENCENTCLOUD_ROLE_ARN"):
        return {}
    from rotation.tencentcloud import terraform_keys

    return terraform_keys()


@contextmanager
def saved_plan(project: Path, terraform: Terraform) -> Iterator[tuple[Path, Plan]]:
    """Plan into a file that only this user can read, and that is gone afterwards."""
    folder = project / WORK / "plans"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():  # by a run that was killed: deployments of a project run one at a time
        left.unlink()
    handle, name = tempfile.mkstemp(prefix=f"{terraform.folder.name}-", dir=folder)
    os.close(handle)
    path = Path(name)
    try:
        yield path, terraform.plan(path)
    finally:
        path.unlink(missing_ok=True)


def guard(plan: Plan, allowed: Collection[str], removable: Collection[str] = ()) -> None:
    """Refuse a plan that does more than create or update the ``allowed`` addresses, delete the ``removable`` ones, and
    change the output `deployed`.

    Reading a data source is no change. Raises :class:`GuardRefused` that names the first offences.
    """
    offences = [
        f"{'/'.join(change.actions)} {change.address}"
        for change in plan.changes
        if not _is_allowed(change, allowed, removable)
    ]
    offences += [f"{'/'.join(o.actions)} output {o.name}" for o in plan.outputs if o.name != DEPLOYED]
    if offences:
        more = f" and {len(offences) - 3} more" if len(offences) > 3 else ""
        raise GuardRefused(f"the plan would also {', '.join(offences[:3])}{more}")


def _is_allowed(change: ResourceChange, allowed: Collection[str], removable: Collection[str]) -> bool:
    if change.actions == ("delete",):
        return change.address in removable
    return change.actions == ("read",) or (change.actions in _GUARDED_ACTIONS and change.address in allowed)


def deploy(project: Path, stack: str, review: Callable[[Plan], None]) -> Deployment:
    """Synthesize, plan and apply one stack. ``review`` raises to refuse the plan; an empty plan is not applied."""
    with alone(project):
        terraform = prepare(project, synth(project, [stack]) / stack)
        with saved_plan(project, terraform) as (path, plan):
            review(plan)
            if not plan.empty:
                terraform.apply(path)
            return Deployment(plan.digest, tuple(change.address for change in plan.changes))


def preview(project: Path, stack: str, overlay: Path | None = None) -> Plan:
    """The plan that :func:`deploy` would make now, or with the pins and rendered files of an ``overlay``."""
    with alone(project):
        terraform = prepare(project, synth(project, [stack], overlay) / stack)
        with saved_plan(project, terraform) as (_, plan):
            return plan


def outputs(project: Path, stack: str, sources: str) -> dict[str, Any]:
    """The outputs that were last applied, without a plan; empty where nothing ever was.

    ``sources`` is the manifest's digest of what declares: the backend is learnt by a synth when that changes.
    """
    folder = project / WORK / "outputs" / stack
    data = project / SYNTH / "stacks" / stack / DATA
    learnt = folder / "sources"
    if not (data / INITIALIZED).is_file() or not learnt.is_file() or learnt.read_text(encoding="utf-8") != sources:
        with alone(project):
            stack_folder = synth(project, [stack]) / stack
            backend = {"terraform": _backend(stack, _settings(stack_folder))}
            prepare(project, stack_folder)
            write_atomically(folder / STACK_FILE, json.dumps(backend, indent=1))
            write_atomically(learnt, sources)
    # Without the stack's resources, but with what init made for them: a folder of its own would need all providers.
    return Terraform(folder, terraform_environment(project, {}) | {"TF_DATA_DIR": str(data.absolute())}).output()


def alone(project: Path) -> AbstractContextManager[None]:
    """Wait until no other deployment of this project runs, and keep others waiting."""
    busy = DeployError(
        f"another deployment of this project has been running for {PATIENCE:g} seconds",
        "Wait for it, or stop it, then run the command again.",
    )
    return held(project / WORK / "deploy.lock", PATIENCE, busy)


def _settings(folder: Path) -> dict[str, Any]:
    """The ``terraform`` block of a stack's folder."""
    settings: dict[str, Any] = json.loads((folder / STACK_FILE).read_text(encoding="utf-8")).get("terraform", {})
    return settings


def _backend(stack: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    backend = {name: settings[name] for name in ("backend", "cloud") if name in settings}
    if not backend:
        raise DeployError(f"{stack} declares no backend for its state", "Declare one in stacks/environments.py.")
    return backend


def _fingerprint(settings: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    known = [settings, environment.get("TF_CLI_CONFIG_FILE"), environment.get("TF_PLUGIN_CACHE_DIR")]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _synth_error(stderr: str) -> DeployError:
    """The app's own two lines (``error: what``, then the remedy), else the last line that it wrote."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["the app gave no reason"]
    for at, line in enumerate(lines):
        if line.startswith("error: "):
            return DeployError(f"synth failed: {line.removeprefix('error: ')}", *lines[at + 1 : at + 2])
    return DeployError(f"synth failed: {lines[-1]}", "Run `cdktf synth` and read what it says.")
