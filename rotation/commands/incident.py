"""Turn all that a compromised system could read."""

from __future__ import annotations

import argparse

from rotation.arguments import file, waiting

HELP = "turn all that a compromised system could read, and retire the old values; also resumes"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system",
        dest="systems",
        action="append",
        required=True,
        metavar="NAME",
        help="a reader, in full or by the last part of its path, or a consumer; may be given several times",
    )
    parser.add_argument("--report", type=file, metavar="FILE", help="write the report, as Markdown")
    parser.add_argument("--done", action="store_true", help="close the incident: the next one begins anew")
    waiting(parser)


def run(options: argparse.Namespace) -> int:
    from datetime import timedelta

    from rotation import incident
    from rotation.errors import UsageError
    from rotation.files import write_atomically
    from rotation.opening import Purpose
    from rotation.session import exit_code, session

    systems = list(dict.fromkeys(options.systems))
    with session(options) as at_work, at_work.engine.journal.lease([]):  # it is put on record before anything is turned
        engine, output = at_work.engine, at_work.output
        if options.done:
            found = {system: incident.find(engine.manifest, engine.journal, system) for system in systems}
            if missing := [system for system, standing in found.items() if standing is None]:
                raise UsageError(f"no incident of {', '.join(missing)} is open", "See `keyturn audit`.")
            report = incident.close(engine, [standing for standing in found.values() if standing is not None])
            output.say(f"closed: {', '.join(systems)}")
            for system in systems:
                at_work.tell_incident(system, "closed")
        else:
            for system in systems:
                incident.reach(engine.manifest, system)  # nothing begins while a name is wrong
            begun = [incident.begin(engine, system) for system in systems]
            for one in begun:
                output.say(incident.opening(one))
                at_work.tell_incident(one.system, f"begun {one.began:%Y-%m-%d %H:%M:%S} UTC", len(one.reached))
            wait = timedelta(seconds=at_work.wait if options.wait is None else options.wait)
            with output.progress():
                report = incident.respond(engine, begun, outside=options.no_apply, wait=wait)
        output.result(report.document(), report.text())
        at_work.say_troubles(report.results)
        if options.report:
            write_atomically(options.report, report.markdown())
        return exit_code(report.results.values(), Purpose.ROTATE)
