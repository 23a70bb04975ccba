"""The transit engine of HashiCorp Vault and OpenBao. A key's reference is its name in the mount.

A key must have been made with ``derived=true``: then the engine derives what wraps from the context, and no other
context unwraps. With another key it would leave the context aside; such a key is refused before it wraps anything.
(``associated_data`` would bind the context as well, but ``rewrap`` does not take it: OpenBao 2.7 answers "message
authentication failed".)

https://developer.hashicorp.com/vault/api-docs/secret/transit and https://openbao.org/api-docs/secret/transit/
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from rotation.errors import KeyServiceError
from rotation.keys import DataKey, KeyService, KeyView, MaterialVersions, VersionedKeys, Wrapped, in_words
from rotation.options import parse
from rotation.retries import retrying
from rotation.vault import Connection, connect

DATA_KEY_BITS = 256
# OpenBao refuses a request of more than 1,000 JSON strings, names of fields among them; a wrapped key takes four.
BATCH = 200
AT_ONCE = 8  # keys observed at the same time
_WRAPPED = re.compile(r"vault:v([1-9][0-9]*):")


class _Missing(KeyServiceError):
    remedy = "Deploy the stack that declares the key, then run the command again: it resumes."


class _Unfit(KeyServiceError):
    remedy = "Declare a key of the type aes256-gcm96 with derived=true: neither can be changed afterwards."


class _Deleted(KeyServiceError):
    remedy = "Restore the key (transit/keys/:name/soft-delete-restore), then run the command again: it resumes."


class _Options(Connection):
    mount: str = "transit"


class VaultTransit(KeyService, VersionedKeys):
    """Options: ``mount`` (default "transit"), and those of the connection (:mod:`rotation.vault`)."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        parsed = parse(_Options, options, plugin="key service vault_transit")
        self._vault = connect(parsed)
        self._mount = parsed.mount
        self._fit: set[str] = set()

    def observe(self, keys: Sequence[str]) -> dict[str, KeyView]:
        """A call per key, for eight keys at a time. A soft-deleted key (OpenBao) exists and is not enabled. Times are
        whole seconds."""
        wanted = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(self._observe, wanted), strict=True))

    def rotate(self, key: str) -> None:
        """Rotate once: each attempt looks first whether an earlier one, whose reply was lost, or somebody else did."""
        before = self._usable(key)["latest_version"]

        def once() -> None:
            if self._read(key, self._ask_once)["latest_version"] == before:
                self._ask_once(f"rotate the key {key}", lambda transit: transit.rotate_key(key, self._mount))

        retrying(once)

    def data_key(self, key: str, context: Mapping[str, str]) -> DataKey:
        if key not in self._fit:
            _refuse_unfit(key, self._usable(key))
            self._fit.add(key)  # what makes a key fit never changes
        reply = self._ask(
            f"make a data key under {key}",
            lambda transit: transit.generate_data_key(
                key, "plaintext", context=_encoded(context), bits=DATA_KEY_BITS, mount_point=self._mount
            ),
        )
        return DataKey(base64.b64decode(reply["plaintext"]), reply["ciphertext"].encode())

    def unwrap(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        text = _text(wrapped)
        reply = self._ask(
            f"unwrap a data key with {key} for {in_words(context)}",
            lambda transit: transit.decrypt_data(key, text, context=_encoded(context), mount_point=self._mount),
        )
        return base64.b64decode(reply["plaintext"])

    def versions(self, key: str) -> MaterialVersions:
        found = self._read(key, self._ask)
        return MaterialVersions(found["latest_version"], found["min_decryption_version"])

    def version_of(self, wrapped: bytes) -> int:
        match = _WRAPPED.match(_text(wrapped))
        if match is None:
            raise _foreign()
        return int(match[1])

    def rewrap(self, key: str, wrapped: Sequence[Wrapped]) -> list[bytes]:
        """A call for each 200."""
        batches = [wrapped[start : start + BATCH] for start in range(0, len(wrapped), BATCH)]
        return [anew for batch in batches for anew in self._rewrap(key, batch)]

    def raise_minimum(self, key: str, version: int) -> None:
        """Set ``min_decryption_version``. Vault compares nothing: whoever else sets it must not do so at the same
        time."""

        def once() -> None:
            if self._read(key, self._ask_once)["min_decryption_version"] < version:
                self._ask_once(
                    f"raise the minimum of the key {key} to version {version}",
                    lambda transit: transit.update_key_configuration(
                        key, min_decryption_version=version, mount_point=self._mount
                    ),
                )

        retrying(once)

    def _observe(self, key: str) -> KeyView:
        try:
            found = self._read(key, self._ask)
        except _Missing:
            return KeyView(key, exists=False, enabled=False)
        return KeyView(
            key,
            enabled=not _soft_deleted(found),
            automatic=bool(found.get("auto_rotate_period")),
            rotated_at=_made_at(found) if found["latest_version"] > 1 else None,
            exportable=found["exportable"],
            deletable=found["deletion_allowed"],
        )

    def _rewrap(self, key: str, batch: Sequence[Wrapped]) -> list[bytes]:
        wrapped = [{"ciphertext": _text(each.key), "context": _encoded(each.context)} for each in batch]
        results = self._ask(
            f"re-wrap {len(batch)} data keys with {key}",
            lambda transit: transit.rewrap_data(key, "", batch_input=wrapped, mount_point=self._mount),
        )["batch_results"]
        for each, result in zip(batch, results, strict=True):
            if result.get("error"):
                raise KeyServiceError(
                    f"could not re-wrap the data key of {in_words(each.context)} with {key}: {result['error']}"
                )
        return [result["ciphertext"].encode() for result in results]

    def _usable(self, key: str) -> Mapping[str, Any]:
        """What Vault says of a key that is there. A soft-deleted one it would refuse as if it were broken itself."""
        found = self._read(key, self._ask)
        if _soft_deleted(found):
            raise _Deleted(f"the key {key} is soft-deleted")
        return found

    def _read(self, key: str, ask: Callable[..., Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = ask(
            f"look at the key {key}", lambda transit: transit.read_key(key, mount_point=self._mount)
        )
        return found

    def _ask(self, doing: str, call: Callable[[Any], Any]) -> Any:
        """Call hvac's part for the engine, until Vault is there; return the data of the reply."""
        return retrying(lambda: self._ask_once(doing, call))

    def _ask_once(self, doing: str, call: Callable[[Any], Any]) -> Any:
        reply = self._vault.ask_once(
            lambda client: call(client.secrets.transit), doing, {404: _Missing}, KeyServiceError
        )
        return reply["data"] if isinstance(reply, dict) else None  # Vault answers 204 to a change


def _refuse_unfit(key: str, found: Mapping[str, Any]) -> None:
    if not (found["supports_encryption"] and found["derived"]):
        kind = f"{found['type']}, {'derived' if found['derived'] else 'not derived'}"
        raise _Unfit(f"the key {key} ({kind}) cannot bind a wrapped key to the secret that it is for")


def _soft_deleted(found: Mapping[str, Any]) -> bool:
    return bool(found.get("soft_deleted"))  # Vault has no such thing


def _made_at(found: Mapping[str, Any]) -> datetime:
    """When the latest material was made. The engine says so in seconds, and of asymmetric keys in words."""
    made = found["keys"][str(found["latest_version"])]
    if isinstance(made, int):
        return datetime.fromtimestamp(made, UTC)
    return datetime.fromisoformat(made["creation_time"]).astimezone(UTC)


def _text(wrapped: bytes) -> str:
    try:
        return wrapped.decode("ascii")
    except UnicodeDecodeError:
        raise _foreign() from None


def _foreign() -> KeyServiceError:
    return KeyServiceError("a wrapped data key is none of transit's: it names no version of a key")


def _encoded(context: Mapping[str, str]) -> str:
    return base64.b64encode(json.dumps(context, sort_keys=True, separators=(",", ":")).encode()).decode()
