"""relay: datagrams of a remap's mirror go by way of a third host, which keeps each for a while.

    A  <->  relay, port FIRST + slot | port SECOND + slot  <->  B

A process of its own, before others (``prefer``): on a machine that is full, what it does late would be taken
for the mirror's own slowness. A socket for each end of each slot. What comes to one leaves by the other, as
late as it was told, in order, from the address to which the receiver sends. Nothing is looked into: it is
sealed. At its end it says how late it was at most beyond that, and how many datagrams went by.

    python -m perf.remap.relay HERE A PORT B PORT DELAY_MS      until its standard input ends
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ipshare.lab.lab import Lab
from perf.load.program import NICE, prefer

SLOTS = 8
FIRST, SECOND = 6200, 6300
BUFFER_BYTES = 8 << 20
_FORCED_SIZES = (33, 32)  # SO_RCVBUFFORCE, SO_SNDBUFFORCE: whatever the machine allows others
AT_ONCE = 64

Where = tuple[str, int]


@dataclass
class End:
    """One end of one slot: whom it speaks to, and what waits to go there."""

    socket: socket.socket
    peer: Where
    other: End | None = None
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)


class Relay:
    """Between ``a`` and ``b``, (address, first port) each; to be made in the namespace that has ``here``."""

    def __init__(self, here: str, a: Where, b: Where, delay_s: float) -> None:
        self.delay_s, self.datagrams, self.latest_s = delay_s, 0, 0.0
        self._selector = selectors.DefaultSelector()
        self._ends: list[End] = []
        for slot in range(SLOTS):
            one = self._end(here, FIRST + slot, (a[0], a[1] + slot))
            two = self._end(here, SECOND + slot, (b[0], b[1] + slot))
            one.other, two.other = two, one

    def _end(self, here: str, port: int, peer: Where) -> End:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for size in _FORCED_SIZES:
            made.setsockopt(socket.SOL_SOCKET, size, BUFFER_BYTES)
        made.bind((here, port))
        end = End(made, peer)
        self._selector.register(made, selectors.EVENT_READ, end)
        self._ends.append(end)
        return end

    def run(self, until: int) -> None:
        """To the end of this descriptor."""
        self._selector.register(until, selectors.EVENT_READ)
        while True:
            dues = [end.waiting[0][0] for end in self._ends if end.waiting]
            wait = max(0.0, min(dues) - time.monotonic()) if dues else None
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    return
                self._take(key.data)
            now = time.monotonic()
            for end in self._ends:
                while end.waiting and end.waiting[0][0] <= now:
                    due, datagram = end.waiting.popleft()
                    self.latest_s = max(self.latest_s, now - due)
                    self._send(end, datagram)

    def _take(self, end: End) -> None:
        assert end.other is not None
        due = time.monotonic() + self.delay_s
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(AT_ONCE):
                end.other.waiting.append((due, end.socket.recv(65536)))

    def _send(self, end: End, datagram: bytes) -> None:
        self.datagrams += 1
        with contextlib.suppress(OSError):  # a full buffer, nobody there: as on any network
            end.socket.sendto(datagram, end.peer)


def begin(lab: Lab, node: str, here: str, a: Where, b: Where, delay_ms: int) -> subprocess.Popen[Any]:
    """On this node of the lab; returns when it relays."""
    words = [sys.executable, "-m", "perf.remap.relay", here, a[0], str(a[1]), b[0], str(b[1]), str(delay_ms)]
    process = lab.popen(
        node, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline(), "the relay did not begin"
    prefer(process.pid, NICE)
    return process


def end(process: subprocess.Popen[Any]) -> dict[str, float]:
    """What it says of itself: ``datagrams``, ``late_ms``."""
    said, _ = process.communicate("")
    return dict(json.loads(said))


def main(here: str, a: str, a_port: str, b: str, b_port: str, delay_ms: str) -> None:
    relay = Relay(here, (a, int(a_port)), (b, int(b_port)), int(delay_ms) / 1000)
    print("{}", flush=True)
    relay.run(sys.stdin.fileno())
    print(json.dumps({"datagrams": relay.datagrams, "late_ms": round(relay.latest_s * 1000, 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
