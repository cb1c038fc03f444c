"""A model of a policy that changes: its members' shares move from a to b, and perhaps back, while connections
live.

The same world as a remap's (tests/models/remap.py), and the same C function decides; but nobody mirrors,
freezes or fences: distribution points change by themselves, one after the other, and name the end point that
they sent to before. What b opened it knows itself (``Names.tracks``). A client comes by one distribution
point, as its flows do: that is what consistent hashing leaves to the routers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.models.remap import (
    CLOSED,
    HERE,
    NETWORK,
    NODES,
    OPENS,
    TAKING,
    TO_FINAL,
    UNKNOWN,
    Broken,
    Known,
    Remap,
    State,
    World,
    ask_core,
    said,
)


@dataclass(frozen=True, slots=True)
class Names:
    """As it should be; each can be set wrong."""

    names: bool = True  # distribution points name the end point before
    tracks: bool = True  # the new end point follows what it opens
    drains: bool = True  # the names last as long as what they are for


AB, BA = Remap("a", "b"), Remap("b", "a")


@dataclass
class Change(World):
    """``remaps[i]`` is the i-th change; its distribution points change in the order of the script, by
    "flip"."""

    how: Names = Names()

    def relations(self, s: State, node: str, flow: int) -> list[tuple[int, int, int, int, Known]]:
        """What a packet names is in the place of a remap. The others' tables are known to nobody."""
        point = flow % len(s.points)
        if s.points[point] != node or not self.how.names or self.is_over(s):
            return []
        change = [
            i for i, remap in enumerate(self.remaps) if remap.taker == node and self.has_changed(s, point)
        ]
        return [(i, TAKING, 0, NODES.index(self.remaps[i].giver), UNKNOWN) for i in change[-1:]]

    def has_changed(self, s: State, point: int) -> bool:
        return any(step == ("flip", point) for step in self.script[: s.step])

    def is_over(self, s: State) -> bool:
        """The time of what was before."""
        return ("drop", 0) in self.script[: s.step]

    def way(self, s: State, node: str, flow: int, opens: bool) -> tuple[str, bool, int]:
        """One crossing at most, since FINAL is delivered; a node that follows nothing knows nothing."""
        blind = s if self.how.tracks else replace(s, tables=((UNKNOWN,) * len(s.flows),) * len(NODES))
        rows = self.relations(s, node, flow)
        if not rows:
            known = s.tables[NODES.index(node)][flow]
            return node, opens and known == UNKNOWN, 0
        what, to = self.ask(blind, node, flow, opens, rows)
        return (node, what == "open", 0) if what != "on" else (NODES[rows[to][3]], False, 1)

    def ask(
        self, s: State, node: str, flow: int, opens: bool, rows: list[tuple[int, int, int, int, Known]]
    ) -> tuple[str, int]:
        relations = tuple((role, flags, peer, known) for _, role, flags, peer, known in rows)
        own = said(s.tables[NODES.index(node)][flow], opens)
        what, to = ask_core(NETWORK, 255, opens, UNKNOWN if own == CLOSED else own, relations)
        if what not in (HERE, OPENS, TO_FINAL):
            raise Broken("a way that a policy's packets do not have")
        return {HERE: "here", OPENS: "open", TO_FINAL: "on"}[what], to

    def packets(self, s: State) -> Iterator[tuple[str, State]]:
        """A flow's packets come by one distribution point."""
        for i, flow in enumerate(s.flows):
            point = i % len(s.points)
            if not flow.owner or flow.closed:
                yield self.packet(s, point, s.points[point], i, opens=True)
            if flow.owner:
                yield self.packet(s, point, s.points[point], i, opens=False)

    def control(self, s: State) -> Iterator[tuple[str, State]]:
        if s.step == len(self.script):
            return
        what, i = self.script[s.step]
        following = replace(s, step=s.step + 1)
        if what == "flip":
            takers = [remap.taker for remap in self.remaps]
            before = sum(step == ("flip", i) for step in self.script[: s.step])
            yield f"flip {i}", replace(following, points=(*s.points[:i], takers[before], *s.points[i + 1 :]))
        elif what == "drop" and (not self.how.drains or self.is_drained(s, self.remaps[0])):
            yield "drop", following
