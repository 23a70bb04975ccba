"""Secrets Manager's own rotation: four steps, each its own call of the function, each idempotent by the token.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotating-secrets-lambda-functions.html

RotateSecret makes a pending version without a value whose id is the token. Then Secrets Manager calls:

- ``createSecret``: puts a new value into that version, as the next generation.
- ``setSecret``: installs it in the target.
- ``testSecret``: logs in with it, and compares its privileges with those of the current one.
- ``finishSecret``: tests it again, for the steps may be hours apart, and promotes it.

It is one way to start a rotation, no other kind of rotation: the version is a candidate like every other, which
`keyturn rotate` can finish and `keyturn rollback` take back at any time. Rings stay where they are pinned until the
next `keyturn rotate`, and the old value stays valid until it is retired. Until then another rotation is refused, as it
would be by keyturn: two generations have to be told apart, and the third one needs the older one's place.

What createSecret refuses for good takes the pending mark off again, so that nothing stands in the way of the next
rotation; what failed for the moment is left for Secrets Manager to try again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rotation import model
from rotation.engine import Engine
from rotation.errors import Conflict, GenerationSpent, KeyturnError, StoreError, TargetError, Unavailable, UsageError
from rotation.manifest import Secret
from rotation.model import Acceptance, Act, Ending, Observation, Reason, StoreView, Trigger, Version
from rotation.opening import Opening, Purpose
from rotation.preflight import preflight
from rotation.stores import TokenStaging

WHY = "Secrets Manager asks for it"
MOST_CLAIMS = 5  # of generations that others turn out to have taken


class Step(BaseModel):
    """The event of one step, by AWS's names for its fields; further ones are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: Literal["createSecret", "setSecret", "testSecret", "finishSecret"] = Field(alias="Step")
    secret_id: str = Field(alias="SecretId")
    token: str = Field(alias="ClientRequestToken", min_length=32, max_length=64)

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(dict(event))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise UsageError(
                f"the event is not a step of a rotation: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                "Let Secrets Manager call the function: `aws secretsmanager rotate-secret`.",
            ) from error


def take(engine: Engine, step: Step) -> dict[str, Any]:
    """Take one step; taken again it changes nothing. Returns what was done, without values.

    Raises :class:`UsageError` for a secret that is not declared, :class:`Conflict` where the token's version is not
    the one that is pending, and what store and target raise.
    """
    secret = _declared(engine, step.secret_id)
    with engine.journal.lease([secret.name]):
        view = engine.observer.stored([secret], fresh=True)[secret.name]
        engine.journal.write_off(secret.name)
        done = _STEPS[step.step](engine, secret, view, step.token)
    return {"secret": secret.name, "step": step.step, "done": done}


def _declared(engine: Engine, secret_id: str) -> Secret:
    """The secret with this ARN, which ends in six random characters behind its name, or this name."""
    name = secret_id.split(":", 6)[-1]
    for secret in engine.manifest.secrets.values():
        if secret.stored_as in (name, name[:-7] if secret_id.startswith("arn:") else name):
            return secret
    raise UsageError(
        f"{name} is not a secret of {engine.manifest.environment}",
        "Declare it in stacks/, build the function's archive again and deploy it.",
    )


# The steps


def _create(engine: Engine, secret: Secret, view: StoreView, token: str) -> str:
    if _is_current(view, token):
        return "it is current already"
    if _pending(secret, view, token).generation is not None:
        return "it has a value already"
    store = _store(engine, secret)
    without = replace(view, pending=None)
    try:
        _refuse(engine, secret, without)
    except (StoreError, UsageError):
        store.release_token(secret.stored_as, token)
        raise
    opening = Opening(
        engine.plugins,
        engine.custody,
        engine.journal,
        Purpose.ROTATE,
        str(Reason(Trigger.SCHEDULE, "rotated by Secrets Manager")),
        rehearsed=lambda _: None,  # whoever asks for a rehearsal is refused by now
    )
    opening.open(secret, without)
    generation = _stage(engine, secret, view, token)
    return f"generation {generation} is in the store, pending"


def _set(engine: Engine, secret: Secret, view: StoreView, token: str) -> str:
    if _is_current(view, token):
        return "it is current already"
    return _perform(engine, secret, view, Act.INSTALL, _candidate(secret, view, token))


def _test(engine: Engine, secret: Secret, view: StoreView, token: str) -> str:
    if _is_current(view, token):
        return "it is current already"
    candidate = _candidate(secret, view, token)
    answer = engine.plugins.kind(secret).check(engine.custody.read(secret, candidate))
    if answer is Acceptance.UNKNOWN:
        raise Unavailable(f"the target of {secret.name} cannot be asked whether it accepts the new value")
    if answer is Acceptance.DENIED:
        raise TargetError(f"the target denies generation {candidate.generation} of {secret.name}")
    told = _perform(engine, secret, view, Act.TEST, candidate)
    if engine.journal.notes(secret.name)["tested"].detail:
        raise TargetError(told, f"Take it back with `keyturn rollback {secret.name}`, and grant what is missing.")
    return told


def _finish(engine: Engine, secret: Secret, view: StoreView, token: str) -> str:
    if not _is_current(view, token):
        _test(engine, secret, view, token)
    candidate = _current_or_candidate(secret, view, token)
    told = _perform(engine, secret, view, Act.PROMOTE, candidate)
    engine.journal.close_rotation(secret.name, candidate.generation or 0, Ending.PROMOTED, WHY)
    return told


_STEPS: Mapping[str, Callable[[Engine, Secret, StoreView, str], str]] = {
    "createSecret": _create,
    "setSecret": _set,
    "testSecret": _test,
    "finishSecret": _finish,
}


# What they share


def _is_current(view: StoreView, token: str) -> bool:
    return view.current is not None and view.current.version_id == token


def _pending(secret: Secret, view: StoreView, token: str) -> Version:
    """The version that Secrets Manager made, with or without a value."""
    if view.pending is not None and view.pending.version_id == token:
        return view.pending
    if view.pending is not None and view.pending.generation is not None:
        raise Conflict(
            f"a rotation of {secret.name} is in flight: generation {view.pending.generation} is pending",
            "Finish it with `keyturn rotate`, or take it back with `keyturn rollback`; then rotate the secret again.",
        )
    raise Conflict(
        f"version {token} of {secret.name} is not pending: it was taken back, or replaced by another one",
        "Start another rotation: `aws secretsmanager rotate-secret`, or `keyturn rotate`.",
    )


def _candidate(secret: Secret, view: StoreView, token: str) -> Version:
    """That version with its value, which nobody has decided against."""
    pending = _pending(secret, view, token)
    if pending.generation is None:
        raise Conflict(
            f"version {token} of {secret.name} has no value: the step createSecret did not come before this one",
            "Start the rotation again: `aws secretsmanager rotate-secret`.",
        )
    if view.rejected:
        raise Conflict(
            f"generation {pending.generation} of {secret.name} is being rolled back",
            "Finish that with `keyturn rotate`, then start another rotation.",
        )
    return pending


def _current_or_candidate(secret: Secret, view: StoreView, token: str) -> Version:
    if view.current is not None and _is_current(view, token):
        return view.current
    return _candidate(secret, view, token)


def _refuse(engine: Engine, secret: Secret, view: StoreView) -> None:
    """What cannot be begun, now or later, without somebody's help."""
    preflight(secret, view, initialize=False)
    if view.previous is not None:
        raise StoreError(
            f"generation {view.previous.generation} of {secret.name} is still kept: it may be in use",
            f"Let the rings follow (`keyturn rotate`) and retire it (`keyturn retire {secret.name}`), then rotate.",
        )
    if engine.manifest.rehearsal is not None:
        raise UsageError(
            f"{engine.manifest.environment} asks for a rehearsal, which a function cannot look up",
            f"Rotate by the pipeline: `keyturn rotate {secret.name}`.",
        )


def _stage(engine: Engine, secret: Secret, view: StoreView, token: str) -> int:
    """Put a new value into the token's version as the next generation that nobody has."""
    value = engine.plugins.kind(secret).issue(_read(engine, secret, view.current))
    generation = max(view.highest, engine.journal.highest(secret.name)) + 1
    for _ in range(MOST_CLAIMS):
        intent = engine.journal.intend(secret.name, generation, Act.STAGE)
        try:
            engine.custody.stage_token(secret, token, generation, value)
        except GenerationSpent as spent:
            engine.journal.settle(intent, "overtaken", str(spent))
            engine.journal.note(secret.name, "spent", max(spent.highest, generation))
            generation = max(spent.highest, generation) + 1
        except KeyturnError as error:
            engine.journal.settle(intent, "failed", str(error))
            raise
        else:
            engine.journal.settle(intent, "done", f"in the version {token} of Secrets Manager")
            return generation
    raise Conflict(f"others took {MOST_CLAIMS} generations of {secret.name} one after the other")


def _perform(engine: Engine, secret: Secret, view: StoreView, act: Act, version: Version) -> str:
    intent = engine.journal.intend(secret.name, version.generation or 0, act)
    try:
        told = engine.acts.perform(secret, Observation(store=view), model.Step(act, version.generation, WHY))
    except KeyturnError as error:
        engine.journal.settle(intent, "failed", str(error))
        raise
    engine.journal.settle(intent, "done", told)
    return told


def _read(engine: Engine, secret: Secret, version: Version | None) -> model.Credential | None:
    return None if version is None else engine.custody.read(secret, version)


def _store(engine: Engine, secret: Secret) -> TokenStaging:
    store = engine.plugins.store(secret)
    if not isinstance(store, TokenStaging):
        raise UsageError(f"the store of {secret.name} does not rotate by itself", "Rotate it with `keyturn rotate`.")
    return store
