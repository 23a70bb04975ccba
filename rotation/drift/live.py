"""The targets: whether they accept what is current, and whether they let in somebody whom no kept generation explains.

Secrets whose kind has no target to ask cost nothing here. Any other one costs a read of its value and a login.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rotation.credentials import CredentialKind, ReportsLeftovers, WithoutTarget
from rotation.drift import Class, Finding, Fix, Way, unchecked
from rotation.drift.scene import Scene
from rotation.engine import Engine
from rotation.errors import KeyturnError
from rotation.manifest import Secret
from rotation.model import Acceptance, Credential, Leftover, StoreView


def look(scene: Scene) -> list[Finding]:
    """Ask the targets, so many at once as the engine has workers."""
    kinds: dict[str, bool] = {}
    asked = [
        (secret, view)
        for secret, view in scene.secrets
        if view.exists and view.current is not None and _has_target(secret, scene.engine, kinds)
    ]
    with ThreadPoolExecutor(scene.engine.workers) as executor:
        answers = list(executor.map(lambda pair: _ask(pair[0], pair[1], scene), asked))
    return [*_troubles(scene), *(finding for answer in answers for finding in answer)]


def _troubles(scene: Scene) -> Iterator[Finding]:
    for trouble in scene.troubles:
        if trouble.secrets:
            yield unchecked(Way.LIVE, trouble.what, trouble.error, trouble.error.remedy, trouble.secrets)


def _has_target(secret: Secret, engine: Engine, known: dict[str, bool]) -> bool:
    """Whether the secret's kind has a target; ``known`` keeps the answers, as many secrets are of few kinds."""
    name = secret.credential.kind
    if name not in known:
        try:
            known[name] = not isinstance(engine.plugins.kind(secret), WithoutTarget)
        except KeyturnError:  # to be told when it is asked
            return True
    return known[name]


def _ask(secret: Secret, view: StoreView, scene: Scene) -> list[Finding]:
    try:
        return list(_findings(secret, view, scene.engine.plugins.kind(secret), scene))
    except KeyturnError as error:
        return [unchecked(Way.LIVE, secret.name, error, error.remedy, (secret.name,))]


def _findings(secret: Secret, view: StoreView, kind: CredentialKind, scene: Scene) -> Iterator[Finding]:
    kept = kept_credentials(secret, view, scene.engine)
    current = kept[0]
    answer = kind.check(current)
    found = Class.EXPECTED if secret.name in scene.in_flight else Class.UNEXPECTED
    if answer is Acceptance.UNKNOWN:
        remedy = "Check that the target runs and can be reached from here."
        yield unchecked(Way.LIVE, secret.name, "the target could not be asked", remedy, (secret.name,))
        return
    if answer is Acceptance.DENIED:
        what = f"the target denies generation {current.generation}, which is current"
        remedy = f"Find out who changed it there. If it is not locked on purpose: `keyturn rotate {secret.name}`."
        yield Finding(Way.LIVE, secret.name, "current", found, what, remedy, secrets=(secret.name,))
    if isinstance(kind, ReportsLeftovers):
        sure = answer is Acceptance.ACCEPTED and view.versions == (view.current,)
        yield from (_leftover(secret, left, found, sure=sure) for left in kind.leftovers(kept))


def _leftover(secret: Secret, left: Leftover, found: Class, *, sure: bool) -> Finding:
    """Locked out again is only what keyturn had locked out, what nobody uses now, and what nothing in the store
    explains, next to a current generation that the target accepts. Anything else may be somebody's own, or in use."""
    if left.retired:
        what = f"the target lets {left.principal} in, whose generation was retired: somebody has let it in again"
    else:
        what = f"the target lets {left.principal} in, and no kept generation is its"
    if left.sessions:
        what += f"; it has {left.sessions} open sessions"
    remedy = f"Find out who uses {left.principal}; then lock it out."
    fix = Fix.LOCK_OUT if sure and left.removable else None
    aspect = f"leftover-{left.principal}"
    return Finding(Way.LIVE, secret.name, aspect, found, what, remedy, secrets=(secret.name,), fix=fix)


def kept_credentials(secret: Secret, view: StoreView, engine: Engine) -> list[Credential]:
    """The credentials that the store holds, the current one first. What else is foreign may be of any form."""
    kept = [version for version in view.versions if version == view.current or version.generation is not None]
    return [engine.custody.read(secret, version) for version in kept]
