"""Which version of a secret carries which staging label. The rules, from AWS's Secrets Manager API reference:

- A label sits on at most one version: attaching it takes it off the other (PutSecretValue, UpdateSecretVersionStage).
- When AWSCURRENT moves, AWSPREVIOUS moves to the version that AWSCURRENT was removed from.
- AWSCURRENT can be moved, never removed. A label that sits elsewhere moves only when that place is named, so that the
  server compares before it sets (UpdateSecretVersionStage, RemoveFromVersionId).
- A version without labels is deprecated: hidden from lists, readable by its id, and deleted when there are more than
  100 versions, but not within 24 hours of its creation (PutSecretValue; User Guide, "AWS Secrets Manager quotas").
- A secret's versions carry 20 labels between them (same quotas).

Everything is checked before anything changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moto.secretsmanager.exceptions import InvalidParameterException, SecretsManagerClientError

# Version id to moto's record of a version: version_id, createdate (seconds since 1970), version_stages, and
# secret_string or secret_binary (base64), or neither for the placeholder that RotateSecret makes.
Versions = dict[str, dict[str, Any]]

CURRENT = "AWSCURRENT"
PREVIOUS = "AWSPREVIOUS"
PENDING = "AWSPENDING"
LABELS_PER_SECRET = 20
VERSIONS_KEPT = 100
YOUNG_SECONDS = 24 * 3600


def holder(versions: Versions, label: str) -> str | None:
    """The id of the version that carries the label."""
    return next((name for name, version in versions.items() if label in version["version_stages"]), None)


def labelled(versions: Versions) -> dict[str, list[str]]:
    """The versions that are not deprecated, with their labels in the order in which AWS lists them."""
    return {name: sorted(version["version_stages"]) for name, version in versions.items() if version["version_stages"]}


def attach(versions: Versions, version_id: str, labels: Iterable[str]) -> None:
    """Move labels to a version. Raises LimitExceededException, with nothing changed, for too many."""
    wanted = set(labels)
    _check_limit(versions, wanted)
    current = holder(versions, CURRENT)
    for label in wanted:
        _detach(versions, label)
        versions[version_id]["version_stages"].append(label)
    if CURRENT in wanted and current not in (None, version_id):
        _detach(versions, PREVIOUS)
        versions[str(current)]["version_stages"].append(PREVIOUS)


def move(versions: Versions, label: str, remove_from: str | None, move_to: str | None) -> None:
    """UpdateSecretVersionStage. Raises InvalidParameterException, with nothing changed, for what AWS refuses."""
    _check_move(versions, label, remove_from, move_to)
    if move_to:
        attach(versions, move_to, [label])
    else:
        _detach(versions, label)


def deprecated(versions: Versions, now: float) -> list[str]:
    """The versions that Secrets Manager deletes: the oldest without labels, beyond 100 and older than a day."""
    excess = len(versions) - VERSIONS_KEPT
    unlabelled = sorted(
        (version["createdate"], name) for name, version in versions.items() if not version["version_stages"]
    )
    return [name for created, name in unlabelled if now - created > YOUNG_SECONDS][: max(excess, 0)]


def _check_move(versions: Versions, label: str, remove_from: str | None, move_to: str | None) -> None:
    attached = holder(versions, label)
    for version_id in (remove_from, move_to):
        if version_id and version_id not in versions:
            raise InvalidParameterException(f"Not a valid version: {version_id}")
    if remove_from and remove_from != attached:
        raise InvalidParameterException(f"Staging label {label} is not attached to version {remove_from}.")
    if not remove_from and attached not in (None, move_to):
        raise InvalidParameterException(
            f"The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently attached to "
            f"version {attached}, so you must explicitly reference that version in RemoveFromVersionId."
        )
    if not move_to and label == CURRENT:
        raise InvalidParameterException(
            "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed."
        )
    if not move_to and not remove_from:
        raise InvalidParameterException("You must specify RemoveFromVersionId, MoveToVersionId or both.")


def _check_limit(versions: Mapping[str, dict[str, Any]], wanted: set[str]) -> None:
    present = {label for version in versions.values() for label in version["version_stages"]}
    if len(present | wanted) > LABELS_PER_SECRET:
        raise SecretsManagerClientError(
            "LimitExceededException", f"A secret can have at most {LABELS_PER_SECRET} staging labels."
        )


def _detach(versions: Versions, label: str) -> None:
    for version in versions.values():
        if label in version["version_stages"]:
            version["version_stages"].remove(label)
