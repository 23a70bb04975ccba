"""What a target remembers of a user, so that a runner that slept cannot undo what others did since."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from rotation.errors import TargetError
from rotation.model import Credential


class Record(BaseModel):
    """What keyturn did to a user last; generation 0 where it did nothing yet.

    ``spent`` is the highest generation that was ever installed for the user or turned down.
    """

    model_config = ConfigDict(frozen=True)

    generation: int = 0
    state: Literal["installed", "revoked"] = "revoked"
    spent: int = 0

    def admits(self, generation: int, replaced: int | None) -> bool:
        """Whether a generation may be installed by somebody who believes ``replaced`` to be in its place.

        A new one may. The installed one may, again. An older one may only replace the installed one by its name.
        """
        if generation > self.spent:
            return True
        again = generation == self.generation
        restored = generation < self.generation == replaced
        return self.state == "installed" and (again or restored)

    def installed_as(self, generation: int) -> Record:
        return Record(generation=generation, state="installed", spent=max(self.spent, generation))

    def revoked_at(self, generation: int) -> Record:
        return Record(generation=generation, state="revoked", spent=max(self.spent, generation))

    def without(self, generation: int) -> Record:
        """The same, where a generation that is not installed never will be."""
        return self.model_copy(update={"spent": max(self.spent, generation)})


def refuse_superseded(whom: str, record: Record, new: Credential, current: Credential | None) -> None:
    """Raise :class:`TargetError` where a generation may not be installed for ``whom`` ("user orders_a") any more."""
    if record.admits(new.generation, None if current is None else current.generation):
        return
    raise TargetError(
        f"generation {new.generation} of {new.secret} is superseded: the {whom} has seen generation {record.spent}"
        f" since ({record.state}: {record.generation})",
        "Run the command again: it starts from what is there now.",
    )
