"""The rotation plan: what a rotation would do, without values, bound to the Terraform plan that it would apply first.

A plan is data (:class:`RotationPlan`, JSON on disk). Its ``digest`` covers all of it but the time it was made, and
within it ``terraform`` holds the digest of the canary's Terraform plan. The version ids of generations that do not
exist yet are known beforehand, so the configuration can be rendered and planned before anything is staged.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rotation import deploy
from rotation.credentials import DescribesOperations
from rotation.engine import Engine, candidate_of
from rotation.errors import UsageError
from rotation.manifest import Manifest, Secret
from rotation.model import Place, Ring, StoreView, Strategy
from rotation.pins import Pins
from rotation.pins import write as write_pins
from rotation.render import regenerate
from rotation.rollout import references

FORMAT: Literal[2] = 2
_RETIRE = "retire generation"  # how the steps begin that cannot be undone
MADE_ANEW = "Make a new plan with `keyturn plan --out`, have it reviewed, and rotate with that."


class _Planned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedRotation(_Planned):
    """One secret's rotation. ``steps`` are sentences in their order, ``operations`` what is done in the target, without
    values; ``places`` are consumer/ring, canary first. ``readers`` may read the value. ``bake``, ``settle`` and
    ``grace`` are those of the declaration. ``irreversible`` tells what cannot be undone, and from which step on.
    ``rehearsal`` says what stands in the evidence that the environment asks for, empty where it asks for none."""

    secret: str
    store: str
    credential: str
    strategy: Strategy
    current: int | None
    to: int
    resumes: bool
    places: tuple[str, ...]
    readers: tuple[str, ...]
    steps: tuple[str, ...]
    operations: tuple[str, ...]
    bake: timedelta
    settle: timedelta
    grace: timedelta
    irreversible: str
    rehearsal: str = ""


class PlannedStack(_Planned):
    """A Terraform plan: its digest and the changes by address."""

    stack: str
    digest: str
    changes: tuple[str, ...]


class RotationPlan(_Planned):
    format: Literal[2] = FORMAT
    environment: str
    made_at: datetime
    sources: str
    rotations: tuple[PlannedRotation, ...]
    terraform: tuple[PlannedStack, ...]
    digest: str = ""

    def digested(self) -> Self:
        """This plan with its digest filled in."""
        covered = self.model_dump_json(exclude={"made_at", "digest"})
        return self.model_copy(update={"digest": hashlib.sha256(covered.encode()).hexdigest()})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan; one that is damaged, or was changed since it was made, is refused (:class:`UsageError`)."""
        try:
            text = path.read_bytes()
            plan = cls.model_validate_json(text)
        except OSError as error:
            raise UsageError(f"the plan {path.name} cannot be read: {error.strerror}", MADE_ANEW) from error
        except ValidationError as error:
            raise UsageError(f"{path.name} is {_what(text)}", MADE_ANEW) from error
        if plan.digested().digest != plan.digest:
            raise UsageError(f"the plan {path.name} was changed after it was made", MADE_ANEW)
        return plan

    def refuse_if_moved(self, now: RotationPlan) -> None:
        """Refuse to act on this plan when the same plan made now is another one."""
        if now.digest == self.digest:
            return
        moved = [*self._moved(now)] or ["the environment"]
        raise UsageError(f"since this plan was made {' and '.join(moved)} moved", MADE_ANEW)

    def _moved(self, now: RotationPlan) -> Iterable[str]:
        if self.sources != now.sources:
            yield f"the stacks (digest {self.sources[:12]} → {now.sources[:12]})"
        if self.rotations != now.rotations:
            after = {rotation.secret: rotation for rotation in now.rotations}
            names = [r.secret for r in self.rotations if after.get(r.secret) != r]
            yield " ".join(["the secrets", ", ".join(names[:5]), *(["…"] if len(names) > 5 else [])])
        digests = {stack.stack: stack.digest for stack in now.terraform}
        for stack in self.terraform:
            digest = digests.get(stack.stack, "none")
            if digest != stack.digest:
                yield f"the Terraform plan of {stack.stack} (digest {stack.digest[:12]} → {digest[:12]})"


def plan_rotations(engine: Engine, names: Iterable[str], seen: Mapping[str, StoreView] | None = None) -> RotationPlan:
    """Plan the rotation of these secrets. Observes stores (in batches); changes nothing. Raises DeclarationError,
    before it observes, where a plugin that they need is declared wrongly.

    ``seen`` is what the stores have just said of them and of their neighbours, where they were asked already.
    """
    manifest = engine.manifest
    secrets = [manifest.secret(name) for name in sorted(names)]
    engine.plugins.require(secrets)
    stored = engine.observer.stored(manifest.neighbours(secret.name for secret in secrets)) if seen is None else seen
    pins = engine.rollout.pins()
    engine.rollout.check(pins, stored)
    rotations = tuple(_planned(secret, stored[secret.name], engine) for secret in secrets)
    return RotationPlan(
        environment=manifest.environment,
        made_at=engine.clock(),
        sources=manifest.sources,
        rotations=rotations,
        terraform=_planned_stacks(engine, rotations, stored, pins),
    ).digested()


def _what(text: bytes) -> str:
    """What a file is that is no rotation plan of this format."""
    try:
        content = json.loads(text)
    except ValueError:
        return "not a rotation plan, or not a whole one"
    version = content.get("format") if isinstance(content, dict) and "rotations" in content else FORMAT
    return "not a rotation plan" if version == FORMAT else f"a rotation plan of format {version}, not {FORMAT}"


def _planned(secret: Secret, view: StoreView, engine: Engine) -> PlannedRotation:
    candidate = candidate_of(view)
    current = view.current.generation if view.current else None
    to = candidate or max(view.highest, engine.journal.highest(secret.name)) + 1
    consumers = engine.manifest.consumers_of(secret.name)
    places = tuple(f"{c.name}/{ring}" for ring in Ring for c in consumers if ring in c.rings)
    steps = tuple(_steps(secret, view, to, places))
    return PlannedRotation(
        secret=secret.name,
        store=f"{secret.store.kind}: {secret.stored_as}",
        credential=secret.credential.kind,
        strategy=secret.strategy,
        current=current,
        to=to,
        resumes=candidate is not None,
        places=places,
        readers=secret.readers,
        steps=steps,
        operations=tuple(_operations(secret, engine, to, current)),
        bake=secret.bake,
        settle=secret.settle,
        grace=secret.grace,
        irreversible=_irreversible(secret, steps, current),
        rehearsal=engine.evidence.standing(secret) if candidate is None else "",
    )


def _steps(secret: Secret, view: StoreView, to: int, places: tuple[str, ...]) -> Iterable[str]:
    if view.previous is not None and candidate_of(view) is None:
        yield f"{_RETIRE} {view.previous.generation} once it has been out of use for {secret.grace}"
    sealed = f", sealed with {secret.key}" if secret.sealed else ""
    yield f"stage generation {to} in the store as pending{sealed}"
    yield f"install it in the target ({secret.credential.kind}; the value is not shown)"
    yield "test it: log in, compare privileges"
    if secret.strategy is Strategy.SINGLE:
        yield "promote it at once: the old one is no longer accepted"
    for ring, span in ((Ring.CANARY, secret.bake), (Ring.STABLE, secret.settle)):
        members = [place for place in places if place.endswith(f"/{ring}")]
        if members:
            yield f"pin and deploy {', '.join(members)}, and watch for {span}"
    if secret.strategy is not Strategy.SINGLE:
        yield "promote it"
    if view.current is not None:
        yield f"{_RETIRE} {view.current.generation} {secret.grace} after its last use"


def _operations(secret: Secret, engine: Engine, to: int, current: int | None) -> Iterable[str]:
    kind = engine.plugins.kind(secret)
    if isinstance(kind, DescribesOperations):
        yield from kind.operations(to, current)
    if secret.end_sessions and current is not None:
        yield f"when generation {current} is retired: end its open sessions"


def _irreversible(secret: Secret, steps: tuple[str, ...], current: int | None) -> str:
    """A retired value is gone. Until then a rollback brings the old one back, after promotion as a new generation."""
    retired = [f"step {at}, {step}" for at, step in enumerate(steps, start=1) if step.startswith(_RETIRE)]
    if current is None:
        return "nothing: there is no older value"
    gap = ", once a rollback has installed it again" if secret.strategy is Strategy.SINGLE else ""
    return f"{'; '.join(retired)}. Before the last step generation {current} can come back{gap}"


def _planned_stacks(
    engine: Engine, rotations: tuple[PlannedRotation, ...], stored: Mapping[str, StoreView], pins: Pins
) -> tuple[PlannedStack, ...]:
    """The Terraform plan of the canary step, made from pins and configuration as they will be then."""
    ahead, ahead_stored = pins, dict(stored)
    moved: set[Place] = set()
    for rotation in rotations:
        secret = engine.manifest.secrets[rotation.secret]
        standing = stored[rotation.secret].pending
        version = (
            standing
            if standing is not None and standing.generation == rotation.to
            else engine.plugins.store(secret).predict(secret.stored_as, rotation.to)
        )
        ahead_stored[rotation.secret] = replace(stored[rotation.secret], pending=version)
        for consumer in engine.manifest.consumers_of(rotation.secret):
            first = next((ring for ring in Ring if ring in consumer.rings), None)
            if first is not None:
                ahead = ahead.with_(consumer.name, first, rotation.secret, rotation.to)
                moved.add((consumer.name, first))
    return tuple(_preview(engine, stack, ahead, ahead_stored, moved) for stack in _stacks(engine.manifest, rotations))


def _stacks(manifest: Manifest, rotations: tuple[PlannedRotation, ...]) -> list[str]:
    targets = [c.target for rotation in rotations for c in manifest.consumers_of(rotation.secret)]
    return sorted({target.options["stack"] for target in targets if target.kind == "terraform"})


def _preview(
    engine: Engine, stack: str, pins: Pins, stored: Mapping[str, StoreView], moved: Collection[Place]
) -> PlannedStack:
    """What deploying the places that ``moved`` would change. The others keep their files: of the secrets that only they
    use, the stores were not asked."""
    with tempfile.TemporaryDirectory(prefix="keyturn-") as folder:
        overlay = Path(folder)
        write_pins(overlay / engine.manifest.pins, pins)
        consumers = {
            name: consumer.model_copy(update={"template": engine.project / consumer.template})
            for name, consumer in engine.manifest.consumers.items()
        }
        ahead = engine.manifest.model_copy(update={"consumers": consumers})
        regenerate(overlay, ahead, pins, references(ahead, stored), places=moved)
        plan = deploy.preview(engine.project, stack, overlay)
    changes = tuple(f"{'/'.join(change.actions)} {change.address}" for change in plan.changes)
    return PlannedStack(stack=stack, digest=plan.digest, changes=changes)


def describe(plan: RotationPlan) -> list[str]:
    """The plan for people."""
    if not plan.rotations:
        return ["nothing to do"]
    lines = [line for rotation in plan.rotations for line in describe_rotation(rotation)]
    for stack in plan.terraform:
        lines.append(
            f"{stack.stack}: {', '.join(stack.changes) or 'no changes'} (first ring; digest {stack.digest[:12]})"
        )
    return [*lines, f"plan digest {plan.digest[:12]}"]


def describe_rotation(rotation: PlannedRotation) -> list[str]:
    """One secret's rotation for people."""
    verb = "goes on" if rotation.resumes else "rotates"
    return [
        f"{rotation.secret}: {rotation.current or 'no value'} → {rotation.to} ({verb}; {rotation.strategy})",
        *(f"  {number}. {step}" for number, step in enumerate(rotation.steps, start=1)),
        *(f"  in the target: {operation}" for operation in rotation.operations),
        f"  blast radius: {', '.join(rotation.places) or 'no declared consumer'}",
        f"  read by: {', '.join(rotation.readers) or 'nobody whom the declaration names'}",
        f"  cannot be undone: {rotation.irreversible}",
        *([f"  rehearsal: {rotation.rehearsal}"] if rotation.rehearsal else []),
    ]
