"""Pins, rendered files, deployments and what each ring runs, against each other and against the stores.

Rings whose signals do not report what runs are compared as far as what is deployed. Pins to what is not in the store
are the finding of the way *stored*.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rotation import pins as pins_file
from rotation.drift import Class, Finding, Fix, Way, unchecked
from rotation.drift.scene import Scene
from rotation.engine import candidate_of
from rotation.errors import DeclarationError
from rotation.manifest import Consumer
from rotation.model import Ring, StoreView
from rotation.observer import agreed
from rotation.render import Rendered
from rotation.signals import ReportsRunning

_GIT_SECONDS = 60


def look(scene: Scene) -> list[Finding]:
    """Compare every place. The rings' signals are asked side by side."""
    places = [(consumer, ring) for _, consumer in sorted(scene.engine.manifest.consumers.items()) for ring in Ring]
    with ThreadPoolExecutor(scene.engine.workers) as executor:
        compared = list(executor.map(lambda place: list(_compare(place[0], place[1], scene)), places))
    return [
        *_troubles(scene),
        *(finding for findings in compared for finding in findings),
        *_undeclared(scene),
        *_rendered(scene),
        *_uncommitted(scene),
    ]


def _troubles(scene: Scene) -> Iterator[Finding]:
    for trouble in scene.troubles:
        yield unchecked(Way.CONSUMED, trouble.what, trouble.error, trouble.error.remedy, trouble.secrets)


# One place


@dataclass(frozen=True, slots=True)
class _Spot:
    """One secret at one place."""

    consumer: Consumer
    ring: Ring
    secret: str
    view: StoreView
    scene: Scene

    @property
    def pinned(self) -> int | None:
        return self.scene.pins.of(self.consumer.name, self.ring, self.secret) if self.scene.pins else None

    @property
    def deployed(self) -> int | None:
        return (self.scene.deployed or {}).get((self.consumer.name, self.ring), {}).get(self.secret)

    def finding(self, aspect: str, what: str) -> Finding:
        found = Class.EXPECTED if self.secret in self.scene.in_flight else Class.UNEXPECTED
        remedy = f"Let keyturn bring it forward: `keyturn drift --fix`, or `keyturn rotate {self.secret}` to turn it."
        return Finding(
            Way.CONSUMED,
            f"{self.consumer.name}/{self.ring}",
            f"{aspect}:{self.secret}",
            found,
            what,
            remedy,
            secrets=(self.secret,),
            places=((self.consumer.name, self.ring),),
            fix=Fix.RESUME,
        )


def _compare(consumer: Consumer, ring: Ring, scene: Scene) -> Iterator[Finding]:
    if ring not in consumer.rings or scene.pins is None:
        return
    views = {name: scene.stored.get(name) for name in consumer.secrets}
    if any(view is None or view.current is None for view in views.values()):
        return  # a store's trouble, or a consumer that is not deployed yet: nothing here is to be compared
    for name, view in sorted(views.items()):
        if view is None:
            continue
        signals = scene.engine.observer.signals(scene.engine.manifest.secrets[name], view, consumer.rings[ring])
        reporters = [signal for signal in signals if isinstance(signal, ReportsRunning)]
        spot = _Spot(consumer, ring, name, view, scene)
        yield from _pin(spot)
        if scene.deployed is not None:
            yield from _deployed(spot)
            yield from _running(spot, reporters)


def _pin(spot: _Spot) -> Iterator[Finding]:
    view, pinned = spot.view, spot.pinned
    current = view.current.generation if view.current else None
    if current is None or pinned == current or (pinned == candidate_of(view) and not view.rejected):
        return
    held = {version.generation for version in view.versions if version != view.current}
    if pinned is None:
        yield spot.finding("pin", f"{spot.secret} is not pinned, and generation {current} is current")
    elif pinned in held:
        yield spot.finding("pin", f"{spot.secret} is pinned to generation {pinned}, and {current} is current")


def _deployed(spot: _Spot) -> Iterator[Finding]:
    if spot.deployed != spot.pinned:
        what = (
            f"{spot.secret} is pinned to generation {spot.pinned or 'none'}, and deployed is {spot.deployed or 'none'}"
        )
        yield spot.finding("deployed", what)


def _running(spot: _Spot, reporters: Sequence[ReportsRunning]) -> Iterator[Finding]:
    if not reporters or spot.deployed is None:
        return
    running = agreed(reporters, spot.secret)
    if running is None:
        reason = f"nobody says which generation of {spot.secret} runs, or the instances differ"
        place = f"{spot.consumer.name}/{spot.ring}"
        remedy = "Look at the application and its signals."
        yield unchecked(Way.CONSUMED, place, reason, remedy, (spot.secret,), f"check:{spot.secret}")
    elif running != spot.deployed:
        yield spot.finding("running", f"generation {running} of {spot.secret} runs, and {spot.deployed} is deployed")


# Files


def _undeclared(scene: Scene) -> Iterator[Finding]:
    if scene.pins is None:
        return
    manifest = scene.engine.manifest
    try:
        pins_file.validate(scene.pins, manifest, {})
    except DeclarationError as error:
        yield Finding(Way.CONSUMED, manifest.pins.as_posix(), "undeclared", Class.UNEXPECTED, str(error), error.remedy)


def _rendered(scene: Scene) -> Iterator[Finding]:
    if scene.pins is None:
        return
    files, refused = scene.engine.rollout.stale(scene.pins, scene.stored)
    for place, error in refused.items():
        yield unchecked(Way.CONSUMED, f"{place[0]}/{place[1]}", error, error.remedy)
    for file in files:
        yield _stale(file, scene)


def _stale(file: Rendered, scene: Scene) -> Finding:
    consumer = scene.engine.manifest.consumers[file.place[0]]
    what = "should not be there: nothing is pinned" if file.removed else "is not what its template and pins give"
    path = consumer.rings[file.place[1]].rendered.as_posix()
    remedy = "Change the template instead of the file, and regenerate it: `keyturn render`."
    return Finding(
        Way.CONSUMED,
        path,
        "rendered",
        Class.UNEXPECTED,
        what,
        remedy,
        secrets=consumer.secrets,
        places=(file.place,),
        fix=Fix.RENDER,
    )


def _uncommitted(scene: Scene) -> Iterator[Finding]:
    """What rotation wrote and nobody committed: the next checkout would deploy older generations."""
    manifest = scene.engine.manifest
    paths = [manifest.pins, *(ring.rendered for c in manifest.consumers.values() for ring in c.rings.values())]
    found = Class.EXPECTED if scene.work.busy else Class.UNEXPECTED
    for path in _changed_in_git(scene, [path.as_posix() for path in paths]):
        remedy = f"Commit it and push it, or take it back: `git checkout -- {path}`."
        what = "differs from what is committed: another checkout would deploy other generations"
        yield Finding(Way.CONSUMED, path, "uncommitted", found, what, remedy)


def _changed_in_git(scene: Scene, wanted: Iterable[str]) -> list[str]:
    """The files that git calls changed or new; none where this is no checkout, or there is no git."""
    folders = sorted({path.rpartition("/")[0] or "." for path in wanted})
    argv = ["git", "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", *folders]
    try:
        done = subprocess.run(
            argv,
            cwd=scene.engine.project,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    # Paths are relative to the checkout's top, which may lie above the project.
    told = [entry[3:] for entry in done.stdout.decode(errors="replace").split("\0") if entry]
    return [path for path in sorted(set(wanted)) if any(f"/{entry}".endswith(f"/{path}") for entry in told)]
