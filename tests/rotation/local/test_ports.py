from __future__ import annotations

import socket

import pytest

from rotation.errors import LocalError
from rotation.local.ports import HOST, KEPT, free_ports


def test_ports_are_different_free_and_none_that_a_connection_gets_by_itself() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    for port in found:
        socket.create_server((HOST, port)).close()
    with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname()) as connection:
        assert connection.getsockname()[1] not in KEPT


def test_a_port_that_somebody_listens_on_is_not_given_away_and_too_few_are_an_error() -> None:
    free, taken = free_ports(2)
    with socket.create_server((HOST, taken)):
        assert free_ports(1, (free, taken)) == [free]
        with pytest.raises(LocalError, match="2 ports from"):
            free_ports(2, (free, taken))
