"""Evidence of rehearsals: what a promoted rotation leaves, and what a new one elsewhere needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation.engine import Purpose, Request, Result
from rotation.errors import DeclarationError, UsageError
from rotation.evidence import MOST_LINES, SKEW, Evidence
from rotation.journal import Journal
from rotation.manifest import Manifest, Rehearsal
from rotation.model import Done, Ending, Strategy
from tests.scenarios import RETIRE, ROLL_BACK, ROTATE
from tests.world import CONSUMER, NAME, PATIENT, Killed, Side, World, memory_folder, no_hook

WITHIN = timedelta(days=7)
FILE = Path("stacks/evidence/staging.json")
TEMPLATE = Path(f"stacks/config/{CONSUMER}.yaml.j2")
OTHER = "orders/other"


@dataclass
class Place(World):
    """A world of one of two environments: staging, which rehearses, or production, which asks for it."""

    environment: str = "staging"

    @property
    def manifest(self) -> Manifest:
        asks = {"rehearsal": Rehearsal(environment="staging", within=WITHIN)}
        told = {"rehearses": True} if self.environment == "staging" else asks
        return super().manifest.model_copy(update={"environment": self.environment, **told})

    @property
    def record(self) -> dict[str, Any]:
        """The record of the first secret, as it is in the file."""
        content = json.loads((self.project / FILE).read_text(encoding="utf-8"))
        found: dict[str, Any] = content["rehearsed"][NAME]
        return found

    def standing(self) -> str:
        engine = self.engine()
        try:
            return engine.evidence.standing(self.secret())
        finally:
            engine.journal.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        (made / "stacks").mkdir()
        (made / "main.py").write_text("# declares\n")
        (made / "stacks/estate.py").write_text("# declares, too\n")
        yield made


@pytest.fixture
def staging(folder: Path) -> Place:
    return in_use(Place(folder))


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


@pytest.fixture
def production(staging: Place, elsewhere: Path) -> Place:
    """Production, with the same code, an hour after the rehearsal; its pins and journal are its own."""
    require_promoted(staging.run(ROTATE))
    return beside(staging, elsewhere)


def beside(staging: Place, folder: Path) -> Place:
    """Another checkout of the same code, with the evidence in it."""
    for name in ("main.py", "stacks/estate.py", str(FILE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((staging.project / name).read_bytes())
    world = in_use(Place(folder, environment="production"), override="there was nothing yet")
    world.now = staging.now + timedelta(hours=1)
    return world


def in_use(world: Place, override: str | None = None) -> Place:
    """The first generation is promoted."""
    require_promoted(world.run(Request(initialize=True, override=override, wait=PATIENT)))
    return world


def require_promoted(result: Result) -> None:
    assert isinstance(result.decision, Done), result
    assert result.decision.ending is Ending.PROMOTED


def refusal(result: Result) -> str:
    assert isinstance(result.error, UsageError), result
    assert "keyturn rotate -e staging orders/db" in result.error.remedy
    assert "--override REASON" in result.error.remedy
    return str(result.error).removeprefix(f"{NAME} is not rehearsed: ")


# What is left


def test_a_promoted_rotation_leaves_what_was_watched_and_seen(staging: Place) -> None:
    require_promoted(staging.run(ROTATE))
    record = staging.record
    assert (record["generation"], record["watched"]["canary"] >= 20, record["saw"]) == (2, True, ["fine"])
    with Journal(staging.journal, staging.clock) as journal:
        entries = {entry.hash: entry.event for entry in journal.trail(NAME)}
    assert entries[record["audit"]] == "promote"
    assert len((staging.project / FILE).read_bytes()) < 1000, "it is to be read at a glance"


@pytest.mark.parametrize("strategy", [Strategy.SINGLE, Strategy.ALTERNATING])
def test_what_is_not_watched_says_so(folder: Path, strategy: Strategy) -> None:
    world = in_use(Place(folder, strategy, consumers=strategy is Strategy.SINGLE))
    require_promoted(world.run(ROTATE))
    assert (world.record["watched"], world.record["saw"]) == ({}, [])


def test_what_looks_like_a_credential_is_masked_and_there_are_few_lines(staging: Place) -> None:
    engine = staging.engine()
    seen = {"since": {}, "saw": ["password=canary-hunter2", *(f"line {n}" for n in range(100))]}
    engine.journal.note(NAME, "watched", 5, json.dumps(seen))
    engine.evidence.record(staging.secret(), 5)
    engine.journal.close()
    assert "hunter2" not in (staging.project / FILE).read_text()
    assert len(staging.record["saw"]) == MOST_LINES


def test_a_rotation_that_was_turned_down_leaves_what_there_was(staging: Place) -> None:
    before = (staging.project / FILE).read_bytes()
    staging.faults.lacks[2] = ("SELECT on orders",)
    staging.run(ROTATE)
    assert (staging.project / FILE).read_bytes() == before
    assert staging.record["generation"] == 1


def test_a_value_that_a_rollback_brought_back_is_no_rehearsal(staging: Place) -> None:
    staging.run(ROTATE)
    staging.run(ROLL_BACK)
    assert staging.slot.current == 3
    assert staging.record["generation"] == 2


def test_where_nobody_asks_for_it_nothing_is_written(production: Place) -> None:
    before = (production.project / FILE).read_bytes()
    require_promoted(production.run(ROTATE))
    assert (production.project / FILE).read_bytes() == before
    assert [path.name for path in (production.project / FILE).parent.iterdir()] == [FILE.name]


def test_a_run_that_died_before_it_wrote_is_made_up_for_by_the_next(
    staging: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Evidence, "record", die)
        with pytest.raises(Killed):
            staging.run(ROTATE)
    assert staging.record["generation"] == 1
    staging.now += timedelta(minutes=2)
    require_promoted(staging.run(Request(Purpose.RESUME, wait=PATIENT)))
    assert staging.record["generation"] == 2
    assert staging.record["saw"] == ["fine"]


def full(staging: Place) -> Callable[[str, str, Side], None]:
    """The folder cannot be written any more once the promotion is done."""
    folder = (staging.project / FILE).parent

    def fill(runner: str, call: str, side: Side) -> None:
        if call == "store.promote: clear" and folder.is_dir():
            (staging.project / FILE).unlink()
            folder.rmdir()
            folder.write_text("in the way")

    return fill


def test_evidence_that_cannot_be_written_leaves_the_rotation_open(staging: Place) -> None:
    staging.hook = full(staging)
    result = staging.run(ROTATE)
    assert result.error is not None
    assert "staging.json" in str(result.error)
    staging.hook = no_hook
    (staging.project / FILE).parent.unlink()
    require_promoted(staging.run(Request(Purpose.RESUME, wait=PATIENT)))
    assert staging.record["generation"] == 2


def test_two_runs_that_write_at_once_lose_nothing(folder: Path) -> None:
    names = tuple(f"orders/s{number}" for number in range(12))
    world = Place(folder, names=names, consumers=False)

    def write(name: str) -> None:
        engine = world.engine(journal=folder / f"{name.replace('/', '-')}.sqlite3")
        engine.evidence.record(world.secret(name), 7)
        engine.journal.close()

    with ThreadPoolExecutor(len(names)) as executor:
        list(executor.map(write, names))
    assert sorted(json.loads((folder / FILE).read_text())["rehearsed"]) == sorted(names)


def test_evidence_that_cannot_be_written_does_not_hold_up_what_goes_on_without(staging: Place) -> None:
    staging.hook = full(staging)
    require_promoted(staging.run(Request(override="an incident", wait=PATIENT)))
    (said,) = [detail for detail in staging.trail_details() if detail.startswith("an incident (")]
    assert "staging.json" in said


# What is needed


def test_with_evidence_of_the_same_code_a_rotation_begins(production: Place) -> None:
    assert production.standing() == "rehearsed in staging on 2026-03-01 12:01 UTC as generation 2"
    require_promoted(production.run(ROTATE))


def edited(path: Path) -> Callable[[Place], object]:
    return lambda world: (world.project / path).write_text((world.project / path).read_text() + "# edited\n")


def tampered(world: Place) -> None:
    content = json.loads((world.project / FILE).read_text())
    content["rehearsed"][NAME]["promoted_at"] = "2026-03-01T12:30:00Z"
    (world.project / FILE).write_text(json.dumps(content))


def copied(world: Place) -> None:
    """Another secret's record under this one's name."""
    content = json.loads((world.project / FILE).read_text())
    engine = world.engine()
    record = engine.evidence._load("staging").rehearsed[NAME]
    engine.journal.close()
    content["rehearsed"][NAME]["digest"] = record.digest_for("staging", OTHER)
    (world.project / FILE).write_text(json.dumps(content))


def included(world: Place) -> None:
    template = world.project / TEMPLATE
    (template.parent / "part.j2").write_text("# included\n")
    template.write_text(template.read_text() + '{% include "part.j2" %}')


def moved(world: Place, span: timedelta) -> None:
    world.now += span


REFUSED: dict[str, tuple[Callable[[Place], object], str]] = {
    "no file": (lambda world: (world.project / FILE).unlink(), "there is no evidence of a rotation of it in staging"),
    "main.py changed": (edited(Path("main.py")), "the code has changed since its rotation in staging"),
    "a stack changed": (edited(Path("stacks/estate.py")), "the code has changed"),
    "its template changed": (edited(TEMPLATE), "the code has changed"),
    "its template includes another": (included, "the code has changed"),
    "tampered": (tampered, "its evidence from staging is damaged"),
    "another secret's": (copied, "its evidence from staging is damaged"),
    "too old": (lambda world: moved(world, WITHIN), "more than 7 days"),
    "from the future": (lambda world: moved(world, -timedelta(hours=2)), "which is yet to come"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_without_it_nothing_begins(production: Place, name: str) -> None:
    prepare, words = REFUSED[name]
    prepare(production)
    before, calls = production.snapshot(), len(production.calls)
    reason = refusal(production.run(ROTATE))
    assert reason.startswith(words) or words in reason
    assert production.standing() == f"refused without `--override`: {reason}"
    assert production.snapshot() == before
    assert set(production.calls[calls:]) <= {"store.observe", "deploy.deployed"}


def test_a_little_skew_between_two_runners_is_no_future(production: Place) -> None:
    production.now -= timedelta(hours=1) + SKEW / 2
    require_promoted(production.run(ROTATE))


def test_pins_rendered_files_and_other_consumers_templates_are_not_code(production: Place) -> None:
    (production.project / "stacks/config/other.yaml.j2").write_text("other: true\n")
    (production.project / ".keyturn/local").mkdir(parents=True)
    (production.project / ".keyturn/local/endpoints.json").write_text("{}")
    require_promoted(production.run(ROTATE))
    production.now += timedelta(minutes=5)
    require_promoted(production.run(ROTATE))


def test_an_included_template_is_code(production: Place) -> None:
    template, part = production.project / TEMPLATE, production.project / "stacks/config/part.j2"
    template.write_text(template.read_text() + '{% include "part.j2" %}')
    engine = production.engine()
    part.write_text("# one\n")
    before = engine.evidence.code(production.secret())
    part.write_text("# two\n")
    assert engine.evidence.code(production.secret()) != before
    template.write_text("{% include name %}")  # known only when it is rendered: all beside it count
    before = engine.evidence.code(production.secret())
    (production.project / "stacks/config/third.j2").write_text("# three\n")
    assert engine.evidence.code(production.secret()) != before
    engine.journal.close()


def test_an_override_goes_on_and_is_in_the_audit_trail(production: Place) -> None:
    (production.project / FILE).unlink()
    require_promoted(production.run(Request(override="staging is down", wait=PATIENT)))
    with Journal(production.journal, production.clock) as journal:
        (*_, last) = (entry.detail for entry in journal.trail(NAME) if entry.event == "overridden")
    assert last == "staging is down (there is no evidence of a rotation of it in staging)"


def test_an_override_that_nothing_needed_leaves_no_trace(production: Place) -> None:
    count = production.trail().count("overridden")
    require_promoted(production.run(Request(override="just in case", wait=PATIENT)))
    assert production.trail().count("overridden") == count


def test_a_first_value_needs_it_too(elsewhere: Path) -> None:
    world = Place(elsewhere, environment="production")
    assert refusal(world.run(Request(initialize=True, wait=PATIENT))).startswith("there is no evidence")
    assert world.slot.values == {}


def test_what_is_in_flight_goes_on_without_it_and_so_do_rollback_and_retirement(production: Place) -> None:
    production.run(Request(until="test", wait=PATIENT))
    (production.project / FILE).unlink()
    require_promoted(production.run(ROTATE))
    require_promoted(production.run(ROLL_BACK))
    production.now += timedelta(hours=1)
    assert isinstance(production.run(RETIRE).decision, Done)
    assert production.slot.previous is None
    assert refusal(production.run(ROTATE)).startswith("there is no evidence")


@pytest.mark.parametrize(
    "text",
    ["", "<<<<<<< HEAD\n", "[]", '{"format": 2}', '{"format": 1, "rehearsed": {"orders/db": {"generation": 0}}}'],
)
def test_a_damaged_file_is_a_clear_error_before_anything_changes(staging: Place, production: Place, text: str) -> None:
    for world in (staging, production):
        (world.project / FILE).write_text(text)
        before = world.snapshot()
        try:
            result = world.run(ROTATE)
        except DeclarationError as error:
            result = Result(NAME, error=error)
        assert isinstance(result.error, DeclarationError)
        assert "the evidence staging.json cannot be understood" in str(result.error)
        assert "version control" in result.error.remedy
        assert world.snapshot() == before
    assert (staging.project / FILE).read_text() == text


def test_a_damaged_file_does_not_hold_up_an_override_or_a_rollback(staging: Place, production: Place) -> None:
    production.run(Request(until="test", wait=PATIENT))
    staging.run(Request(until="test", wait=PATIENT))
    for world in (staging, production):
        (world.project / FILE).write_text("<<<<<<< HEAD\n")
        rolled_back = world.run(ROLL_BACK)
        assert isinstance(rolled_back.decision, Done), rolled_back
        require_promoted(world.run(Request(override="an incident", wait=PATIENT)))
