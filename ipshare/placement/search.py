"""Depth-first search for the placement of units, each with its own order of choices. Pure.

First without leaving anything out: the first complete placement in the order of choices, or proof that there
is none. Then, leaving units out where that is needed, the one that places most; branches that cannot place
more than the best so far are cut. `Room` says what fits and is put back as it was. Iterative: as many units
as there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ipshare.placement.model import Node, Unit

SLACK = 1e-9
"""Sizes are sums of fractions: so much over a limit is none."""


class Room(Protocol):
    def fits(self, unit: Unit, node: Node) -> bool: ...
    def put(self, unit: Unit, node: Node, sign: int = 1) -> None: ...


class Search:
    """`is_exact` says afterwards whether `steps` were enough."""

    def __init__(
        self, room: Room, going: Sequence[Unit], choices: Sequence[Sequence[Node]], steps: int
    ) -> None:
        self.room, self.going, self.choices, self.steps = room, going, choices, steps
        self.is_exact = True
        self._best: list[Node | None] = [None] * len(going)
        self._most = (-1.0, -1)
        self._after = [0.0] * (len(going) + 1)  # size of a unit and all after it
        for index in range(len(going) - 1, -1, -1):
            self._after[index] = self._after[index + 1] + going[index].size

    def run(self) -> list[Node | None]:
        """The node of each unit, None: it stays."""
        self._walk(may_skip=False)
        if self._most[1] < len(self.going):
            self.is_exact = True  # what the first walk did not prove the second may
            self._walk(may_skip=True)
        return self._best

    def _walk(self, may_skip: bool) -> None:
        count, tries = len(self.going), 0
        at: list[int] = [0]  # index of the next choice, for each unit on the way down
        way: list[Node | None] = []
        size, placed = 0.0, 0
        while at:
            depth = len(at) - 1
            if depth == count:
                if self._is_more(size, placed):
                    self._most, self._best = (size, placed), list(way)
                if placed == count:
                    break
                target, found = None, False
            else:
                target, found, used = self._next(depth, at, may_skip, size, placed)
                tries += used
            if found:
                way.append(target)
                if target is not None:
                    self.room.put(self.going[depth], target)
                    size, placed = size + self.going[depth].size, placed + 1
                at.append(0)
                continue
            at.pop()
            if tries > self.steps:
                self.is_exact = False
                break
            if way:
                unit, back = self.going[len(way) - 1], way.pop()
                if back is not None:
                    self.room.put(unit, back, -1)
                    size, placed = size - unit.size, placed - 1
        for unit, node in zip(self.going, way, strict=False):
            if node is not None:
                self.room.put(unit, node, -1)

    def _next(
        self, depth: int, at: list[int], may_skip: bool, size: float, placed: int
    ) -> tuple[Node | None, bool, int]:
        """The next choice of the unit at this depth: where (None: it is left out), whether there is one, and
        how many were tried."""
        unit, nodes, tries = self.going[depth], self.choices[depth], 0
        rest = len(self.going) - depth - 1
        if may_skip and not self._is_more(size + self._after[depth], placed + 1 + rest):
            return None, False, 1
        while at[depth] < len(nodes):
            node = nodes[at[depth]]
            at[depth] += 1
            tries += 1
            if self.room.fits(unit, node):
                return node, True, tries
        if may_skip and at[depth] == len(nodes):
            at[depth] += 1
            if self._is_more(size + self._after[depth + 1], placed + rest):
                return None, True, tries + 1
        return None, False, tries + 1

    def _is_more(self, size: float, placed: int) -> bool:
        """Whether so much is more than the best so far."""
        most, number = self._most
        return size > most + SLACK or (size > most - SLACK and placed > number)
