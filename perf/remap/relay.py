"""relay: datagrams of a remap's mirror go by way of a third host, which keeps each for a while.

    A  <->  relay, port FIRST + slot | port SECOND + slot  <->  B

A thread with a socket for each end of each slot. What comes to one leaves by the other, as late as it was
told, in order, from the address to which the receiver sends. Nothing is looked into: it is sealed.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

SLOTS = 8
FIRST, SECOND = 6200, 6300
BUFFER_BYTES = 8 << 20
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
        self.delay_s, self.datagrams = delay_s, 0
        self._selector = selectors.DefaultSelector()
        self._ends: list[End] = []
        for slot in range(SLOTS):
            one = self._end(here, FIRST + slot, (a[0], a[1] + slot))
            two = self._end(here, SECOND + slot, (b[0], b[1] + slot))
            one.other, two.other = two, one
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self._selector.close()
        for end in self._ends:
            end.socket.close()

    def _end(self, here: str, port: int, peer: Where) -> End:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for size in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            made.setsockopt(socket.SOL_SOCKET, size, BUFFER_BYTES)
        made.bind((here, port))
        end = End(made, peer)
        self._selector.register(made, selectors.EVENT_READ, end)
        self._ends.append(end)
        return end

    def _run(self) -> None:
        while not self._is_over:
            dues = [end.waiting[0][0] for end in self._ends if end.waiting]
            wait = max(0.0, min(dues) - time.monotonic()) if dues else 0.2
            for key, _ in self._selector.select(min(wait, 0.2)):
                self._take(key.data)
            now = time.monotonic()
            for end in self._ends:
                while end.waiting and end.waiting[0][0] <= now:
                    self._send(end, end.waiting.popleft()[1])

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
