"""A cluster behind a pair of VPPs as its operator has it: tests/lab/test_clusters_lab.py as it is; and what
is VPP's own: a worker, fragments, interfaces that go and come.

VPP has the nodes' devices on the LAN; the nodes' kernels have others there, by which the agents probe.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from pathlib import Path

import pytest

from ipshare.lab import userns
from ipshare.lab.netns import inside
from tests.cluster_lab import ADDRESSES, SERVERS, Clients, cluster_lab
from tests.lab.test_clusters_lab import (
    test_s2_5_a_drained_server_runs_empty_and_a_slow_one_gets_less,
    test_s2_5_connections_outlive_a_dead_server_and_a_dead_node,
)
from tests.pair_lab import Half, until
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "test_s2_5_a_drained_server_runs_empty_and_a_slow_one_gets_less",
    "test_s2_5_connections_outlive_a_dead_server_and_a_dead_node",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf


PORT, CLIENT = 5000, "10.0.0.9"


def _udp(namespace: str) -> socket.socket:
    def made() -> socket.socket:
        plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        plug.bind((ADDRESSES[4], PORT))
        plug.settimeout(0.05)
        return plug

    return inside(namespace, made)


def _last_fragment_first(namespace: str, number: int) -> bytes:
    """Sends one datagram; returns what is in it."""
    body = struct.pack("!H", number) * 40
    whole = struct.pack("!HHHH", 40000 + number, PORT, 8 + len(body), 0) + body

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as plug:
            for at, more, part in ((32, 0, whole[32:]), (0, 1, whole[:32])):
                ends = socket.inet_aton(CLIENT), socket.inet_aton(ADDRESSES[4])
                word = more << 13 | at >> 3
                head = struct.pack(
                    "!BBHHHBBH4s4s", 69, 0, 20 + len(part), 700 + number, word, 64, 17, 0, *ends
                )
                plug.sendto(head + part, (ADDRESSES[4], 0))

    inside(namespace, send)
    return body


def _received(plugs: list[socket.socket]) -> list[bytes]:
    found = []
    for plug in plugs:
        with contextlib.suppress(TimeoutError):
            found.append(plug.recv(4096))
    return found


def test_s2_4_weights_fragments_and_an_interface_that_goes_and_comes(tmp_path: Path) -> None:
    with cluster_lab(tmp_path, VppHalf) as nodes, contextlib.ExitStack() as end:
        node = nodes.a
        node.weights = (3, 2, 1)
        site = node.site(1).replace("counter_cells", "workers = 1\ncounter_cells", 1)
        node.file.write_text(site)
        node.start()
        assert node.cli("pair", "force", "--yes").returncode == 0
        until(lambda: node.pair()["state"] == "active")
        until(lambda: all(s["mac"] for f in (4, 6) for s in node.servers(f).values()))
        clients = Clients(nodes.lab)
        for family, count in ((4, 600), (6, 300)):
            went = clients.connect(count, family)
            parts = [went[name] / count for name in SERVERS]
            assert all(abs(p - w / 6) < 0.1 for p, w in zip(parts, (3, 2, 1), strict=True)), went

        plugs = [end.enter_context(_udp(nodes.lab.names[name])) for name in SERVERS]
        for number in range(8):
            body = _last_fragment_first(nodes.lab.names["client"], number)
            got: list[bytes] = []
            until(lambda got=got: got.extend(_received(plugs)) or got)  # type: ignore[misc]
            assert got == [body], "one server has it, whole"

        half = nodes.lab.a
        half.attach(node.dir / "run")
        cli = half.vppd.client.cli  # type: ignore[attr-defined]
        end.callback(half.vppd.close)  # type: ignore[attr-defined]
        shown = cli("show ipshare prefixes")
        assert set(re.findall(r"(\S+): cluster", shown)) == {f"{ADDRESSES[4]}/32", f"{ADDRESSES[6]}/128"}
        cli("delete host-interface name lan0")
        until(lambda: not any(s["mac"] for s in node.servers().values()))
        node.apply(site)
        until(lambda: all(s["mac"] for f in (4, 6) for s in node.servers(f).values()))
        assert not clients.lost(), "the interface is another one; connections are where they were"
        clients.close()

        node.apply(site[: site.index("[[cluster]]")])
        assert ": cluster" not in cli("show ipshare prefixes")
