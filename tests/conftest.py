"""Real servers for the tests, each started once per worker and stopped by its process id."""

pytest_plugins = [
    "tests.fixtures.aws",
    "tests.fixtures.postgresql",
    "tests.fixtures.mariadb",
    "tests.fixtures.openbao",
    "tests.fixtures.tencent",
    "tests.fixtures.tls",
    "tests.fixtures.acme",
    "tests.fixtures.project",
    "tests.fixtures.pipeline",
]
