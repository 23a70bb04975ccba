"""The function on AWS Lambda. :func:`handler` answers two kinds of events:

- EventBridge's *scheduled event*: what is due is turned, or handed to the pipeline (:mod:`rotation.handlers.due`).
- A *step* of Secrets Manager's own rotation (:mod:`rotation.handlers.steps`).

There is no project in a function: the archive holds this package and one environment's manifest. What is written (a
copy of the journal) goes to the temporary folder; the journal itself belongs into a bucket, for a function forgets.
An error ends the invocation as failed, which is what Lambda counts, and what Secrets Manager tries again.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rotation.engine import Engine, Event
from rotation.errors import UsageError
from rotation.handlers.due import turn_due
from rotation.handlers.steps import Step, take
from rotation.journal_place import open_journal
from rotation.manifest import Dispatch, Manifest
from rotation.plugins import Plugins
from rotation.settings import Settings

ARCHIVE = Path(__file__).parents[2]

_log = logging.getLogger("keyturn")
_log.setLevel(logging.INFO)


class Context(Protocol):
    """What is asked of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


class FunctionSettings(BaseSettings):
    """``environment`` names the manifest; ``dispatch`` is a :class:`Dispatch` as JSON."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", extra="ignore", frozen=True, env_ignore_empty=True)

    environment: str = Field(min_length=1)
    dispatch: Dispatch | None = None


def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Answer one event; the result is JSON without values. Raises :class:`~rotation.errors.KeyturnError`."""
    settings = _settings()
    with _engine(settings.environment) as engine:
        if "Step" in event:
            result = take(engine, Step.read(event))
        elif event.get("detail-type") == "Scheduled Event":
            result = turn_due(engine, settings.dispatch, lambda: context.get_remaining_time_in_millis() / 1000)
        else:
            raise UsageError(
                "this event is neither a scheduled event nor a step of a rotation",
                "Let EventBridge's rule or Secrets Manager call the function.",
            )
    _log.info(json.dumps(result))
    return result


@contextmanager
def _engine(environment: str) -> Iterator[Engine]:
    work = Path(tempfile.gettempdir()) / "keyturn"
    manifest = Manifest.read(ARCHIVE, environment)
    settings = Settings(project=work)
    with open_journal(settings, environment, _warn) as journal:
        yield Engine(work, manifest, Plugins(work, manifest), journal, say=_say, workers=settings.workers)


def _settings() -> FunctionSettings:
    try:
        return FunctionSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{first['loc'][0]}: {first['msg']}"
    except SettingsError as error:  # no JSON at all
        problem = str(error)
    raise UsageError(f"the function's environment is not valid: {problem}", "Declare it by a Trigger in stacks/.")


def _warn(what: str, consequence: str) -> None:
    _log.warning("%s. %s", what, consequence)


def _say(event: Event) -> None:
    _log.info("%s %s: %s", event.secret, event.what, event.detail)
