"""Rendering: strict templates, valid results, and files that change only when they must."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import javaproperties
import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rotation.errors import DeclarationError, KeyturnError
from rotation.formats import QUOTES, Malformed, check
from rotation.manifest import Manifest
from rotation.model import Reference, Ring
from rotation.pins import Pins
from rotation.render import Context, Rendered, regenerate, render

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:local/orders/db-AbCdEf"


def reference(generation: int) -> Reference:
    return Reference("local/orders/db", ARN, f"g{generation:010d}-0000", generation)


CONTEXT = Context("local", Ring.CANARY, "orders-api", {"orders/db": reference(42), "orders/api-token": reference(7)})


def rendered(tmp_path: Path, text: str, fmt: str = "yaml") -> str:
    template = tmp_path / f"orders-api.{fmt}.j2"
    template.write_text(text)
    return render(template, fmt, CONTEXT)


def refusal(tmp_path: Path, text: str, fmt: str = "yaml") -> str:
    with pytest.raises(DeclarationError) as refused:
        rendered(tmp_path, text, fmt)
    assert "keyturn render" in refused.value.remedy
    return str(refused.value)


# What a template may say


def test_a_template_knows_its_place_and_where_each_secret_is_read(tmp_path: Path) -> None:
    text = rendered(
        tmp_path,
        "{# a comment #}\nwho: {{ environment }}/{{ consumer }}/{{ ring }}\nsecrets:\n"
        "  {% for name, secret in secrets.items() %}\n"
        "  {{ name | yaml }}: {arn: {{ secret.arn | yaml }}, version_id: {{ secret.version_id }},"
        " name: {{ secret.name }}, generation: {{ secret.generation }}}\n"
        "  {% endfor %}\n",
    )
    assert yaml.safe_load(text) == {
        "who": "local/orders-api/canary",
        "secrets": {
            "orders/api-token": {
                "arn": ARN,
                "version_id": "g0000000007-0000",
                "name": "local/orders/db",
                "generation": 7,
            },
            "orders/db": {"arn": ARN, "version_id": "g0000000042-0000", "name": "local/orders/db", "generation": 42},
        },
    }
    assert text.endswith("}\n")


def test_a_whole_reference_can_be_written_as_a_mapping(tmp_path: Path) -> None:
    expected = {"name": "local/orders/db", "arn": ARN, "version_id": "g0000000042-0000", "generation": 42}
    assert json.loads(rendered(tmp_path, '{{ secrets["orders/db"] | json }}', "json")) == expected
    assert yaml.safe_load(rendered(tmp_path, 'db: {{ secrets["orders/db"] | yaml }}')) == {"db": expected}
    assert json.loads(rendered(tmp_path, "{{ secrets | json }}", "json"))["orders/db"] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {{ enviroment }}", "line 2: unknown name 'enviroment' (did you mean 'environment'?)"),
        ('b: {{ secrets["orders/bd"].arn }}', "line 1: unknown name 'orders/bd' (did you mean 'orders/db'?)"),
        ('\n\nb: {{ secrets["mail"] }}', "line 3: unknown name 'mail' (there are: orders/api-token, orders/db)"),
        ('b: {{ secrets["orders/db"].version }}', "line 1: unknown name 'version' (did you mean 'version_id'?)"),
        ('b: {{ secrets["orders/db"].value }}', "unknown name 'value' (there are: name, arn, version_id, generation)"),
        ("{% macro m(x) %}\nb: {{ x }}\n{% endmacro %}\n{{ m() }}", "line 2: parameter 'x' was not provided"),
        ("a: {{ 1 / 0 }}", "line 1: division by zero"),
        ("a: {{ secrets }", "line 1: "),
        ("a: 1\n{% if %}", "line 2: "),
        ("{% include '../outside.j2' %}", "there is no template '../outside.j2'"),
        ("{% include '/etc/hostname' %}", "there is no template '/etc/hostname'"),
        ("a: {{ secrets.__class__ }}", "access to attribute '__class__'"),
        ("a: {{ secrets.clear() }}", "line 1: "),
        ("a: {{ lipsum() }}", "unknown name 'lipsum'"),
        ("a: {{ [1, 2] | random }}", "random"),
        ('{{ secrets["orders/db"] | dotenv }}', "line 1: a Reference cannot be written as one value in dotenv"),
    ],
)
def test_what_a_template_may_not_say_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "outside.j2").write_text("a: 1")
    folder = tmp_path / "config"
    folder.mkdir()
    refused = refusal(folder, text)
    assert said in refused
    assert "orders-api.yaml.j2" in refused


def test_what_was_compiled_before_is_compiled_again_only_where_the_template_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_one = ImmutableSandboxedEnvironment.compile

    def noting(environment: Any, source: str, *args: Any, **options: Any) -> Any:
        compiled.append(source)
        return compile_one(environment, source, *args, **options)

    monkeypatch.setattr(ImmutableSandboxedEnvironment, "compile", noting)
    for text in ("a: {{ ring }}", "a: {{ ring }}", "b: {{ ring }}"):
        assert rendered(tmp_path, text) == text.replace("{{ ring }}", "canary")
    assert compiled == ["a: {{ ring }}", "b: {{ ring }}"]
    for _ in range(2):
        assert "line 2: unknown name 'rings'" in refusal(tmp_path, "a: 1\nb: {{ rings }}")


def test_an_error_in_an_included_template_names_that_template(tmp_path: Path) -> None:
    (tmp_path / "common.j2").write_text("a: 1\nb: {{ rings }}\n")
    assert (
        refusal(tmp_path, "{% include 'common.j2' %}")
        == "common.j2, line 2: unknown name 'rings' (did you mean 'ring'?)"
    )


def test_an_absent_template_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"there is no template 'absent\.j2'"):
        render(tmp_path / "absent.j2", "yaml", CONTEXT)


# What may come out

VALID = {
    "yaml": "a: 1\n",
    "json": '{"a": 1}\n',
    "toml": "a = 1\n",
    "ini": "[a]\nb = 100%\n",
    "dotenv": "# why\nexport A='1'\n",
    "properties": "# why\na = 1\n",
}


@pytest.mark.parametrize("fmt", VALID)
def test_a_valid_text_comes_out_as_it_is(tmp_path: Path, fmt: str) -> None:
    assert rendered(tmp_path, VALID[fmt], fmt) == VALID[fmt]


@pytest.mark.parametrize(
    ("fmt", "text", "said"),
    [
        ("yaml", "a: 1\nb: [1\n", "line 3: "),
        ("yaml", "a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice"),
        ("yaml", "x:\n  - {a: 1, a: 2}\n", "line 2: the key 'a' is there twice"),
        ("yaml", "a: !!python/object/apply:os.getcwd []\n", "line 1: "),
        ("yaml", "a: 1\n---\nb: 2\n", "line 2: "),
        ("yaml", "a: \x01\n", "not allowed"),
        ("json", '{"a": 1,\n}', "line 2: "),
        ("json", '{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("json", '{"a": NaN}', "NaN is not JSON"),
        ("toml", "a = 1\nb = \n", "line 2: Invalid value"),
        ("toml", "a = 1\na = 2\n", "line 2: Cannot overwrite a value"),
        ("ini", "a = 1\n", "line 1: neither a [section]"),
        ("ini", "[a]\nb\n", "line 2: neither a [section]"),
        ("ini", "[a]\nb = 1\nB = 2\n", "line 3: the option 'b' is there twice"),
        ("ini", "[a]\n[b]\n[a]\n", "line 3: the section [a] is there twice"),
        ("dotenv", "A=1\n\nB = 'x\n", "line 3: not of the form NAME=value"),
        ("dotenv", "A=1\nB\n", "line 2: not of the form NAME=value"),
        ("dotenv", "A=1\nB=2\nA=3\n", "line 3: the key 'A' is there twice"),
        ("properties", "a = \\u12\n", "Invalid \\u escape"),
        ("properties", "a = 1\n\nb = 1 \\\n  2\na: 2\n", "line 5: the key 'a' is there twice"),
        *((fmt, "\n  \n", "it is empty") for fmt in VALID),
    ],
)
def test_an_invalid_result_is_refused_with_the_parser_s_reason(tmp_path: Path, fmt: str, text: str, said: str) -> None:
    refused = refusal(tmp_path, text.replace("\\", "{{ '\\\\' }}"), fmt)
    assert f"orders-api.{fmt}.j2 renders to what is not valid {fmt} for orders-api/canary: " in refused
    assert said in refused


def from_ini(text: str) -> Any:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser["a"]["v"]


READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "yaml": ("v: {}\n", lambda text: yaml.safe_load(text)["v"]),
    "json": ('{{"v": {}}}\n', lambda text: json.loads(text)["v"]),
    "toml": ("v = {}\n", lambda text: tomllib.loads(text)["v"]),
    "ini": ("[a]\nv = {}\n", from_ini),
    "dotenv": ("v={}\n", lambda text: dotenv_values(stream=StringIO(text), interpolate=True)["v"]),
    "properties": ("v={}\n", lambda text: javaproperties.loads(text)["v"]),
}


@pytest.mark.parametrize("fmt", READERS)
@given(value=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_text_is_read_back_as_it_was_or_refused(fmt: str, value: str) -> None:
    line, read = READERS[fmt]
    try:
        text = line.format(QUOTES[fmt](value))
    except ValueError:
        assert fmt in {"ini", "dotenv"}
        return
    check(text, fmt)
    assert read(text) == value


@pytest.mark.parametrize("fmt", READERS)
@given(text=st.text(st.sampled_from("ab=: \n[]{}#'\"\\$%u0-,")))
def test_any_text_is_either_valid_or_malformed(fmt: str, text: str) -> None:
    line = None
    try:
        check(text, fmt)
    except Malformed as error:
        line = error.line
    assert line is None or 1 <= line <= text.count("\n") + 1


# Which files change

TEMPLATE = 'arn: {{ secrets["orders/db"].arn }}\ngeneration: {{ secrets["orders/db"].generation }}\n'
REFERENCES = {("orders/db", generation): reference(generation) for generation in (41, 42)}
CANARY, STABLE = ("orders-api", Ring.CANARY), ("orders-api", Ring.STABLE)
PINS = Pins().with_(*CANARY, "orders/db", 42).with_(*STABLE, "orders/db", 41)


def manifest(secrets: tuple[str, ...] = ("orders/db",)) -> Manifest:
    times = dict.fromkeys(("bake", "settle", "patience", "grace"), "PT1S")
    plugins = {"store": {"kind": "s"}, "credential": {"kind": "c"}, "strategy": "single"}
    return Manifest.model_validate(
        {
            "environment": "local",
            "order": 0,
            "sources": "",
            "pins": "pins.json",
            "secrets": {name: {"name": name, "stored_as": name, **plugins, **times} for name in secrets},
            "consumers": {
                "orders-api": {
                    "name": "orders-api",
                    "template": "config/orders-api.yaml.j2",
                    "format": "yaml",
                    "secrets": secrets,
                    "target": {"kind": "t"},
                    "rings": {
                        ring: {"rendered": f"config/rendered/local/{ring}/orders-api.yaml", "addresses": []}
                        for ring in Ring
                    },
                }
            },
        }
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "orders-api.yaml.j2").write_text(TEMPLATE)
    return tmp_path


def path(project: Path, ring: Ring) -> Path:
    return project / f"config/rendered/local/{ring}/orders-api.yaml"


def test_each_ring_gets_its_own_generation_and_a_second_run_changes_nothing(project: Path) -> None:
    first = regenerate(project, manifest(), PINS, REFERENCES)
    assert first == [Rendered(place, path(project, place[1]), changed=True) for place in (CANARY, STABLE)]
    assert [yaml.safe_load(path(project, ring).read_text())["generation"] for ring in Ring] == [42, 41]
    written = path(project, Ring.CANARY).stat()
    assert [file.changed for file in regenerate(project, manifest(), PINS, REFERENCES)] == [False, False]
    assert path(project, Ring.CANARY).stat().st_ino == written.st_ino


def test_only_the_places_asked_for_are_rendered(project: Path) -> None:
    assert [file.place for file in regenerate(project, manifest(), PINS, REFERENCES, places=[STABLE])] == [STABLE]
    assert not path(project, Ring.CANARY).exists()


def test_a_check_tells_what_is_stale_and_writes_nothing(project: Path) -> None:
    regenerate(project, manifest(), PINS, REFERENCES)
    moved = PINS.with_(*STABLE, "orders/db", 42)
    assert [file.changed for file in regenerate(project, manifest(), moved, REFERENCES, check=True)] == [False, True]
    gone = regenerate(project, manifest(), Pins(), REFERENCES, check=True)
    assert [(file.changed, file.removed) for file in gone] == [(True, True)] * 2
    assert [file.changed for file in regenerate(project, manifest(), PINS, REFERENCES, check=True)] == [False, False]


def test_a_ring_that_has_no_pins_any_more_loses_its_file(project: Path) -> None:
    regenerate(project, manifest(), PINS, REFERENCES)
    files = regenerate(project, manifest(), PINS.with_(*CANARY, "orders/db", None), REFERENCES)
    assert [(file.place, file.changed, file.removed) for file in files] == [
        (CANARY, True, True),
        (STABLE, False, False),
    ]
    assert not path(project, Ring.CANARY).exists()


def test_a_ring_with_a_secret_that_is_not_pinned_yet_is_left_as_it_is(project: Path) -> None:
    regenerate(project, manifest(), PINS, REFERENCES)
    before = path(project, Ring.CANARY).read_bytes()
    assert regenerate(project, manifest(("orders/db", "orders/api-token")), PINS, REFERENCES) == []
    assert path(project, Ring.CANARY).read_bytes() == before


def test_a_pin_to_a_generation_that_is_not_in_the_store_changes_no_file(project: Path) -> None:
    with pytest.raises(DeclarationError, match="pinned to generation 99 of orders/db, which is not in the store"):
        regenerate(project, manifest(), PINS.with_(*STABLE, "orders/db", 99), REFERENCES)
    assert not path(project, Ring.CANARY).exists()


def test_a_folder_that_cannot_be_written_is_reported_with_what_to_do(project: Path) -> None:
    (project / "config" / "rendered").write_text("a file where a folder should be")
    with pytest.raises(KeyturnError, match=r"cannot write orders-api\.yaml") as refused:
        regenerate(project, manifest(), PINS, REFERENCES)
    assert "permissions" in refused.value.remedy
