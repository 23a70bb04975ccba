"""Keeps the AWS API's state across restarts and crashes: one file per service, replaced atomically before a reply."""

from __future__ import annotations

import io
import logging
import pickle
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, RLock
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from moto.backends import get_backend
from moto.core.base_backend import BackendDict
from moto.s3.utils import _VersionedKeyStore

from rotation.errors import LocalError
from rotation.files import write_private

_SUFFIX = ".state"
_log = logging.getLogger("aws")


class Snapshot:
    """The folder of the state. ``applying`` is held while a request changes or reads the state.

    Requests that change a service at the same time share a write (group commit): whoever comes first writes for all
    that were applied by then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.applying = RLock()
        self._writing: defaultdict[str, Lock] = defaultdict(Lock)
        self._applied: defaultdict[str, int] = defaultdict(int)
        self._saved: defaultdict[str, int] = defaultdict(int)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    def load(self) -> None:
        """Bring the saved state back. Raises :class:`LocalError` for a file that this version cannot read."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                state = pickle.loads(path.read_bytes())  # noqa: S301 - our own file, in a folder that is only ours
                self._restore(path.name.removesuffix(_SUFFIX), state)
            except Exception as error:
                raise LocalError(
                    f"the AWS API's saved state {path.name} cannot be read ({type(error).__name__})",
                    "It was written by another version: delete the folder of the embedded AWS API and start afresh.",
                ) from error

    @staticmethod
    def _restore(service: str, state: dict[tuple[str, str], dict[str, Any]]) -> None:
        backends = get_backend(service)  # type: ignore[call-overload]  # typed for literal names only
        for (account, region), attributes in state.items():
            for name, value in attributes.items():
                _put_back(backends[account][region], name, value)

    def applied(self, service: str, *, changed: bool) -> int:
        """Note a request, while holding ``applying``; returns a ticket for what it has made or seen."""
        self._applied[service] += changed
        return self._applied[service]

    def save(self, service: str, ticket: int) -> None:
        """Return once that is on disk: also a reader must not tell what a crash would undo.

        Not to be called while holding ``applying``.
        """
        if self._saved[service] >= ticket:
            return
        with self._writing[service]:
            if self._saved[service] >= ticket:
                return
            with self.applying:
                reached = self._applied[service]
                data = _pickled(service)
            if data is not None:
                write_private(self._folder / f"{service}{_SUFFIX}", data)
            self._saved[service] = reached

    def forget(self) -> None:
        """Drop all state, in memory and on disk."""
        with self.applying:
            for backends in _live_backends():
                for account in list(backends.values()):
                    account.reset()
            for path in self._folder.glob(f"*{_SUFFIX}"):
                path.unlink()


def _live_backends() -> Iterable[Any]:
    return tuple(BackendDict._instances)  # type: ignore[misc]  # moto's own list of what is in use; it offers no public name for it


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a defaultdict holds. Its factory is often a lambda, which has no pickle: a fresh backend has it anyway."""

    items: dict[Any, Any]
    attributes: dict[str, Any]


def _put_back(backend: Any, name: str, value: Any) -> None:
    if not isinstance(value, _Contents):
        setattr(backend, name, value)
        return
    container = getattr(backend, name)
    container.clear()
    container.update(value.items)
    for attribute, content in value.attributes.items():
        setattr(container, attribute, content)


class _Pickler(pickle.Pickler):
    """Pickles also what does not pickle by itself.

    The private keys of asymmetric KMS keys are handles into OpenSSL; S3's map of objects shows only the latest
    version of each when it is read as the dict that it is.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, RSAPrivateKey | EllipticCurvePrivateKey):
            return _private_key, (obj.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),)
        if isinstance(obj, _VersionedKeyStore):
            return _key_store, ({name: obj.getlist(name) for name in dict.keys(obj)},)
        return NotImplemented


def _key_store(versions: dict[str, list[Any]]) -> _VersionedKeyStore:
    store = _VersionedKeyStore()
    for name, objects in versions.items():
        store.setlist(name, objects)
    return store


def _private_key(der: bytes) -> Any:
    return load_der_private_key(der, None)


def _pickled(service: str) -> bytes | None:
    """The service's state; None, and a line in the log, for one of moto's services that cannot be pickled."""
    backends = get_backend(service)  # type: ignore[call-overload]  # as above
    state = {(account, region): _attributes(backend) for account, region, backend in backends.iter_backends()}
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(state)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        _log.warning("%s is not kept across a restart (%s)", service, type(error).__name__)
        return None
    return buffer.getvalue()


def _attributes(backend: Any) -> dict[str, Any]:
    return {
        name: _Contents(dict(value), getattr(value, "__dict__", {})) if isinstance(value, defaultdict) else value
        for name, value in vars(backend).items()
    }
