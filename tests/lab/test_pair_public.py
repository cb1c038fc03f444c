"""On-link public addresses of a pair: the active node answers for each and announces all (S3.9).

The client's kernel asks, and listens: what it has in its neighbour table, and what comes to its interface.
Tests for every engine are imported by tests/vpp/test_pair_public_vpp.py.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.core import lib
from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.pair_lab import PATIENCE_S, Half, PairLab, pair_lab, until

ACTIVE = lib.IPS_PAIR_ACTIVE
PUBLICS = ("10.7.0.0/16", "fd00:0:0:0:7::/112")
SOME = ("10.7.0.0", "10.7.18.52", "10.7.255.255", "fd00::7:0:0:0", "fd00::7:0:0:ffff")
ETH_P_ALL = 3


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def lab(tmp_path: Path, kind: type[Half]) -> Iterator[PairLab]:
    with pair_lab(tmp_path, kind) as made:
        run(made.names["client"], "ip route add 10.7.0.0/16 dev lan0")
        yield made


def asked(lab: PairLab, address: str) -> str:
    """The MAC address that the client's kernel finds for it."""
    client = lab.names["client"]
    command = ["ping", "-6" if ":" in address else "-4", "-c", "1", "-W", "1", address]
    inside(client, lambda: subprocess.run(command, capture_output=True, check=False))
    words = run(client, f"ip neigh show {address}").split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def node_of(lab: PairLab, number: int) -> str:
    return "a" if number == lab.a.number else "b"


def test_the_active_answers_for_each_of_65536(lab: PairLab) -> None:
    active, standby = lab.start(publics=PUBLICS)
    mac, other = (lab.mac(node_of(lab, half.number)) for half in (active, standby))
    for address in SOME:
        until(lambda address=address: asked(lab, address) == mac)  # type: ignore[misc]
    assert asked(lab, "fd00::7:0:1:0") == "", "not of the prefix"
    active.kill()
    until(lambda: standby.is_in(ACTIVE))
    for address in SOME:
        run(lab.names["client"], f"ip neigh flush {address} dev lan0")
        until(lambda address=address: asked(lab, address) == other)  # type: ignore[misc]


def test_a_takeover_announces_every_one(lab: PairLab) -> None:
    active, standby = lab.start(publics=("10.7.0.0/20",))
    mac = bytes.fromhex(lab.mac(node_of(lab, standby.number)).replace(":", ""))

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind(("lan0", 0))
        made.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        made.settimeout(1)
        return made

    with inside(lab.names["client"], listen) as ear:
        active.kill()
        heard: set[bytes] = set()
        end = time.monotonic() + PATIENCE_S
        while len(heard) < 4096:
            assert time.monotonic() < end, f"{len(heard)} of 4096"
            try:
                frame = ear.recv(100)
            except TimeoutError:
                continue
            is_announcement = frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]
            if is_announcement and frame[6:12] == mac and frame[28:30] == b"\x0a\x07":
                heard.add(frame[28:32])
    assert standby.is_in(ACTIVE)
