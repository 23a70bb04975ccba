"""A document in version 2 of Vault's KV engine, in which runners agree on something by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import hvac
from pydantic import BaseModel, ValidationError

from rotation.errors import Conflict, TargetError
from rotation.vault import Vault

Model = TypeVar("Model", bound=BaseModel)

_ROUNDS = 12  # in which a change may lose against others before it is given up


class _Missing(TargetError):
    """There is no document, or it is deleted."""


class _Lost(TargetError):
    """Another runner wrote first."""


class Document(Generic[Model]):
    """What lies at ``path`` of the engine mounted at ``mount``, as a ``model`` whose fields all have defaults: that is
    the document before its first writing. It holds no value.

    A policy for it: ``create``, ``read`` and ``update`` on ``<mount>/data/<path>``.
    """

    def __init__(self, vault: Vault, mount: str, path: str, model: type[Model]) -> None:
        self._vault = vault
        self._mount = mount
        self._path = path
        self._model = model

    def read(self) -> Model:
        return self._found()[0]

    def change(self, step: Callable[[Model], Model]) -> Model:
        """Take steps until one leaves the document as it is, and return that. Each step may look at other things: it
        does so after the document was read, and what it returns is written only if nobody wrote since.

        Raises :class:`TargetError` for a document of another shape, and :class:`Conflict` where it never succeeds.
        """
        for _ in range(_ROUNDS):
            found, version = self._found()
            changed = step(found)
            if changed == found:
                return found
            self._write(changed, version)
        raise Conflict(
            f"{self._mount}/{self._path} changes all the time, or was deleted",
            "If it was deleted, take it back with `vault kv undelete`; then run the command again: it resumes.",
        )

    def _found(self) -> tuple[Model, int]:
        """The document and its version, 0 where there is none."""
        try:
            answer: dict[str, Any] = self._vault.ask(
                lambda c: c.secrets.kv.v2.read_secret_version(
                    self._path, mount_point=self._mount, raise_on_deleted_version=True
                ),
                f"read {self._mount}/{self._path}",
                {404: _Missing},
                TargetError,
            )
        except _Missing:
            return self._model(), 0
        try:
            return self._model.model_validate(answer["data"]["data"]), answer["data"]["metadata"]["version"]
        except ValidationError as error:
            raise TargetError(
                f"what keyturn noted in {self._mount}/{self._path} was changed",
                "Go back to an earlier version of it with `vault kv rollback`.",
            ) from error

    def _write(self, document: Model, version: int) -> None:
        """Write it after this version. Where another runner was faster nothing is written: look again."""

        def write(client: hvac.Client) -> Any:
            return client.secrets.kv.v2.create_or_update_secret(
                self._path, document.model_dump(mode="json"), cas=version, mount_point=self._mount
            )

        try:
            self._vault.ask(write, f"write {self._mount}/{self._path}", {400: _Lost}, TargetError)
        except _Lost:
            return
