"""A client of the fault lab, as a process in its node: connections that are kept, and new ones all the time.

    python -m tests.faults_load '{"web v4": ["203.0.113.10", 7007, 62], ...}' 1.0

For each address (name -> host, port, connections to keep) it keeps so many TCP connections to the lab's
server, each of which sends something every PERIOD seconds and wants the same back; and it opens another one
every STEP_S, which asks who serves it. `ready` is printed when all kept ones have spoken. A line on standard
input is answered by a line of JSON: `look`: of each address, when attempts began: the one that failed last,
the newest and the first that succeeded later, and who served it; `end`: what became of the kept ones, each of
which has to speak twice more first. One thread, one selector; times are CLOCK_MONOTONIC, one clock for all.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STEP_S = 0.1
SLOW_S, ANSWER_S = 0.9, 5.0
"""An attempt that is not connected by then has failed: below a second, when a lost SYN is sent again by TCP;
and one without an answer by then, from a server that may be busy."""
PATIENCE_S = 45.0
"""What is silent for so long at the end is lost: above what TCP waits after half a minute of nothing."""
SAID = bytes(range(64))
HEAD = b'{"bytes": 1000000000, "echo": true}\n'
ASK = b'{"bytes": 0, "echo": false}\n'
EVENTS = selectors.EVENT_READ | selectors.EVENT_WRITE


def now() -> float:
    return time.monotonic()


@dataclass
class Seen:
    """Of one address."""

    bad: float = 0.0  # when the attempt began that failed last
    goods: list[float] = field(default_factory=list)  # the same of those that succeeded
    server: str = ""
    why: str = ""

    def told(self) -> list[Any]:
        after = [at for at in self.goods if at > self.bad]
        self.goods = after
        return [self.bad, max(after, default=0.0), min(after, default=0.0), self.server, self.why]


class Load:
    """All of it."""

    def __init__(self, wanted: dict[str, list[Any]], period_s: float) -> None:
        self.period_s = period_s
        self.selector = selectors.DefaultSelector()
        self.later: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.seen = {name: Seen() for name in wanted}
        self.kept: list[Kept] = []
        self.ending = 0.0
        self.is_ready = False
        for at, (name, (host, port, number)) in enumerate(wanted.items()):
            for n in range(number):
                kept = Kept(self, name, host, port)
                self.kept.append(kept)
                self.at(now() + period_s * (n + at / len(wanted)) / number, kept.open)
            self.at(now() + STEP_S * at / len(wanted), Trying(self, name, host, port).again)
        self.selector.register(0, selectors.EVENT_READ, self.hear)
        os.set_blocking(0, False)
        self.rest = b""

    def at(self, when: float, job: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.later, (when, self.count, job))

    def run(self) -> None:
        while True:
            pause = max(0.0, self.later[0][0] - now()) if self.later else 1.0
            for key, events in self.selector.select(pause):
                key.data(events)
            while self.later and self.later[0][0] <= now():
                heapq.heappop(self.later)[2]()
            if not self.is_ready and all(one.rounds or one.fault for one in self.kept):
                self.is_ready = True
                print("ready", flush=True)
            if self.ending and (now() > self.ending or all(one.is_done for one in self.kept)):
                return self.report()

    def hear(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(0, 4096)
            if not data:
                raise SystemExit
            self.rest += data
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            if line == b"end":
                self.ending = now() + PATIENCE_S
                for one in self.kept:
                    one.last = one.rounds + 2
            else:
                print(json.dumps({name: one.told() for name, one in self.seen.items()}), flush=True)

    def report(self) -> None:
        found: dict[str, Any] = {}
        for name in self.seen:
            own = [one for one in self.kept if one.name == name]
            faults = Counter(one.fault or "silent" for one in own if not one.is_kept)
            found[name] = {"kept": sum(one.is_kept for one in own), "lost": dict(faults)}
        print(json.dumps(found), flush=True)


class Plug:
    """A socket on its way."""

    def __init__(self, load: Load, name: str, host: str, port: int) -> None:
        self.load, self.name, self.host, self.port = load, name, host, port
        self.socket: socket.socket | None = None

    def connect(self, events: Callable[[int], None]) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            self.socket.connect((self.host, self.port))
        self.load.selector.register(self.socket, EVENTS, events)

    def close(self) -> None:
        if self.socket is not None:
            self.load.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


class Trying(Plug):
    """One new connection after the other, overlapping where they take long."""

    def again(self) -> None:
        self.load.at(now() + STEP_S, Trying(self.load, self.name, self.host, self.port).again)
        self.began, self.asked = now(), False
        try:
            self.connect(self.events)
        except OSError as error:
            self.failed(error)
        else:
            self.load.at(self.began + SLOW_S, self.unconnected)
            self.load.at(self.began + ANSWER_S, self.late)

    def events(self, events: int) -> None:
        assert self.socket is not None, "registered"
        try:
            if not self.asked and events & selectors.EVENT_WRITE:
                self.socket.send(ASK)
                self.asked = True
                self.load.selector.modify(self.socket, selectors.EVENT_READ, self.events)
            if events & selectors.EVENT_READ:
                data = self.socket.recv(4096)
                if not data:
                    raise ConnectionError("closed without an answer")
                self.succeeded(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self.failed(error)

    def unconnected(self) -> None:
        if self.socket is not None and not self.asked:
            self.failed(TimeoutError(f"no connection in {SLOW_S} s"))

    def late(self) -> None:
        if self.socket is not None:
            self.failed(TimeoutError(f"no answer in {ANSWER_S} s"))

    def succeeded(self, data: bytes) -> None:
        self.end()
        seen = self.load.seen[self.name]
        with contextlib.suppress(ValueError):
            seen.server = str(json.loads(data)["server"]) if data.startswith(b"{") else data.decode()
        seen.goods.append(self.began)

    def failed(self, error: OSError) -> None:
        self.end()
        seen = self.load.seen[self.name]
        if self.began > seen.bad:
            seen.bad, seen.why = self.began, str(error) or type(error).__name__

    def end(self) -> None:
        if self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT
        self.close()


class Kept(Plug):
    """A connection that speaks now and then, for as long as it is let."""

    rounds, last, fault = 0, 1 << 60, ""
    waits = b""

    @property
    def is_done(self) -> bool:
        return bool(self.fault) or self.rounds >= self.last

    @property
    def is_kept(self) -> bool:
        return not self.fault and self.rounds >= self.last

    def open(self) -> None:
        try:
            self.connect(self.events)
        except OSError as error:
            self.broke(error)

    def events(self, events: int) -> None:
        assert self.socket is not None, "registered"
        try:
            if not self.rounds and not self.waits:  # connected, or not
                self.say(HEAD)
                self.load.selector.modify(self.socket, selectors.EVENT_READ, self.events)
            elif events & selectors.EVENT_READ:
                data = self.socket.recv(4096)
                if not data:
                    raise ConnectionError("closed by the server")
                if not self.waits.startswith(data):
                    raise ConnectionError("corrupted")
                self.waits = self.waits[len(data) :]
                if not self.waits:
                    self.rounds += 1
                    self.load.at(now() + self.load.period_s, self.speak)
        except BlockingIOError:
            pass
        except OSError as error:
            self.broke(error)

    def speak(self) -> None:
        if self.socket is not None:
            try:
                self.say(b"")
            except OSError as error:
                self.broke(error)

    def say(self, head: bytes) -> None:
        assert self.socket is not None, "asked for"
        self.waits = SAID
        self.socket.send(head + SAID)

    def broke(self, error: OSError) -> None:
        self.fault = error.strerror or str(error) or type(error).__name__
        self.close()


if __name__ == "__main__":
    Load(json.loads(sys.argv[1]), float(sys.argv[2])).run()
