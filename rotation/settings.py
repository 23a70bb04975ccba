"""What a runner is told by its environment (``KEYTURN_…``) and by ``keyturn.toml`` in the project's folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rotation.errors import UsageError

FILE = "keyturn.toml"


class Settings(BaseSettings):
    """``project`` is the folder of cdktf.json; ``journal`` the folder of the journals, below it unless absolute.

    ``workers`` bounds how many secrets are worked on at once. ``wait`` is for how many seconds a command waits for
    what only time brings (a bake, a settling ring) before it exits with 3.
    """

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", extra="forbid", frozen=True)

    project: Path
    journal: Path = Path(".keyturn/journal")
    workers: int = Field(default=8, ge=1, le=64)
    wait: float = Field(default=600, ge=0)

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

    def journal_of(self, environment: str) -> Path:
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
