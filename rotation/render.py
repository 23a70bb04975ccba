"""An application's configuration from its template: Jinja2, strict and sandboxed, and checked by parsing the result.

A template knows ``environment``, ``ring`` and ``consumer`` (names), and ``secrets``: by name, where each secret is read
(:class:`~rotation.model.Reference`: ``name``, ``arn``, ``version_id``, ``generation``), never what it is. The filters
``yaml``, ``json``, ``toml``, ``ini``, ``dotenv`` and ``properties`` quote a value for their format::

    database: {arn: {{ secrets["orders/db"].arn | yaml }}, generation: {{ secrets["orders/db"].generation }}}

A block that stands alone on its line leaves no line behind (Jinja2's trim_blocks and lstrip_blocks). The same template,
pins and references always give the same text. Includes stay within the template's folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import traceback
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from jinja2 import BytecodeCache, FileSystemLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.bccache import Bucket
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import LRUCache, missing

from rotation.errors import DeclarationError
from rotation.files import remove, write_atomically
from rotation.formats import QUOTES, Malformed
from rotation.formats import check as check_format
from rotation.manifest import Consumer, Manifest
from rotation.model import Place, Reference, Ring
from rotation.pins import Pins

References = Mapping[tuple[str, int], Reference]
_REMEDY = "Correct the template, then run `keyturn render`."


@dataclass(frozen=True, slots=True)
class Context:
    """What a template knows. ``secrets`` is by the secret's declared name."""

    environment: str
    ring: Ring
    consumer: str
    secrets: Mapping[str, Reference]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One place's configuration file. ``changed`` tells that the file was not (or, when only checked, is not) what it
    should be; ``removed`` that it should not be there, since nothing is pinned at this place any more."""

    place: Place
    path: Path
    changed: bool
    removed: bool = False


def regenerate(
    project: Path,
    manifest: Manifest,
    pins: Pins,
    references: References,
    *,
    check: bool = False,
    places: Collection[Place] | None = None,
) -> list[Rendered]:
    """Render the configuration of these places (all by default) from their pins, and write what changed.

    ``references`` are by secret and generation. A ring whose consumer's secrets are not all pinned is left as it is; a
    ring without any pin has no file. Everything is rendered before anything is written, so an error changes nothing.
    ``check`` writes nothing. Paths in the result are below ``project``. Raises :class:`DeclarationError`.
    """
    wanted: list[tuple[Place, Path, str | None]] = []
    for (name, ring), consumer in _declared(manifest):
        if places is not None and (name, ring) not in places:
            continue
        pinned = pins.at(name, ring)
        path = project / consumer.rings[ring].rendered
        if pinned.keys() >= set(consumer.secrets):
            context = Context(manifest.environment, ring, name, _references_of(consumer, pinned, references))
            wanted.append(((name, ring), path, render(project / consumer.template, consumer.format, context)))
        elif not pinned and path.exists():
            wanted.append(((name, ring), path, None))
    return [_replace(place, path, text, check=check) for place, path, text in wanted]


def render(template: Path, fmt: str, context: Context) -> str:
    """The text that a template gives, valid in its format.

    Raises :class:`DeclarationError` that names the template, the line and the reason: a name that is not there (with
    the nearest that is), a syntax error, or a result that its format's parser refuses.
    """
    try:
        text = _environment(template.parent, context).get_template(template.name).render(_names(context))
    except TemplateSyntaxError as error:
        raise DeclarationError(f"{error.name}, line {error.lineno}: {error.message}", _REMEDY) from error
    except TemplateNotFound as error:
        raise DeclarationError(
            f"there is no template {error.name!r} in {template.parent.name}/ (for {template.name})", _REMEDY
        ) from error
    except Exception as error:  # a template can raise whatever the expressions in it raise
        raise DeclarationError(f"{_where(error, template)}: {error or type(error).__name__}", _REMEDY) from error
    try:
        check_format(text, fmt)
    except Malformed as error:
        line = f"line {error.line}: " if error.line else ""
        raise DeclarationError(
            f"{template.name} renders to what is not valid {fmt} for {context.consumer}/{context.ring}: {line}{error}",
            f"Correct the template (the filter `| {fmt}` quotes a value), then run `keyturn render`.",
        ) from error
    return text


def _declared(manifest: Manifest) -> Iterable[tuple[Place, Consumer]]:
    for name, consumer in sorted(manifest.consumers.items()):
        for ring in sorted(consumer.rings):
            yield (name, ring), consumer


def _references_of(consumer: Consumer, pinned: Mapping[str, int], references: References) -> dict[str, Reference]:
    found: dict[str, Reference] = {}
    for secret in sorted(consumer.secrets):
        try:
            found[secret] = references[secret, pinned[secret]]
        except KeyError as error:
            raise DeclarationError(
                f"{consumer.name} is pinned to generation {pinned[secret]} of {secret}, which is not in the store",
                "Pin a generation that exists, or take the pins back from version control (`git checkout`).",
            ) from error
    return found


def _replace(place: Place, path: Path, text: str | None, *, check: bool) -> Rendered:
    if text is None:
        if not check:
            remove(path)
        return Rendered(place, path, changed=True, removed=True)
    changed = not path.exists() or path.read_bytes() != text.encode()
    if changed and not check:
        write_atomically(path, text)
    return Rendered(place, path, changed)


class _Compiled(BytecodeCache):
    """What this process has compiled, by template: each is rendered for every ring, and again at every step."""

    def __init__(self) -> None:
        self._kept: LRUCache = LRUCache(400)  # templates, as many as Jinja2 itself keeps in an environment

    def load_bytecode(self, bucket: Bucket) -> None:
        kept: tuple[str, CodeType | None] = self._kept.get(bucket.key, ("", None))
        checksum, code = kept
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.checksum, bucket.code


_COMPILED = _Compiled()


def _environment(folder: Path, context: Context) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        undefined=_unknown_names(_names(context)),
        autoescape=False,  # configuration files are no HTML; each format has its own filter
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_COMPILED,
    )
    environment.filters.update(QUOTES)
    # The same input gives the same text: nothing random.
    del environment.globals["lipsum"], environment.filters["random"]
    return environment


def _names(context: Context) -> dict[str, Any]:
    return {
        "environment": context.environment,
        "ring": context.ring.value,
        "consumer": context.consumer,
        "secrets": dict(sorted(context.secrets.items())),
    }


def _unknown_names(names: Mapping[str, Any]) -> type[StrictUndefined]:
    """The type of what a template names but is not there: any use of it raises, and says what it might have meant."""

    class Unknown(StrictUndefined):
        @property
        def _undefined_message(self) -> str:
            if self._undefined_hint:
                return self._undefined_hint
            name = str(self._undefined_name)
            near = difflib.get_close_matches(name, self._there(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self._there()) or 'none'}"
            return f"unknown name {name!r} ({hint})"

        def _there(self) -> list[str]:
            if self._undefined_obj is missing:
                return sorted(names)
            if isinstance(self._undefined_obj, Reference):
                return [field.name for field in dataclasses.fields(Reference)]
            return sorted(self._undefined_obj) if isinstance(self._undefined_obj, dict) else []

    return Unknown


def _where(error: Exception, template: Path) -> str:
    """Template and line: Jinja2 puts them into the traceback, innermost last."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == template.parent]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else template.name
