"""Fill the local AWS API with what a deployed project of many secrets has there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

from rotation.stores.aws_secrets_manager import AwsSecretsManager
from tests.bench.projects import BUCKET
from tests.fixtures.aws import ACCESS_KEY, REGION, SECRET_KEY, AwsApi


def slots(aws: AwsApi, names: Iterable[str], generation: int = 1) -> None:
    """Secrets of these names in the store, each with this generation as its current one."""
    client = aws.client("secretsmanager", max_pool_connections=8)
    store = AwsSecretsManager({"region": REGION})

    def put(name: str) -> None:
        version = store.predict(name, generation).version_id
        client.create_secret(Name=name, ClientRequestToken=version, SecretString="a value", Tags=[])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, names))


def bucket(aws: AwsApi) -> None:
    """The place of configuration objects."""
    aws.client("s3").create_bucket(Bucket=BUCKET)


@contextmanager
def reached(aws: AwsApi) -> Iterator[None]:
    """Let this process, and the children that it starts, find the local AWS API."""
    login = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}
    with mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_DEFAULT_REGION": REGION, **login}):
        yield
