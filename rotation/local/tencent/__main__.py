"""``python -m rotation.local.tencent``: see embedded.py."""

from rotation.local.supervised import run
from rotation.local.tencent.cloud import KEY_ROTATION_PAUSE
from rotation.local.tencent.embedded import serve
from rotation.local.tencent.wire import SIGNATURE_LIFE

if __name__ == "__main__":
    numbers = {"signature_life": SIGNATURE_LIFE, "key_rotation_pause": KEY_ROTATION_PAUSE}
    raise SystemExit(run("rotation.local.tencent", "an emulated Tencent Cloud", serve, **numbers))
