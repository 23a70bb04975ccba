"""Plans of an environment's stacks, saved in a folder: made and reviewed in one job, applied in another.

In the folder, per stack:

* ``<stack>.tfplan``: Terraform's saved plan, for this user only: it holds state.
* ``<stack>.json``: the plan as ``terraform show -json`` prints it, what changes alone, every sensitive value masked.

and ``plans.json`` (:class:`SavedPlans`), written last: a folder without it is not whole.

Nothing records which plans were applied: Terraform knows. A plan whose state moved since is compared with one made now.
Where nothing is left to do it had been applied; where what is left is a part of it, the rest is applied (a run was
killed in the middle); anything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rotation import deploy
from rotation.errors import DeployError, StalePlan, UsageError
from rotation.files import write_atomically
from rotation.manifest import Manifest
from rotation.terraform import Json, Plan, Terraform, beyond, masked_document

INDEX = "plans.json"
MADE_ANEW = "Make new plans with `keyturn deploy --out`, have them reviewed, and apply those."
_PASSING = deploy.WORK / "deploying"  # the folder of plans that are applied by the command that makes them

# Gets, by stack, what the JSON beside each saved plan holds, read from the saved plan itself. Raises to refuse them.
Review = Callable[[Mapping[str, Json]], None]


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SavedPlan(_Saved):
    """One stack's plan. ``digest`` is that of :class:`~rotation.terraform.Plan`; ``declared`` is the SHA-256 of the
    synthesized stack, ``saved`` that of the saved plan's file and ``shown`` that of the JSON beside it. ``changes``
    are "action address"."""

    stack: str
    digest: str
    declared: str
    saved: str
    shown: str
    changes: tuple[str, ...]


class SavedPlans(_Saved):
    """What plans.json says. ``sources`` is the manifest's, ``terraform`` the version that made the plans."""

    format: Literal[1] = 1
    environment: str
    made_at: datetime
    sources: str
    terraform: str
    stacks: tuple[SavedPlan, ...]

    @property
    def empty(self) -> bool:
        return not any(plan.changes for plan in self.stacks)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder of plans. Raises :class:`UsageError` for one that is not whole, or changed since."""
        plans = cls.index(folder)
        for plan in plans.stacks:
            _refuse_if_changed(saved_file(folder, plan.stack), plan.saved)
            _refuse_if_changed(shown_file(folder, plan.stack), plan.shown)
        return plans

    @classmethod
    def index(cls, folder: Path) -> Self:
        """Read what plans.json says, whatever lies beside it."""
        try:
            return cls.model_validate_json((folder / INDEX).read_bytes())
        except OSError as error:
            raise UsageError(f"{folder.name} holds no plans: {INDEX}: {error.strerror}", MADE_ANEW) from error
        except ValidationError as error:
            raise UsageError(
                f"{INDEX} in {folder.name} is not a list of plans, or not a whole one", MADE_ANEW
            ) from error

    def refuse_if_moved(self, manifest: Manifest) -> None:
        """Refuse plans of another environment, or of stacks that were changed since."""
        if self.environment != manifest.environment:
            raise UsageError(
                f"these plans are for {self.environment}, not for {manifest.environment}",
                f"Apply them with --environment {self.environment}.",
            )
        if self.sources != manifest.sources:
            raise UsageError("the stacks were changed after these plans were made", MADE_ANEW)


@dataclass(frozen=True, slots=True)
class Applied:
    """How one stack ended: ``outcome`` is "applied", "no changes", "applied before" or "applied the rest"."""

    stack: str
    digest: str
    outcome: str


def saved_file(folder: Path, stack: str) -> Path:
    return folder / f"{stack}.tfplan"


def shown_file(folder: Path, stack: str) -> Path:
    return folder / f"{stack}.json"


def shown_files(folder: Path) -> list[Path]:
    """The JSON of each plan in a folder, which may have come without the saved plans. Raises :class:`UsageError` for
    one that was changed."""
    plans = SavedPlans.index(folder).stacks
    for plan in plans:
        _refuse_if_changed(shown_file(folder, plan.stack), plan.shown)
    return [shown_file(folder, plan.stack) for plan in plans]


def make(project: Path, manifest: Manifest, stacks: Sequence[str], folder: Path) -> SavedPlans:
    """Plan these stacks into a folder. Plans of an earlier run that lie there are replaced."""
    with deploy.alone(project):
        return _make(project, manifest, stacks, folder)


def apply(project: Path, manifest: Manifest, folder: Path, review: Review, say: Callable[[Applied], None]) -> None:
    """Apply exactly the plans in a folder, in their order, and stop at the first failure.

    Raises :class:`UsageError`, before anything is applied, when a file, the stacks or the pins were changed since, or
    when another Terraform made them; what ``review`` raises; and :class:`~rotation.errors.DeployError` for a plan that
    cannot be applied, with those that were.
    """
    with deploy.alone(project):
        _apply(project, manifest, folder, review, say)


def make_and_apply(
    project: Path, manifest: Manifest, stacks: Sequence[str], review: Review, say: Callable[[Applied], None]
) -> SavedPlans:
    """Plan these stacks, and apply the plans when ``review`` lets them pass. Nothing is applied before all are
    planned and reviewed."""
    folder = project / _PASSING
    with deploy.alone(project):
        _remove(folder)
        try:
            plans = _make(project, manifest, stacks, folder)
            _apply(project, manifest, folder, review, say)
        finally:
            _remove(folder)
    return plans


def _make(project: Path, manifest: Manifest, stacks: Sequence[str], folder: Path) -> SavedPlans:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # until the new plans are whole
    synthesized = deploy.synth(project, stacks)
    made: list[SavedPlan] = []
    version = ""
    for stack in stacks:
        terraform = deploy.prepare(project, synthesized / stack)
        made.append(_make_one(manifest, terraform, folder))
        version = terraform.version()
    plans = SavedPlans(
        environment=manifest.environment,
        made_at=datetime.now(UTC),
        sources=manifest.sources,
        terraform=version,
        stacks=tuple(made),
    )
    write_atomically(folder / INDEX, plans.model_dump_json(indent=1) + "\n")
    return plans


def _make_one(manifest: Manifest, terraform: Terraform, folder: Path) -> SavedPlan:
    stack = terraform.folder.name
    saved, shown = saved_file(folder, stack), shown_file(folder, stack)
    saved.unlink(missing_ok=True)
    os.close(os.open(saved, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # Terraform keeps the permissions
    plan = terraform.plan(saved)
    about = {"stack": stack, "environment": manifest.environment, "embedded": manifest.embedded, "digest": plan.digest}
    document = {"keyturn": about} | masked_document(terraform.document(saved))
    write_atomically(shown, json.dumps(document, indent=1) + "\n")
    return SavedPlan(
        stack=stack,
        digest=plan.digest,
        declared=_declared(terraform.folder),
        saved=_sha256(saved),
        shown=_sha256(shown),
        changes=tuple(changes_of(plan)),
    )


def changes_of(plan: Plan) -> list[str]:
    """What a plan changes, as "action address"."""
    return [
        *(f"{'/'.join(change.actions)} {change.address}" for change in plan.changes),
        *(f"{'/'.join(output.actions)} output {output.name}" for output in plan.outputs),
    ]


def _apply(project: Path, manifest: Manifest, folder: Path, review: Review, say: Callable[[Applied], None]) -> None:
    plans = SavedPlans.load(folder)
    plans.refuse_if_moved(manifest)
    synthesized = deploy.synth(project, [plan.stack for plan in plans.stacks])
    for plan in plans.stacks:
        if _declared(synthesized / plan.stack) != plan.declared:
            raise UsageError(f"the pins or the configuration of {plan.stack} moved after it was planned", MADE_ANEW)
    ready = [(plan, deploy.prepare(project, synthesized / plan.stack)) for plan in plans.stacks]
    for _, terraform in ready[:1]:
        _refuse_another_version(plans.terraform, terraform.version())
    review({plan.stack: _document(terraform, plan, folder) for plan, terraform in ready})
    done: list[str] = []
    for plan, terraform in ready:
        try:
            outcome = _apply_one(project, terraform, plan, saved_file(folder, plan.stack))
        except DeployError as error:
            raise type(error)(f"{error} ({_so_far(done)})", error.remedy) from error
        done.append(plan.stack)
        say(Applied(plan.stack, plan.digest, outcome))


def _document(terraform: Terraform, plan: SavedPlan, folder: Path) -> dict[str, Json]:
    document = terraform.document(saved_file(folder, plan.stack))
    if Plan.parse(document).digest != plan.digest:
        raise UsageError(f"{INDEX} has another digest for {plan.stack} than its saved plan", MADE_ANEW)
    return masked_document(document)


def _apply_one(project: Path, terraform: Terraform, plan: SavedPlan, saved: Path) -> str:
    if not plan.changes:
        return "no changes"
    try:
        terraform.apply(saved)
    except StalePlan:
        return _go_on(project, terraform, saved)
    return "applied"


def _go_on(project: Path, terraform: Terraform, saved: Path) -> str:
    """Apply what an earlier run left of a plan, if it left nothing else."""
    with deploy.saved_plan(project, terraform) as (path, plan):
        if plan.empty:
            return "applied before"
        if more := beyond(terraform.document(saved), terraform.document(path)):
            raise StalePlan(
                f"{terraform.folder.name} was changed by someone else after it was planned: now it would also"
                f" {', '.join(more[:3])}{f' and {len(more) - 3} more' if len(more) > 3 else ''}",
                MADE_ANEW,
            )
        terraform.apply(path)
    return "applied the rest"


def _so_far(done: Sequence[str]) -> str:
    return f"deployed before it: {', '.join(done)}" if done else "no stack was deployed before it"


def _refuse_another_version(made_by: str, here: str) -> None:
    if made_by != here:
        raise UsageError(
            f"these plans were made by Terraform {made_by}, and here is {here}",
            f"Apply them with Terraform {made_by}, or make new ones with this one.",
        )


def _refuse_if_changed(path: Path, digest: str) -> None:
    try:
        found = _sha256(path)
    except OSError as error:
        raise UsageError(f"the plan {path.name} cannot be read: {error.strerror}", MADE_ANEW) from error
    if found != digest:
        raise UsageError(
            f"{path.name} was changed after it was made (SHA-256 {found[:12]}, not {digest[:12]})", MADE_ANEW
        )


def _declared(folder: Path) -> str:
    """SHA-256 of a synthesized stack, without the comments that the CDK puts into it."""
    stack = json.loads((folder / deploy.STACK_FILE).read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(_without_comments(stack), sort_keys=True).encode()).hexdigest()


def _without_comments(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _without_comments(part) for name, part in value.items() if name != "//"}
    return [_without_comments(part) for part in value] if isinstance(value, list) else value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
