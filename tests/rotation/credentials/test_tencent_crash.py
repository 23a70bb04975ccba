"""Tencent Cloud's own kinds, on the emulated cloud, in AWS Secrets Manager, with a runner that dies at every act.

The store is another cloud's, which does not make anybody wait: what is killed here are the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rotation.engine import Request
from rotation.manifest import Plugin
from rotation.model import Strategy
from tests.contracts.crash import WAIT, CrashContract, Stage
from tests.fixtures.aws import REGION, AwsApi
from tests.rotation.credentials.test_tencent_cam_key import Robot, robot
from tests.rotation.credentials.test_tencent_product_secret import Product, product
from tests.world import memory_folder

__all__ = ["product", "robot"]  # fixtures of those files


def _begun(folder: Path, api: AwsApi, credential: Plugin, strategy: Strategy, slot: str) -> Stage:
    api.client("secretsmanager").create_secret(Name=slot)
    store = Plugin(kind="aws_secrets_manager", options={"region": REGION})
    stage = Stage.of(folder, slot, store, credential, strategy)
    stage.run(Request(initialize=True, wait=WAIT))
    return stage


class TestTencentCamKey(CrashContract):
    @pytest.fixture
    def stage(self, aws_environment: AwsApi, robot: Robot) -> Iterator[Stage]:
        credential = Plugin(kind="tencent_cam_key", options={"user": robot.name, **robot.tencent.options})
        with memory_folder() as folder:
            yield _begun(folder, aws_environment, credential, Strategy.OVERLAPPING, robot.name)

    @pytest.fixture
    def kept(self, robot: Robot) -> Callable[[], int]:
        return lambda: len(robot.keys())


class TestTencentProductSecret(CrashContract):
    @pytest.fixture
    def stage(self, aws_environment: AwsApi, product: Product) -> Iterator[Stage]:
        root, database = product.database.server.root, product.database.name
        options = {"product_secret": product.name, "host": root.host, "port": root.port, "dbname": database}
        options |= {"sslmode": "disable", "patience": 5, **product.tencent.options}
        credential = Plugin(kind="tencent_product_secret", options=options)
        with memory_folder() as folder:
            yield _begun(folder, aws_environment, credential, Strategy.ALTERNATING, product.name)
