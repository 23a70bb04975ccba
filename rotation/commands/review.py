"""Review Terraform plans, or synthesized stacks where there is no access to make plans."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotation.arguments import file

if TYPE_CHECKING:
    from pathlib import Path

    from rotation.review.document import Document
    from rotation.settings import Settings

HELP = "turn plans into a pull request's comment, and refuse what the rules refuse"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plans", nargs="*", type=file, metavar="FILE", help="plans as JSON, or a folder of `keyturn deploy --out`"
    )
    parser.add_argument("--rotation", type=file, metavar="PLAN", help="the rotation plan of `keyturn plan --out`")
    parser.add_argument("--synth", type=file, metavar="FOLDER", help="synthesized stacks instead of plans")
    parser.add_argument("--base", type=file, metavar="FOLDER", help="with --synth: the stacks to compare them with")
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown", help="default: markdown")
    parser.add_argument("--limit", type=int, metavar="BYTES", help="of the comment (default: 65536)")
    parser.add_argument(
        "--rules", type=file, action="append", default=[], metavar="FILE", help="more rules: .py or .rego"
    )


def run(options: argparse.Namespace) -> int:
    from rotation.errors import UsageError
    from rotation.exit_codes import BLOCKED, DONE
    from rotation.output import Output
    from rotation.planning import RotationPlan
    from rotation.review import comment, gate
    from rotation.settings import load

    settings = load(options.project)
    limit = _limit(options)
    document = _document(options, settings)
    _require_plugins(document, options.synth.resolve().parent if options.synth else settings.project)
    plan = RotationPlan.load(options.rotation) if options.rotation else None
    made = gate.review(document, settings, gate.rules_of(settings, options.rules), plan)
    if plan is not None and plan.environment not in made.environments:
        raise UsageError(
            f"the rotation plan is for {plan.environment}, and the plans are for {', '.join(made.environments)}",
            "Review plans of one environment, or name it with --environment.",
        )
    output = Output(machine=options.json or options.format == "json")
    output.result(comment.data(made), [comment.render(made, limit).rstrip("\n")])
    return BLOCKED if made.refused else DONE


def _limit(options: argparse.Namespace) -> int:
    from rotation.errors import UsageError
    from rotation.review.comment import LEAST, LIMIT

    limit = LIMIT if options.limit is None else options.limit
    if limit < LEAST:
        raise UsageError(f"a comment of {limit} bytes cannot hold a review", f"Allow at least {LEAST} bytes.")
    return int(limit)


def _document(options: argparse.Namespace, settings: Settings) -> Document:
    from rotation.errors import UsageError
    from rotation.review.document import named, of_plans, of_synth

    if options.synth:
        if options.plans:
            raise UsageError("both plans and --synth are given", "Give plans, or synthesized stacks without plans.")
        return of_synth(options.synth, options.base)
    if options.base:
        raise UsageError("--base is what --synth is compared with", "Give --synth, too.")
    return of_plans(named(options.plans), options.environment, embedded=_embedded(options, settings))


def _require_plugins(document: Document, project: Path) -> None:
    """Refuse what is declared wrongly of a plugin while it is still a pull request: a rotation would end there."""
    from rotation.errors import DeclarationError, UsageError
    from rotation.manifest import Manifest
    from rotation.plugins import Plugins

    for environment in sorted({stack.environment for stack in document.stacks}):
        try:
            manifest = Manifest.read(project, environment)
        except (DeclarationError, UsageError):
            continue  # not synthesized there
        Plugins(project, manifest).require(manifest.secrets.values())


def _embedded(options: argparse.Namespace, settings: Settings) -> bool:
    """Whether plans that do not say it themselves are of the embedded environment."""
    from rotation.errors import DeclarationError, UsageError
    from rotation.manifest import Manifest

    try:
        return Manifest.load(settings.project, options.environment).embedded
    except (DeclarationError, UsageError):
        return False  # not synthesized here: then the stricter rules hold
