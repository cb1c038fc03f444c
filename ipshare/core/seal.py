"""seal: one end of the sealed datagram channel of native/ips_seal_api.h, for others than the engine.

No socket and no clock: datagrams go in and come out, times are CLOCK_BOOTTIME in ns. One thread.
"""

from __future__ import annotations

import os
from typing import Any

from ipshare.core._native import ffi, lib
from ipshare.errors import IpshareError

RESULTS = tuple(ffi.string(lib.ips_seal_name(number)).decode() for number in range(lib.ips_seal_count()))
REFUSALS = RESULTS.index("SHORT")
"""Results from this number on are refusals."""
WITNESS = int(lib.IPS_SEAL_WITNESS)


@ffi.callback("void(void *, uint8_t *, size_t)")  # type: ignore[untyped-decorator]
def _random(_arg: Any, out: Any, n: int) -> None:
    ffi.memmove(out, os.urandom(n), n)


class Seal:
    """The channel of ``own`` to ``peer`` (names of up to 15 octets) under a key of 32 bytes."""

    def __init__(self, own: str, peer: str, key: bytes, *, hello_s: float, silence_s: float) -> None:
        config = ffi.new("struct ips_seal_config *")
        for field, name in ((config.id, own), (config.peer, peer)):
            ffi.memmove(field, name.encode().ljust(16, b"\0"), 16)
        config.boot, config.n_keys, config.key_numbers[0] = int.from_bytes(os.urandom(8), "big") | 1, 1, 1
        ffi.memmove(config.keys[0], key, 32)
        config.hello_ns, config.silence_ns = round(hello_s * 1e9), round(silence_s * 1e9)
        made = lib.ips_seal_new(config, _random, ffi.NULL)
        if made == ffi.NULL:
            raise IpshareError("no sealed channel could be made: out of memory, or a value out of range")
        self._seal = ffi.gc(made, lib.ips_seal_free)

    def open(self, datagram: bytes, now_ns: int) -> tuple[bool, int, bytes]:
        """Whether it is the peer's, its type, its content (b"" for handshakes)."""
        plain, n = ffi.new("uint8_t[]", max(len(datagram), 1)), ffi.new("size_t *")
        kind = ffi.new("uint8_t *")
        result = lib.ips_seal_open(self._seal, datagram, len(datagram), now_ns, kind, plain, n)
        content = bytes(ffi.buffer(plain, n[0])) if RESULTS[result] == "OK" else b""
        return result < REFUSALS, int(kind[0]), content

    def wrap(self, kind: int, plain: bytes, now_ns: int) -> bytes:
        """The datagram; b"": no stream is open."""
        out = ffi.new("uint8_t[]", len(plain) + lib.IPS_SEAL_OVERHEAD)
        return bytes(ffi.buffer(out, lib.ips_seal_wrap(self._seal, kind, plain, len(plain), now_ns, out)))

    def due(self, now_ns: int) -> list[bytes]:
        """Handshakes and signs of life that are to be sent now."""
        out, datagrams = ffi.new("uint8_t[]", lib.IPS_SEAL_DATAGRAM), []
        while n := lib.ips_seal_tick(self._seal, now_ns, out):
            datagrams.append(bytes(ffi.buffer(out, n)))
        return datagrams
