"""The embedded environment."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "start, stop or look at the embedded environment"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("up", "down", "status", "env"), help="env prints its variables for a shell")
    parser.add_argument("--purge", action="store_true", help="with down: remove the data too")


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rotation.exit_codes import DONE, FAILED
    from rotation.local import environment, providers
    from rotation.output import Output, table
    from rotation.settings import find_project

    output = Output(machine=options.json)
    project = find_project(options.project or Path.cwd())
    if options.what == "env":
        variables = environment.environment_variables(project) | providers.tool_environment(project)
        output.result(variables, [f"export {name}={value}" for name, value in variables.items()])
        return DONE
    if options.what == "up":
        environment.up(project, output.say, options.environment)
    if options.what == "down":
        environment.down(project, output.say, purge=options.purge)
    services = environment.status(project)
    if not services and options.what != "down":
        output.say("the embedded environment has not been started here: `keyturn local up` does")
    rows = [
        (s.name, s.address, str(s.pid or "-"), "ready" if s.ready else "starting" if s.pid else "stopped")
        for s in services
    ]
    lines = table(("service", "address", "process", "state"), rows) if rows else []
    output.result({"services": [asdict(s) for s in services]}, lines)
    return DONE if options.what == "down" or (services and all(s.ready for s in services)) else FAILED
