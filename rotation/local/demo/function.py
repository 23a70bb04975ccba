"""The demo's part for ``local-tencent`` alone: a cloud function whose variables are its configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rotation.local.embedded.local_tencent.function import GENERATION, Receipts

if TYPE_CHECKING:
    from rotation.local.demo.scenario import Demo

TOKEN = "orders/api-token"  # noqa: S105  # a secret's name


def function_rotation(demo: Demo) -> None:
    demo.title("(h) a cloud function takes the next token: a published version, first for a tenth of the calls")
    receipts = Receipts(demo.project)
    before, old = receipts.serving(), receipts.call()
    text = demo.keyturn("rotate", TOKEN)
    after, new = receipts.serving(), receipts.call()
    demo.expect(
        "deploy canary" in text and int(after) > int(before), f"its alias went from version {before} to {after}"
    )
    demo.expect(int(new) > int(old), f"its calls use generation {new} instead of {old}")
    demo.expect(old == receipts.call(before), "the version before is unchanged, should somebody go back")
    told = json.dumps(receipts.variables())
    demo.expect(f'"{GENERATION}": "{new}"' in told, "its variables name the version of the secret; no value is in them")
    demo.transcript.append(told)
