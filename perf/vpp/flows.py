"""flows: which addresses the packets of a case go to, and fragments whose datagrams have a first one.

Addresses are numbered from a base, ``many`` of them; "few" packets are 256 flows to 250 of them, "all" has a
packet for each in random order.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

import numpy as np

from ipshare.bench import core
from ipshare.bench.packets import Bytes, Frames, Kind, frames

Pattern = Literal["few", "all"]
FIRST_L4 = 24  # bytes of a first fragment after the IP header: UDP's header and some, a multiple of 8
_SEED = 5


def addresses(base: str, numbers: core.Numbers) -> Bytes:
    """base + numbers, shape (n, 16)."""
    first = ip_address(base).packed
    out = np.zeros((len(numbers), 16), np.uint8)
    out[:, : len(first)] = np.frombuffer(first, np.uint8)
    low = int.from_bytes(first[-4:], "big") + np.asarray(numbers, np.uint32)
    out[:, len(first) - 4 : len(first)] = low.astype(">u4").view(np.uint8).reshape(-1, 4)
    return out


def numbers(pattern: Pattern, many: int) -> core.Numbers:
    return core.destinations("uniform" if pattern == "all" else "few", many)


def of(kind: Kind, family: int, targets: Bytes) -> Frames:
    """One packet to each target; of kind "fragment": a first fragment, then the last one, to every other."""
    if kind != "fragment":
        return frames(kind, family, targets)
    whole = targets[0::2][: len(targets) // 2]
    first, last = frames("udp", family, whole), frames("fragment", family, whole)
    _make_first(family, first)
    _identify(family, first.data, last.data)
    data = np.zeros((2 * len(whole), first.data.shape[1]), np.uint8)
    lengths = np.zeros(len(data), np.uint16)
    data[0::2], data[1::2], lengths[0::2], lengths[1::2] = first.data, last.data, first.lengths, last.lengths
    return Frames(data, lengths)


def syns(kind: Kind, family: int, targets: Bytes) -> Frames:
    """What opens the connections of such packets to these targets: the same, TCP with SYN set."""
    out = of(kind, family, targets)
    at = 20 if family == 4 else 40
    tcp = out.data[:, 9 if family == 4 else 6] == 6
    out.data[tcp, at + 13] = 0x02
    return out


def _make_first(family: int, f: Frames) -> None:
    """UDP datagrams become first fragments of longer ones."""
    if family == 4:
        f.data[:, 2:4], f.data[:, 6:8] = (0, 20 + FIRST_L4), (0x20, 0)
        f.lengths[:] = 20 + FIRST_L4
        return
    body = f.data[:, 40 : 40 + FIRST_L4].copy()
    f.data[:, 4:6], f.data[:, 6] = (0, 8 + FIRST_L4), 44
    f.data[:, 40:48] = (17, 0, 0, 1, 0, 0, 0, 0)
    f.data[:, 48 : 48 + FIRST_L4] = body
    f.lengths[:] = 48 + FIRST_L4


def _identify(family: int, *parts: Bytes) -> None:
    """The parts' rows belong together: each row gets a number of its own, IPv4 headers their sums."""
    for data in parts:
        serial = np.arange(1, len(data) + 1, dtype=np.uint32)
        if family == 6:
            data[:, 44:48] = serial.astype(">u4").view(np.uint8).reshape(-1, 4)
            continue
        data[:, 4:6] = serial.astype(np.uint16).astype(">u2").view(np.uint8).reshape(-1, 2)
        data[:, 10:12] = 0
        total = data[:, :20].copy().view(">u2").sum(axis=1, dtype=np.uint32)
        for _ in range(2):
            total = (total >> 16) + (total & 0xFFFF)
        data[:, 10:12] = (~total & 0xFFFF).astype(">u2").view(np.uint8).reshape(-1, 2)
