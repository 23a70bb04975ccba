"""A plugin's options, checked where they enter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rotation.errors import DeclarationError

Options = TypeVar("Options", bound=BaseModel)


def parse(model: type[Options], options: Mapping[str, Any], plugin: str) -> Options:
    """The options as their model, or a :class:`DeclarationError` that names the plugin, the option and the reason."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        where, what = first_problem(error)
        if "." not in where and error.errors()[0]["type"] == "extra_forbidden":
            what = f"there is no such option (it has: {', '.join(sorted(model.model_fields))})"
        raise DeclarationError(f"{plugin}: {f'option {where}: ' if where else ''}{what}") from error


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong: where, empty for the whole, and what, without what was given."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]
