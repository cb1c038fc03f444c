"""The express lane of ips_forward.c gives what the whole way gives.

A binding whose packets are copied (S1.16) sends all of them the whole way; so the same packets go through two
sites that differ in nothing but that flag. Ordinary packets are bent a little, at random, so that they
fall on either side of every condition.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from ipshare.bench import packets, sites
from ipshare.core import Worker, lib
from ipshare.engine.tables import Tables, pack

FLAGS = ("IPS_EP_MSS_CLAMP", "IPS_EP_TRACE_TUNNEL", "IPS_EP_SELF")
ROUNDS = 1500


def _tables(family: int, *, inner: bool, flags: int, copied: bool) -> Tables:
    tables = sites.site(family, 64, inner=inner)
    endpoints, bindings = tables.endpoints.copy(), tables.bindings.copy()
    endpoints["flags"] |= flags
    endpoints["path_mtu"] = 576 if family == 4 else 1280
    endpoints["tunnel_family"], endpoints["gue_port"] = family, 6080
    endpoints["tunnel_remote"] = np.frombuffer(sites.TUNNELS[family].ljust(16, b"\0"), np.uint8)
    endpoints["tunnel_local"] = sites.addresses(family, [3], local=inner)  # bound: the tunnel is first
    if copied:
        bindings["flags"] = lib.IPS_BINDING_COPY
    return replace(
        tables,
        endpoints=endpoints,
        bindings=bindings,
        icmp_source4=sites.TUNNELS[4].ljust(16, b"\0"),
        icmp_source6=sites.TUNNELS[6],
        icmp_rate=1_000_000,
    )


def _sum(packet: bytearray) -> None:
    """Mends the IPv4 header's checksum, so that what was bent is judged by something else."""
    if len(packet) >= 20 and packet[0] == 0x45:
        packet[10:12] = b"\0\0"
        total = sum(int.from_bytes(packet[i : i + 2], "big") for i in range(0, 20, 2))
        total = (total >> 16) + (total & 0xFFFF)
        packet[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def _bent(rng: random.Random, packet: bytes) -> bytes:
    out = bytearray(packet)
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randrange(min(len(out), 60))
        out[at] = rng.choice((0, 1, 2, 31, 32, 127, 169, 254, 255, out[at] ^ 1 << rng.randrange(8)))
    if rng.random() < 0.2:
        out = out[: rng.randrange(len(out) + 1)]
    if rng.random() < 0.2:
        out += bytes(rng.choice((1, 6, 700, 1400)))
    if rng.random() < 0.2 and len(out) > 40:
        out[2:4] = out[4:6] = (len(out) - (40 if out[0] >> 4 == 6 else 0)).to_bytes(2, "big")
    if rng.random() < 0.8:
        _sum(out)
    return bytes(out)


@pytest.mark.parametrize("flag", [None, *FLAGS])
@pytest.mark.parametrize("side", ["outer", "inner"])
@pytest.mark.parametrize("family", [4, 6])
def test_express_is_the_whole_way_shortened(family: int, side: str, flag: str | None) -> None:
    rng = random.Random(f"{family} {side} {flag}")
    flags = getattr(lib, flag) if flag else 0
    targets = sites.addresses(family, range(64), local=side == "inner")
    made = packets.frames("mixed", family, targets)
    with Worker(cells=1 << 22) as short, Worker(cells=1 << 22) as whole:
        for worker, copied in ((short, False), (whole, True)):
            worker.load(pack(_tables(family, inner=side == "inner", flags=flags, copied=copied)))
        verdicts = set()
        for _ in range(ROUNDS):
            row = rng.randrange(64)
            packet = _bent(rng, made.data[row, : made.lengths[row]].tobytes())
            one, other = short.process(side, packet), whole.process(side, packet)
            assert replace(one, copies=()) == replace(other, copies=()), packet.hex()
            verdicts.add(one.verdict.name)
        assert (short.verdict_counts() == whole.verdict_counts()).all()
        assert (short.cell_counts() == whole.cell_counts()).all()
        assert ("OK" in verdicts) == (not (flag == "IPS_EP_SELF" and side == "outer"))
