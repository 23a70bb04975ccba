"""Figures with their methods and aims, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from rotation.output import table


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. ``at_most`` and ``at_least`` are what is aimed at, in the same unit; None where nothing is."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def aim(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that were taken together, by one ``method`` (a sentence). ``skipped`` says why some are not there."""

    title: str
    method: str
    figures: tuple[Figure, ...]
    skipped: str = ""


def as_text(sections: Iterable[Section]) -> str:
    return "\n".join(line for section in sections for line in _lines(section))


def as_json(sections: Iterable[Section]) -> str:
    return json.dumps([_document(section) for section in sections], indent=1, ensure_ascii=False)


def _lines(section: Section) -> Iterator[str]:
    yield f"\n{section.title}"
    rows = [(figure.name, f"{figure.value:,.3g}", figure.unit, figure.aim, _mark(figure)) for figure in section.figures]
    yield from (f"  {line}" for line in table(("", "median", "unit", "aim", ""), rows))
    yield f"  {section.method}"
    if section.skipped:
        yield f"  not measured: {section.skipped}"


def _mark(figure: Figure) -> str:
    return "" if figure.met is None else "met" if figure.met else "NOT met"


def _document(section: Section) -> dict[str, object]:
    document = asdict(section)
    document["figures"] = [asdict(figure) | {"met": figure.met} for figure in section.figures]
    return document
