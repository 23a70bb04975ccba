"""Real servers for the tests, each started once per worker and stopped by its process id."""

import gc

import pytest
from hypothesis import settings

# Four thousand tests and all that they import are there to the end. To look for garbage among them took a third of the
# time of collecting them, and 0.2 s whenever all was looked at while they ran.
gc.disable()

# The same examples in each run, however long one takes: what Hypothesis itself does where it finds a CI's variables.
settings.load_profile("ci")

pytest_plugins = [
    "tests.fixtures.aws",
    "tests.fixtures.postgresql",
    "tests.fixtures.mariadb",
    "tests.fixtures.openbao",
    "tests.fixtures.tencent",
    "tests.fixtures.cos",
    "tests.fixtures.tls",
    "tests.fixtures.acme",
    "tests.fixtures.project",
    "tests.fixtures.pipeline",
]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
