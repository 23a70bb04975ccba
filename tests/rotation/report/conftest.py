from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.estate import Estate, estate
from tests.world import memory_folder


@pytest.fixture
def forty() -> Iterator[Estate]:
    """An estate of 40 secrets."""
    with memory_folder() as folder, estate(folder) as made:
        yield made


@pytest.fixture
def empty() -> Iterator[Estate]:
    """An estate that declares nothing yet."""
    with memory_folder() as folder, estate(folder, size=0) as made:
        yield made
