from __future__ import annotations

import subprocess
import sys

from rotation.errors import Unavailable

_TRIES_AGAIN = """\
from rotation.errors import Unavailable
from rotation.retries import retrying
tries = iter((Unavailable("busy"), None))
def call():
    error = next(tries)
    if error is not None:
        raise error
retrying(call)
"""


def test_an_error_is_one_line_whatever_lines_it_quotes() -> None:
    error = Unavailable("PostgreSQL cannot be used: connection refused\n\tIs the server running?\n")
    assert str(error) == "PostgreSQL cannot be used: connection refused Is the server running?"


def test_trying_again_prints_nothing_where_no_logging_is_set_up() -> None:
    done = subprocess.run([sys.executable, "-c", _TRIES_AGAIN], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
