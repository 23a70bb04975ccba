"""What a runner is told by its environment (``KEYTURN_…``) and by ``keyturn.toml`` in the project's folder."""

from __future__ import annotations

import os
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rotation.drift.ignoring import Ignore
from rotation.errors import UsageError

FILE = "keyturn.toml"
FOLDER = Path(".keyturn/journal")  # of the journals; with a bucket, of what could not be sent there


class Topic(StrEnum):
    """What may be told to somebody."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    BLOCKED = "blocked"
    OVERDUE = "overdue"
    DRIFT = "drift"
    INCIDENT = "incident"


class Notify(BaseModel):
    """Somebody to tell: an Apprise URL, or where to find it, and the topics. URLs hold tokens: they are shown nowhere,
    and belong into a variable (``url_environment``) or a file (``url_file``) rather than into the repository."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: SecretStr | None = None
    url_environment: str | None = None
    url_file: Path | None = None
    events: frozenset[Topic] = frozenset(Topic)

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if sum(place is not None for place in (self.url, self.url_environment, self.url_file)) != 1:
            raise ValueError("give one of url, url_environment and url_file")
        return self

    def read(self) -> str | None:
        """The URL, None where the variable is not set or the file cannot be read."""
        if self.url is not None:
            return self.url.get_secret_value()
        if self.url_environment is not None:
            return os.environ.get(self.url_environment) or None
        try:
            return self.url_file.read_text(encoding="utf-8").strip() if self.url_file else None
        except (OSError, ValueError):
            return None


def _one_for_all(value: Any) -> Any:
    """KEYTURN_NOTIFY is one URL for all topics."""
    return [{"url": value}] if isinstance(value, str) else value


_BUCKETS = ("s3", "cos")  # the schemes of rotation/buckets, which are not looked for at each start


def _folder_or_bucket(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if separator and (scheme not in _BUCKETS or not rest.partition("/")[0]):
        raise ValueError("a journal is kept in a folder or in s3://bucket/prefix or cos://bucket-appid/prefix")
    return value


class DriftSettings(BaseModel):
    """``ignore`` are findings that are known and accepted for a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ignore: tuple[Ignore, ...] = ()


class Allowance(BaseModel):
    """An exception from a rule of a review: for an address, in which ``*`` stands for any characters, up to and with
    the day ``until`` (UTC)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    rule: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    until: date


class Review(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: tuple[Allowance, ...] = ()


class Settings(BaseSettings):
    """``project`` is the folder of cdktf.json.

    ``journal`` is where the journals are: a folder, below the project unless absolute, ``s3://bucket/prefix`` or
    ``cos://bucket-appid/prefix``.
    ``journal_required`` makes a bucket that cannot be reached an error; without, the work goes on with less memory.
    ``workers`` bounds how many secrets are worked on at once. ``wait`` is for how many seconds a command waits for
    what only time brings (a bake, a settling ring) before it exits with 3. ``notify`` is who is told of what, ``drift``
    which drift is known and accepted for a time. ``rules`` are files with a review's own rules, below the project
    unless absolute; ``review`` holds exceptions from rules.
    """

    model_config = SettingsConfigDict(
        env_prefix="KEYTURN_", extra="forbid", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    project: Path
    journal: Annotated[str, Field(min_length=1), AfterValidator(_folder_or_bucket)] = str(FOLDER)
    journal_required: bool = False
    workers: int = Field(default=8, ge=1, le=64)
    wait: float = Field(default=600, ge=0)
    notify: Annotated[tuple[Notify, ...], NoDecode, BeforeValidator(_one_for_all)] = ()
    rules: tuple[Path, ...] = ()
    review: Review = Review()
    drift: DriftSettings = DriftSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line first, then the environment, then the file."""
        file = init_settings()["project"] / FILE
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @property
    def journal_bucket(self) -> str | None:
        """The bucket's URL, None where journals are in a folder."""
        return self.journal if "://" in self.journal else None

    def journal_of(self, environment: str) -> Path:
        """The journal of an environment that is kept in a folder, also of one whose bucket cannot be reached."""
        if self.journal_bucket:
            return self.project / FOLDER / f"{environment}.offline.sqlite3"
        return self.project / self.journal / f"{environment}.sqlite3"


def load(folder: Path | None = None) -> Settings:
    """Settings of the project that ``folder`` (default: the working directory) is in."""
    project = find_project(folder or Path.cwd())
    try:
        return Settings(project=project)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"the setting {name} is not valid: {first['msg']}", f"Correct KEYTURN_* or {FILE}.") from error
    except ValueError as error:  # not TOML at all
        raise UsageError(f"{FILE} cannot be read: {error}", f"Correct {FILE}.") from error


def find_project(folder: Path) -> Path:
    """The nearest folder at or above this one that holds a cdktf.json."""
    for candidate in (folder.resolve(), *folder.resolve().parents):
        if (candidate / "cdktf.json").is_file():
            return candidate
    raise UsageError(
        f"{folder} is not in a keyturn project (no cdktf.json here or above)",
        "Change into the project's folder, or name it with --project.",
    )
