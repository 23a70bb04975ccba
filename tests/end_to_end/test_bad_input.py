"""What bad input gets: an error in two lines that says what to do, exit 1, and nothing changed."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rotation.manifest import Manifest, digest_of_sources
from tests.fixtures.ports import closed_port
from tests.fixtures.project import EMPTY, LIMIT, SECRET, TOKEN, Completed, Project, edit

pytestmark = pytest.mark.timeout(600)

PINS = Path("stacks/pins/local.json")
TEMPLATE = Path("stacks/config/orders-api.yaml.j2")
ENDPOINTS = Path(".keyturn/local/endpoints.json")


def two_lines(done: Completed, what: str, remedy: str) -> None:
    """The error's two lines, each matching, and nothing else on stderr."""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert re.search(f"^error: .*{what}", lines[0]), lines[0]
    assert re.search(f"^  .*{remedy}", lines[1]), lines[1]
    assert "Traceback" not in done.stdout


@contextmanager
def kept(*paths: Path) -> Iterator[None]:
    """These files are as they were afterwards."""
    before = {path: path.read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


@contextmanager
def unchanged(project: Project) -> Iterator[None]:
    """Labels, pins, rendered files, state and the journal's open rotations are as they were before."""
    before = project.trace()
    yield
    assert project.trace() == before


def refused(project: Project, *arguments: str, what: str, remedy: str, **variables: str) -> None:
    with unchanged(project):
        two_lines(project.run(*arguments, expect=1, **variables), what, remedy)


# Names


def test_an_unknown_secret(project: Project) -> None:
    for command in ("rotate", "status", "plan", "rollback", "retire", "adopt"):
        refused(
            project,
            command,
            "orders/bd",
            what=r"no secret 'orders/bd' .*\(declared: orders/api",
            remedy="`keyturn status`",
        )


def test_an_unknown_environment(project: Project) -> None:
    refused(
        project,
        "rotate",
        "-e",
        "qa",
        what=r"'qa' .*\(declared: local, local-tencent, local-vault, prod",
        remedy="--environment",
    )


def test_an_unknown_key(project: Project) -> None:
    refused(project, "rekey", "invoices", what="no key 'invoices'", remedy="orders")


def test_a_minimum_that_the_key_service_or_the_way_to_deploy_does_not_have(project: Project) -> None:
    refused(project, "rekey", "orders", "--raise-minimum", what="aws_kms keeps all material", remedy="a new key")
    refused(project, "rekey", "orders", "--raise-minimum", "--no-apply", what="deployment", remedy="without --no-apply")


def test_a_folder_that_is_no_project(project: Project, tmp_path: Path) -> None:
    refused(project, "status", "--project", str(tmp_path), what="not in a keyturn project", remedy="--project")


# Declarations, templates, pins


def test_a_manifest_older_than_the_stacks(project: Project) -> None:
    estate = project.path / "stacks/estate.py"
    with kept(estate):
        edit(estate, "days=30", "days=31")
        refused(project, "rotate", SECRET, what="older than the stacks", remedy="Run `cdktf synth`")


def test_a_template_with_an_unknown_name(project: Project) -> None:
    template = project.path / TEMPLATE
    with kept(template):
        template.write_text(template.read_text() + "\nextra: {{ secrets['orders/bd'].arn }}\n")
        for arguments in (("render", "--check"), ("render",), ("plan", SECRET)):
            refused(project, *arguments, what=r"orders-api.yaml.j2, line \d+: unknown name 'orders/bd' .*orders/db",
                    remedy="Correct the template")  # fmt: skip
        refused(project, "rotate", SECRET, what="unknown name 'orders/bd'", remedy="Correct the template")


def test_a_template_that_renders_to_an_invalid_file(project: Project) -> None:
    template = project.path / TEMPLATE
    with kept(template):
        template.write_text(template.read_text() + "\nbroken: [1, {{ ring }}\n")
        refused(project, "render", what="renders to what is not valid yaml", remedy="Correct the template")
        refused(project, "rotate", SECRET, what="renders to what is not valid yaml", remedy="Correct the template")


def test_pins_edited_by_hand_to_a_generation_that_does_not_exist(project: Project) -> None:
    pins = project.path / PINS
    with kept(pins):
        content = json.loads(pins.read_text())
        content["pins"]["orders-api"]["stable"][SECRET] = 999
        pins.write_text(json.dumps(content))
        for command in ("rotate", "plan"):
            refused(project, command, SECRET, what="generation 999 of orders/db, which the store does not hold",
                    remedy="Pin a generation that exists")  # fmt: skip


def test_pins_that_are_not_json(project: Project) -> None:
    pins = project.path / PINS
    with kept(pins):
        pins.write_text("{oops")
        for command in ("rotate", "plan", "status"):
            refused(project, command, SECRET, what="pins local.json are not JSON: line 1", remedy="version control")


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("estate.py", '"orders/db"', f'"{"orders/db" * 60}"', "at most 200 characters"),
        ("estate.py", "opens\": time(9)", "opens\": time(16)", "window"),
        ("estate.py", "jitter=timedelta(days=1)", "jitter=timedelta(days=40)", "jitter of 40 days"),
    ],
    ids=["a name over the limit", "an empty window", "a jitter that never fits"],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_at_synth(project: Project, file: str, old: str, new: str, what: str) -> None:
    path = project.path / "stacks" / file
    with kept(path), unchanged(project):
        edit(path, old, new)
        done = project.synth()
        assert done.code == 1, done.stdout
        two_lines(done, what, "Correct the declaration")


def test_a_value_over_the_limits(project: Project) -> None:
    estate = project.path / "stacks/estate.py"
    try:
        with kept(estate):
            edit(estate, '"length": 43', '"length": 70_000')
            project.synth()
            refused(project, "rotate", TOKEN, what="random_token: option length: .* 4096", remedy="Correct the decl")
    finally:
        project.synth()


# Servers


@contextmanager
def administrator(project: Project, **changes: object) -> Iterator[None]:
    """The secret of the database's administrator says something else for a while."""
    client, name = project.aws.client("secretsmanager"), "local/orders/db-admin"
    right = client.get_secret_value(SecretId=name)["SecretString"]
    client.put_secret_value(SecretId=name, SecretString=json.dumps(json.loads(right) | changes))
    try:
        yield
    finally:
        client.put_secret_value(SecretId=name, SecretString=right)


def test_a_dead_database(project: Project) -> None:
    with administrator(project, port=closed_port()):
        refused(project, "rotate", SECRET, what="PostgreSQL at .* cannot be used", remedy="Check that the server runs")


def test_a_database_that_refuses_the_administrator(project: Project) -> None:
    with administrator(project, password="not the password"):
        refused(
            project, "rotate", SECRET, what="denies the user keyturn_admin", remedy="Check the runner's credentials"
        )


def test_a_store_that_refuses_the_runner(project: Project) -> None:
    for command in ("rotate", "plan", "status"):
        with unchanged(project):
            project.aws.faults("secretsmanager", "DescribeSecret", "deny", times=99)
            done = project.run(command, SECRET, expect=1)
            project.aws.clear_faults()
        two_lines(done, "AccessDeniedException", "Check the runner's credentials")


def test_a_key_service_that_refuses_the_runner(project: Project) -> None:
    with unchanged(project):
        project.aws.faults("kms", "*", "deny", times=99)
        done = project.run("rotate", TOKEN, expect=1)
        project.aws.clear_faults()
    two_lines(done, "AccessDeniedException", "Check the runner's credentials")


def test_a_dead_store_and_a_dead_key_service(project: Project, tmp_path: Path) -> None:
    """Side by side, for each is asked again and again for half a minute."""
    elsewhere = _copy_with_a_dead_store(project, tmp_path)
    with unchanged(project):
        project.aws.faults("kms", "*", "drop", times=99)
        with project.start("status", "--project", str(elsewhere)) as asking_the_store:
            of_keys = project.run("rotate", TOKEN, expect=1)
            stdout, stderr = asking_the_store.communicate(timeout=LIMIT)
        project.aws.clear_faults()
    two_lines(of_keys, "could not unwrap a data key", "Check that the server runs")
    assert asking_the_store.returncode == 1
    two_lines(
        Completed(1, stdout, stderr), "could not look at the secret .*EndpointConnection", "Check that the server"
    )


def _copy_with_a_dead_store(project: Project, folder: Path) -> Path:
    for name in ("main.py", "cdktf.json"):
        shutil.copy(project.path / name, folder)
    for name in ("stacks", "modules", "cdktf.out/manifests"):
        shutil.copytree(project.path / name, folder / name)
    endpoints = json.loads((project.path / ENDPOINTS).read_text())
    (folder / ENDPOINTS).parent.mkdir(parents=True)
    (folder / ENDPOINTS).write_text(json.dumps(endpoints | {"aws": f"http://127.0.0.1:{closed_port()}"}))
    Manifest.load(project.path, "local").model_copy(update={"sources": digest_of_sources(folder)}).write(folder)
    return folder


def test_a_clock_far_off(project: Project) -> None:
    with unchanged(project):
        project.aws.set_clock(3600)
        done = project.run("rotate", SECRET, expect=1)
        project.aws.set_clock(0)
    two_lines(done, r"clock is 3\d\d\d s behind AWS's", "NTP")


# Secrets as they should not be


def test_a_foreign_version_as_current_and_its_adoption(project: Project) -> None:
    client = project.aws.client("secretsmanager")
    value = client.get_secret_value(SecretId="local/orders/db")["SecretString"]
    client.put_secret_value(SecretId="local/orders/db", SecretString=value)
    for command in ("rotate", "retire"):
        refused(project, command, SECRET, what="was not made by keyturn", remedy="`keyturn adopt orders/db`")
    assert project.status()["phase"] == "foreign"
    with project.watched():
        adopted = project.run("adopt", SECRET, "--json").json["secrets"][SECRET]
        row = project.status()
        assert (adopted["state"], row["current"]) == ("done", adopted["generation"])
        assert set(row["pins"].values()) == {row["current"]}
        project.run("rotate", SECRET)
    assert project.status()["current"] == adopted["generation"] + 1


def test_nothing_to_adopt(project: Project) -> None:
    refused(project, "adopt", SECRET, what="was made by keyturn", remedy="`keyturn status orders/db`")


# This machine


_FULL_DISK = """\
import resource, sys
from rotation import cli, pins
write, (soft, hard) = pins.write, resource.getrlimit(resource.RLIMIT_FSIZE)
def on_a_full_disk(*arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        write(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
pins.write = on_a_full_disk
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_full_disk_while_the_pins_are_written(project: Project) -> None:
    before = project.trace()["files"]
    done = project.execute([sys.executable, "-c", _FULL_DISK, "rotate", SECRET])
    assert done.code == 1
    two_lines(done, "cannot write local.json: File too large", "Free some space")
    assert project.trace()["files"] == before
    assert not list((project.path / "stacks/pins").glob(".*")), "the half-written file is left"
    project.run("rotate", SECRET)


@pytest.mark.parametrize("content", [b"not a database, and longer than the header of one" * 9, None])
def test_a_journal_that_cannot_be_read(project: Project, tmp_path: Path, content: bytes | None) -> None:
    journal = tmp_path / "local.sqlite3"
    journal.mkdir() if content is None else journal.write_bytes(content)
    for arguments in (("rotate", SECRET), ("status",)):
        refused(project, *arguments, KEYTURN_JOURNAL=str(tmp_path), what="the journal .* cannot be opened",
                remedy="journal's folder")  # fmt: skip


def test_a_secret_without_a_value(project: Project) -> None:
    refused(
        project,
        "rotate",
        EMPTY,
        what="orders/spare has no value yet",
        remedy="`keyturn rotate --initialize orders/spare`",
    )
    refused(project, "rollback", EMPTY, what="orders/spare has no value yet", remedy="--initialize")
    refused(project, "adopt", EMPTY, what="orders/spare has no value to adopt", remedy="--initialize")
