"""128-bit numbers in NumPy, as pairs of 64-bit words: addresses of many rows, to add and compare.

An IPv4 address is its 16 bytes in a record (native/ips_api.h): its 32 bits are the highest, the rest is zero.
The hosts' bits of an IPv4 prefix then include the 96 low ones, so that "last address + 1" carries rightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.model import Prefix, packed

Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wide:
    """Numbers of many rows (or of one row, which is then broadcast)."""

    high: Words
    low: Words

    @staticmethod
    def of(address: npt.NDArray[np.uint8]) -> Wide:
        """From (n, 16) bytes; a copy."""
        both = np.ascontiguousarray(address).view(">u8").astype(np.uint64).reshape(-1, 2)
        return Wide(both[:, 0].copy(), both[:, 1].copy())

    @staticmethod
    def zeros(n: int) -> Wide:
        return Wide(np.zeros(n, np.uint64), np.zeros(n, np.uint64))

    def bytes(self) -> npt.NDArray[np.uint8]:
        """As (n, 16) bytes."""
        return np.stack([self.high, self.low], axis=1).astype(">u8").view(np.uint8)

    def text(self) -> npt.NDArray[np.bytes_]:
        """As strings that compare like the numbers."""
        return self.bytes().view("S16").reshape(-1)

    def one(self, row: int) -> Any:
        """The 16 bytes of one number."""
        return int(self.high[row]).to_bytes(8, "big") + int(self.low[row]).to_bytes(8, "big")

    def at(self, rows: Any) -> Wide:
        return Wide(self.high[rows], self.low[rows])

    def put(self, rows: Any, values: Wide) -> None:
        """Writes in place."""
        self.high[rows], self.low[rows] = values.high, values.low

    def plus(self, other: Wide) -> Wide:
        low = self.low + other.low
        return Wide(self.high + other.high + (low < self.low), low)

    def minus(self, other: Wide) -> Wide:
        return Wide(self.high - other.high - (self.low < other.low), self.low - other.low)

    def __and__(self, other: Wide) -> Wide:
        return Wide(self.high & other.high, self.low & other.low)

    def __or__(self, other: Wide) -> Wide:
        return Wide(self.high | other.high, self.low | other.low)

    def __invert__(self) -> Wide:
        return Wide(~self.high, ~self.low)

    def same(self, other: Wide) -> Bools:
        return np.asarray((self.high == other.high) & (self.low == other.low), np.bool_)

    def at_most(self, other: Wide) -> Bools:
        below = (self.high < other.high) | ((self.high == other.high) & (self.low <= other.low))
        return np.asarray(below, np.bool_)


ONE = Wide(np.zeros(1, np.uint64), np.ones(1, np.uint64))
NONE = Wide.zeros(1)
_HOST_BITS = Wide.of(
    np.array([list(((1 << (128 - length)) - 1).to_bytes(16, "big")) for length in range(129)], np.uint8)
)


def host_bits(prefix_len: Any) -> Wide:
    """The bits that prefixes of these lengths leave to hosts (lengths above 128 count as 128)."""
    return _HOST_BITS.at(np.minimum(prefix_len, 128))


def base_of(prefix: Prefix) -> Wide:
    """The first address of a prefix, as one row."""
    return Wide.of(np.frombuffer(packed(prefix.network_address), np.uint8).reshape(1, 16))


def mask_of(prefix: Prefix) -> Wide:
    """The hosts' bits of a prefix, as one row."""
    return host_bits(np.array([prefix.prefixlen]))


def stacked(parts: Sequence[Wide]) -> Wide:
    none = np.zeros(0, np.uint64)
    return Wide(
        np.concatenate([none, *(part.high for part in parts)]),
        np.concatenate([none, *(part.low for part in parts)]),
    )


def inside(address: Wide, family: Any, length: Any, prefix: Prefix) -> Bools:
    """Rows whose prefix (address, family, length) is inside `prefix`."""
    same = (address & ~mask_of(prefix)).same(base_of(prefix))
    return np.asarray(same & (family == prefix.version) & (length >= prefix.prefixlen), np.bool_)


def overlaps(address: Wide, family: Any, length: Any, prefix: Prefix) -> Bools:
    """Rows whose prefix shares an address with `prefix`."""
    around = (base_of(prefix) & ~host_bits(length)).same(address)
    around &= (family == prefix.version) & (length <= prefix.prefixlen)
    return inside(address, family, length, prefix) | around
