"""When a value that ends by itself is to be replaced: the journal keeps that date, so that who plans reads no value."""

from __future__ import annotations

from datetime import datetime

from rotation.journal import Note
from rotation.model import StoreView

TOPIC = "renewal"  # of the note that holds the date, for the generation that is current


def renew_at(view: StoreView, noted: Note | None) -> datetime | None:
    """The date for the current generation, as far as it is known; ``noted`` is the journal's note on the topic."""
    if noted is None or view.current is None or noted.generation != view.current.generation:
        return None
    return datetime.fromisoformat(noted.detail)
