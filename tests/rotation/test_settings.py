"""Settings come from the environment before the file, and a mistake in either is named."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from rotation.errors import UsageError
from rotation.settings import Settings, Topic, load


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
        ('journal = ""', "the setting journal is not valid"),
        (
            'journal = "gs://bucket/prefix"',
            r"the setting journal is not valid: .* in a folder or in s3://bucket/prefix",
        ),
        ('journal = "s3:///prefix"', "the setting journal is not valid"),
        ('journal = "cos:///prefix"', "the setting journal is not valid"),
        ('journal_required = "perhaps"', "the setting journal_required is not valid"),
        ("notify = 5", "the setting notify is not valid"),
        ("[[notify]]", "the setting notify.0 is not valid: .* one of url, url_environment and url_file"),
        ('[[notify]]\nurl = "json://x"\nurl_file = "x"', "the setting notify.0 is not valid"),
        ('[[notify]]\nurl = "json://x"\nevents = ["lunch"]', "the setting notify.0.events.0 is not valid"),
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


# A bucket


def test_a_journal_in_a_bucket_has_a_folder_for_what_cannot_be_sent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_JOURNAL", "s3://bucket/some/prefix")
    settings = load(project)
    assert settings.journal_bucket == "s3://bucket/some/prefix"
    assert Settings(project=project, journal="cos://bucket-1/x").journal_bucket == "cos://bucket-1/x"
    assert settings.journal_of("staging") == project / ".keyturn" / "journal" / "staging.offline.sqlite3"


# Recipients, whose addresses hold tokens

TOKEN = "T0KEN4NOBODY"


def test_one_address_in_the_environment_is_told_everything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_NOTIFY", f"slack://{TOKEN}")
    (recipient,) = load(project).notify
    assert recipient.read() == f"slack://{TOKEN}"
    assert recipient.events == frozenset(Topic)


def test_an_empty_variable_is_no_address(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_NOTIFY", "")
    assert load(project).notify == ()


def test_an_address_is_read_from_a_variable_or_a_file_when_it_is_needed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "keyturn.toml").write_text(
        '[[notify]]\nurl_environment = "CHAT_URL"\nevents = ["blocked"]\n[[notify]]\nurl_file = "url"\n'
    )
    monkeypatch.chdir(project)
    by_variable, by_file = load(project).notify
    assert (by_variable.read(), by_file.read()) == (None, None)
    monkeypatch.setenv("CHAT_URL", f"slack://{TOKEN}")
    (project / "url").write_text(f"mailto://{TOKEN}\n")
    assert (by_variable.read(), by_file.read()) == (f"slack://{TOKEN}", f"mailto://{TOKEN}")
    assert by_variable.events == {Topic.BLOCKED}


@pytest.mark.parametrize(
    "text", [f'[[notify]]\nurl = "slack://{TOKEN}"\ncolour = 1', f'notify = [["slack://{TOKEN}"]]']
)
def test_no_error_shows_an_address(project: Path, text: str) -> None:
    (project / "keyturn.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load(project)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_settings_that_are_printed_show_no_address(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_NOTIFY", f"slack://{TOKEN}")
    settings = load(project)
    assert TOKEN not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
