"""``python -m rotation.local.tencent``: see embedded.py."""

from rotation.local.supervised import run
from rotation.local.tencent.embedded import serve

if __name__ == "__main__":
    raise SystemExit(run("rotation.local.tencent", "an emulated Tencent Cloud", serve))
