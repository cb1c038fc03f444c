"""Text cells -> addresses, a column of cells at a time: no Python object for each row.

A cell is a byte range of one big buffer. The parsers walk over character positions, not rows: step j looks at
character j of every cell. They take the common spellings only (dotted quads, hex groups with at most one
"::", an optional /length, no host bits); a cell that they do not take is not wrong yet but is given to
ipshare.config.units.prefix, which is the judge (bulk.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.config.bulk_wide import NONE, Wide, host_bits

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BLOCK = 1 << 15  # cells per step: their state stays in the cache
_LONGEST = {4: 18, 6: 43}  # "255.255.255.255/32"; eight groups of four with colons and "/128"
_DOT, _SLASH, _COLON, _ZERO = (ord(c) for c in "./:0")


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one column: `text[first[i]:end[i]]`. `text` has at least one byte behind the last cell."""

    text: Bytes
    first: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: Any) -> Cells:
        return Cells(self.text, self.first[rows], self.end[rows])

    def one(self, row: int) -> str:
        return self.text[self.first[row] : self.end[row]].tobytes().decode("utf-8", "replace")

    @property
    def is_empty(self) -> Bools:
        empty: Bools = self.first == self.end
        return empty

    def blocks(self) -> Iterator[tuple[slice, Cells]]:
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield block, self[block]

    def at(self, position: int) -> tuple[Bytes, Bools]:
        """Character `position` of each cell, and which cells have one."""
        where = self.first + position
        return self.text[np.minimum(where, len(self.text) - 1)], where < self.end


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Parsed cells: address (n, 16) as in a record, family, prefix_len; family 0 where it was not taken."""

    address: Bytes
    family: Bytes
    prefix_len: Bytes


def prefixes(cells: Cells) -> Prefixes:
    """All cells of a column. An empty cell has family 0, too."""
    out = Prefixes(np.zeros((len(cells), 16), np.uint8), *(np.zeros(len(cells), np.uint8) for _ in range(2)))
    for block, part in cells.blocks():
        is_v6 = np.zeros(len(part), np.bool_)
        for position in range(5):  # the first group has at most four digits
            char, live = part.at(position)
            is_v6 |= live & (char == _COLON)
        for family, parse, mine in ((4, _v4, ~is_v6), (6, _v6, is_v6)):
            rows = np.flatnonzero(mine & (part.end - part.first <= _LONGEST[family]))
            if len(rows):
                address, length, good = parse(part[rows])
                good &= ~_has_host_bits(address, length)
                taken = rows[good] + block.start
                out.address[taken], out.prefix_len[taken], out.family[taken] = (
                    address[good],
                    length[good],
                    family,
                )
    return out


def _v4(cells: Cells) -> tuple[Bytes, Bytes, Bools]:
    n = len(cells)
    number, digits, part = (np.zeros(n, np.int16) for _ in range(3))
    address, length, good = np.zeros((n, 16), np.uint8), np.full(n, 32, np.uint8), np.ones(n, np.bool_)
    for position in range(_LONGEST[4] + 1):
        char, live = cells.at(position)
        digit = char - np.uint8(_ZERO)
        is_digit = live & (digit < 10)
        good &= ~(is_digit & (digits > 0) & (number == 0))  # leading zero
        number = np.where(is_digit, np.minimum(number * 10 + digit, 999), number).astype(np.int16)
        digits += is_digit
        ends = ~is_digit & (part < 5)
        good &= ~(ends & ((digits == 0) | (number > 255)))
        good &= ~(live & ends & np.where(part < 3, char != _DOT, (char != _SLASH) | (part != 3)))
        good &= live | ~ends | (part >= 3)
        for octet in range(4):
            here = ends & (part == octet)
            address[here, octet] = number[here]
        here = ends & (part == 4)
        length[here] = np.minimum(number[here], 255)
        part = np.where(ends, np.where(live, part + 1, 5), part).astype(np.int16)
        number[ends] = 0
        digits[ends] = 0
        if not live.any():
            break
    return address, length, good & (length <= 32)


def _v6(cells: Cells) -> tuple[Bytes, Bytes, Bools]:
    n = len(cells)
    rows = np.arange(n)
    groups = np.zeros((n, 8), np.uint16)
    count, gap, digits, number = (
        np.zeros(n, np.int64),
        np.full(n, -1),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    )
    in_length, done = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    length, good = np.full(n, 128, np.int64), np.ones(n, np.bool_)
    before = np.zeros(n, np.uint8)
    for position in range(_LONGEST[6] + 1):
        char, live = cells.at(position)
        lower = char | np.uint8(0x20)
        decimal = char - np.uint8(_ZERO)
        letter = lower - np.uint8(ord("a"))
        is_digit = live & ((decimal < 10) | ((letter < 6) & ~in_length))
        good &= ~(is_digit & in_length & (digits > 0) & (number == 0))
        value = np.where(decimal < 10, decimal, letter + np.uint8(10)).astype(np.int64)
        number = np.where(is_digit, number * np.where(in_length, 10, 16) + value, number)
        digits += is_digit
        good &= digits <= np.where(in_length, 3, 4)
        number &= 0xFFFFF
        ends = ~is_digit & ~done
        is_colon, is_slash = live & (char == _COLON), live & (char == _SLASH)
        good &= ~(live & ends & ~is_colon & ~is_slash)
        good &= ~(in_length & (is_colon | is_slash))
        # An empty group is right only beside "::"; a lone colon may neither lead nor trail.
        empty = ends & (digits == 0) & ~in_length
        double = empty & is_colon & (before == _COLON)
        good &= ~(double & (gap >= 0))
        gap = np.where(double, count, gap)
        good &= ~(empty & is_colon & ~double & (position > 0))
        good &= ~(empty & ~is_colon & ((gap != count) | (before != _COLON)))
        if position == 1:
            good = good & ~((before == _COLON) & ~double)
        stored = ends & ~in_length & (digits > 0)
        good &= ~(stored & (count > 7))
        keep = np.flatnonzero(stored & (count < 8))
        groups[rows[keep], count[keep]] = number[keep]
        count += stored
        finished = ends & in_length & ~live
        good &= ~(finished & (digits == 0))
        length = np.where(finished, number, length)
        number[ends] = 0
        digits[ends] = 0
        done |= ~live
        in_length |= is_slash
        before = char
        if done.all():
            break
    right: Bools = good & np.where(gap < 0, count == 8, count < 8) & (length <= 128)
    return _spread(groups, count, gap), np.minimum(length, 255).astype(np.uint8), right


def _spread(groups: npt.NDArray[np.uint16], count: Ints, gap: Ints) -> Bytes:
    """Groups after "::" move to the right end, zeros fill the gap. RFC 4291 2.2."""
    n = len(groups)
    target = np.arange(8)
    shift = (8 - count)[:, None]
    head = (gap[:, None] < 0) | (target < gap[:, None])
    source = np.where(head, target, target - shift)
    is_filled = head | (source >= gap[:, None])
    wide = np.where(is_filled, np.take_along_axis(groups, np.clip(source, 0, 7), axis=1), 0)
    return wide.astype(">u2").view(np.uint8).reshape(n, 16)


def _has_host_bits(address: Bytes, prefix_len: Bytes) -> Bools:
    return ~(Wide.of(address) & host_bits(prefix_len)).same(NONE)


def words(cells: Cells) -> tuple[list[str], Ints]:
    """The distinct texts of a column, and for each cell its number among them. An empty cell is "".

    Cells count as equal if their first 64 bytes are; no name is longer, so what is longer is wrong in any
    case.
    """
    n = len(cells)
    code = np.zeros(n, np.int64)
    width = min(64, int(np.max(cells.end - cells.first, initial=0)))
    for start in range(0, width, 8):
        chunk = np.zeros(n, np.uint64)
        for position in range(start, min(start + 8, width)):
            char, live = cells.at(position)
            chunk = (chunk << np.uint64(8)) | np.where(live, char, np.uint8(0))
        _, chunk_code = np.unique(chunk, return_inverse=True)
        code = np.unique(code * (n + 1) + chunk_code, return_inverse=True)[1] if start else chunk_code
    example = np.zeros(int(np.max(code, initial=-1)) + 1, np.int64)
    example[code] = np.arange(n)
    return [cells.one(int(row)) for row in example], code.astype(np.int64)
