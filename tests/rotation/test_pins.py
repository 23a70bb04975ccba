"""Pins: read strictly, written atomically, checked against what is declared and stored."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.errors import DeclarationError, KeyturnError
from rotation.manifest import Manifest
from rotation.model import Ring
from rotation.pins import Pins, load, validate, write

PINNED = Pins().with_("orders-api", Ring.CANARY, "orders/db", 42).with_("orders-api", Ring.STABLE, "orders/db", 41)


def manifest() -> Manifest:
    secret = {
        "stored_as": "local/orders/db",
        "store": {"kind": "aws_secrets_manager"},
        "credential": {"kind": "postgres_user"},
        "strategy": "alternating",
        "bake": "PT4S",
        "settle": "PT2S",
        "patience": "PT10S",
        "grace": "PT3S",
    }
    consumer = {
        "name": "orders-api",
        "template": "stacks/config/orders-api.yaml.j2",
        "format": "yaml",
        "secrets": ["orders/db"],
        "target": {"kind": "terraform"},
        "rings": {"canary": {"rendered": "canary.yaml", "addresses": []}},
    }
    return Manifest.model_validate(
        {
            "environment": "local",
            "order": 0,
            "sources": "",
            "pins": "stacks/pins/local.json",
            "secrets": {name: {"name": name, **secret} for name in ("orders/db", "orders/other")},
            "consumers": {"orders-api": consumer},
        }
    )


def test_an_absent_file_is_no_pins(tmp_path: Path) -> None:
    assert load(tmp_path / "local.json") == Pins()


def test_pins_are_written_sorted_indented_and_with_a_newline_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "stacks" / "pins" / "local.json"
    write(path, PINNED)
    assert path.read_text() == (
        '{\n  "format": 1,\n  "pins": {\n    "orders-api": {\n      "canary": {\n        "orders/db": 42\n      },\n'
        '      "stable": {\n        "orders/db": 41\n      }\n    }\n  }\n}\n'
    )


def test_moving_a_pin_leaves_the_value_that_it_came_from_as_it_was() -> None:
    moved = PINNED.with_("orders-api", Ring.STABLE, "orders/db", 42)
    assert (PINNED.of("orders-api", Ring.STABLE, "orders/db"), moved.of("orders-api", Ring.STABLE, "orders/db")) == (
        41,
        42,
    )


def test_a_place_whose_last_pin_is_taken_away_is_gone() -> None:
    assert PINNED.with_("orders-api", Ring.CANARY, "orders/db", None).places() == (("orders-api", Ring.STABLE),)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["orders-api", "billing/worker"]), st.sampled_from(Ring)),
        st.dictionaries(st.sampled_from(["orders/db", "orders/api-token", "mail"]), st.integers(1, 10**9)),
    )
)
def test_what_is_written_is_what_is_read(places: dict[tuple[str, Ring], dict[str, int]]) -> None:
    pins = Pins.made_of(places)
    with TemporaryDirectory() as folder:
        write(Path(folder) / "local.json", pins)
        assert load(Path(folder) / "local.json") == pins


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"format": 1, "pins": {', "line 1"),
        ("<<<<<<< HEAD\n{}", "line 1"),
        ('{"format": 2, "pins": {}}', "format"),
        ('{"format": 1}', "pins"),
        ('{"format": 1, "pins": {}, "extra": 1}', "extra"),
        ('{"format": 1, "pins": {"orders-api": {"blue": {"orders/db": 1}}}}', "blue"),
        ('{"format": 1, "pins": {"orders-api": {"canary": {"orders/db": 0}}}}', "orders/db"),
        ('{"format": 1, "pins": {"orders-api": {"canary": {"orders/db": "42"}}}}', "orders/db"),
        ('{"format": 1, "pins": {"orders-api": {"canary": {"orders/db": true}}}}', "orders/db"),
        (
            '{"format": 1, "pins": {"orders-api": {"canary": {"orders/db": 1, "orders/db": 2}}}}',
            "'orders/db' is there twice",
        ),
        ('{"format": 1, "pins": {"Orders API": {}}}', "Orders API"),
        ("[]", "top"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_mangled_file_is_refused_with_the_place_of_the_damage(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "local.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DeclarationError, match=r"the pins local\.json") as refused:
        load(path)
    assert named in str(refused.value)
    assert "version control" in refused.value.remedy


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "local.json"
    write(path, PINNED)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyturnError, match=r"cannot write local\.json") as refused:
        write(path, Pins())
    assert "Free some space" in refused.value.remedy
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_the_system_cuts_short_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    write(path, PINNED)
    before = path.read_bytes()
    program = (
        "import sys; from pathlib import Path; from rotation import pins, errors; from rotation.model import Ring\n"
        "try: pins.write(Path(sys.argv[1]), pins.Pins().with_('orders-api', Ring.CANARY, 'orders/db', 43))\n"
        "except errors.KeyturnError as error: print(error.remedy)"
    )
    child = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Free some space" in child.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_rewritten_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    write(path, PINNED)
    path.chmod(0o640)
    write(path, Pins())
    assert path.stat().st_mode & 0o777 == 0o640


def test_pins_to_what_is_declared_and_stored_are_valid() -> None:
    validate(Pins().with_("orders-api", Ring.CANARY, "orders/db", 42), manifest(), {"orders/db": {41, 42}})


def test_a_secret_that_the_store_was_not_asked_for_is_checked_against_the_manifest_only() -> None:
    validate(Pins().with_("orders-api", Ring.CANARY, "orders/db", 99), manifest(), {})


@pytest.mark.parametrize(
    ("pins", "named"),
    [
        (Pins().with_("billing", Ring.CANARY, "orders/db", 42), "consumer billing"),
        (Pins().with_("orders-api", Ring.STABLE, "orders/db", 42), "ring stable of orders-api"),
        (Pins().with_("orders-api", Ring.CANARY, "orders/other", 1), "secret orders/other of orders-api"),
        (
            Pins().with_("orders-api", Ring.CANARY, "orders/db", 99),
            r"generation 99 of orders/db, which the store does not hold \(it holds: 41, 42\)",
        ),
    ],
)
def test_a_pin_to_what_is_not_there_is_refused_by_name(pins: Pins, named: str) -> None:
    with pytest.raises(DeclarationError, match=named) as refused:
        validate(pins, manifest(), {"orders/db": {41, 42}})
    assert "stacks/pins/local.json" in refused.value.remedy
