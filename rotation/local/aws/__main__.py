"""``python -m rotation.local.aws``: see api.py."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from rotation.errors import KeyturnError
from rotation.local.aws.api import serve

_log = logging.getLogger("aws")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rotation.local.aws", description="Serve an AWS API locally.")
    parser.add_argument("--port", type=int, required=True, help="0 for a free one, which is printed")
    parser.add_argument("--folder", type=Path, required=True, help="where the state is kept")
    parser.add_argument("--until-input-ends", action="store_true", help="stop with the process at the other end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    try:
        serve(options.port, options.folder, until_input_ends=options.until_input_ends)
    except KeyturnError as problem:
        _log.error("%s %s", problem, problem.remedy)
        return 1
    except OSError as problem:
        _log.error("cannot serve on 127.0.0.1:%s from %s: %s", options.port, options.folder, problem.strerror)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
