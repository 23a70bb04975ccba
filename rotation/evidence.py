"""Evidence that a rotation went well in a rehearsing environment, and the check of it where a rehearsal is asked for.

A rotation that ends promoted in an environment that rehearses leaves a record in stacks/evidence/<environment>.json,
one for each secret, to be committed and reviewed like the pins::

    {"format": 1, "rehearsed": {"orders/db": {"generation": 42, "promoted_at": "…", "watched": {"canary": 900, …}, …}}}

- A *new* rotation in an environment with a rehearsal needs the record of the same secret, made with the same code, not
  too old and not from the future. One that is in flight goes on without, and so do rollbacks and retirements.
- The *code* is what decides and deploys: main.py, stacks/ and modules/, the templates of the secret's consumers with
  all that they include, and the files of this package. Pins, rendered files and the embedded environment's addresses
  are not in it.
- Each record has its own SHA-256 digest, which covers the names of its secret and its environment: damage, and a record
  that was copied to another place, are noticed. It is no signature. Who may change the file is for the repository's
  reviews to say; the head of the rehearsal's audit trail is in it, to be compared with that journal.
- A value that a rollback brought back was not rehearsed: its promotion leaves no record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import Environment, TemplateSyntaxError, meta
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from rotation.errors import DeclarationError, KeyturnError, UsageError
from rotation.file_lock import held
from rotation.files import write_atomically
from rotation.journal import Journal
from rotation.manifest import Manifest, Name, Rehearsal, Secret, declaring_files
from rotation.model import Observation, Ring
from rotation.redaction import redact

FOLDER = Path("stacks") / "evidence"
LOCK = Path(".keyturn") / "evidence.lock"
PATIENCE = 60.0  # seconds to wait for another runner that is writing evidence
SKEW = timedelta(minutes=5)  # between the clocks of two runners
MOST_LINES = 4  # of the signals' observations: a record is to be read at a glance

_WATCHED = "watched"  # the journal's note on what was seen when the promotion was decided
_RESTORE = "Take the file back from version control (`git checkout`), or rehearse again."


class Record(BaseModel):
    """One secret's rehearsal. ``watched`` is for how many seconds each ring ran it before the promotion, ``saw`` what
    the signals said then; both are empty where nothing was watched (no consumers, or replaced in place)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: Annotated[int, Field(ge=1)]
    promoted_at: AwareDatetime
    watched: dict[Ring, int] = {}
    saw: tuple[str, ...] = ()
    code: str
    audit: str
    digest: str = ""

    def digest_for(self, environment: str, secret: str) -> str:
        covered = {"environment": environment, "secret": secret, **self.model_dump(mode="json", exclude={"digest"})}
        return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    rehearsed: dict[Name, Record] = {}


class Evidence:
    """The evidence that one environment's rotations leave, and that they need. ``clock`` tells the time."""

    def __init__(self, project: Path, manifest: Manifest, journal: Journal, clock: Callable[[], datetime]) -> None:
        self._project = project
        self._manifest = manifest
        self._journal = journal
        self._clock = clock

    # What is left

    def prepare(self) -> None:
        """Find a damaged file before anything is changed, and take down the code that a run begins with."""
        if self._manifest.rehearses:
            self._load(self._manifest.environment)
            _ = self._common

    def watch(self, secret: str, generation: int, seen: Observation) -> None:
        """Keep what is seen of the rings when a generation is about to be promoted."""
        if not self._manifest.rehearses:
            return
        views = [view for view in seen.rings if view.running == generation and view.since and view.since.year > 1]
        since = {ring: max(view.since for view in views if view.ring is ring and view.since) for ring in Ring if views}
        lines = dict.fromkeys(line for view in views for line in view.verdict.evidence)
        detail = {"since": {ring: moment.isoformat() for ring, moment in since.items()}, "saw": list(lines)}
        self._journal.note(secret, _WATCHED, generation, json.dumps(detail))

    def record(self, secret: Secret, generation: int) -> None:
        """Write the record of a promoted rotation, where the environment rehearses. Raises KeyturnError when it cannot
        be written; nothing else of the file changes."""
        if not self._manifest.rehearses:
            return
        environment = self._manifest.environment
        made = self._made(secret, generation)
        record = made.model_copy(update={"digest": made.digest_for(environment, secret.name)})
        busy = KeyturnError("another runner has been writing evidence for a minute", "Wait for it, then run again.")
        with held(self._project / LOCK, PATIENCE, busy):
            file = self._load(environment)
            _write(self._path(environment), file.rehearsed | {secret.name: record})

    def _made(self, secret: Secret, generation: int) -> Record:
        notes = self._journal.notes(secret.name)
        promoted, watched = notes.get("promoted"), notes.get(_WATCHED)
        at = promoted.at if promoted is not None and promoted.generation == generation else self._clock()
        seen: dict[str, Any] = {"since": {}, "saw": []}
        if watched is not None and watched.generation == generation:
            seen = json.loads(watched.detail)
        since = {Ring(ring): datetime.fromisoformat(moment) for ring, moment in seen["since"].items()}
        names = {secret.name, secret.stored_as}
        return Record(
            generation=generation,
            promoted_at=at.astimezone(UTC).replace(microsecond=0),
            watched={ring: max(0, round((at - moment).total_seconds())) for ring, moment in since.items()},
            saw=tuple(redact(line, names) for line in seen["saw"][:MOST_LINES]),
            code=self.code(secret),
            audit=self._journal.last_line(),
        )

    # What is needed

    def require(self, secret: Secret, override: str | None) -> None:
        """Refuse a new rotation without the evidence that this environment asks for (UsageError), unless there is a
        reason to ``override`` it, which then is in the audit trail."""
        rehearsal = self._manifest.rehearsal
        if rehearsal is None:
            return
        try:
            missing = self._missing(secret, rehearsal)
        except DeclarationError as error:
            if override is None:
                raise
            missing = str(error)
        if missing is None:
            return
        if override is None:
            raise UsageError(
                f"{secret.name} is not rehearsed: {missing}",
                f"Run `keyturn rotate -e {rehearsal.environment} {secret.name}` with this code and commit"
                f" {self._path(rehearsal.environment).relative_to(self._project).as_posix()};"
                " `--override REASON` goes on without, and is audited.",
            )
        self._journal.audit(secret.name, 0, "overridden", f"{override} ({missing})")

    def standing(self, secret: Secret) -> str:
        """What stands in the evidence that a new rotation would need, in words; empty where none is asked for."""
        rehearsal = self._manifest.rehearsal
        if rehearsal is None:
            return ""
        missing = self._missing(secret, rehearsal)
        if missing is not None:
            return f"refused without `--override`: {missing}"
        record = self._load(rehearsal.environment).rehearsed[secret.name]
        return f"rehearsed in {rehearsal.environment} on {_when(record.promoted_at)} as generation {record.generation}"

    def _missing(self, secret: Secret, rehearsal: Rehearsal) -> str | None:
        """What is wrong with the evidence on a secret; None when nothing is. Raises DeclarationError for a file that
        cannot be understood."""
        where = rehearsal.environment
        record = self._load(where).rehearsed.get(secret.name)
        if record is None:
            return f"there is no evidence of a rotation of it in {where}"
        if record.digest != record.digest_for(where, secret.name):
            return f"its evidence from {where} is damaged: it is not what its digest says"
        if record.promoted_at > self._clock() + SKEW:
            return f"its evidence from {where} is of {_when(record.promoted_at)}, which is yet to come"
        if record.promoted_at < self._clock() - rehearsal.within:
            return f"its evidence from {where} is of {_when(record.promoted_at)}, more than {rehearsal.within} ago"
        if record.code != self.code(secret):
            return f"the code has changed since its rotation in {where} on {_when(record.promoted_at)}"
        return None

    # Files

    def code(self, secret: Secret) -> str:
        """SHA-256 over the names and contents of what decides on this secret's rotation and deploys it."""
        templates = {self._project / c.template for c in self._manifest.consumers_of(secret.name)}
        used = {path for template in templates for path in _with_included(template)}
        digest = hashlib.sha256(self._common)
        digest.update(_digest((_short(path, self._project), path) for path in sorted(used)))
        return digest.hexdigest()

    @cached_property
    def _common(self) -> bytes:
        """What is the same for every secret: read once, so that a run is bound to the code that it began with."""
        package = Path(__file__).parent
        own = sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        declaring = ((_short(path, self._project), path) for path in declaring_files(self._project))
        return _digest([*declaring, *((f"rotation/{_short(path, package)}", path) for path in own)])

    def _path(self, environment: str) -> Path:
        return self._project / FOLDER / f"{environment}.json"

    def _load(self, environment: str) -> _File:
        path = self._path(environment)
        try:
            return _File.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise DeclarationError(f"the evidence {path.name} cannot be read: {error.strerror}", _RESTORE) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = " → ".join(str(part) for part in first["loc"]) or "its top"
            raise DeclarationError(
                f"the evidence {path.name} cannot be understood at {where}: {first['msg']}", _RESTORE
            ) from error


def _write(path: Path, rehearsed: Mapping[str, Record]) -> None:
    content = _File(rehearsed=dict(rehearsed)).model_dump(mode="json")
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _with_included(template: Path) -> set[Path]:
    """A template and all that it includes, imports or extends; where a name is known only when it is rendered, all
    files beside it."""
    found: set[Path] = set()
    left = [template]
    while left:
        path = left.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        for name in _referenced(path):
            left += [template.parent / name] if name else [p for p in sorted(template.parent.iterdir()) if p.is_file()]
    return found


def _referenced(template: Path) -> Iterable[str | None]:
    try:
        source = Environment(autoescape=True).parse(template.read_text(encoding="utf-8"))
    except (TemplateSyntaxError, UnicodeDecodeError):
        return ()  # not a template that can be rendered: the rotation says so by itself
    return meta.find_referenced_templates(source)


def _digest(files: Iterable[tuple[str, Path]]) -> bytes:
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def _short(path: Path, project: Path) -> str:
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.name


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
