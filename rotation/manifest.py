"""The contract between the stacks, which declare, and the rotation, which acts. Synth writes it, commands read it.

It holds no value, and no way to one but the names of secrets. ``sources`` is the digest of the files that declared it
(:func:`digest_of_sources`): a manifest whose sources have changed since is refused as stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rotation.errors import DeclarationError, StaleManifest, UsageError
from rotation.model import Ring, Strategy
from rotation.schedule import Schedule

FORMAT: Literal[1] = 1
FOLDER = Path("cdktf.out") / "manifests"


def _not_negative(duration: timedelta) -> timedelta:
    if duration < timedelta(0):
        raise ValueError("a duration is not negative")
    return duration


Duration = Annotated[timedelta, AfterValidator(_not_negative)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*$", max_length=200)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin(_Declared):
    """A store, credential kind, key service, target or signal: ``kind`` is its file's name in its family's folder."""

    kind: str
    options: dict[str, Any] = {}


class Key(_Declared):
    """A key: ``reference`` is what its service calls it (for AWS KMS an alias)."""

    service: Plugin
    reference: str


class Secret(_Declared):
    """One secret: where its values live, how they are made, and how carefully they are turned.

    ``stored_as`` is its name in the store. ``bake`` is how long the canary must be good, ``settle`` how long the
    stable ring must be, ``patience`` how long an unknown is waited for beyond that, ``grace`` how long the old
    generation must have been out of use before it is retired; with ``end_sessions`` that is how long ago it must have
    been replaced, and its open sessions end then. ``readers`` are the principals that may read it, ``reads`` the
    secrets, by their names in the same store, that its credential kind reads.
    """

    name: Name
    stored_as: str
    store: Plugin
    credential: Plugin
    strategy: Strategy
    key: str | None = None
    sealed: bool = False
    schedule: Schedule | None = None
    bake: Duration
    settle: Duration
    patience: Duration
    grace: Duration
    end_sessions: bool = False
    readers: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sealed_needs_a_key(self) -> Self:
        if self.sealed and self.key is None:
            raise ValueError(f"{self.name} is sealed, and names no key to seal it with")
        return self


class ConsumerRing(_Declared):
    """One ring of one consumer. ``rendered`` is its configuration file, ``addresses`` the Terraform resources that
    carry it: nothing else may change when its pins move."""

    rendered: Path
    addresses: tuple[str, ...]
    signals: tuple[Plugin, ...] = ()


class Consumer(_Declared):
    """An application that uses secrets. Paths are relative to the project's folder."""

    name: Name
    template: Path
    format: Literal["yaml", "json", "toml", "ini", "dotenv", "properties"]
    secrets: tuple[Name, ...]
    target: Plugin
    rings: dict[Ring, ConsumerRing]


class Rehearsal(_Declared):
    """What must have gone well before: a rotation of the same secret with the same code, in another ``environment``,
    at most ``within`` ago."""

    environment: str
    within: Duration


class Dispatch(_Declared):
    """The pipeline that a function asks to turn what only Terraform can deploy. ``token`` is the name, in ``store``, of
    the secret that lets it ask; ``branch`` is whose workflow is to run, on GitHub."""

    kind: Literal["github", "jenkins"]
    url: str
    token: str
    branch: str = "main"
    store: Plugin = Plugin(kind="aws_secrets_manager")


class Manifest(_Declared):
    """All that one environment declares. ``order`` ranks environments: a lower one goes first. ``embedded`` tells that
    its servers are those of the embedded environment. ``stacks`` are in the order in which they are deployed.
    ``rehearsal`` is what a new rotation here asks for, and ``rehearses`` tells that some environment asks for one of
    this environment."""

    format: Literal[1] = FORMAT
    environment: str
    order: int
    embedded: bool = False
    rehearsal: Rehearsal | None = None
    rehearses: bool = False
    sources: str
    stacks: tuple[str, ...] = ()
    pins: Path
    keys: dict[str, Key] = {}
    secrets: dict[Name, Secret] = {}
    consumers: dict[Name, Consumer] = {}

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for consumer in self.consumers.values():
            for name in consumer.secrets:
                if name not in self.secrets:
                    raise ValueError(f"consumer {consumer.name} uses {name}, which no stack declares")
        for secret in self.secrets.values():
            if secret.key is not None and secret.key not in self.keys:
                raise ValueError(f"secret {secret.name} uses the key {secret.key}, which no stack declares")
        return self

    def secret(self, name: str) -> Secret:
        """Return the declaration of a secret, or raise :class:`UsageError` that lists what there is."""
        try:
            return self.secrets[name]
        except KeyError:
            known = ", ".join(sorted(self.secrets)[:5]) or "none"
            raise UsageError(
                f"no secret {name!r} is declared in {self.environment} (declared: {known})",
                "Name a declared secret (`keyturn status` lists them), or declare it in stacks/ and run `cdktf synth`.",
            ) from None

    def named_stacks(self, names: Iterable[str]) -> tuple[str, ...]:
        """These stacks, or all without names, in the order in which they are deployed."""
        asked = set(names) or set(self.stacks)
        if unknown := sorted(asked.difference(self.stacks)):
            raise UsageError(
                f"{self.environment} has no stack {', '.join(unknown)} (it has: {', '.join(self.stacks)})",
                "Name declared stacks, or none for all of them.",
            )
        return tuple(stack for stack in self.stacks if stack in asked)

    def consumers_of(self, secret: str) -> tuple[Consumer, ...]:
        """The consumers that use a secret, by name."""
        return tuple(self.consumers[name] for name in self._users.get(secret, ()))

    @cached_property
    def _users(self) -> dict[str, list[str]]:
        """The names of the consumers of each secret, in order."""
        users: dict[str, list[str]] = {}
        for name, consumer in sorted(self.consumers.items()):
            for secret in dict.fromkeys(consumer.secrets):
                users.setdefault(secret, []).append(name)
        return users

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which may have other consumers, and so finds their secrets anew."""
        copy = super().model_copy(update=update, deep=deep)
        vars(copy).pop("_users", None)
        return copy

    def neighbours(self, secrets: Iterable[str]) -> tuple[Secret, ...]:
        """These secrets, and those that share a consumer with one of them."""
        names = set(secrets)
        sharing = (consumer.secrets for name in names for consumer in self.consumers_of(name))
        return tuple(self.secrets[name] for name in sorted(names.union(*sharing)))

    def urgent(self, names: Iterable[str]) -> Self:
        """These declarations with no grace for the old values of these secrets: they are retired once they are replaced
        everywhere, and their open sessions end."""
        hurried = {"grace": timedelta(0), "end_sessions": True}
        secrets = {name: self.secret(name).model_copy(update=hurried) for name in names}
        return self.model_copy(update={"secrets": self.secrets | secrets})

    def write(self, project: Path) -> Path:
        """Write the manifest below ``project`` and return its path. The text is the same for the same declarations."""
        path = manifest_path(project, self.environment)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, project: Path, environment: str) -> Self:
        """Read what synth wrote, and refuse it when the stacks have changed since (:class:`StaleManifest`)."""
        manifest = cls.read(project, environment)
        if manifest.sources != digest_of_sources(project):
            raise StaleManifest(f"the manifest of {environment} is older than the stacks")
        return manifest

    @classmethod
    def read(cls, project: Path, environment: str) -> Self:
        """Read what synth wrote, where there may be no stacks to compare it with."""
        path = manifest_path(project, environment)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            known = sorted(p.stem for p in path.parent.glob("*.json"))
            if known:
                raise UsageError(
                    f"no environment {environment!r} is declared (declared: {', '.join(known)})",
                    "Choose one with --environment, or declare it in stacks/environments.py and run `cdktf synth`.",
                ) from None
            raise DeclarationError("there is no manifest yet", "Run `cdktf synth` in the project's folder.") from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DeclarationError(
                f"the manifest {path.name} is not valid at {where or 'its top'}: {first['msg']}"
            ) from error


def manifest_path(project: Path, environment: str) -> Path:
    return project / FOLDER / f"{environment}.json"


def digest_of_sources(project: Path) -> str:
    """SHA-256 over the names and contents of what declares: main.py, stacks/ and modules/ (Python and schemas), and
    the addresses of the embedded environment where there is one. Templates, pins and rendered files are not in it:
    a rotation changes them."""
    digest = hashlib.sha256()
    for path in (*declaring_files(project), *filter(Path.is_file, [project / ".keyturn" / "local" / "endpoints.json"])):
        digest.update(f"{path.relative_to(project).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def declaring_files(project: Path) -> Iterable[Path]:
    """The files in which environments are declared: main.py, stacks/ and modules/ (Python and schemas)."""
    yield from filter(Path.is_file, [project / "main.py"])
    for folder in ("stacks", "modules"):
        yield from sorted(p for p in (project / folder).rglob("*.py") if "__pycache__" not in p.parts)
    yield from sorted((project / "modules" / "schemas").glob("*.json"))
