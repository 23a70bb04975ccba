"""`keyturn --help`, and what reads a whole estate: `keyturn status` and `keyturn plan`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench import projects, stock
from tests.bench.measure import Command, medians
from tests.bench.report import Figure, Section
from tests.fixtures.aws import AwsApi, running_aws_api

SIZES = (100, 500, 1_000)
PLANNED = 2  # `keyturn plan` ends with it when there is something to do


def help_text(folder: Path) -> Section:
    command = projects.keyturn(folder, "--help")
    took = medians({"help": command.seconds}, times=11)["help"]
    return Section(
        "keyturn --help",
        "The whole process; 11 runs after a warm-up.",
        (Figure("wall time", took, "s", at_most=0.3),),
    )


def estates(folder: Path) -> Section:
    """Status and plan over 100, 500 and 1,000 secrets, all of which are due."""
    figures: list[Figure] = []
    with running_aws_api(folder) as aws:
        stock.bucket(aws)
        stocked = 0
        for secrets in SIZES:
            stock.slots(aws, (f"local/bench/token-{number:04}" for number in range(stocked, secrets)))
            stocked = secrets
            project = projects.of_size(folder / f"of-{secrets}", secrets, aws.endpoint)
            projects.synth_local(project).run()
            figures += _figures(aws, project, secrets)
    return Section(
        "keyturn status and keyturn plan",
        "The whole process against the local AWS API, which counts its calls; every secret is due, so that a plan"
        " covers all of them, and its Terraform plan is part of its time; 3 runs after one in which the calls are"
        " counted.",
        tuple(figures),
    )


def _figures(aws: AwsApi, project: Path, secrets: int) -> Iterator[Figure]:
    commands = {
        "status": projects.keyturn(project, "status", "--json"),
        "plan": projects.keyturn(project, "plan", "--json", codes=(PLANNED,)),
    }
    asked = {name: _calls_to_the_store(aws, command) for name, command in commands.items()}
    took = medians({name: command.seconds for name, command in commands.items()}, times=3, warm=False)
    for name in commands:
        yield Figure(f"{name} of {secrets:,}: calls to the store", asked[name], "calls", at_most=secrets / 100)
        yield Figure(f"{name} of {secrets:,}: wall time", took[name], "s")


def _calls_to_the_store(aws: AwsApi, command: Command) -> int:
    aws.forget_calls()
    command.run()
    return sum(count for call, count in aws.calls().items() if call.startswith("secretsmanager."))
