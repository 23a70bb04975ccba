"""Settings come from the environment before the file, and a mistake in either is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotation.errors import UsageError
from rotation.settings import load


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "cdktf.json").write_text("{}")
    (tmp_path / "stacks").mkdir()
    return tmp_path


def test_defaults(project: Path) -> None:
    settings = load(project)
    assert (settings.project, settings.workers, settings.wait) == (project, 8, 600)
    assert settings.journal_of("local") == project / ".keyturn" / "journal" / "local.sqlite3"


def test_the_project_is_found_from_a_folder_below_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(project / "stacks").project == project
    monkeypatch.chdir(project / "stacks")
    assert load().project == project


def test_the_file_is_read_and_the_environment_goes_before_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "keyturn.toml").write_text('workers = 2\nwait = 5\njournal = "elsewhere"\n')
    assert (load(project).workers, load(project).wait) == (2, 5)
    assert load(project).journal_of("staging") == project / "elsewhere" / "staging.sqlite3"
    monkeypatch.setenv("KEYTURN_WORKERS", "3")
    assert (load(project).workers, load(project).wait) == (3, 5)


def test_an_absolute_journal_stays_where_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_JOURNAL", str(project / "away"))
    assert load(project).journal_of("local") == project / "away" / "local.sqlite3"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("workers = 0", "the setting workers is not valid"),
        ('workers = "many"', "the setting workers is not valid"),
        ("wait = -1", "the setting wait is not valid"),
        ("colour = true", "the setting colour is not valid"),
        ("workers = ", "keyturn.toml cannot be read"),
    ],
)
def test_a_mistake_is_named(project: Path, text: str, told: str) -> None:
    (project / "keyturn.toml").write_text(text)
    with pytest.raises(UsageError, match=told) as caught:
        load(project)
    assert "keyturn.toml" in caught.value.remedy


def test_a_mistake_in_the_environment_is_named_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_WORKERS", "none")
    with pytest.raises(UsageError, match="the setting workers is not valid"):
        load(project)


def test_outside_a_project_the_way_into_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not in a keyturn project \(no cdktf.json here or above\)"):
        load(tmp_path)
