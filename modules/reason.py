"""What pydantic found wrong, in words."""

from __future__ import annotations

from pydantic import ValidationError


def reason(error: ValidationError) -> str:
    """The first thing wrong and where, without what was given."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
