"""Deploy an environment's stacks, or make plans of them to be reviewed first."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotation.arguments import file

if TYPE_CHECKING:
    from rotation.output import Output
    from rotation.saved_plans import SavedPlans

HELP = "deploy the stacks, or save their plans for a review and apply exactly those"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="default: all of the environment, in their order")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--out", type=file, metavar="FOLDER", help="save the plans there, and apply nothing")
    way.add_argument("--from", type=file, metavar="FOLDER", dest="saved", help="apply exactly the plans saved there")


def run(options: argparse.Namespace) -> int:
    from rotation import saved_plans
    from rotation.errors import GuardRefused, UsageError
    from rotation.exit_codes import BLOCKED, CHANGES, DONE
    from rotation.output import Output
    from rotation.plugins import Plugins
    from rotation.review.gate import Gate
    from rotation.rollout import Rollout
    from rotation.session import opened

    settings, manifest = opened(options)
    output = Output(machine=options.json)
    if options.stacks and options.saved:
        raise UsageError("a folder of plans is applied as a whole", "Name stacks with --out, or without a folder.")
    stacks = manifest.named_stacks(options.stacks)
    applied: list[saved_plans.Applied] = []

    def say(one: saved_plans.Applied) -> None:
        applied.append(one)
        output.say(f"{one.stack}: {one.outcome}")

    if options.out:
        plans = saved_plans.make(settings.project, manifest, stacks, options.out)
        _show(plans, output)
        return DONE if plans.empty else CHANGES
    review = Gate(manifest, settings, output)
    try:
        with output.progress():
            if options.saved:
                saved_plans.apply(settings.project, manifest, options.saved, review, say)
            else:
                saved_plans.make_and_apply(settings.project, manifest, stacks, review, say)
    except GuardRefused as refused:
        output.result({"environment": manifest.environment, "refused": str(refused)}, [f"refused: {refused}"])
        return BLOCKED
    if set(stacks) >= set(manifest.stacks[-1:]):  # the last one is the applications'
        for deployment in Rollout(settings.project, manifest, Plugins(settings.project, manifest)).deploy_apart():
            for changed in deployment.changed:
                output.say(f"{changed}: applied")
    outcomes = {one.stack: {"digest": one.digest, "outcome": one.outcome} for one in applied}
    output.result({"environment": manifest.environment, "stacks": outcomes})
    return DONE


def _show(plans: SavedPlans, output: Output) -> None:
    lines: list[str] = []
    for plan in plans.stacks:
        lines.append(f"{plan.stack}: {'changes' if plan.changes else 'no changes'} (digest {plan.digest[:12]})")
        lines += [f"  {change}" for change in plan.changes]
    output.result(plans.model_dump(mode="json"), lines)
