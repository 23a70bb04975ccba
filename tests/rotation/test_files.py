"""Files that only their owner reads."""

import stat
from pathlib import Path

import pytest

from rotation.files import write_private


@pytest.mark.parametrize("content", ["wort für wort", "wort für wort".encode()])
def test_a_private_file_replaces_what_was_there_and_what_a_killed_writer_left(
    tmp_path: Path, content: str | bytes
) -> None:
    path, left = tmp_path / "login.json", tmp_path / "login.new"
    for file in (path, left):
        file.write_text("of before")
        file.chmod(0o644)
    write_private(path, content)
    assert path.read_bytes() == "wort für wort".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    path.write_text("of before")
    (tmp_path / "login.new").mkdir()
    with pytest.raises(OSError, match=r"login\.new"):
        write_private(path, "after")
    assert path.read_text() == "of before"
