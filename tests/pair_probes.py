"""Datagrams through both nodes of tests.pair_lab at once, counted where they arrive, by whose frame they
came.

Every millisecond the client sends to 198.18.1.1 by way of a, to .2 by way of b, and to .3 by way of the
VIP: a router with a static route. A node that forwards translates to 203.0.113.1, .2, .3, which lie behind
the LAN's own address; a packet socket there has each frame. Its source MAC address says which node it is
from, its payload when it was sent (CLOCK_BOOTTIME). What a node had in hand when it was stopped was sent
before: `by` counts what was sent later than a moment, and the scheduler's whims make nothing of it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.pair_lab import VIPS, PairLab, until

PORT, PACE_S, VIA_VIP, EVERY_V6 = 9000, 0.001, 3, 50
FLOWS = 16
"""So that every worker has some."""
ETH_P_IP, SO_RCVBUFFORCE, UDP_SEGMENT = 0x0800, 33, 103
STAMP = struct.Struct("<Q")


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Arrival:
    """A probe by way of ``way`` (a node's number, or VIA_VIP), forwarded by ``node``."""

    sent_ns: int
    at_ns: int
    way: int
    node: int


@dataclass
class Probes:
    """What was sent to each way, and all that arrived."""

    sent: dict[int, int] = field(default_factory=lambda: dict.fromkeys((1, 2, VIA_VIP), 0))
    arrivals: list[Arrival] = field(default_factory=list)

    def by(self, node: int, since_ns: int = 0, until_ns: int = 1 << 63) -> int:
        """How many probes that were sent in between this node has forwarded."""
        return sum(one.node == node and since_ns < one.sent_ns < until_ns for one in self.arrivals)

    def latest(self, node: int) -> int:
        """When the last probe was sent that this node has forwarded; 0: none."""
        return max((one.sent_ns for one in self.arrivals if one.node == node), default=0)

    def served(self, node: int, since_ns: int) -> int:
        """When the first one arrived that was sent to the VIP since then and that this node forwarded; 0:
        none."""
        found = (one for one in self.arrivals if one.node == node and one.way == VIA_VIP)
        return next((one.at_ns for one in found if one.sent_ns > since_ns), 0)

    def more(self, count: int) -> None:
        """Until so many more went each way."""
        end = {way: sent + count for way, sent in self.sent.items()}
        until(lambda: all(self.sent[way] >= least for way, least in end.items()))


def route(lab: PairLab) -> None:
    """The client's ways; static ones, with the nodes' addresses, which a dead node would not tell."""
    client = lab.names["client"]
    for number, node in enumerate(("a", "b"), 1):
        run(client, f"ip neighbor replace 10.0.0.{number} lladdr {lab.mac(node)} dev lan0 nud permanent")
        run(client, f"ip route replace 198.18.1.{number} via 10.0.0.{number}")
    run(client, f"ip route replace 198.18.1.{VIA_VIP} via {VIPS[0]}")


@contextlib.contextmanager
def probes(lab: PairLab, burst: int = 1) -> Iterator[Probes]:
    """As long as the block runs. ``burst``: so many arrive at once, all with one stamp."""
    route(lab)
    found, ended = Probes(), threading.Event()
    nodes = {bytes.fromhex(lab.mac(node).replace(":", "")): number for number, node in ((1, "a"), (2, "b"))}
    behind = socket.inet_aton("203.0.113.0")[:3]

    def hear(ear: socket.socket) -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                frame = ear.recv(2048)
                if len(frame) >= 50 and frame[30:33] == behind and frame[23] == socket.IPPROTO_UDP:
                    (sent_ns,) = STAMP.unpack_from(frame, 42)
                    found.arrivals.append(Arrival(sent_ns, now_ns(), frame[33], nodes.get(frame[6:12], 0)))

    def send(six: socket.socket, *mouths: socket.socket) -> None:
        turn = 0
        while not ended.wait(PACE_S):
            for way in found.sent:
                with contextlib.suppress(OSError):
                    mouths[turn % FLOWS].sendto(STAMP.pack(now_ns()) * burst, (f"198.18.1.{way}", PORT))
                    found.sent[way] += 1
            if turn % EVERY_V6 == 0:  # nobody answers it: it keeps the neighbour's entry in use
                with contextlib.suppress(OSError):
                    six.sendto(b"", (VIPS[1], 9))
            turn += 1

    def made(family: int) -> socket.socket:
        return inside(lab.names["client"], lambda: socket.socket(family, socket.SOCK_DGRAM))

    def listen() -> socket.socket:
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        ear.bind(("br0", 0))
        ear.settimeout(0.05)
        return ear

    ends = [inside(lab.names["lan"], listen), made(socket.AF_INET6)]
    ends += [made(socket.AF_INET) for _ in range(FLOWS)]
    if burst > 1:  # the kernel makes many of one
        run(lab.names["client"], "ethtool -K lan0 tx-udp-segmentation off")
        for mouth in ends[2:]:
            mouth.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, STAMP.size)
    threads = [
        threading.Thread(target=hear, args=(ends[0],)),
        threading.Thread(target=send, args=tuple(ends[1:])),
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for end in ends:
            end.close()
