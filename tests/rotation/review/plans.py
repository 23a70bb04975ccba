"""Plans as ``terraform show -json`` prints them, made by hand, for tests of reviews."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rotation.review.document import Change, Document, Stack, read_plan
from rotation.review.document import of_plans as document_of


def plan(*resources: dict[str, Any], outputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"format_version": "1.2", "terraform_version": "1.11.4", "planned_values": {}} | {
        "resource_changes": list(resources),
        "output_changes": outputs or {},
        **more,
    }


def change(
    address: str,
    actions: str,
    before: Any = None,
    after: Any = None,
    *,
    unknown: Any = None,
    sensitive: Any = None,
    **about: Any,
) -> dict[str, Any]:
    """``actions`` are joined by "/"; ``sensitive`` is of what is after."""
    kind = address.removeprefix("data.").partition(".")[0]
    return {
        "address": address,
        "type": kind,
        "mode": "data" if address.startswith("data.") else "managed",
        "change": {
            "actions": actions.split("/"),
            "before": before,
            "after": after,
            "after_unknown": unknown or {},
            "before_sensitive": {},
            "after_sensitive": sensitive or {},
        },
        **about,
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def review_document(folder: Path, *resources: dict[str, Any], embedded: bool = False, **more: Any) -> Document:
    """The document of one stack of production with these changes, by way of a file."""
    read = read_plan(write(folder / "secrets-production.json", plan(*resources, **more)))
    assert read is not None
    return document_of({"secrets-production": read}, "production", embedded=embedded)


def document(*changes: Change) -> Document:
    return Document((Stack("secrets-production", "production", False, True, "d" * 64, changes),))


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], principal: Any = None, resource: Any = "*", **more: Any) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": action, "Resource": resource, **more}
    return statement if principal is None else statement | {"Principal": principal}


TODAY = datetime.now(UTC).date()
