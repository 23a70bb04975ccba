"""Ports for servers that are told theirs before they start."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from secrets import SystemRandom

from rotation.errors import LocalError

HOST = "127.0.0.1"
# Below the ports that systems give out by themselves (from 32768 on by Linux, from 49152 on by others): one of those
# may go to any connection between its choice and its server's start, and whenever that server is down.
KEPT = range(20_000, 32_768)


def free_ports(count: int, among: Sequence[int] = KEPT) -> list[int]:
    """Ports that nobody listens on now, all different: they are held together while they are chosen.

    Raises :class:`LocalError` where there are not so many.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in SystemRandom().sample(among, len(among)):
            if len(found) == count:
                break
            with suppress(OSError):
                held.enter_context(socket.socket()).bind((HOST, port))
                found.append(port)
    if len(found) < count:
        raise LocalError(f"{count} ports from {among[0]} to {among[-1]} are not free", "Stop what listens on them.")
    return found
