"""Two NAT gateways whose sessions go by way of a real Redis: takeovers, a database that is gone (S3.6).

tests/vpp/test_mirror_redis_vpp.py has the gateways on VPP.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.test_nat_pair_lab import Net, ordered, started, talk
from tests.pair_lab import Half, until
from tests.redis_world import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def net(tmp_path: Path, server: Server, kind: type[Half]) -> Iterator[Net]:
    """A server on a Unix socket: the two nodes have no other way to it, and the test can take it away."""
    with started(tmp_path, f'transport = "redis"\n[mirror.redis]\nurl = "{server.url}"\n', kind) as made:
        yield made


def mirror_of(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = node.status()["mirror"]
    return found


def safe(net: Net) -> tuple[Any, Any]:
    """(active, standby), as soon as each has done its part."""

    def found() -> tuple[Any, Any] | None:
        for one, other in ((net.a, net.b), (net.b, net.a)):
            at = [node.status() for node in (one, other)]
            states = [(each["pair"] or {}).get("state") for each in at]
            mirrors = [each["mirror"] for each in at]
            if states != ["active", "standby"] or not all(mirrors):
                continue
            if mirrors[0]["peers"][0]["ready"] and mirrors[1]["ready"]:
                return one, other
        return None

    return until(found)


def test_connections_outlive_takeovers_by_way_of_redis(net: Net) -> None:
    active, standby = safe(net)
    first = net.connect()
    talk(first, b"hello")
    mine = {connection.getsockname()[1] for connection in first}

    def listed() -> bool:
        found = standby.asked("sessions", "--proto", "tcp")["sessions"]
        return mine <= {row["src_port"] for row in found}

    until(listed)
    until(lambda: ordered(safe(net)[0]))
    talk(first, b"after the switchover")
    active, standby = safe(net)  # whoever it is: on a busy machine a node may take over twice
    second = net.connect()
    talk([*first, *second], b"both old and new")
    until(lambda: mirror_of(safe(net)[0])["database"]["written"]["is_complete"])
    until(lambda: standby.asked("sessions", "--proto", "tcp")["matched"] == 4)
    active, standby = safe(net)
    os.kill(active.status()["engine_pid"], signal.SIGKILL)
    talk([*first, *second], b"after the kill")
    safe(net)  # the killed one is back as standby, up to date
    talk([*first, *second, *net.connect()], b"x" * 100_000)


def test_without_the_database_traffic_goes_on_and_it_is_said(net: Net, server: Server) -> None:
    active, standby = safe(net)
    connections = net.connect()
    talk(connections, b"hello")
    server.kill()
    until(lambda: "Redis" in str(active.status()["notes"].get("database")))
    until(lambda: "Redis" in str(standby.status()["notes"].get("database")))
    until(lambda: not mirror_of(standby)["ready"])
    talk([*connections, *net.connect()], b"the database is gone")
    refused = active.cli("pair", "switchover", "--json")
    assert refused.returncode == 3, "the standby has not all sessions, and is not alone"
    server.start()
    active, standby = safe(net)
    until(lambda: standby.asked("sessions", "--proto", "tcp")["matched"] == 4)
    until(lambda: "database" not in active.status()["notes"])


def test_a_node_that_cannot_use_its_database_says_why(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none.sock"
    with started(tmp_path, f'transport = "redis"\n[mirror.redis]\nurl = "{url}"\n') as net:
        until(lambda: "none.sock" in str(net.a.status()["notes"].get("database")))
