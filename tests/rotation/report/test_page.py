"""The page: everything is in it, nothing is loaded by it, and no text breaks out of its place."""

from __future__ import annotations

import base64
import hashlib
import re
import sqlite3
from dataclasses import replace
from datetime import date
from itertools import pairwise

import pytest

from rotation.drift import Class, Finding, Way
from rotation.drift.check import Drift
from rotation.model import StoreView, Version
from rotation.report import MOST_TURNS
from rotation.report.page import render
from rotation.schedule import Blackout
from tests.fixtures.estate import NOW, SCHEDULES, Estate, Past, estate, manifest, secret
from tests.fixtures.html import Element, parse
from tests.world import memory_folder

MARKUP = """</script></style><script>alert(1)</script><img src=x onerror=alert(2)>"'&"""
CANARY = "vT7-canary-Q2x8LmW4"
LOADING = ("src", "href", "srcset", "action", "formaction", "poster", "data", "background", "xlink:href", "ping")


def page_of(made: Estate) -> Element:
    return parse(render(made.report()))


# What is in it


def test_every_secret_is_in_it_with_its_state_and_generation(forty: Estate) -> None:
    rows = {row[0].split()[0]: row for row in page_of(forty).by_id("secret-table").rows()}
    assert rows.keys() == forty.manifest.secrets.keys()
    for standing in forty.report().standings:
        row = rows[standing.secret.name]
        assert row[1].startswith(str(standing.state))
        assert row[2].split()[0] == str(standing.status.current or "–")


def test_the_worst_come_first_and_are_told_above_the_table(forty: Estate) -> None:
    page = page_of(forty)
    states = [row[1] for row in page.by_id("secret-table").rows()]
    assert [state.split()[0] for state in states[:4]] == ["foreign", "foreign", "stuck", "overdue"]
    (alarms,) = (element for element in page.all("ul") if element.attributes.get("class") == "alarms")
    assert [line.text.split()[0] for line in alarms.all("li")] == ["foreign"] * 2 + ["stuck"] + ["overdue"] * 5


def test_every_rotation_is_in_it_with_its_outcome_and_its_phases(forty: Estate) -> None:
    rows = page_of(forty).by_id("history-table").rows()
    turns = forty.report().turns
    assert len(rows) == len(turns) > 80
    promoted = next(row for row in rows if row[2] == "promoted")
    assert re.fullmatch(
        r"stage 0\.4 s · install 1\.2 s · test 0\.6 s · canary 9\.6 s · observe 3\d min · deploy \d\d s"
        r" · settle 1\d min · promote 0\.3 s",
        promoted[5],
    )


def test_a_rollback_is_told_with_its_evidence_and_its_timeline(forty: Estate) -> None:
    articles = page_of(forty).all("article")
    rolled_back = [turn for turn in forty.report().turns if turn.rolled_back]
    assert len(articles) == len(rolled_back) > 3
    for article, turn in zip(articles, rolled_back, strict=True):
        assert article.one("h3").text == f"{turn.secret} → {turn.goal}"
        assert "3 of 20 requests failed after the switch" in article.all("ul")[0].text
        assert [line.text.split()[1] for line in article.all("ol")[0].all("li")][-2:] == ["discard", "rolled"]


def test_the_drift_that_was_found_is_in_it(forty: Estate) -> None:
    found = (
        Finding(Way.STORED, "orders/db", "pending", Class.UNEXPECTED, "a version is foreign", "Look at it.", since=NOW),
        Finding(Way.LIVE, "search/db", "check", Class.UNCHECKED, "could not be checked: no answer", "Try again."),
    )
    report = replace(forty.report(), drift=Drift("production", (), NOW, (Way.STORED, Way.LIVE), found))
    page = parse(render(report))
    assert page.by_id("drift-table").rows() == [
        ["stored:orders/db:pending a version is foreign", "unexpected", "2026-11-22 10:30", "Look at it."],
        ["live:search/db:check could not be checked: no answer", "could not check", "–", "Try again."],
    ]
    assert "1 finding is drift. Looked at: stored, live." in page.text


def test_a_report_without_a_look_for_drift_says_so(forty: Estate) -> None:
    assert "Nobody looked for drift" in page_of(forty).text


def test_an_empty_estate_has_a_page_too(empty: Estate) -> None:
    page = page_of(empty)
    assert "No secret is declared here." in page.text
    assert "The journal knows of no rotation yet." in page.text
    assert page.by_id("secret-table").rows() == []


def test_an_estate_of_1000_secrets_is_all_in_it_and_its_history_is_cut_where_it_says_so() -> None:
    with memory_folder() as folder, estate(folder, size=1000, rotations=1) as made:
        page = page_of(made)
        rows = page.by_id("secret-table").rows()
        assert len({row[0].split()[0] for row in rows}) == len(rows) == 1000
        history = page.by_id("history-table")
        assert len(history.rows()) == MOST_TURNS
        assert history.one("caption").text.startswith("The newest 1,000 rotations of more:")


def test_a_trail_that_was_tampered_with_is_told_and_the_rest_is_there(forty: Estate) -> None:
    assert "audit trail verified" in page_of(forty).one("header").text
    with sqlite3.connect(forty.path) as database:
        database.execute("UPDATE audit SET detail = 'all was well' WHERE sequence = 7")
    database.close()
    page = page_of(forty)
    assert "audit trail does not verify the audit trail was changed at line 7" in page.one("header").text
    assert len(page.by_id("secret-table").rows()) == 40
    assert page.by_id("history-table").rows()


# What is not in it


def test_nothing_in_it_refers_to_anything_outside(forty: Estate) -> None:
    text = render(forty.report())
    page = parse(text)
    for element in page.all():
        for name in LOADING:
            assert element.attributes.get(name, "#").startswith("#"), element
    assert not page.all("link", "img", "iframe", "object", "embed", "base", "form", "use", "image", "foreignobject")
    assert "//" not in re.sub(r"// [^\n]*", "", text), "an address, in whatever place"
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|EventSource", text)


def test_its_policy_forbids_all_but_its_own_style_and_script(forty: Estate) -> None:
    page = page_of(forty)
    (policy,) = (m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes)
    digests = {tag: _digest("".join(str(part) for part in page.one(tag).children)) for tag in ("style", "script")}
    assert policy == (
        f"default-src 'none'; style-src '{digests['style']}'; script-src '{digests['script']}';"
        " base-uri 'none'; form-action 'none'"
    )
    for element in page.all():
        assert not [name for name in element.attributes if name == "style" or name.startswith("on")], element


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.fixture
def hostile(empty: Estate) -> str:
    """The page of an estate where every free text is markup that holds a value."""
    words = f"password={CANARY} {MARKUP}"
    freeze = Blackout(starts=date(2026, 12, 1), ends=date(2026, 12, 3), reason=MARKUP)
    declared = secret("orders/db", SCHEDULES[0].model_copy(update={"blackouts": (freeze,)}))
    past = Past(empty.journal, empty.clock, "orders/db", 2)
    past.begin(f"manual: {words}")
    past.roll_back(evidence=words)
    past.begin("schedule")
    empty.journal.audit("orders/db", 2, "blocked", words)
    view = StoreView("production/orders/db", current=Version("v1", 1), pending=Version("v2", 2), changed_at=NOW)
    made = replace(empty, manifest=manifest([declared]), views={"orders/db": view})
    finding = Finding(Way.STORED, "orders/db", "pending", Class.UNEXPECTED, MARKUP, MARKUP)
    drift = Drift("production", (), NOW, (Way.STORED,), (finding,))
    return render(replace(made.report(), drift=drift))


def test_markup_in_free_text_stays_text(hostile: str) -> None:
    page = parse(hostile)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not page.all("img")
    assert not [element for element in page.all() if "onerror" in element.attributes]
    places = [page.one("article").text, page.by_id("drift-table").text, page.by_id("history-table").text]
    places += [table.text for table in page.all("table") if table.attributes.get("class") == "schedules"]
    for place in places:
        assert "<img src=x onerror=alert(2)>" in place
    assert page.by_id("secret-table").rows()[0][1].startswith("blocked")


def test_a_value_in_free_text_is_masked(hostile: str) -> None:
    assert CANARY not in hostile
    assert "password=••••" in parse(hostile).one("article").text


# How it can be read


def test_tables_charts_and_fields_say_what_they_are(forty: Estate) -> None:
    page = page_of(forty)
    assert page.one("html").attributes["lang"] == "en"
    for table in page.all("table"):
        assert table.one("caption").text
        assert all(head.attributes["scope"] in ("col", "row") for head in table.all("th"))
        width = len(table.one("thead").all("th"))
        assert {len(row) for row in table.rows()} == {width}
    for svg in page.all("svg"):
        if svg.attributes.get("aria-hidden") != "true":
            assert svg.attributes["role"] == "img"
            assert page.by_id(svg.attributes["aria-labelledby"]).text
    for field in page.all("input", "select"):
        assert any(field in label.all() and label.one("span").text for label in page.all("label"))


def test_identifiers_are_unique_and_references_within_it_lead_somewhere(forty: Estate) -> None:
    page = page_of(forty)
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.all():
        for name in ("aria-labelledby", "popovertarget", "data-for"):
            assert element.attributes.get(name, ids[0]) in ids
        if element.tag == "a":
            assert element.attributes["href"].removeprefix("#") in ids


def test_headings_go_down_one_step_at_a_time(forty: Estate) -> None:
    levels = [int(heading.tag[1]) for heading in page_of(forty).all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_making_charts_leaves_no_hook_in_the_imports_of_others() -> None:
    import sys

    import rotation.report.charts  # noqa: F401

    assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)
