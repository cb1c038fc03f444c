"""ipshare.config.claims for a million rows: effective segments and double claims, in NumPy.

Segments: all first addresses and all addresses behind a last one cut the address space; prefix lengths are
painted over the pieces from the shortest to the longest, so that every piece belongs to the longest
prefix that covers it. Claims are sorted by end point and address; if any two overlap, two neighbours do.
Addresses are (high, low) pairs of 64-bit words; where they only have to be compared, 16-byte strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipshare.config.bulk_text import Bytes, host_mask

Words = npt.NDArray[np.uint64]
Rows = npt.NDArray[Any]
Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Wide:
    """128-bit numbers, one per row. An IPv4 address is its 16 bytes in a record: high bits first."""

    high: Words
    low: Words

    def at(self, rows: Any) -> Wide:
        return Wide(self.high[rows], self.low[rows])

    def plus(self, other: Wide) -> Wide:
        low = self.low + other.low
        return Wide(self.high + other.high + (low < self.low), low)

    def minus(self, other: Wide) -> Wide:
        return Wide(self.high - other.high - (self.low < other.low), self.low - other.low)

    def text(self) -> npt.NDArray[np.bytes_]:
        """As strings that compare like the numbers."""
        both = np.stack([self.high, self.low], axis=1).astype(">u8")
        return both.view("S16").reshape(-1)


def wide(address: Bytes) -> Wide:
    both = np.ascontiguousarray(address).view(">u8").astype(np.uint64).reshape(-1, 2)
    return Wide(both[:, 0], both[:, 1])


ONE = Wide(np.zeros(1, np.uint64), np.ones(1, np.uint64))


class Segments(NamedTuple):
    """Global addresses first..last, for which `owner` (a row) is the longest prefix."""

    first: Wide
    last: Wide
    owner: Indexes


class Claims(NamedTuple):
    """Local addresses first..last of a family at an end point (numbers of the caller's), claimed by row
    `owner`.
    """

    endpoint: Indexes
    first: Wide
    last: Wide
    owner: Indexes


def effective(rows: Rows) -> Segments:
    """What each row is the longest prefix for. One family, no prefix twice; last addresses below
    ff:...:ff.
    """
    first, length = rows["global"], rows["prefix_len"]
    starts, ends = wide(first).text(), wide(first | host_mask(length)).text()
    behind = wide(first | host_mask(length)).plus(ONE)
    cuts = np.unique(np.concatenate([starts, behind.text()]))
    owner = np.full(len(cuts), -1, np.int64)
    for prefix_len in np.unique(length):
        layer = np.flatnonzero(length == prefix_len)
        layer = layer[np.argsort(starts[layer])]
        at = np.searchsorted(starts[layer], cuts, side="right") - 1
        row = layer[np.maximum(at, 0)]
        covered = (at >= 0) & (cuts <= ends[row])
        owner[covered] = row[covered]
    pieces = wide(np.frombuffer(cuts.tobytes(), np.uint8).reshape(-1, 16))
    owned = np.flatnonzero(owner[:-1] >= 0)
    return Segments(pieces.at(owned), pieces.at(owned + 1).minus(ONE), owner[owned])


def moved(
    segments: Segments, rows: Rows, owners: npt.NDArray[np.bool_], endpoint: int, local: Bytes
) -> Claims:
    """The claims at `endpoint` of the segments whose owner is in the mask `owners`, where row i has
    local[i].
    """
    mine = owners[segments.owner]
    owner = segments.owner[mine]
    start, base = wide(rows["global"][owner]), wide(local[owner])
    first = segments.first.at(mine).minus(start).plus(base)
    last = segments.last.at(mine).minus(start).plus(base)
    return Claims(np.full(len(owner), endpoint, np.int64), first, last, owner)


def joined(claims: Iterable[Claims]) -> Claims:
    parts = list(claims)
    return Claims(
        np.concatenate([np.zeros(0, np.int64), *(part.endpoint for part in parts)]),
        _stacked([part.first for part in parts]),
        _stacked([part.last for part in parts]),
        np.concatenate([np.zeros(0, np.int64), *(part.owner for part in parts)]),
    )


def _stacked(parts: list[Wide]) -> Wide:
    none = np.zeros(0, np.uint64)
    high, low = [part.high for part in parts], [part.low for part in parts]
    return Wide(np.concatenate([none, *high]), np.concatenate([none, *low]))


def conflicts(claims: Claims) -> Iterator[tuple[int, int]]:
    """Neighbouring claims (indexes into `claims`) that share an address."""
    order = np.lexsort((claims.first.low, claims.first.high, claims.endpoint))
    endpoint, first, last = claims.endpoint[order], claims.first.at(order), claims.last.at(order)
    before, after = last.at(slice(None, -1)), first.at(slice(1, None))
    overlaps = (after.high < before.high) | ((after.high == before.high) & (after.low <= before.low))
    for i in np.flatnonzero(overlaps & (endpoint[1:] == endpoint[:-1])):
        yield int(order[i]), int(order[i + 1])
