"""Find a plugin by its name: the name of its file in its family's folder. Nothing registers it anywhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TypeVar

from rotation.errors import DeclarationError, UsageError

Family = TypeVar("Family")


def load(family: type[Family], kind: str) -> type[Family]:
    """Return the class that the file ``kind`` in the family's folder defines.

    Only that file is imported, so that a plugin whose SDK is absent breaks nobody else. Raises
    :class:`DeclarationError` for a kind that is none of the family's files, :class:`UsageError` for an absent SDK.
    """
    package = importlib.import_module(family.__module__)
    kinds = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if kind not in kinds:
        raise DeclarationError(f"{package.__name__} has no {kind!r} (it has: {', '.join(kinds)})")
    try:
        module = importlib.import_module(f"{package.__name__}.{kind}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{kind} needs the package {error.name}, which is not installed",
            "Install keyturn with the extra that brings it: see the README's table of extras.",
        ) from error
    (found,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, family)
        and not inspect.isabstract(value)
    )
    return found
