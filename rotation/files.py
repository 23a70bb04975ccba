"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from rotation.errors import KeyturnError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8) so that a crash leaves the old file or the new one, and nothing else.

    The new file lies beside the old one, is flushed to the disk and takes its name (and its permissions); then the
    folder is flushed too, so that the name survives a power cut. Missing folders are made. Raises
    :class:`KeyturnError`, with the old file untouched, when the disk is full or the folder cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(temporary, text, mode=path.stat().st_mode & 0o777 if path.exists() else None)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        remedy = (
            "Free some space on that disk" if error.errno in _FULL else "Check the folder and its permissions"
        ) + ", then run the command again: the old file is untouched."
        raise KeyturnError(f"cannot write {path.name}: {error.strerror or error}", remedy) from error


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file (text as UTF-8) by one that only its owner reads, so that a crash leaves the old or the new one.

    Its folder is there. The new file has one name, so that what a killed process left of it is gone with the next
    one: two at once are the caller's to keep apart. Raises OSError.
    """
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _flush_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file for good; no file is fine. Raises :class:`KeyturnError` when it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _flush_folder(path.parent)
    except OSError as error:
        raise KeyturnError(
            f"cannot remove {path.name}: {error.strerror or error}",
            "Check the folder and its permissions, then run the command again.",
        ) from error


def _write(path: Path, text: str, mode: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor is no path
        if mode is not None:
            os.fchmod(descriptor, mode)
        file.write(text.encode())
        file.flush()
        os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
