"""Reading a generation's value, which must not get into a message."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rotation.errors import TargetError
from rotation.model import Credential
from rotation.options import first_problem

Shape = TypeVar("Shape", bound=BaseModel)


def read(shape: type[Shape], credential: Credential, is_not: str, remedy: str) -> Shape:
    """The value's JSON as its shape. Raises :class:`TargetError`: "generation 7 of orders/db ``is_not`` (the field and
    what is wrong with it, but not what was there)"."""
    try:
        return shape.model_validate_json(credential.value.reveal())
    except ValidationError as error:  # it holds the value: not chained
        where, what = first_problem(error)
        problem = f"{where or 'its JSON'}: {what}"
    raise TargetError(f"generation {credential.generation} of {credential.secret} {is_not} ({problem})", remedy)
