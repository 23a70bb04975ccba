"""Synthesizes the stacks and the rotation manifests: ``cdktf synth``, or ``python main.py``.

Environment variables:

- CDKTF_OUTDIR: where the stacks are written; cdktf.out by default.
- KEYTURN_STACKS: only these stacks, separated by commas. Manifests are then left as they are.
- KEYTURN_OVERLAY: a folder whose pins and rendered files go before the project's, to plan a rotation ahead.
- KEYTURN_CDK: cdktf or cdktn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rotation.errors import DeclarationError, KeyturnError, UsageError
from rotation.manifest import FOLDER, Manifest, digest_of_sources

try:
    import jsii.errors

    from modules.app_config import Files
    from modules.cdk import App
    from modules.declarations import Estate
    from modules.reason import reason
    from modules.resource import Stack
    from stacks.application import Application, pins_path
    from stacks.environments import Environment, environments
    from stacks.estate import estate
    from stacks.foundation import Foundation
    from stacks.secrets import Secrets
except UsageError as error:  # there is no CDK, or no Node for it
    sys.exit(f"error: {error}\n  {error.remedy}")

PROJECT = Path(__file__).parent
# Set by `cdktf synth`, which shows the stacks' warnings by itself.
_FROM_CDKTF = "CDKTF_CONTINUE_SYNTH_ON_ERROR_ANNOTATIONS"
PARTS = ("foundation", "secrets", "application")


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What :meth:`synth` writes: the ``stacks`` of ``app``, and with all of them the manifest of each environment."""

    project: Path
    app: App
    stacks: tuple[Stack, ...]
    manifests: tuple[Manifest, ...] | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the stacks warn of, once for all environments."""
        return tuple(dict.fromkeys(warning for stack in self.stacks for warning in stack.warnings))

    def synth(self) -> None:
        """Write everything. Raises :class:`DeclarationError` for what an aspect or the CDK refuses."""
        try:
            self.app.synth()
        except RuntimeError as error:
            raise self._in_words(error) from error
        if self.manifests is not None:
            self._write_manifests(self.manifests)

    def _in_words(self, error: RuntimeError) -> Exception:
        """jsii carries only the text of an exception through Node: find the exception itself again."""
        for stack in self.stacks:
            if stack.secretless.refusal is not None:
                return stack.secretless.refusal
        if isinstance(error.__cause__, jsii.errors.JavaScriptError):
            return DeclarationError(f"the CDK refuses the stacks: {str(error).splitlines()[0]}")
        return error

    def _write_manifests(self, manifests: tuple[Manifest, ...]) -> None:
        kept = {manifest.write(self.project) for manifest in manifests}
        for old in set((self.project / FOLDER).glob("*.json")) - kept:
            old.unlink()


def build_app(
    project: Path = PROJECT,
    estate: Callable[[Environment], Estate] = estate,
    environments: Callable[[Path], Sequence[Environment]] = environments,
    only: Collection[str] | None = None,
    overlay: Path | None = None,
) -> Synthesis:
    """Declare three stacks for each environment, or ``only`` those named, and write nothing yet.

    Raises :class:`DeclarationError` for a declaration that cannot be, :class:`UsageError` for a stack that is not.
    """
    declared = environments(project)
    app = App(outdir=os.environ.get("CDKTF_OUTDIR") or str(project / "cdktf.out"))
    files = Files(project, overlay)
    if only is not None:
        return Synthesis(project, app, tuple(_only(app, declared, estate, files, only)), None)
    stacks: list[Stack] = []
    manifests: list[Manifest] = []
    sources = digest_of_sources(project)
    for environment in declared:
        here = estate(environment)
        foundation = Foundation(app, environment, here)
        secrets = Secrets(app, environment, here)
        application = Application(app, environment, here, files)
        stacks += [foundation, secrets, application]
        asked = any(e.rehearsal is not None and e.rehearsal.environment == environment.name for e in declared)
        manifests.append(_manifest(environment, sources, foundation, secrets, application, rehearses=asked))
    return Synthesis(project, app, tuple(stacks), tuple(manifests))


def _only(
    app: App,
    declared: Sequence[Environment],
    estate: Callable[[Environment], Estate],
    files: Files,
    names: Collection[str],
) -> Iterator[Stack]:
    known = [environment.stack(part) for environment in declared for part in PARTS]
    if unknown := sorted(set(names).difference(known)):
        raise UsageError(
            f"there is no stack {', '.join(unknown)} (there are: {', '.join(known)})",
            "Name declared stacks in KEYTURN_STACKS, or leave it unset.",
        )
    for environment in declared:
        if environment.stack("foundation") in names:
            yield Foundation(app, environment, estate(environment))
        if environment.stack("secrets") in names:
            yield Secrets(app, environment, estate(environment))
        if environment.stack("application") in names:
            yield Application(app, environment, estate(environment), files)


def _manifest(
    environment: Environment,
    sources: str,
    foundation: Foundation,
    secrets: Secrets,
    application: Application,
    *,
    rehearses: bool,
) -> Manifest:
    try:
        return Manifest(
            environment=environment.name,
            order=environment.order,
            embedded=environment.is_local,
            rehearsal=environment.rehearsal,
            rehearses=rehearses,
            sources=sources,
            stacks=tuple(environment.stack(part) for part in PARTS if part not in environment.provisioned),
            pins=pins_path(environment),
            keys=foundation.keys,
            secrets=secrets.secrets,
            consumers=application.consumers,
        )
    except ValidationError as error:
        raise DeclarationError(f"the environment {environment.name}: {reason(error)}") from error


def main() -> int:
    """Synthesize as the environment variables say. Return the exit code: 0, or 1 with two lines on what is wrong."""
    named = os.environ.get("KEYTURN_STACKS")
    only = [name.strip() for name in named.split(",") if name.strip()] if named else None
    overlay = os.environ.get("KEYTURN_OVERLAY")
    try:
        synthesis = build_app(only=only, overlay=Path(overlay) if overlay else None)
        synthesis.synth()
    except KeyturnError as error:
        sys.stderr.write(f"error: {error}\n  {error.remedy}\n")
        return 1
    if _FROM_CDKTF not in os.environ:
        for warning in synthesis.warnings:
            sys.stderr.write(f"warning: {warning}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
