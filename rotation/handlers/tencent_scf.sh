#!/bin/sh
# Starts keyturn on the Python that the archive was built for: one that a layer brings below /opt, else the machine's.
# -S: packages come from the archive alone.
cd "$(dirname "$0")" || exit 1
for python in /opt/python/bin/python3 /opt/bin/python3 python3.11 python3.12 python3.13 python3; do
    if "$python" -S -c "import pydantic_core" 2>/dev/null; then
        exec "$python" -S -m rotation.handlers.tencent_scf
    fi
done
echo "no Python of the version that this archive was built for: bind a layer that has it as /opt/python/bin/python3" >&2
exit 1
