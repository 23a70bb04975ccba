"""Search everything that keyturn, Terraform and the CDK left behind for every value that the store has ever held.

The servers' own folders are left out: they are where the values live.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3
import hvac

from rotation.keys.aws_kms import AwsKms
from rotation.kv_ledger import Leaf
from rotation.local.environment import ADMINISTRATOR, APPLICATION_TOKEN, LOCAL, RUNNER_TOKEN, VAULT
from rotation.local.openbao import custody
from rotation.local.vault_environment import MOUNT
from rotation.manifest import Manifest
from rotation.plugins import Plugins
from rotation.sealing import is_sealed, unseal
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import LEDGER, to_text

SHORTEST = 8  # characters: what is shorter would be found by chance


@dataclass(frozen=True, slots=True)
class Report:
    """``found`` names the places that hold a value, ``kinds`` says what was searched."""

    values: int
    places: int
    kinds: str
    found: tuple[str, ...]


class Leaks:
    """A search in one project. The process has the variables of the embedded environment, and of its tools."""

    def __init__(self, project: Path, environment: str = LOCAL) -> None:
        self._project = project
        self._environment = environment
        self._manifest = Manifest.load(project, environment)

    def search(self, printed: Sequence[str]) -> Report:
        """Search files, what commands ``printed``, and a saved plan of the application stack."""
        values = sorted(self._values())
        kinds: Counter[str] = Counter()
        found: list[str] = []
        for kind, name, content in self._places(printed):
            kinds[kind] += 1
            if any(value in content for value in values):
                found.append(name)
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return Report(len(values), sum(kinds.values()), summary, tuple(found))

    def _values(self) -> set[bytes]:
        """Every value, and every field of a value that is a JSON object, of every version that ever was."""
        texts = self._in_openbao() if self._environment == VAULT else self._in_secrets_manager()
        return {value for text in texts for value in _sensitive(text)}

    def _in_openbao(self) -> Iterator[str]:
        """What is kept there now: retired generations are deleted. The tokens and the unseal key are values, too."""
        folder = self._project / ".keyturn" / "local" / "openbao"
        keys = custody(folder)
        yield from (keys.root_token, keys.unseal_key)
        yield from ((self._project / token).read_text(encoding="utf-8") for token in (RUNNER_TOKEN, APPLICATION_TOKEN))
        root = hvac.Client(os.environ["VAULT_ADDR"], token=keys.root_token, timeout=30)
        service = Plugins(self._project, self._manifest).keys(self._manifest.keys["orders"])
        for path in _paths(root, ""):
            if not path.endswith(f"/{LEDGER}"):
                entry = root.secrets.kv.v2.read_secret(path, mount_point=MOUNT, raise_on_deleted_version=True)
                stored = SecretValue(to_text(entry["data"]["data"]))
                yield stored.reveal()
                folder_of, _, last = path.removeprefix("_rotation/").rpartition("/")
                if is_sealed(stored) and (leaf := Leaf.parse(last)) is not None:
                    yield unseal(stored, name=folder_of, generation=leaf.generation, service=service).reveal()

    def _in_secrets_manager(self) -> Iterator[str]:
        for secret in self._manifest.secrets.values():
            yield from self._versions(secret.stored_as)
        yield boto3.client("secretsmanager").get_secret_value(SecretId=ADMINISTRATOR)["SecretString"]

    def _versions(self, name: str) -> Iterator[str]:
        client = boto3.client("secretsmanager")
        for version in client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"]:
            stored = client.get_secret_value(SecretId=name, VersionId=version["VersionId"])["SecretString"]
            yield stored
            if is_sealed(SecretValue(stored)):
                generation = int(version["VersionId"][1:11])
                yield unseal(SecretValue(stored), name=name, generation=generation, service=AwsKms({})).reveal()

    def _places(self, printed: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
        yield "transcripts", "what the commands printed", "".join(printed).encode()
        for path in self._files():
            kind = "state files" if ".tfstate" in path.name else f"{path.suffix.lstrip('.') or 'other'} files"
            yield kind, str(path.relative_to(self._project)), path.read_bytes()
        yield from self._saved_plan()

    def _files(self) -> Iterator[Path]:
        own = self._project / ".keyturn"
        servers = {own / "terraform", *(own / "local" / server for server in ("aws", "postgresql", "openbao"))}
        for folder in (own, self._project / "cdktf.out", self._project / "stacks"):
            for path in sorted(folder.rglob("*")):
                theirs = ".terraform" in path.parts or not servers.isdisjoint(path.parents)
                if path.is_file() and not path.is_symlink() and not theirs:
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


def _paths(root: hvac.Client, folder: str) -> Iterator[str]:
    """The paths of all entries below a folder that hold something."""
    listed = root.secrets.kv.v2.list_secrets(folder, mount_point=MOUNT)["data"]["keys"]
    for name in listed:
        path = f"{folder}{name}"
        if name.endswith("/"):
            yield from _paths(root, path)
        elif root.secrets.kv.v2.read_secret_metadata(path, mount_point=MOUNT)["data"]["current_version"]:
            yield path


def _sensitive(text: str) -> Iterator[bytes]:
    """The text itself; of a JSON object the fields that are secret, not the host or the user's name."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        fields = [str(content[name]) for name in ("password", "ciphertext", "wrapped") if name in content]
        yield from (field.encode() for field in fields if len(field) >= SHORTEST)
    elif len(text) >= SHORTEST:
        yield text.encode()
