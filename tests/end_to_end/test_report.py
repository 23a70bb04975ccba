"""The posture report on the embedded environment, as the command writes it. The search for values at the session's end
goes through the page, too: it lies in the project's own folder."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.fixtures.html import Element, parse
from tests.fixtures.project import EMPTY, SECRET, STORED_AS, TOKEN, Project

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def file(project: Project) -> Path:
    path = project.path / ".keyturn/reports/posture.html"
    path.unlink(missing_ok=True)
    return path


def read(file: Path) -> Element:
    return parse(file.read_text(encoding="utf-8"))


def questions(project: Project) -> dict[str, int]:
    """How often each call of the store was made since the last time; the application has calls of its own."""
    made = {name: count for name, count in project.aws.calls().items() if name.startswith("secretsmanager.")}
    project.aws.forget_calls()
    return made


def journal_copy(project: Project, folder: Path) -> Path:
    copy = folder / "local.sqlite3"
    source = sqlite3.connect(project.path / ".keyturn/journal/local.sqlite3")
    target = sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    return copy


def test_it_shows_what_status_says_and_how_the_last_rotation_went(project: Project, file: Path) -> None:
    project.run("rotate", TOKEN, "--reason", "manual: <b>quarterly</b> review, password=hunter2")
    current = project.status(TOKEN)["current"]
    project.aws.forget_calls()
    project.run("status")
    asked = questions(project)
    done = project.run("report", "--html", str(file), "--json")
    assert questions(project) == asked, "a report asks the store no more than status does"
    page = read(file)
    rows = {row[0].split()[0]: row for row in page.by_id("secret-table").rows()}
    assert {name: row[1].split()[0] for name, row in rows.items()} == {SECRET: "on", TOKEN: "on", EMPTY: "no"}
    assert rows[TOKEN][2].split()[0] == str(current)
    assert rows[TOKEN][5] == f"orders-api {current}"
    last = page.by_id("history-table").rows()[0]
    assert last[:3] == [TOKEN, str(current), "promoted"]
    assert last[6] == "manual: <b>quarterly</b> review, password=••••"
    assert all(phase in last[5] for phase in ("stage", "install", "test", "canary", "observe", "deploy", "promote"))
    assert done.json["secrets"] == {"no value": 1, "on schedule": 2}
    assert done.json["trail"]["flaw"] is None
    assert done.json["bytes"] == file.stat().st_size


def test_it_holds_no_value(project: Project, file: Path) -> None:
    project.run("report", "--html", str(file))
    text = file.read_text(encoding="utf-8")
    client = project.aws.client("secretsmanager")
    for name in STORED_AS.values():
        value = json.loads(client.get_secret_value(SecretId=name)["SecretString"])
        for part in ("password", "ciphertext", "wrapped"):
            assert value.get(part, "\0") not in text


def test_it_looks_for_drift_where_that_is_asked_for(project: Project, file: Path) -> None:
    project.run("report", "--html", str(file), "--drift", "stored", "consumed")
    assert "Looked at: stored, consumed." in read(file).text
    project.run("report", "--html", str(file), "--drift", "elsewhere", expect=2)


def test_a_store_that_refuses_is_an_error_and_leaves_the_last_page(project: Project, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("the last one")
    project.aws.faults("secretsmanager", "*", "deny", times=99)
    done = project.run("report", "--html", str(file), expect=1)
    project.aws.clear_faults()
    assert "AccessDeniedException" in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_text() == "the last one"
    assert list(file.parent.iterdir()) == [file]


def test_a_trail_that_was_tampered_with_is_reported_and_a_broken_journal_is_an_error(
    project: Project, file: Path, tmp_path: Path
) -> None:
    copy = journal_copy(project, tmp_path)
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE audit SET detail = 'all was well' WHERE sequence = 3")
    database.close()
    told = project.run("report", "--html", str(file), KEYTURN_JOURNAL=str(tmp_path))
    assert "the audit trail was changed at line 3" in told.stdout
    assert "audit trail does not verify" in read(file).one("header").text
    assert read(file).by_id("history-table").rows()

    file.unlink()
    copy.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    done = project.run("report", "--html", str(file), KEYTURN_JOURNAL=str(tmp_path), expect=1)
    assert "the journal" in done.stderr
    assert not file.exists()


def test_it_cannot_be_written_into_a_folder_that_is_a_file(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = project.run("report", "--html", str(tmp_path / "file" / "posture.html"), expect=1)
    assert "cannot write posture.html" in done.stderr
