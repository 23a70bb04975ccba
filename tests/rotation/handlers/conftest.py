"""An environment whose secrets have their first values."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotation.engine import Request
from tests.fixtures.aws import AwsApi
from tests.fixtures.postgresql import Database
from tests.rotation.handlers.function import Function


@pytest.fixture
def empty_function(tmp_path: Path, aws_environment: AwsApi, orders_database: Database) -> Function:
    return Function(tmp_path, aws_environment, orders_database)


@pytest.fixture
def function(empty_function: Function) -> Function:
    names = [name for name, secret in empty_function.manifest.secrets.items() if name != "orders/used"]
    with empty_function.engine() as engine:
        engine.run(names, Request(initialize=True))
    return empty_function
