"""``python -m rotation.local.demo [ENVIRONMENT]``"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rotation.errors import KeyturnError
from rotation.local.demo.database_faults import faults_of
from rotation.local.demo.load import Load, Probe
from rotation.local.demo.scenario import SECRET, Broken, Demo
from rotation.local.embedded import embedded, names
from rotation.local.embedded.local import Local
from rotation.settings import find_project


def run(project: Path, name: str) -> None:
    demo = Demo(project, name)
    demo.set_up()
    faults = faults_of(project, name)
    faults.clear()
    load = Load(project, name)
    demo.declare()
    demo.first_values(load)
    with _watching(project, name) as probe:
        demo.good_rotation(load)
        demo.missing_grant(load, faults)
        demo.bad_under_the_application(load, faults)
        demo.killed(load)
        demo.retire()
        demo.key_rotation(load)
        demo.drift(load, faults)
        embedded(name).demonstrate(demo, load)
        demo.account(probe, load)
    demo.leaks()
    demo.title("all of it held; `keyturn local down` stops the servers and keeps their data")


@contextmanager
def _watching(project: Path, name: str) -> Iterator[Probe]:
    probe = Probe(project, SECRET, name)
    probe.start()
    try:
        yield probe
    finally:
        probe.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rotation.local.demo", description="The demo.")
    parser.add_argument("environment", nargs="?", default=Local.name, choices=names())
    options = parser.parse_args()
    try:
        project = find_project(Path.cwd())
        os.chdir(project)  # declarations name files relative to it
        run(project, options.environment)
    except Broken as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyturnError as error:
        print(f"\nerror: {error}\n  {error.remedy}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
