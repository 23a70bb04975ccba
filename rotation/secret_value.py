"""A value that nobody sees by accident."""

from __future__ import annotations

import hmac
from typing import Never


class SecretValue:
    """A secret's text, which only :meth:`reveal` gives out.

    ``repr``, ``str``, ``format``, f-strings and ``%``-formatting show a mask; pickling, copying by pickle and JSON
    raise ``TypeError``. Two values compare in constant time.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError("a secret value is text")
        self._text = text

    def reveal(self) -> str:
        """Give out the text itself: call this only where the value is handed to a store, a target or a cipher."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash in a dump would let a guess be tested

    def __repr__(self) -> str:
        return "SecretValue(••••)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> Never:
        raise TypeError("a secret value is not serialized")
