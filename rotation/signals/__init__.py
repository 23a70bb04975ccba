"""Signals: where the health of a consumer's ring is read. Every file here is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rotation.model import Verdict


class Signal(ABC):
    """One source of evidence on one ring of one consumer. A source that cannot be read is unknown, never bad."""

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        """How the ring has been doing with this generation of this secret since then. Evidence holds no value."""


class ReportsRunning(ABC):
    """A signal that can tell which generation the ring's instances use."""

    @abstractmethod
    def running(self, secret: str) -> int | None:
        """The generation that every instance of the ring uses; None when they differ or cannot be asked."""


class Recognises(ABC):
    """A signal that sees the public part of one secret's values in use, and tells generations apart by that. It says
    nothing of the consumer's other secrets than its ``secret``."""

    secret: str

    @abstractmethod
    def knowing(self, parts: Mapping[int, Mapping[str, str]]) -> Signal:
        """This signal, with the public parts of the generations that there are."""
