"""Synth: of the example, against the prebuilt bindings, and of a thousand secrets."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bench import projects
from tests.bench.measure import Command, medians, variables
from tests.bench.report import Figure, Section

CHECKOUT = Path(__file__).parents[2]
BINDINGS = CHECKOUT / "build" / "bench" / "bindings"


def example(folder: Path) -> Section:
    """The example estate in all four environments."""
    project = projects.example(folder / "example")
    ours = projects.synth(project)
    took = medians({"ours": ours.seconds}, times=5)["ours"]
    memory = ours.memory()
    figures = [
        Figure("wall time", took, "s", at_most=3),
        Figure("peak memory, all processes together", memory.together, "MB", at_most=150),
        Figure("peak memory, largest process", memory.largest, "MB"),
    ]
    skipped = ""
    try:
        bindings = _bindings()
    except subprocess.CalledProcessError as error:
        skipped = f"the prebuilt AWS bindings: {(error.stderr.splitlines() or ['pip gave no reason'])[-1]}"
    else:
        figures += _against(ours, _prebuilt(project, bindings))
    return Section(
        "Synth of the example: 12 stacks in 4 environments",
        "`python main.py` in a copy of the project, Node included; 5 runs after a warm-up; memory in a run of its own,"
        " pages that processes of one program share counted once; the prebuilt bindings (cdktf-cdktf-provider-aws)"
        " declare the same resources in turn with ours, 3 times after a warm-up.",
        tuple(figures),
        skipped,
    )


def thousand(folder: Path) -> Section:
    project = projects.of_size(folder / "thousand", 1_000)
    command = projects.synth_local(project)
    took = medians({"synth": command.seconds}, times=3)["synth"]
    memory = command.memory()
    return Section(
        "Synth of 1,000 secrets",
        "build_app(…).synth() of one environment (slots with policies, key, runner, application, manifest); 3 runs"
        " after a warm-up.",
        (
            Figure("wall time", took, "s", at_most=10),
            Figure("peak memory, all processes together", memory.together, "MB"),
        ),
    )


def _against(ours: Command, prebuilt: Command) -> list[Figure]:
    took = medians({"ours": ours.seconds, "prebuilt": prebuilt.seconds}, times=3)
    return [
        Figure("prebuilt bindings: wall time", took["prebuilt"], "s"),
        Figure("prebuilt bindings: peak memory, together", prebuilt.memory().together, "MB"),
        Figure("times faster than the prebuilt bindings", took["prebuilt"] / took["ours"], "×", at_least=20),
    ]


def _prebuilt(project: Path, bindings: Path) -> Command:
    program = [projects.PYTHON, str(projects.HERE / "prebuilt.py")]
    arguments = [str(project / "cdktf.out"), str(project / "prebuilt.out")]
    quiet = {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20", "NODE_NO_WARNINGS": "1"}
    return Command([*program, *arguments], project, variables(PYTHONPATH=str(bindings), **quiet))


def _bindings() -> Path:
    """The folder with the prebuilt bindings, installed there the first time. Raises CalledProcessError without them."""
    ready = BINDINGS / ".ready"
    if not ready.is_file():
        pip = [projects.PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        what = ["--no-deps", "--upgrade", "--require-hashes", "-r", str(projects.HERE / "bindings.txt")]
        subprocess.run([*pip, *what, "--target", str(BINDINGS)], check=True, capture_output=True, text=True)
        ready.touch()
    return BINDINGS
