"""The manifest: strict, the same for the same declarations, refused when it is older than the stacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rotation.errors import DeclarationError, StaleManifest, UsageError
from rotation.manifest import Manifest, digest_of_sources, manifest_path
from tests.world import NAME, World

OTHER = "orders/api"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text("# declares")
    (tmp_path / "modules" / "schemas").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def manifest(project: Path) -> Manifest:
    declared = World(project, names=(NAME, OTHER)).manifest
    return declared.model_copy(update={"sources": digest_of_sources(project)})


def test_what_was_written_is_read_again(project: Path, manifest: Manifest) -> None:
    manifest.write(project)
    assert Manifest.load(project, "test") == manifest


def test_the_same_declarations_are_the_same_text(project: Path, manifest: Manifest) -> None:
    first = manifest.write(project).read_bytes()
    reordered = manifest.model_copy(update={"secrets": dict(reversed(manifest.secrets.items()))})
    assert reordered.write(project).read_bytes() == first


@pytest.mark.parametrize(
    "file", ["main.py", "stacks/estate.py", "modules/aws.py", "modules/schemas/aws.json", "stacks/config/x.py"]
)
def test_a_manifest_older_than_what_declares_is_refused(project: Path, manifest: Manifest, file: str) -> None:
    manifest.write(project)
    (project / file).write_text("# changed")
    with pytest.raises(StaleManifest, match="older than the stacks") as caught:
        Manifest.load(project, "test")
    assert "cdktf synth" in caught.value.remedy


@pytest.mark.parametrize("file", ["stacks/config/orders-api.yaml.j2", "stacks/pins/test.json", "README.md"])
def test_what_a_rotation_changes_makes_no_manifest_stale(project: Path, manifest: Manifest, file: str) -> None:
    manifest.write(project)
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    (project / file).write_text("changed")
    assert Manifest.load(project, "test") == manifest


def test_no_manifest_at_all_is_told_apart_from_an_unknown_environment(project: Path, manifest: Manifest) -> None:
    with pytest.raises(DeclarationError, match="there is no manifest yet"):
        Manifest.load(project, "test")
    manifest.write(project)
    with pytest.raises(UsageError, match=r"no environment 'prod' is declared \(declared: test\)"):
        Manifest.load(project, "prod")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.update(format=2), "at format"),
        (lambda content: content.update(surprise=1), "at surprise"),
        (lambda content: content["secrets"][NAME].update(bake="-PT1S"), "a duration is not negative"),
        (lambda content: content["secrets"][NAME].update(sealed=True), "names no key to seal it with"),
        (lambda content: content["secrets"][NAME].update(key="lost"), "uses the key lost, which no stack declares"),
        (lambda content: content["secrets"].pop(OTHER), "uses orders/api, which no stack declares"),
        (lambda content: content["secrets"].update({"../up": content["secrets"][NAME]}), "pattern"),
        (lambda content: content.pop("pins"), "at pins"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(
    project: Path, manifest: Manifest, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    path = manifest.write(project)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DeclarationError) as caught:
        Manifest.load(project, "test")
    assert told in str(caught.value)


def test_a_manifest_that_is_no_json_is_refused(project: Path, manifest: Manifest) -> None:
    manifest_path(project, "test").parent.mkdir(parents=True)
    manifest_path(project, "test").write_text("{")
    with pytest.raises(DeclarationError, match=r"the manifest test\.json is not valid at its top"):
        Manifest.load(project, "test")


def test_an_unknown_secret_is_answered_with_what_there_is(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=r"no secret 'orders' is declared in test \(declared: orders/api, orders/db\)"):
        manifest.secret("orders")


def test_the_neighbours_of_a_secret_share_a_consumer_with_it(manifest: Manifest) -> None:
    assert [secret.name for secret in manifest.neighbours([NAME])] == [OTHER, NAME]
    assert [consumer.name for consumer in manifest.consumers_of(NAME)] == list(manifest.consumers)
    lonely = manifest.model_copy(update={"consumers": {}})
    assert [secret.name for secret in lonely.neighbours([NAME])] == [NAME]
    assert lonely.consumers_of(NAME) == ()


def test_declarations_do_not_change(manifest: Manifest) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest.secrets[NAME].bake = timedelta(0)  # type: ignore[misc]
