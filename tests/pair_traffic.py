"""Packets through both nodes of tests.pair_lab at once, counted where they arrive.

The client sends to 198.18.1.1 by way of a and to 198.18.1.2 by way of b; each node's engine translates to
203.0.113.1 or .2, addresses of the LAN itself, where a socket for each counts.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.pair_lab import LAN, PairLab, until

PORT, PACE_S = 9000, 0.001


@dataclass
class Traffic:
    """How many packets went to each node, and came out of it: by number 1 and 2."""

    sent: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0})
    arrived: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0})

    def more(self, number: int, count: int) -> None:
        """Until so many more packets were sent to that node."""
        end = self.sent[number] + count
        until(lambda: self.sent[number] >= end)


def route(lab: PairLab) -> None:
    """After the engines have started: their devices are there."""
    for number, node in enumerate(("a", "b"), 1):
        name = lab.names[node]
        for setting in ("ip_forward", "conf.all.rp_filter", "conf.lan0.rp_filter", "conf.ips-in.rp_filter"):
            run(name, f"sysctl -qw net.ipv4.{setting}={int(setting == 'ip_forward')}")
        run(name, "ip route replace 198.18.1.0/24 dev ips-in")
        if "77" not in run(name, "ip rule show"):
            run(name, "ip rule add iif ips-in lookup 77 pref 100")
        run(name, f"ip route replace 203.0.113.0/24 via {LAN} table 77")
        run(lab.names["client"], f"ip route replace 198.18.1.{number} via 10.0.0.{number}")
        run(lab.names["lan"], f"ip address replace 203.0.113.{number}/32 dev lo")


@contextlib.contextmanager
def traffic(lab: PairLab) -> Iterator[Traffic]:
    """As long as the block runs; what it counted is complete at its end."""
    route(lab)
    found, ended = Traffic(), threading.Event()

    def bound(number: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"203.0.113.{number}", PORT))
        made.settimeout(0.05)
        return made

    def count(number: int, ear: socket.socket) -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                ear.recv(100)
                found.arrived[number] += 1

    def send(mouth: socket.socket) -> None:
        while not ended.wait(PACE_S):
            for number in found.sent:
                with contextlib.suppress(OSError):
                    mouth.sendto(b"x", (f"198.18.1.{number}", PORT))
                    found.sent[number] += 1

    ears = {number: inside(lab.names["lan"], lambda number=number: bound(number)) for number in (1, 2)}
    mouth = inside(lab.names["client"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    threads = [threading.Thread(target=count, args=item) for item in ears.items()]
    threads.append(threading.Thread(target=send, args=(mouth,)))
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for one in (*ears.values(), mouth):
            one.close()
