"""A rotation's Terraform: synth, plan and apply of the application stack, in a small and in a large estate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

from rotation import deploy, terraform
from rotation.model import Ring
from rotation.pins import Pins, write
from tests.bench import projects, stock
from tests.bench.measure import Stopwatch, medians
from tests.bench.report import Figure, Section
from tests.fixtures.aws import running_aws_api

SMALL, LARGE = 10, 1_000
STACK = "application-local"
RUNS = 3

_generations = count(1)


def application(folder: Path) -> Section:
    watch = Stopwatch()
    with running_aws_api(folder) as aws:
        stock.bucket(aws)
        made = {size: projects.of_size(folder / f"of-{size}", size, aws.endpoint) for size in (SMALL, LARGE)}
        with stock.reached(aws), _timed(watch):
            for project in made.values():
                _seconds(project)  # the warm-up: it unpacks and initializes the providers
            watch.parts.clear()
            took = medians({str(size): partial(_seconds, project) for size, project in made.items()}, RUNS, warm=False)
    return Section(
        "A deployment of one ring's new pin: synth → plan → guard → apply",
        f"rotation.deploy.deploy of {STACK} against the local AWS API; {RUNS} runs in turn after a warm-up that"
        " initializes; the parts are means over both sizes.",
        (
            Figure(f"with {SMALL} secrets", took[str(SMALL)], "s"),
            Figure(f"with {LARGE:,} secrets", took[str(LARGE)], "s"),
            Figure("ratio", took[str(LARGE)] / took[str(SMALL)], "×", at_most=1.2),
            *(Figure(f"of it {part}", seconds / (2 * RUNS), "s") for part, seconds in watch.parts.items()),
        ),
    )


def _seconds(project: Path) -> float:
    _pin(project, next(_generations))
    began = time.perf_counter()
    deployment = deploy.deploy(project, STACK, _passes)
    took = time.perf_counter() - began
    if not deployment.changed:
        raise RuntimeError("the deployment changed nothing: there was nothing to measure")
    return took


def _pin(project: Path, generation: int) -> None:
    """What a rotation writes before it deploys: the canary's pin, and its configuration."""
    pins = Pins().with_(projects.CONSUMER, Ring.CANARY, "bench/token-0000", generation)
    write(project / "stacks" / "pins" / "local.json", pins)
    rendered = project / "stacks" / "config" / "rendered" / "local" / Ring.CANARY / f"{projects.CONSUMER}.json"
    rendered.parent.mkdir(parents=True, exist_ok=True)
    rendered.write_text(f'{{"generation": {generation}}}\n', encoding="utf-8")


@contextmanager
def _timed(watch: Stopwatch) -> Iterator[None]:
    """Time every child that a deployment starts, by what it is for."""

    def timed(run: Callable[..., CompletedProcess[str]]) -> Callable[..., CompletedProcess[str]]:
        def timing(*arguments: Any, what: str, **options: Any) -> CompletedProcess[str]:
            with watch.timing(what):
                return run(*arguments, what=what, **options)

        return timing

    # deploy imported run by name: it is another name of the same function, to be replaced by itself.
    timing_run = timed(terraform.run)
    with mock.patch.object(deploy, "run", timing_run), mock.patch.object(terraform, "run", timing_run):
        yield


def _passes(plan: terraform.Plan) -> None:
    """A review that refuses nothing."""
