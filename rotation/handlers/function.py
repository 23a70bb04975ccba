"""What every function shares: its settings, and the engine without a project.

There is no project in a function: the archive holds this package and one environment's manifest. What is written (a
copy of the journal) goes to the temporary folder; the journal itself belongs into a bucket, for a function forgets.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rotation.engine import Engine, Event
from rotation.errors import UsageError
from rotation.journal_place import open_journal
from rotation.manifest import Dispatch, Manifest
from rotation.options import first_problem
from rotation.plugins import Plugins
from rotation.settings import Settings

ARCHIVE = Path(__file__).parents[2]

log = logging.getLogger("keyturn")
log.setLevel(logging.INFO)


class FunctionSettings(BaseSettings):
    """``environment`` names the manifest; ``dispatch`` is a :class:`Dispatch` as JSON."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", extra="ignore", frozen=True, env_ignore_empty=True)

    environment: str = Field(min_length=1)
    dispatch: Dispatch | None = None


def settings() -> FunctionSettings:
    """Raises :class:`UsageError` for an environment that is not valid."""
    try:
        return FunctionSettings()
    except ValidationError as error:
        problem = ": ".join(first_problem(error))
    except SettingsError as error:  # no JSON at all
        problem = str(error)
    raise UsageError(f"the function's environment is not valid: {problem}", "Declare it by a Trigger in stacks/.")


@contextmanager
def engine(environment: str, *, alone: bool = False) -> Iterator[Engine]:
    """The engine on the archive's manifest. With ``alone`` it must have a journal in a bucket, whose lease keeps other
    runners out: :class:`UsageError` without."""
    work = Path(tempfile.gettempdir()) / "keyturn"
    manifest = Manifest.read(ARCHIVE, environment)
    runner = Settings(project=work)
    if alone and runner.journal_bucket is None:
        raise UsageError(
            "the function has no journal in a bucket, so nothing would keep two of its runs apart",
            "Declare the environment's journal: KEYTURN_JOURNAL=s3://bucket/prefix, or cos://bucket-appid/prefix.",
        )
    with open_journal(runner, environment, _warn) as journal:
        yield Engine(work, manifest, Plugins(work, manifest), journal, say=_say, workers=runner.workers)


def _warn(what: str, consequence: str) -> None:
    log.warning("%s. %s", what, consequence)


def _say(event: Event) -> None:
    log.info("%s %s: %s", event.secret, event.what, event.detail)
