"""Stacks on which single resources are declared."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modules.aws import Aws
from modules.cdk import Testing
from modules.resource import Stack

OLD, NEW = "3.39.0", "6.69.1"


def aws(version: str = NEW, environment: str = "staging") -> Aws:
    return Aws(environment=environment, region="eu-central-1", account="111122223333", version=version)


def bare_stack() -> Stack:
    """A stack without a provider."""
    return Stack(Testing.app(), "secrets-staging")


@pytest.fixture
def make_stack() -> Callable[..., Stack]:
    """Makes a stack named "secrets-staging" with the AWS provider in a version."""

    def make(version: str = NEW) -> Stack:
        stack = bare_stack()
        aws(version).provide(stack)
        return stack

    return make


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack()


def synthesized(stack: Stack) -> dict[str, Any]:
    """The stack as Terraform gets it."""
    content: dict[str, Any] = json.loads(Testing.synth(stack))
    return content


def only(stack: Stack, kind: str) -> dict[str, Any]:
    """The arguments of the stack's only resource of a kind."""
    found: list[dict[str, Any]] = list(synthesized(stack)["resource"][kind].values())
    assert len(found) == 1
    return found[0]
