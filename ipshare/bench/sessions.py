"""sessions: what a tracked packet and a new session cost, with and without port-translating NAT.

Processor time of one thread in this process, no device, as in ``core``. "few": 256 flows, in the nearest
cache; "1m": a million flows in turn, so that each packet finds its session cold. A new session is seen twice:
opened half-open, then promoted; making its mapping and port is part of ``napt``, not of ``sessions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ipshare.bench import packets
from ipshare.bench.result import Progress, Result, beside
from ipshare.core import ffi, lib

FLOWS = 256
CLIENTS = {4: (packets.CLIENT[4][:3], 24), 6: (packets.CLIENT[6][:6], 48)}
POOLS = {4: bytes([203, 0, 113, 0]), 6: bytes.fromhex("20010db800ff00000000000000000000")}
NOW_NS = 1 << 40


def figures(progress: Progress, *, million: int, repeats: int) -> Iterator[Result]:
    """The table alone, then translation."""
    size = f"{million // 1000}k" if million < 1_000_000 else "1m"
    progress("sessions")
    table = _table(million)
    try:
        few = _best(table, FLOWS, 1000, repeats)
        many = _best(table, million, 1, max(2, repeats // 10))
        stats = ffi.new("struct ips_sessions_stats *")
        lib.ips_sessions_stats(table, stats)
        yield Result("sessions.few.packet", few[1], "ns/packet")
        yield beside(f"sessions.{size}.packet", many[1], "ns/packet", "sessions.few.packet", few[1])
        yield Result(f"sessions.{size}.new", 1e9 / many[0], "sessions/s")
        yield Result(f"sessions.{size}.end", many[2], "ns/session")
        yield Result(f"sessions.{size}.bytes", stats.bytes / million, "bytes/session")
    finally:
        lib.ips_sessions_free(table)
    for family in (4, 6):
        progress(f"napt.v{family}")
        yield Result(f"napt.v{family}.udp", napt_ns(family, repeats), "ns/packet")


def _table(sessions: int) -> Any:
    c = ffi.new("struct ips_sessions_config *", {"seed": 1, "now_ns": NOW_NS, "sessions": sessions})
    c.half_open = max(sessions // 32, 2 * FLOWS)
    table = lib.ips_sessions_new(c)
    if not table:
        raise MemoryError(f"no memory for {sessions} sessions")
    return table


def _best(table: Any, n: int, rounds: int, repeats: int) -> tuple[float, float, float]:
    """Nanoseconds to open and promote, per packet, to end: each the least of all repetitions."""
    out = ffi.new("uint64_t[3]")
    taken = []
    for _ in range(repeats):
        if lib.ips_bench_sessions(table, n, rounds, out):
            raise MemoryError("the table is too small for its own benchmark")
        taken.append((out[0] / n, out[1] / n / rounds, out[2] / n))
    opening, packet, ending = (min(column) for column in zip(*taken, strict=True))
    return opening, packet, ending


def napt_ns(family: int, repeats: int) -> float:
    """Nanoseconds per established packet from inside, the copying taken off."""
    targets = np.zeros((FLOWS, 16), np.uint8)
    targets[:, :4] = np.frombuffer(
        bytes([192, 0, 2, 0]) if family == 4 else bytes.fromhex("20010db8"), np.uint8
    )
    targets[:, 3 if family == 4 else 15] = np.arange(FLOWS)
    frames = packets.frames("udp", family, targets)
    (prefix, length), table = CLIENTS[family], _table(4 * FLOWS)
    pool = ffi.new(
        "struct ips_napt_pool_rec *", {"first": POOLS[family].ljust(16, b"\0"), "n": 4, "realm": 1}
    )
    inside = ffi.new("struct ips_napt_inside_rec *", {"prefix": prefix.ljust(16, b"\0"), "realm": 1})
    pool.family = inside.family = family
    inside.prefix_len = length
    config = ffi.new(
        "struct ips_napt_config *", {"pools": pool, "insides": inside, "n_pools": 1, "n_insides": 1}
    )
    nat = lib.ips_napt_new(table, ffi.NULL, config)
    try:
        taken = [(_pass(nat, frames), _pass(nat, frames, copy_only=True)) for _ in range(repeats)]
        return min(whole for whole, _ in taken) - min(copy for _, copy in taken)
    finally:
        lib.ips_napt_free(nat)
        lib.ips_sessions_free(table)


def _pass(nat: Any, frames: packets.Frames, rounds: int = 400, *, copy_only: bool = False) -> float:
    took = lib.ips_bench_napt(
        nat,
        ffi.from_buffer("uint8_t *", frames.data),
        packets.STRIDE,
        ffi.from_buffer("uint16_t *", frames.lengths),
        len(frames),
        rounds,
        copy_only,
        NOW_NS,
    )
    return float(took) / rounds / len(frames)
