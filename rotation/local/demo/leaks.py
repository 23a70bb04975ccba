"""Search everything that keyturn, Terraform and the CDK left behind for every value that the store has ever held.

The servers' own folders are left out: they are where the values live. What OpenBao keeps there for an auditor, with the
values hashed, is searched.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rotation.local.embedded import embedded
from rotation.local.embedded.local import Local
from rotation.manifest import Manifest

SHORTEST = 8  # characters: what is shorter would be found by chance
_SERVERS = ("aws", "mariadb", "openbao", "postgresql", "tencent")  # with folders of their own
_SENSITIVE = ("password", "Password", "secret_id", "SecretKey", "ciphertext", "wrapped")  # fields of a value
_AUDIT = Path("local", "openbao", "audit.log")


@dataclass(frozen=True, slots=True)
class Report:
    """``found`` names the places that hold a value, ``kinds`` says what was searched."""

    values: int
    places: int
    kinds: str
    found: tuple[str, ...]


class Leaks:
    """A search in one project. The process has the variables of the embedded environment, and of its tools."""

    def __init__(self, project: Path, environment: str = Local.name) -> None:
        self._project = project
        self._environment = environment
        self._manifest = Manifest.load(project, environment)
        self._known: set[bytes] = set()

    def learn(self, *others: str) -> None:
        """Remember the values that the store holds now, as it may forget what is retired, and ``others``."""
        texts = embedded(self._environment).values(self._project, self._manifest)
        self._known.update(value for text in (*texts, *others) for value in _sensitive(text))

    def search(self, printed: Sequence[str]) -> Report:
        """Search files, what commands ``printed``, and a saved plan of the application stack for all that was learned,
        and for what the store holds now."""
        self.learn()
        values = sorted(self._known)
        kinds: Counter[str] = Counter()
        found: list[str] = []
        for kind, name, content in self._places(printed):
            kinds[kind] += 1
            if any(value in content for value in values):
                found.append(name)
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return Report(len(values), sum(kinds.values()), summary, tuple(found))

    def _places(self, printed: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
        yield "transcripts", "what the commands printed", "".join(printed).encode()
        for path in self._files():
            kind = "state files" if ".tfstate" in path.name else f"{path.suffix.lstrip('.') or 'other'} files"
            yield kind, str(path.relative_to(self._project)), path.read_bytes()
        yield from self._saved_plan()

    def _files(self) -> Iterator[Path]:
        own = self._project / ".keyturn"
        servers = {own / "terraform", *(own / "local" / server for server in _SERVERS)}
        for folder in (own, self._project / "cdktf.out", self._project / "stacks"):
            for path in sorted(folder.rglob("*")):
                theirs = ".terraform" in path.parts or not servers.isdisjoint(path.parents)
                if path.is_file() and not path.is_symlink() and (not theirs or path == own / _AUDIT):
                    yield path

    def _saved_plan(self) -> Iterator[tuple[str, str, bytes]]:
        """A plan of the application stack as a file (a zip that holds the state) and as JSON."""
        folder = self._project / ".keyturn" / "synth" / "stacks" / f"application-{self._environment}"
        with tempfile.TemporaryDirectory() as temporary:
            plan = Path(temporary) / "plan"
            for argv in (
                ["terraform", "plan", "-input=false", f"-out={plan}"],
                ["terraform", "show", "-json", str(plan)],
            ):
                done = subprocess.run(argv, cwd=folder, capture_output=True, check=True, timeout=300)
                yield "plans", " ".join(argv[:2]), done.stdout
            with zipfile.ZipFile(plan) as archive:
                for member in archive.namelist():
                    yield "plans", f"saved plan: {member}", archive.read(member)


def _sensitive(text: str) -> Iterator[bytes]:
    """The text itself; of a JSON object the fields that are secret, not the host or the user's name."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        fields = [str(content[name]) for name in _SENSITIVE if name in content]
        fields += [_middle(content["private_key"])] if "private_key" in content else []
        yield from (field.encode() for field in fields if len(field) >= SHORTEST)
    elif len(text) >= SHORTEST:
        yield text.encode()


def _middle(pem: str) -> str:
    """Of a private key one line, for a file may break lines in its own way: the last one of its first half, where RSA
    and EC keys alike hold what is private. How each of them begins or ends is public, too."""
    lines = pem.strip().splitlines()
    return lines[(len(lines) - 1) // 2]
