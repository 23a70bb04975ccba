"""The posture report as a person meets it: with a mouse, with a keyboard, on a phone, in the dark, on paper."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rotation.report.page import render
from tests.fixtures.estate import estate
from tests.world import memory_folder

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from tests.browser.pages import CHROMIUM, Opened, chromium, opened  # noqa: E402  # they need playwright

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: `make test-browser` installs it"),
]
SECRETS = "#secret-table"
Open = Callable[..., AbstractContextManager[Opened]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    with memory_folder() as journal, estate(journal) as made:
        path.write_text(render(made.report()), encoding="utf-8")
    return path


@pytest.fixture
def show(browser: Any, file: Path) -> Open:
    """Open the report; when it is closed, it has asked for nothing and complained about nothing."""

    @contextmanager
    def showing(path: Path = file, **how: Any) -> Iterator[Opened]:
        with opened(browser, path, **how) as seen:
            yield seen
            assert seen.requests == []
            assert seen.complaints == []

    return showing


def names(seen: Opened) -> list[str]:
    """The secrets that the table shows."""
    texts: list[str] = seen.page.locator(f"{SECRETS} tbody th").all_inner_texts()
    return [text.split()[0] for text in texts]


def found(seen: Opened) -> str:
    return str(seen.page.locator(".tools[data-for=secret-table] [role=status]").inner_text())


# Finding


def test_a_search_shows_the_rows_that_have_all_the_words(show: Open) -> None:
    with show() as seen:
        seen.page.get_by_label("Search secrets").fill("IDENTITY gateway")
        assert names(seen) == ["identity/partner-gateway-client-credential"]
        assert found(seen) == "1 of 40"
        seen.page.get_by_label("Search secrets").fill("nothing is called that")
        assert names(seen) == []
        assert found(seen) == "0 of 40"
        seen.page.get_by_label("Search secrets").fill("")
        assert found(seen) == "40 in all"


def test_states_are_filtered_by_the_list_and_by_the_tiles(show: Open) -> None:
    with show() as seen:
        shown = seen.page.get_by_label("Show").first
        shown.select_option("overdue")
        assert found(seen) == "5 of 40"
        tile = seen.page.get_by_role("button", name="overdue", pressed=True)
        assert tile.count() == 1
        seen.page.get_by_role("button", name="3 no schedule").click()
        assert found(seen) == "3 of 40"
        assert shown.input_value() == "no-schedule"
        seen.page.get_by_role("button", name="3 no schedule").click()
        assert found(seen) == "40 in all"


@pytest.mark.parametrize(
    ("column", "cells", "key"),
    [
        ("Secret", "th", str),
        ("Generation", "td:nth-child(3)", lambda text: int(text.split()[0])),
        ("Next due", "td:nth-child(5)", str),
    ],
)
def test_a_click_on_a_header_sorts_and_says_so(show: Open, column: str, cells: str, key: Callable[[str], Any]) -> None:
    with show() as seen:
        header = seen.page.get_by_role("columnheader", name=column).first
        for direction in ("ascending", "descending"):
            header.get_by_role("button").click()
            assert header.get_attribute("aria-sort") == direction
            texts = [text for text in seen.page.locator(f"{SECRETS} tbody {cells}").all_inner_texts() if text != "–"]
            keys = [key(text) for text in texts]
            assert keys == sorted(keys, reverse=direction == "descending")
            assert len(set(keys)) > 10
        assert seen.page.locator(f"{SECRETS} [aria-sort]").count() == 1


def test_ages_sort_by_the_share_of_the_policy_and_what_has_none_comes_last(show: Open) -> None:
    with show() as seen:
        for _ in range(2):
            seen.page.get_by_role("columnheader", name="Age against policy").get_by_role("button").click()
            values = seen.page.locator(f"{SECRETS} tbody td:nth-child(4)").evaluate_all(
                "cells => cells.map(cell => cell.dataset.sort)"
            )
            shares = [float(value) for value in values if value]
            assert shares in (sorted(shares), sorted(shares, reverse=True))
            assert "" not in values[: len(shares)]


def test_all_of_it_can_be_done_with_the_keyboard(show: Open) -> None:
    with show() as seen:
        page = seen.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the secrets"
        header = page.get_by_role("columnheader", name="Secret").first
        header.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == "ascending"
        assert page.evaluate("document.activeElement.textContent") == "Secret", "the focus stays where it was"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.locator("[popovertarget]").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("[popover]:popover-open li").count() > 0
        page.keyboard.press("Escape")
        assert page.locator("[popover]:popover-open").count() == 0


def test_pages_show_every_row_once(show: Open) -> None:
    with show() as seen:
        pager = seen.page.get_by_role("navigation", name="Pages of secrets")
        first = names(seen)
        assert len(first) == 25
        assert pager.get_by_role("button", name="Previous").is_disabled()
        pager.get_by_role("button", name="Next").click()
        assert pager.inner_text().split("\n")[1] == "Page 2 of 2"
        assert pager.get_by_role("button", name="Next").is_disabled()
        assert len(set(first + names(seen))) == 40


# Seeing

_CONTRASTS = Path(__file__).with_name("contrasts.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_contrast_enough(show: Open, dark: bool) -> None:
    with show(dark=dark) as seen:
        background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(17, 20, 26)" if dark else "rgb(246, 246, 244)")
        seen.page.locator("details").first.evaluate("details => { details.open = true; }")
        measured = seen.page.evaluate(_CONTRASTS)
        assert measured["looked"] > 400
        assert measured["poor"] == []


def test_everything_to_be_touched_has_a_name(show: Open) -> None:
    with show() as seen:
        unnamed = seen.page.locator(
            "button, input, select, summary, a, nav, svg[role=img], [role=region]"
        ).evaluate_all(
            "all => all.filter(one => !(one.getAttribute('aria-label') || one.labels?.length"
            " || one.textContent.trim())).map(one => one.outerHTML)"
        )
        assert unnamed == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_rows_are_cards(show: Open, dark: bool) -> None:
    with show(width=360, height=740, dark=dark) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
        card = seen.page.locator(f"{SECRETS} tbody tr").first
        assert card.evaluate("card => card.getBoundingClientRect().width") <= 360 - 2 * 16
        labels = card.locator("td").evaluate_all(
            "cells => cells.map(cell => getComputedStyle(cell, '::before').content)"
        )
        assert labels == ['"State"', '"Generation"', '"Age against policy"', '"Next due"', '"Pinned"']
        assert seen.page.evaluate(_CONTRASTS)["poor"] == []


def test_a_table_on_a_phone_is_still_a_table_for_those_who_listen_to_it(show: Open) -> None:
    with show(width=360, height=740) as seen:
        table = seen.page.get_by_role("table", name="Every declared secret")
        row = table.get_by_role("row", name="identity/db")
        assert row.get_by_role("rowheader").inner_text().startswith("identity/db")
        assert row.get_by_role("cell").count() == 5
        seen.page.get_by_role("columnheader", name="Secret").first.get_by_role("button").click()
        assert names(seen)[0] == "billing/api-token"


def test_on_paper_all_rows_are_there_and_no_tools(show: Open) -> None:
    with show() as seen:
        seen.page.emulate_media(media="print")
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert len(names(seen)) == 40
        assert not seen.page.get_by_label("Search secrets").is_visible()
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert len(names(seen)) == 25


def test_without_scripts_every_row_is_shown(show: Open) -> None:
    with show(script=False) as seen:
        assert len(names(seen)) == 40
        assert not seen.page.get_by_label("Search secrets").is_visible()


# Keeping out


def test_a_script_that_got_in_would_not_run(browser: Any, file: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.html"
    intruder = "<img src=x onerror='document.title=1'><script>document.title = 2</script><p style='color: red' id=p>"
    altered.write_text(file.read_text(encoding="utf-8").replace("<main>", f"<main>{intruder}"), encoding="utf-8")
    with opened(browser, altered) as seen:
        assert seen.page.title() == "production: secrets and their rotation"
        assert seen.page.locator("#p").evaluate("p => getComputedStyle(p).color") != "rgb(255, 0, 0)"
        assert len(seen.complaints) >= 3
        assert seen.requests == []


# Size


def test_10000_secrets_open_and_are_searched_without_a_wait(show: Open, file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    before, rows, after = re.split(r"(?s)(?<=<tbody>)(.*?)(?=</tbody>)", text, maxsplit=1)
    path = tmp_path / "large.html"
    path.write_text(before + rows * 250 + after, encoding="utf-8")
    started = time.monotonic()
    with show(path) as seen:
        assert found(seen) == "10,000 in all"
        assert len(names(seen)) == 25
        assert time.monotonic() - started < 30
        started = time.monotonic()
        seen.page.get_by_label("Search secrets").fill("orders/db")
        assert found(seen) == "250 of 10,000"
        seen.page.get_by_role("columnheader", name="Next due").get_by_role("button").click()
        assert len(names(seen)) == 25
        assert time.monotonic() - started < 15
