"""Misbehaviour on demand, for tests: what an emulated API does wrong in its next calls, and a count of all calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Lock
from typing import Generic, Protocol, TypeVar

KindOf = TypeVar("KindOf", bound=StrEnum)


class Call(Protocol):
    """One request: ``service`` and ``operation`` by the names that its vendor gives them."""

    @property
    def service(self) -> str: ...

    @property
    def operation(self) -> str: ...


@dataclass(frozen=True)
class PlannedFault(Generic[KindOf]):
    """What happens to the next ``times`` calls. ``operation`` may be ``*`` for any of the service's.

    ``after`` lets that many calls pass first.
    """

    service: str
    operation: str
    kind: KindOf
    times: int = 1
    after: int = 0
    seconds: float = 0.0

    def concerns(self, call: Call) -> bool:
        return self.service == call.service and self.operation in ("*", call.operation)


FaultOf = TypeVar("FaultOf", bound=PlannedFault)  # type: ignore[type-arg]  # of whatever kinds


@dataclass
class FaultQueue(Generic[FaultOf]):
    """The faults that are still to come, and a count of all calls."""

    _pending: list[FaultOf] = field(default_factory=list)
    _calls: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def add(self, fault: FaultOf) -> None:
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()

    def count(self, call: Call) -> FaultOf | None:
        """Count a call; return the oldest fault that is due for it, if any."""
        with self._lock:
            self._calls[f"{call.service}.{call.operation}"] += 1
            for index, fault in enumerate(self._pending):
                if not fault.concerns(call):
                    continue
                self._use(index)
                return fault if fault.after == 0 else None
            return None

    def _use(self, index: int) -> None:
        fault = self._pending[index]
        if fault.after:
            self._pending[index] = replace(fault, after=fault.after - 1)
        elif fault.times > 1:
            self._pending[index] = replace(fault, times=fault.times - 1)
        else:
            del self._pending[index]

    def calls(self) -> dict[str, int]:
        """How often each ``service.operation`` was called since the counts were last forgotten."""
        with self._lock:
            return dict(self._calls)

    def forget_calls(self) -> None:
        with self._lock:
            self._calls.clear()
