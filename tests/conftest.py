"""Real servers for the tests, each started once per worker and stopped by its process id."""

from hypothesis import settings

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
