"""Move pins, regenerate the configuration that follows from them, and deploy it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rotation import pins as pins_file
from rotation.errors import Conflict, DeclarationError, KeyturnError
from rotation.file_lock import held
from rotation.manifest import Consumer, Manifest
from rotation.model import Place, Reference, Ring, StoreView, Version
from rotation.pins import Pins
from rotation.plugins import Plugins
from rotation.render import References, Rendered, regenerate
from rotation.targets import Deployment, DeployTarget

LOCK = Path(".keyturn") / "pins.lock"
PATIENCE = 60.0  # seconds to wait for another runner that is moving pins
Stored = Mapping[str, StoreView]
Deployed = Mapping[Place, Mapping[str, int]]  # the generation of each secret at each place


@dataclass(frozen=True, slots=True)
class Move:
    """The pins of one ring of all consumers of a secret go to a generation; None takes them away."""

    secret: str
    ring: Ring
    generation: int | None


class Rollout:
    """The pins, rendered files and deployments of one environment."""

    def __init__(self, project: Path, manifest: Manifest, plugins: Plugins) -> None:
        self._project = project
        self._manifest = manifest
        self._plugins = plugins

    def pins(self) -> Pins:
        return pins_file.load(self._path)

    def check(self, pins: Pins, stored: Stored, deployed: Deployed = MappingProxyType({})) -> None:
        """Refuse pins to what is not declared, or to a generation that the store does not hold and that is not
        deployed either: below what is deployed the store may have moved on (`keyturn adopt`)."""
        known = {name: set(_held(view)) for name, view in stored.items()}
        for generations in deployed.values():
            for name in known.keys() & generations.keys():
                known[name].add(generations[name])
        pins_file.validate(pins, self._manifest, known)

    def rehearse(self, pins: Pins, stored: Stored, places: Iterable[Place]) -> None:
        """Refuse templates that these pins cannot be rendered with, before anything is changed for them. A place that
        runs what the store no longer holds is left out."""
        known = references(self._manifest, stored)
        ready = {place for place in places if known.keys() >= pins.at(*place).items()}
        regenerate(self._project, self._manifest, pins, known, check=True, places=ready)

    def pin(self, moves: Sequence[Move], seen: Pins, stored: Stored, look: Callable[[], Stored]) -> str:
        """Move pins away from what was ``seen``, and regenerate what follows from them; several moves are one write.

        Raises :class:`Conflict` when somebody moved one of them since, or when another ``look`` at the stores, once
        the pins are written, shows that a generation they go to was rejected meanwhile, or is no longer current: then
        they go back. Whoever drops a generation looks at the pins after its rejection, so nobody stays pinned to it.
        """
        places = {place for move in moves for place in self.places(move.secret, move.ring)}
        with self._alone():
            before = self.pins()
            after = self._moved(before, moves, seen)
            self.rehearse(after, stored, places)
            pins_file.write(self._path, after)
            self._regenerate(after, stored, places)
            try:
                _refuse_outdated(moves, look())
            except Conflict:
                pins_file.write(self._path, before)
                self._regenerate(before, stored, places)
                raise
        return ", ".join(f"{move.secret} {move.ring} → {move.generation or 'none'}" for move in moves)

    def _moved(self, pins: Pins, moves: Iterable[Move], seen: Pins) -> Pins:
        for move in moves:
            for consumer, ring in self.places(move.secret, move.ring):
                pinned = pins.of(consumer, ring, move.secret)
                if pinned != seen.of(consumer, ring, move.secret):
                    raise Conflict(f"somebody pinned {consumer} ({ring}) to generation {pinned} of {move.secret}")
                pins = pins.with_(consumer, ring, move.secret, move.generation)
        return pins

    def deploy(self, places: Iterable[Place], stored: Mapping[str, StoreView]) -> str:
        """Regenerate these places' configuration, and deploy it by each consumer's target; return the plans' digest."""
        return "; ".join(
            f"plan {deployment.digest[:12]} changed {', '.join(deployment.changed) or 'nothing'}"
            for deployment in self.apply(places, stored)
        )

    def apply(self, places: Iterable[Place], stored: Mapping[str, StoreView]) -> list[Deployment]:
        """The same, for who needs to know what each target changed."""
        wanted = sorted(set(places))
        with self._alone():
            self._regenerate(self.pins(), stored, set(wanted))
        return [target.apply(members) for target, members in self._by_target(wanted)]

    def deploy_apart(self) -> list[Deployment]:
        """Deploy what no stack carries, as it is rendered and pinned; for who has just deployed the stacks."""
        places = [
            place
            for consumer in self._manifest.consumers.values()
            if not (target := self._plugins.target(consumer)).in_stacks
            for place in self._ready(consumer, target.deployed())
        ]
        return [target.apply(members) for target, members in self._by_target(sorted(places))]

    def _ready(self, consumer: Consumer, deployed: Deployed) -> Iterator[Place]:
        """The places that are pinned whole, or that have lost their pins with their first candidate."""
        for ring in consumer.rings:
            place, pinned = (consumer.name, ring), self.pins().at(consumer.name, ring).keys()
            if pinned >= set(consumer.secrets) or (not pinned and place in deployed):
                yield place

    def regenerate(self, stored: Mapping[str, StoreView], *, check: bool = False) -> list[Rendered]:
        """Regenerate the configuration of every place from the pins as they are; ``check`` only tells what is stale."""
        pins = self.pins()
        self.check(pins, stored)
        with self._alone():
            return regenerate(self._project, self._manifest, pins, references(self._manifest, stored), check=check)

    def stale(self, pins: Pins, stored: Stored) -> tuple[list[Rendered], dict[Place, DeclarationError]]:
        """The rendered files that are not what templates and pins give, and the places that cannot be rendered. A place
        whose pins the stores do not hold is left out."""
        known = references(self._manifest, stored)
        places = [(name, ring) for name, consumer in self._manifest.consumers.items() for ring in consumer.rings]
        ready = {place for place in places if known.keys() >= pins.at(*place).items()}
        try:
            files = regenerate(self._project, self._manifest, pins, known, check=True, places=ready)
            refused: dict[Place, DeclarationError] = {}
        except DeclarationError:
            files, refused = self._one_by_one(pins, known, ready)
        return [file for file in files if file.changed], refused

    def _one_by_one(
        self, pins: Pins, known: References, places: Iterable[Place]
    ) -> tuple[list[Rendered], dict[Place, DeclarationError]]:
        files: list[Rendered] = []
        refused: dict[Place, DeclarationError] = {}
        for place in sorted(places):
            try:
                files += regenerate(self._project, self._manifest, pins, known, check=True, places={place})
            except DeclarationError as error:
                refused[place] = error
        return files, refused

    def render(self, places: Iterable[Place], stored: Stored) -> None:
        """Regenerate the configuration of these places alone, from the pins as they are."""
        with self._alone():
            self._regenerate(self.pins(), stored, set(places))

    def put_back(self, pins: Mapping[tuple[Place, str], int | None], seen: Pins) -> None:
        """Correct single pins that name what is gone; None takes one away. Raises :class:`Conflict` when somebody has
        moved one of them away from what was ``seen``."""
        with self._alone():
            after = self.pins()
            for ((consumer, ring), secret), generation in pins.items():
                if after.of(consumer, ring, secret) != seen.of(consumer, ring, secret):
                    raise Conflict(f"somebody has just pinned {secret} of {consumer} ({ring})")
                after = after.with_(consumer, ring, secret, generation)
            pins_file.write(self._path, after)

    def places(self, secret: str, ring: Ring) -> list[Place]:
        """Where a secret is used in one ring."""
        return [(c.name, ring) for c in self._manifest.consumers_of(secret) if ring in c.rings]

    def _by_target(self, places: Iterable[Place]) -> list[tuple[DeployTarget, list[Place]]]:
        targets: dict[int, tuple[DeployTarget, list[Place]]] = {}
        for place in places:
            target = self._plugins.target(self._manifest.consumers[place[0]])
            targets.setdefault(id(target), (target, []))[1].append(place)
        return list(targets.values())

    def _regenerate(self, pins: Pins, stored: Mapping[str, StoreView], places: set[Place]) -> None:
        regenerate(self._project, self._manifest, pins, references(self._manifest, stored), places=places)

    @property
    def _path(self) -> Path:
        return self._project / self._manifest.pins

    def _alone(self) -> AbstractContextManager[None]:
        busy = KeyturnError(
            "another runner has been moving pins for a minute", "Wait for it, or stop it, then run again."
        )
        return held(self._project / LOCK, patience=PATIENCE, busy=busy)


def _refuse_outdated(moves: Iterable[Move], stored: Stored) -> None:
    for move in moves:
        view = stored[move.secret]
        wanted = {version.generation for version in (view.current, None if view.rejected else view.pending) if version}
        if move.generation is not None and move.generation not in wanted:
            raise Conflict(f"generation {move.generation} of {move.secret} was outdated while it was being pinned")


def references(manifest: Manifest, stored: Mapping[str, StoreView]) -> dict[tuple[str, int], Reference]:
    """What templates may know of every generation that the stores hold, by secret and generation."""
    return {
        (name, generation): Reference(manifest.secrets[name].stored_as, view.reference, version.version_id, generation)
        for name, view in stored.items()
        for generation, version in _held(view).items()
    }


def _held(view: StoreView) -> dict[int, Version]:
    """The labelled versions by generation; of a re-wrapped one the revision that is current."""
    return {version.generation: version for version in reversed(view.versions) if version.generation}
