"""The emulated cloud without its wire: one account, its records, its clock and its services."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from rotation.local.tencent.clock import Clock
from rotation.local.tencent.cos import Cos
from rotation.local.tencent.identity import Identities
from rotation.local.tencent.records import Records
from rotation.local.tencent.service import Action, Service, found
from rotation.local.tencent.wire import SIGNATURE_LIFE, ApiError, Call, Caller, Request, authenticate

ACCOUNT = "100000000001"  # the root account's UIN
KEY_ROTATION_PAUSE = 86_400  # seconds, in the real one

ServiceOf = TypeVar("ServiceOf", bound=Service)


@dataclass
class Tasks:
    """How asynchronous tasks go: how many ``seconds`` of the cloud's clock they take, and how many of them fail."""

    seconds: float = 0.5
    failing: int = 0

    def fail(self, times: int = 1) -> None:
        """Let so many of the tasks that begin from now on fail."""
        self.failing = times

    def begin(self) -> bool:
        """Whether a task that begins now will succeed."""
        succeeds = self.failing == 0
        self.failing = max(0, self.failing - 1)
        return succeeds


@dataclass(frozen=True, slots=True)
class Settings:
    """``value_limit``: how many bytes a secret's value may have. The SDK says 32 KB, older pages say 4096 bytes.
    ``signature_life``: how many seconds a request's time may differ from the cloud's. ``key_rotation_pause``: how many
    seconds must lie between two rotations of a key."""

    value_limit: int = 4096
    signature_life: int = SIGNATURE_LIFE
    key_rotation_pause: int = KEY_ROTATION_PAUSE
    throttled: bool = True


class Cloud:
    """All services of one account. Several threads may call it."""

    def __init__(self, records: Records, settings: Settings | None = None) -> None:
        self.records = records
        self.settings = settings or Settings()
        self.clock = Clock()
        self.identities = Identities(records, self.clock, ACCOUNT)
        self.cos = Cos(self)
        self.tasks = Tasks()
        self.names: set[str] = set()  # host:port under which clients reach it
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._services = [service(self) for service in found()]
        self.actions = {  # by service, version and name
            (service.SERVICE, service.VERSION, action.name): (service, action)
            for service in self._services
            for action in service.actions()
        }
        self._unsigned = {name for (_, _, name), (_, action) in self.actions.items() if not action.signed}
        self.clock.listen(self.tick)

    def service(self, kind: type[ServiceOf]) -> ServiceOf:
        """The service of that class."""
        return next(service for service in self._services if isinstance(service, kind))

    def tick(self) -> None:
        """Let every service do what is due by now."""
        for service in self._services:
            service.tick()

    def refill(self) -> None:
        """Fill the buckets of all actions."""
        self._buckets.clear()

    def close(self) -> None:
        for service in self._services:
            service.close()
        self.records.close()

    def answer(self, request: Request, writes_behind: int = 0) -> Mapping[str, Any]:
        """The fields of the answer. Raises :class:`ApiError` for a refusal.

        ``writes_behind`` lets the call see the service as before its last writes.
        """
        if request.method != "POST" or request.path != "/":
            raise ApiError("InvalidRequest", "Only POST / is emulated.")
        caller = self._caller(request)
        service, action = self._action(request)
        region = request.header("X-TC-Region") if service.REGIONAL else request.headers.get("x-tc-region", "")
        call = Call(service.SERVICE, action.name, region, caller, request.body)
        self._throttle(call, action)
        self.identities.note_use(caller.secret_id)
        service.tick()
        with self._transaction(action, call, writes_behind):
            return action.run(call)

    def _caller(self, request: Request) -> Caller:
        """Who signed it; nobody, where it needs no signature. Raises :class:`ApiError` for a wrong one, or none."""
        if not request.signed and request.operation in self._unsigned:
            return Caller(ACCOUNT, uin="", secret_id="")
        now, life = self.clock.now(), self.settings.signature_life
        return authenticate(request, self.identities.find, self.names, now, life)

    def _action(self, request: Request) -> tuple[Service, Action]:
        """Raises :class:`ApiError` unless the signed service has the action in that version."""
        name, version = request.header("X-TC-Action"), request.header("X-TC-Version")
        if found := self.actions.get((request.service, version, name)):
            return found
        versions = {of for service, of, _ in self.actions if service == request.service}
        if not versions:
            raise ApiError("NoSuchProduct", f"The product `{request.service}` does not exist.")
        if version not in versions:
            raise ApiError("NoSuchVersion", f"The version `{version}` does not exist.")
        raise ApiError("InvalidAction", f"The action `{name}` is not there or not emulated.")

    def _throttle(self, call: Call, action: Action) -> None:
        bucket = self._buckets.setdefault((call.region, str(call)), Bucket(action.rate, self.clock))
        if self.settings.throttled and not bucket.take():
            raise ApiError("RequestLimitExceeded", f"More than {action.rate} requests of `{call}` in a second.")

    def _transaction(self, action: Action, call: Call, writes_behind: int) -> AbstractContextManager[None]:
        if writes_behind:
            return self.records.behind(call.service, writes_behind)
        return self.records.transaction() if action.transaction else nullcontext()


class Bucket:
    """A token bucket: so many calls at once, and as many again each second of the cloud's clock."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = float(rate)
        self._filled = clock.now()
        self._lock = Lock()

    def take(self) -> bool:
        with self._lock:
            now = self._clock.now()
            elapsed = max(0.0, now - self._filled)
            self._tokens = min(self._rate, self._tokens + elapsed * self._rate)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
