"""The packet functions of the C core as plain Python functions: bytes in, verdict and bytes out.

Each call gets a buffer of exactly the packet's size, so that a sanitizer sees one byte too many.
"""

import dataclasses
from typing import Any

from ipshare.core import ffi, lib
from tests.oracle.parse import PLAIN, Offload, View

ROOM = 1280


def verdict_name(verdict: int) -> str:
    return str(ffi.string(lib.ips_verdict_name(verdict)).decode())


def packet(data: bytes, offload: Offload = PLAIN, buffer: int | None = None) -> tuple[Any, Any]:
    """(struct ips_pkt *, its bytes); ``buffer``: how many of them the host shows (chained buffers)."""
    shown = data if buffer is None else data[:buffer]
    room = ffi.new("uint8_t[]", len(shown) or 1)
    ffi.memmove(room, shown, len(shown))
    p = ffi.new("struct ips_pkt *")
    p.data, p.len, p.total_len = room, len(shown), len(data)
    for name, value in dataclasses.asdict(offload).items():
        setattr(p, name, value)
    return p, room


def contents(p: Any) -> bytes:
    return bytes(ffi.buffer(p.data, p.len))


def translate(
    data: bytes, field: int, address: bytes, offload: Offload = PLAIN, buffer: int | None = None
) -> tuple[str, bytes]:
    """Verdict and packet; a refused packet must be untouched, its length too."""
    p, _room = packet(data, offload, buffer)
    verdict = verdict_name(lib.ips_translate(p, field, address))
    if verdict not in ("OK", "BAD_QUOTE", "SHORT_L4"):
        assert contents(p) == (data if buffer is None else data[:buffer])
    return verdict, contents(p)


def view(data: bytes, offload: Offload = PLAIN, buffer: int | None = None) -> tuple[str, View | None]:
    p, _room = packet(data, offload, buffer)
    v = ffi.new("struct ips_view *")
    verdict = verdict_name(lib.ips_check(p, v))
    names = [f.name for f in dataclasses.fields(View)]
    return verdict, View(**{name: getattr(v, name) for name in names}) if verdict == "OK" else None


def error_about(
    data: bytes, kind: int, mtu: int, source: bytes, offload: Offload = PLAIN, buffer: int | None = None
) -> bytes:
    """The ICMP error about the packet, which must stay as it is; b"" if none is due."""
    p, _room = packet(data, offload, buffer)
    out = ffi.new("uint8_t[]", ROOM)
    size = lib.ips_error_about(p, kind, mtu, source, out, ROOM)
    assert contents(p) == data[: p.len]
    return bytes(ffi.buffer(out, size))


def answer_echo(data: bytes, offload: Offload = PLAIN) -> bytes | None:
    p, _room = packet(data, offload)
    return contents(p) if lib.ips_answer_echo(p) else None


def clamp(data: bytes, mss: int, offload: Offload = PLAIN) -> bytes:
    """The packet; what lies behind its IP length must stay as it is."""
    p, room = packet(data, offload)
    lib.ips_clamp(p, mss)
    assert bytes(ffi.buffer(room, len(data)))[p.len :] == data[p.len :]
    return contents(p)
