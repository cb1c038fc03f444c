"""ipshare.config.claims for a million rows: effective segments and double claims, in NumPy.

Segments: where rows nest, all first addresses and all addresses behind a last one cut the address space;
prefix lengths are painted over the pieces from the shortest to the longest, so that every piece belongs to
the longest prefix that covers it. Claims are sorted by end point and address; if any two overlap, two
neighbours do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipshare.config.bulk_wide import ONE, Wide, host_bits, stacked

Indexes = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Segments(NamedTuple):
    """Global addresses first..last, for which `owner` (a row) is the longest prefix."""

    first: Wide
    last: Wide
    owner: Indexes


class Claims(NamedTuple):
    """Local addresses first..last at an end point (a number of the caller's), claimed by row `owner`."""

    endpoint: Indexes
    first: Wide
    last: Wide
    owner: Indexes


def effective(first: Wide, prefix_len: npt.NDArray[np.uint8]) -> Segments:
    """What each row is the longest prefix for.

    One family, sorted by (first, prefix_len), no prefix twice; none ends with the last of all addresses.
    """
    n = len(prefix_len)
    last = first | host_bits(prefix_len)
    nested = _nested(first, last, n)
    flat = np.flatnonzero(~nested)
    deep = np.flatnonzero(nested)
    pieces = _painted(first.at(deep), last.at(deep), prefix_len[deep])
    return Segments(
        stacked([first.at(flat), pieces.first]),
        stacked([last.at(flat), pieces.last]),
        np.concatenate([flat, deep[pieces.owner]]),
    )


def _nested(first: Wide, last: Wide, n: int) -> Bools:
    """Rows that are inside another one, or have one inside."""
    follows = first.at(slice(1, None)).at_most(last.at(slice(None, -1)))
    if not follows.any():  # prefixes nest or are disjoint: the first inner row of any follows its outer one
        return np.zeros(n, np.bool_)
    ends, starts = last.text(), first.text()
    order = np.argsort(ends, kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    furthest = order[np.maximum.accumulate(rank)]
    inner = np.append(False, starts[1:] <= ends[furthest[:-1]])
    return np.asarray(inner | np.append(inner[1:], False), np.bool_)


def _painted(first: Wide, last: Wide, prefix_len: npt.NDArray[np.uint8]) -> Segments:
    starts, ends = first.text(), last.text()
    cuts = np.sort(np.concatenate([starts, last.plus(ONE).text()]))
    cuts = cuts[np.append(np.ones(min(1, len(cuts)), np.bool_), cuts[1:] != cuts[:-1])]
    owner = np.full(len(cuts), -1, np.int64)
    for length in np.flatnonzero(np.bincount(prefix_len, minlength=129)):
        layer = np.flatnonzero(prefix_len == length)
        at = np.searchsorted(starts[layer], cuts, side="right") - 1
        row = layer[np.maximum(at, 0)]
        covered = (at >= 0) & (cuts <= ends[row])
        owner[covered] = row[covered]
    pieces = Wide.of(np.frombuffer(cuts.tobytes(), np.uint8).reshape(-1, 16))
    owned = np.flatnonzero(owner[:-1] >= 0)
    return Segments(pieces.at(owned), pieces.at(owned + 1).minus(ONE), owner[owned])


def moved(segments: Segments, rows: Wide, owners: Bools, endpoint: Indexes, local: Wide) -> Claims:
    """The claims of the segments whose owner is in the mask `owners`: row i starts at rows[i] in the Global
    Network and at local[i] at end point endpoint[i].
    """
    mine = owners[segments.owner]
    owner = segments.owner[mine]
    start, base = rows.at(owner), local.at(owner)
    first = segments.first.at(mine).minus(start).plus(base)
    last = segments.last.at(mine).minus(start).plus(base)
    return Claims(endpoint[owner], first, last, owner)


def joined(claims: Iterable[Claims]) -> Claims:
    parts = list(claims)
    return Claims(
        np.concatenate([np.zeros(0, np.int64), *(part.endpoint for part in parts)]),
        stacked([part.first for part in parts]),
        stacked([part.last for part in parts]),
        np.concatenate([np.zeros(0, np.int64), *(part.owner for part in parts)]),
    )


def conflicts(claims: Claims) -> Iterator[tuple[int, int]]:
    """Neighbouring claims (indexes into `claims`) that share an address."""
    order = np.lexsort((claims.first.low, claims.first.high, claims.endpoint))
    endpoint, first, last = claims.endpoint[order], claims.first.at(order), claims.last.at(order)
    before, after = last.at(slice(None, -1)), first.at(slice(1, None))
    for i in np.flatnonzero(after.at_most(before) & (endpoint[1:] == endpoint[:-1])).tolist():
        yield int(order[i]), int(order[i + 1])


def holding(claims: Claims, endpoint: int, address: Any) -> Indexes:
    """Claims at `endpoint` that hold the 16-byte address."""
    point = Wide.of(np.frombuffer(address, np.uint8).reshape(1, 16))
    found = claims.first.at_most(point) & point.at_most(claims.last) & (claims.endpoint == endpoint)
    return np.flatnonzero(found)
