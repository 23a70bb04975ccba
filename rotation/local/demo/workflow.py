"""The demo's part for ``local`` alone: a rotation by GitHub's workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation.local.workflows import Workflows
from rotation.model import Ring

if TYPE_CHECKING:
    from rotation.local.demo.load import Load
    from rotation.local.demo.scenario import Demo


def by_workflow(demo: Demo, load: Load) -> None:
    secret = "orders/db"  # noqa: S105  # a secret's name
    demo.title("the same by GitHub's workflow: the steps of rotate.yml, run by act in a clone of a bare repository")
    before, failed = load.generation(Ring.STABLE, secret), load.failed()
    workflows = Workflows(demo.project, demo.project / ".keyturn" / "github", {"KEYTURN_COMMIT": "direct"})
    workflows.publish()
    demo.say(f"$ act workflow_dispatch -W .github/workflows/rotate.yml --input secrets={secret}")
    ran = workflows.run("rotate", secrets=secret, words="the demo", follow=lambda line: _show_output(demo, line))
    workflows.pull()
    demo.transcript.append(ran.log)
    demo.expect(ran.code == 0, "the workflow succeeds")
    after = load.generation(Ring.STABLE, secret)
    commits = [f"Rotate in local: {secret} {before} → {after} ({ring})" for ring in (Ring.STABLE, Ring.CANARY)]
    demo.expect(workflows.history()[:2] == commits, f"it pushed what it deployed: {'; '.join(reversed(commits))}")
    demo.expect(after > before, f"the application went from generation {before} to {after}")
    demo.expect(load.failed() == failed, "no query failed")


def _show_output(demo: Demo, line: str) -> None:
    """Of act's log, what the workflow's steps print."""
    _, printed, text = line.partition("]   | ")
    if printed:
        demo.say(f"  {text.rstrip()}")
