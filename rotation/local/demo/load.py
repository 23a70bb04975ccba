"""What the demo and the tests watch: the application's counters, and a probe that logs in with the current value."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from rotation import pins
from rotation.local.application.database import log_in
from rotation.local.embedded.local import Local
from rotation.local.environment import place_of
from rotation.manifest import Manifest
from rotation.model import Ring
from rotation.plugins import Plugins

PATIENCE = 60  # seconds


class Load:
    """The sample application's counters, from its health endpoints."""

    def __init__(self, project: Path, environment: str = Local.name) -> None:
        self._pins = project / "stacks" / "pins" / f"{environment}.json"
        self._urls = place_of(project, environment).applications

    def queries(self) -> int:
        return sum(int(self._health(ring)["queries"]) for ring in Ring)

    def failed(self, *rings: Ring) -> int:
        return sum(int(self._health(ring)["failed"]) for ring in rings or tuple(Ring))

    def generation(self, ring: Ring, secret: str) -> int:
        """The generation that a ring runs, 0 for none."""
        return int(self._health(ring)["generations"].get(secret, 0))

    def pins(self, secret: str) -> dict[Ring, int | None]:
        held = pins.load(self._pins)
        return {ring: held.of("orders-api", ring, secret) for ring in Ring}

    def await_traffic(self) -> bool:
        """Whether both rings serve more queries now than a moment ago, within the patience."""
        before = {ring: int(self._health(ring)["queries"]) for ring in Ring}
        return within(lambda: all(int(self._health(ring)["queries"]) > before[ring] for ring in Ring))

    def await_generation(self, ring: Ring, secret: str, generation: int) -> bool:
        return within(lambda: self.generation(ring, secret) == generation)

    def _health(self, ring: Ring) -> dict[str, Any]:
        # The address is the embedded environment's own, and a failing application answers with its counters too.
        request = urllib.request.Request(f"{self._urls[ring]}/health")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                found = json.load(error)
        return found


class Probe(threading.Thread):
    """Logs in with the secret's current value, over and over. ``failed`` counts the refusals.

    The process has the embedded environment's variables (:func:`rotation.local.environment.environment_variables`).
    """

    def __init__(self, project: Path, secret: str, environment: str = Local.name) -> None:
        super().__init__(name="probe", daemon=True)
        self.logins = 0
        self.failed = 0
        self.last_error = ""
        manifest = Manifest.load(project, environment)
        declared = manifest.secret(secret)
        self._stored_as = declared.stored_as
        self._database = place_of(project, environment).database
        self._store = Plugins(project, manifest).store(declared)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            login = self._store.read(self._stored_as)
            try:
                log_in(self._database, login)
                self.logins += 1
            except DBAPIError as error:
                self.failed += 1
                self.last_error = str(error)
            self._ended.wait(0.1)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def within(holds: Callable[[], bool]) -> bool:
    """Whether something holds, within the patience."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
