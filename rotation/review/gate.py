"""From a document to a review: the built-in rules, those of the project, and the exceptions that it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rotation.errors import GuardRefused
from rotation.manifest import Manifest
from rotation.output import Output
from rotation.planning import RotationPlan
from rotation.review import exceptions, rule_files
from rotation.review.comment import Review, in_words
from rotation.review.document import Document, of_plans
from rotation.review.rules import BUILT_IN, Rule, judge
from rotation.settings import Settings
from rotation.terraform import Json


class Gate:
    """What `keyturn deploy` asks before it applies plans: raises :class:`GuardRefused` where a rule refuses them."""

    def __init__(self, manifest: Manifest, settings: Settings, output: Output) -> None:
        self._manifest = manifest
        self._settings = settings
        self._output = output
        self._rules = rules_of(settings)

    def __call__(self, plans: Mapping[str, Mapping[str, Json]]) -> None:
        document = of_plans(plans, self._manifest.environment, embedded=self._manifest.embedded)
        found = review(document, self._settings, self._rules)
        for finding in found.findings:
            self._output.say(in_words(finding))
        if found.refused:
            raise GuardRefused("the rules of the review refuse these plans, and nothing was applied")


def rules_of(settings: Settings, files: Sequence[Path] = ()) -> list[Rule]:
    """All rules: the built-in ones, those of the settings' files and of these."""
    return [*BUILT_IN, *rule_files.load([*(settings.project / path for path in settings.rules), *files])]


def review(document: Document, settings: Settings, rules: Sequence[Rule], plan: RotationPlan | None = None) -> Review:
    """What these rules say of a document."""
    today = datetime.now(UTC).date()
    findings, allowed = exceptions.apply(judge(rules, document), settings.review.allow, today)
    return Review(document, findings, allowed, plan)
