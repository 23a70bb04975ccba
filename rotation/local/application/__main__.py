"""``python -m rotation.local.application``: see orders_api.py."""

import sys

from rotation.local.application.orders_api import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
