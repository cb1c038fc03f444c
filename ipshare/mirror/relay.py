"""The engine's changes, out of its mirror: this process is its standby, over loopback (native/ips_relay.c).

``turn`` waits for datagrams, and hands on what they bring; only when the caller has stored that does it call
``acknowledge``. A caller that cannot store says nothing, and is soon taken for gone: then its engine has no
standby, says so, and begins with a snapshot when it is back.
"""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType
from typing import Any, Self

from ipshare.core import ffi, lib
from ipshare.errors import EngineError

MS = 1_000_000
WINDOW, TOMBSTONES = 512, 1 << 16
HELLO_NS, SILENCE_NS = 50 * MS, 1500 * MS
DATAGRAMS = 64
_ROOM = 2048
_TAKE = 4096


class Relay:
    """At ``local``, for the engine at ``remote`` (loopback address, UDP port). key: 32 octets.

    own, peer: the names of this end and of the engine's, as its mirror is told them. Raises ``EngineError``.
    """

    def __init__(
        self, local: tuple[str, int], remote: tuple[str, int], key: bytes, own: str, peer: str, boot: int
    ) -> None:
        config = ffi.new("struct ips_relay_config *")
        config.window, config.tombstones = WINDOW, TOMBSTONES
        seal = config.seal
        seal.id, seal.peer, seal.boot = own.encode().ljust(16, b"\0"), peer.encode().ljust(16, b"\0"), boot
        seal.n_keys, seal.hello_ns, seal.silence_ns = 1, HELLO_NS, SILENCE_NS
        seal.keys[0], seal.key_numbers[0] = key, 1
        seal.n_items = 1  # the engine's mirror asks for it; 0 at both ends: the agent has no tables to differ
        seal.items[0].name = b"flows"
        made = lib.ips_relay_new(config)
        if made == ffi.NULL:
            raise EngineError("no memory for the mirror's relay, or its key or names are none")
        self._relay = ffi.gc(made, lib.ips_relay_free)
        self._changes = ffi.new("struct ips_relay_change[]", _TAKE)
        self._out = ffi.new("uint8_t[]", int(lib.IPS_SEAL_DATAGRAM))
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            self._socket.setblocking(False)
            self._socket.bind(local)
            self._socket.connect(remote)
        except OSError as error:
            self._socket.close()
            raise EngineError(f"the mirror's relay cannot have {local[0]} port {local[1]}: {error}") from None

    def turn(self, wait_s: float) -> list[tuple[int, int, bool, Any]]:
        """What came within ``wait_s``, in order: (what, epoch, is_new_origin, record). ``record``: a cffi
        pointer of its own; None for marks."""
        if not select.select([self._socket], [], [], wait_s)[0]:
            return []
        got: list[tuple[int, int, bool, Any]] = []
        for _ in range(DATAGRAMS):
            try:
                data = self._socket.recv(_ROOM)
            except BlockingIOError:
                break
            except ConnectionError:  # nobody is at the engine's end (yet)
                continue
            lib.ips_relay_input(self._relay, data, len(data), _now())
            while taken := int(lib.ips_relay_take(self._relay, self._changes, _TAKE)):
                got.extend(self._copy(i) for i in range(taken))
        return got

    def acknowledge(self) -> None:
        """Everything that ``turn`` has returned is stored. Keeps the channel alive: call it each turn."""
        while size := int(lib.ips_relay_emit(self._relay, _now(), self._out)):
            try:
                self._socket.send(bytes(ffi.buffer(self._out, size)))
            except (BlockingIOError, ConnectionError):
                return  # said again

    @property
    def is_fed(self) -> bool:
        """Whether the engine sends its changes (it is active, and has this relay as a peer)."""
        return bool(lib.ips_relay_is_fed(self._relay, _now()))

    @property
    def is_complete(self) -> bool:
        """And whether everything that it has is here."""
        return bool(lib.ips_relay_is_complete(self._relay, _now()))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def _copy(self, i: int) -> tuple[int, int, bool, Any]:
        change = self._changes[i]
        what = int(change.what)
        record = None
        if what < int(lib.IPS_RELAY_BEGIN):
            record = ffi.new("struct ips_session_rec *", change.rec)
        return what, int(change.epoch), bool(change.is_new_origin), record


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
