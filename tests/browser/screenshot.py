"""Make docs/report.png: the top of a report on an estate of 40 secrets, as `make screenshot` runs it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from rotation.report.page import render
from tests.browser.pages import chromium, opened
from tests.fixtures.estate import estate

PICTURE = Path(__file__).parents[2] / "docs" / "report.png"
HEIGHT = 1112  # pixels: down to the charts


def main() -> None:
    PICTURE.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        file = folder / "report.html"
        with estate(folder) as made:
            file.write_text(render(made.report()), encoding="utf-8")
        with opened(browser, file, height=HEIGHT) as seen:
            seen.page.screenshot(path=PICTURE)


if __name__ == "__main__":
    main()
