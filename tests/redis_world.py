"""A real redis-server, a mirror's active end and a standby's table, for tests of the transport by Redis.

``Engine`` is the active node of tests/mirror_world.py on a real socket; ``Table`` a standby's feed that keeps
what it is told, with the rules of IPS_CTL_SESSIONS_FEED. Every wait is for an event, bounded by PATIENCE_S.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from ipshare.core import ffi
from ipshare.errors import Refused
from ipshare.mirror.records import UPSERT
from ipshare.mirror.relay import Relay
from tests.mirror_world import FLOW, KEY, VERSION, Node, Settings, World, version_of

PATIENCE_S = 60.0


def until(claim: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end, f"it never held: {claim}"


class Server:
    """redis-server on a socket in `directory`, without persistence; killed and started as the test likes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "redis.sock"
        self.url = f"unix://{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.path), "--save", "", *options],
            stdout=subprocess.DEVNULL,
            cwd=self.path.parent,
        )
        until(self._answers)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.connect(str(self.path))
                line.sendall(b"PING\r\n")
                return line.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Engine:
    """An active engine's mirror, named a, with the relay r as its only standby. Time: as it is."""

    def __init__(self, epoch: int = 1, settings: Settings | None = None) -> None:
        self.world = World()
        self.world.now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.world.sent = self._sent  # type: ignore[method-assign]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self._to: tuple[str, int] | None = None
        self._boots = itertools.count(7)
        self.lossy = False
        settings = settings or Settings(ring=4096, window=64, workers=1, tombstones=4096)
        self.node: Node = self.world.add("a", ["r"], settings)
        assert self.node.role(True, epoch)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port

    def relay(self) -> Relay:
        """A new process at the relay's end."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spare:
            spare.bind(("127.0.0.1", 0))
            local = spare.getsockname()
        self._to = local
        return Relay(local, self.address, KEY, "r", "a", next(self._boots))

    def turn(self) -> None:
        self.world.now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        while True:
            try:
                self.node.input("r", self.socket.recv(2048))
            except (BlockingIOError, ConnectionError):
                break
        self.node.tick()

    def _sent(self, _source: str, _to: str, data: bytes) -> None:
        if self._to is None or (self.lossy and self.world.rng.random() < 0.3):
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.socket.sendto(data, self._to)

    def close(self) -> None:
        self.socket.close()


class Table:
    """A standby's engine, as far as a feed sees it."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, bytes] = {}
        self.is_ready, self.is_active, self.epoch = False, False, 0
        self._unconfirmed: set[bytes] = set()
        self._graves: dict[bytes, int] = {}
        self.begun = 0

    def begin(self, epoch: int, *, is_new_origin: bool) -> None:
        self._judge(epoch)
        if is_new_origin:
            zero = bytes(8)
            self.sessions = {k: v[:VERSION] + zero + v[VERSION + 8 :] for k, v in self.sessions.items()}
            self._graves.clear()
        self._unconfirmed = set(self.sessions)
        self.is_ready = False
        self.begun += 1

    def records(self, epoch: int, records: Any) -> None:
        self._judge(epoch)
        for row in records:
            self._apply(int(row["what"]), row["rec"].tobytes())

    def end(self, epoch: int) -> None:
        self._judge(epoch)
        for key in self._unconfirmed:
            del self.sessions[key]
        self._unconfirmed = set()
        self.is_ready = True

    def lost(self) -> None:
        self.is_ready = False

    def close(self) -> None:
        pass

    def _judge(self, epoch: int) -> None:
        if self.is_active or epoch < self.epoch:
            raise Refused("this node is active, or knows a higher epoch")
        self.epoch = epoch

    def _apply(self, what: int, data: bytes) -> None:
        key, version = data[:FLOW], version_of(data)
        self._unconfirmed.discard(key)
        known = max(self._graves.get(key, 0), version_of(self.sessions[key]) if key in self.sessions else 0)
        if known >= version:
            return
        if what == UPSERT:
            self.sessions[key] = data
        else:
            self.sessions.pop(key, None)
            self._graves[key] = version


def octets(record: Any) -> bytes:
    return bytes(ffi.buffer(record))
