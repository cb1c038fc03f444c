"""A model of a remap: nodes, distribution points, clients, mirrors; every interleaving is visited.

Each packet's way is what the C function says (ips_remap_decide), asked through cffi: there is no copy of
the decision table here. The model has what surrounds it: the control plane's order of roles, flips of
distribution points that come late and one by one, mirrors that are behind by any number of changes, packets
that overtake them. A packet is followed from arrival to delivery in one step (its two crossings take no
time); that it may take time is in the mirrors' lateness. ``Rules`` weakens the control plane's order: then
a flow has to break.

Held in every state: a flow's packet is delivered at its owner, or dropped where it opens and nobody opens; an
opening at exactly one node that may; at most two crossings, none after FINAL; nobody opens at who leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from ipshare.core import ffi, lib

Known = int
UNKNOWN, OPEN, CLOSED = lib.IPS_FLOW_UNKNOWN, lib.IPS_FLOW_OPEN, lib.IPS_FLOW_CLOSED
HALF = 3  # as the session tables know it: for the core OPEN, or, where the packet is a SYN, CLOSED
NETWORK, FINAL, ASK = lib.IPS_FROM_NETWORK, lib.IPS_FROM_FINAL, lib.IPS_FROM_ASK
HERE, OPENS, TO_FINAL, TO_ASK, NOWHERE = (
    lib.IPS_GO_HERE,
    lib.IPS_GO_OPEN,
    lib.IPS_GO_FINAL,
    lib.IPS_GO_ASK,
    lib.IPS_GO_NOWHERE,
)
PREPARING, LEAVING, READY, TAKING = (
    lib.IPS_REMAP_PREPARING,
    lib.IPS_REMAP_LEAVING,
    lib.IPS_REMAP_READY,
    lib.IPS_REMAP_TAKING,
)
NODES = "abc"


class Broken(AssertionError):
    """An invariant does not hold; the text has the way there."""


@dataclass(frozen=True, slots=True)
class Rules:
    """As the control plane keeps them. Each field can be set wrong."""

    fence_before_taking: bool = True
    taking_before_flip: bool = True
    leaving_before_fence: bool = True
    channels_until_drained: bool = True


@dataclass(frozen=True, slots=True)
class Remap:
    """``giver`` -> ``taker``; roles 0: not set yet, or cleared."""

    giver: str
    taker: str
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """``owner``: whose server has it; "": nobody yet. ``tcp``: only its SYN opens. ``old``: from before any
    remap, and nobody has ever seen a packet of it (idle)."""

    owner: str = ""
    closed: bool = False
    tcp: bool = True
    half: bool = False  # one side has closed: what is sent still has to arrive


@dataclass(frozen=True, slots=True)
class State:
    step: int = 0  # of the script
    roles: tuple[tuple[int, int], ...] = ()  # of each remap: giver's, taker's
    points: tuple[str, ...] = ("a", "a")  # where each distribution point sends
    flows: tuple[Flow, ...] = ()
    tables: tuple[tuple[Known, ...], ...] = ()  # by node, by flow: its own
    told: tuple[tuple[Known, ...], ...] = ()  # by remap, by flow: what the taker was told
    fence: tuple[tuple[Known, ...] | None, ...] = ()  # by remap: what has to be told


@cache
def ask_core(
    came: int, asker: int, opens: bool, own: Known, relations: tuple[tuple[int, int, int, Known], ...]
) -> tuple[int, int]:
    """``ips_remap_decide``."""
    case = ffi.new("struct ips_remap_case *")
    case.__setattr__("from", came)
    case.asker, case.opens, case.own, case.n = asker, opens, own, len(relations)
    for row, (role, flags, peer, known) in zip(case.at, relations, strict=False):
        row.role, row.flags, row.peer, row.known = role, flags, peer, known
    out = lib.ips_remap_decide(case)
    return int(out.what), int(out.to)


@dataclass
class World:
    remaps: tuple[Remap, ...]
    script: tuple[
        tuple[str, int], ...
    ]  # steps of the control plane: what, which remap (or distribution point)
    rules: Rules = field(default_factory=Rules)
    ends_at_once: bool = False  # nobody uses a flow's ports again before its takers know of its end
    may_drop: bool = False  # what opens nothing, where two nodes change their roles one after the other

    # ---- what packets meet ----

    def relations(self, s: State, node: str, flow: int) -> list[tuple[int, int, int, int, Known]]:
        """Of a node, by remap: its number, role, flags, peer, what is known there of the flow."""
        rows = []
        for i, remap in enumerate(self.remaps):
            if node == remap.giver and s.roles[i][0]:
                rows.append((i, s.roles[i][0], remap.flags, NODES.index(remap.taker), UNKNOWN))
            if node == remap.taker and s.roles[i][1]:
                rows.append((i, s.roles[i][1], remap.flags, NODES.index(remap.giver), s.told[i][flow]))
        return rows

    def way(self, s: State, node: str, flow: int, opens: bool) -> tuple[str, bool, int]:
        """Where the packet is delivered ("": nowhere), whether as an opening, after how many crossings."""
        came, asker, crossings = NETWORK, 255, 0
        while True:
            rows = self.relations(s, node, flow)
            left = leaves([row[1] for row in rows], came == ASK)
            known = tuple(
                (role, flags, peer, said(what, opens and not left)) for _, role, flags, peer, what in rows
            )
            own = said(s.tables[NODES.index(node)][flow], opens and not left)
            what, to = ask_core(came, asker, opens, own, known) if rows else (HERE, 0)
            if what in (HERE, OPENS, NOWHERE):
                return ("" if what == NOWHERE else node), what == OPENS, crossings
            if came == FINAL:
                raise Broken("crosses after FINAL")
            crossings += 1
            if crossings > 2:
                raise Broken("crosses a third time: a loop")
            came, asker, node = (FINAL if what == TO_FINAL else ASK), NODES.index(node), NODES[known[to][2]]
            if not any(NODES[row[3]] == NODES[asker] for row in self.relations(s, node, flow)):
                raise Broken(f"{node} has no channel to {NODES[asker]} any more")

    # ---- what may happen next ----

    def packets(self, s: State) -> Iterator[tuple[str, State]]:
        for point, first in enumerate(s.points):
            for i, flow in enumerate(s.flows):
                if not flow.owner or (flow.closed and flow.tcp):
                    yield self.packet(s, point, first, i, opens=True)
                if flow.owner:
                    yield self.packet(s, point, first, i, opens=not flow.tcp)

    def packet(self, s: State, point: int, first: str, i: int, *, opens: bool) -> tuple[str, State]:
        flow = s.flows[i]
        word = f"flow {i} {'opens' if opens else 'speaks'} by {point} to {first}"
        anew = not flow.owner or (flow.tcp and opens)
        at, _, _ = self.way(s, first, i, opens)
        if not at:
            if not opens and not self.may_drop:
                raise Broken(f"{word}: dropped, but it opens nothing")
            return f"{word}, dropped", s
        if not anew and at != flow.owner:
            if not flow.closed:
                raise Broken(f"{word}: delivered at {at}, its owner is {flow.owner}")
            return f"{word}, over, at {at}", s  # both sides have closed: it breaks no more
        if anew and self.has_left(s, at) and not self.had(s, at, i):
            raise Broken(f"{word}: opened at {at}, which leaves")
        made = replace(flow, owner=at, closed=False, half=False) if anew else flow
        flows = (*s.flows[:i], made, *s.flows[i + 1 :])
        return f"{word}, at {at}", replace(
            s, flows=flows, tables=put(s.tables, NODES.index(at), i, kept(made))
        )

    def had(self, s: State, node: str, i: int) -> bool:
        """Whether it had the flow, as far as it, or whoever followed it, has heard."""
        told = any(s.told[k][i] for k, remap in enumerate(self.remaps) if remap.giver == node)
        return told or bool(s.tables[NODES.index(node)][i])

    def has_left(self, s: State, node: str) -> bool:
        """The newest of its remaps in which something goes elsewhere because of it says so."""
        last = 0
        for i, remap in enumerate(self.remaps):
            if node == remap.giver and s.roles[i][0]:
                last = s.roles[i][0]
            if node == remap.taker and s.roles[i][1]:
                last = s.roles[i][1]
        return last == LEAVING

    def closings(self, s: State) -> Iterator[tuple[str, State]]:
        """TCP: one side, then both; UDP: forgotten after a silence."""
        for i, flow in enumerate(s.flows):
            if not flow.owner or flow.closed:
                continue
            if not flow.tcp:
                made, word = Flow(tcp=False), "is forgotten"
            elif flow.half:
                made, word = replace(flow, closed=True), "closes"
            else:
                made, word = replace(flow, half=True), "half closes"
            flows = (*s.flows[:i], made, *s.flows[i + 1 :])
            at = NODES.index(flow.owner)
            seen = s.tables[at][i] or flow.tcp  # its FIN is a packet, too
            known = kept(made) if made.owner and seen else UNKNOWN
            told = s.told
            for k, remap in enumerate(self.remaps):
                if (made.closed or not made.owner) and self.ends_at_once and remap.giver == flow.owner:
                    told = put(told, k, i, known)
            yield f"flow {i} {word}", replace(s, flows=flows, tables=put(s.tables, at, i, known), told=told)

    def mirrors(self, s: State) -> Iterator[tuple[str, State]]:
        """One change of one flow gets through."""
        for i, remap in enumerate(self.remaps):
            if not all(s.roles[i]):
                continue
            for flow, known in enumerate(s.tables[NODES.index(remap.giver)]):
                if s.told[i][flow] != known:
                    yield f"remap {i} tells of flow {flow}", replace(s, told=put(s.told, i, flow, known))

    def control(self, s: State) -> Iterator[tuple[str, State]]:
        """The script's next step, when it may be done; distribution points flip in any order."""
        if s.step == len(self.script):
            return
        what, i = self.script[s.step]
        following = replace(s, step=s.step + 1)
        name = f"{what} {i}"
        if what == "ready":
            yield name, replace(following, roles=role(s.roles, i, taker=READY))
        elif what == "preparing":
            yield name, replace(following, roles=role(s.roles, i, giver=PREPARING))
        elif what == "leaving":
            table = s.tables[NODES.index(self.remaps[i].giver)]
            fence = (*s.fence[:i], table, *s.fence[i + 1 :])
            yield name, replace(following, roles=role(s.roles, i, giver=LEAVING), fence=fence)
        elif what == "taking":
            if not self.rules.fence_before_taking or self.is_past(s, i):
                yield name, replace(following, roles=role(s.roles, i, taker=TAKING))
        elif what == "fenced":
            if not self.rules.fence_before_taking or self.is_past(s, i):
                yield name, following
        elif what == "flip":
            yield (
                f"{name} to {self.remaps[self.target(s)].taker}",
                replace(
                    following, points=(*s.points[:i], self.remaps[self.target(s)].taker, *s.points[i + 1 :])
                ),
            )
        elif what == "clear":
            remap = self.remaps[i]
            if not self.rules.channels_until_drained or self.is_drained(s, remap):
                yield name, replace(following, roles=role(s.roles, i, giver=0, taker=0))

    def target(self, s: State) -> int:
        """The last remap whose taking stands before this flip in the script."""
        takings = [i for what, i in self.script[: s.step] if what == "taking"]
        return takings[-1] if takings else 0

    def is_past(self, s: State, i: int) -> bool:
        """Every flow that there was at the fence is told, as it was or as it is."""
        fence, now = s.fence[i], s.tables[NODES.index(self.remaps[i].giver)]
        assert fence is not None
        return all(
            told in (then, at) or not then for told, then, at in zip(s.told[i], fence, now, strict=True)
        )

    def is_drained(self, s: State, remap: Remap) -> bool:
        """No flow of the giver is left, and no packet comes to it from the network."""
        left = any(flow.owner == remap.giver and not flow.closed for flow in s.flows)  # idle ones, too
        return not left and remap.giver not in s.points

    def following(self, s: State) -> Iterator[tuple[str, State]]:
        yield from self.control(s)
        yield from self.mirrors(s)
        yield from self.packets(s)
        yield from self.closings(s)

    def explore(self, start: State, most: int = 3_000_000) -> int:
        """Visits every state. Returns how many. Raises Broken with the shortest way to what is wrong."""
        came: dict[State, tuple[State | None, str]] = {start: (None, "start")}
        queue = deque([start])
        while queue:
            s = queue.popleft()
            try:
                for word, following in self.following(s):
                    if following not in came:
                        came[following] = (s, word)
                        queue.append(following)
            except Broken as why:
                raise Broken(f"{why}; by: {' | '.join(path(came, s))}") from None
            assert len(came) < most, "more states than there should be"
        last = max(s.step for s in came)
        if last < len(self.script):
            raise Broken(f"never gets past {self.script[last]}")
        return len(came)


def leaves(roles: list[int], is_asked: bool) -> bool:
    """As native/ips_remap_packet.c finds out before it asks."""
    held = [role for role in roles if role != PREPARING and (role != READY or is_asked)]
    return bool(held) and held[-1] == LEAVING


def kept(flow: Flow) -> Known:
    """As its owner's table has it."""
    return CLOSED if flow.closed else HALF if flow.half else OPEN


def said(known: Known, opens: bool) -> Known:
    """As the core is told (known_as in native/ips_remap_packet.c)."""
    return (CLOSED if opens else OPEN) if known == HALF else known


def put(rows: tuple[tuple[Known, ...], ...], i: int, k: int, value: Known) -> tuple[tuple[Known, ...], ...]:
    row = (*rows[i][:k], value, *rows[i][k + 1 :])
    return (*rows[:i], row, *rows[i + 1 :])


def role(
    roles: tuple[tuple[int, int], ...], i: int, *, giver: int | None = None, taker: int | None = None
) -> tuple[tuple[int, int], ...]:
    old = roles[i]
    made = (old[0] if giver is None else giver, old[1] if taker is None else taker)
    return (*roles[:i], made, *roles[i + 1 :])


def path(came: dict[State, tuple[State | None, str]], s: State | None) -> list[str]:
    words: list[str] = []
    while s is not None:
        s, word = came[s]
        words.append(word)
    return words[::-1]


def begin(world: World, flows: tuple[Flow, ...], seen: tuple[bool, ...]) -> State:
    """seen: which flows are in their owner's table already."""
    n = len(world.remaps)
    tables = tuple(
        tuple(
            kept(flow) if flow.owner == node and known else UNKNOWN
            for flow, known in zip(flows, seen, strict=True)
        )
        for node in NODES
    )
    return State(
        roles=((0, 0),) * n,
        flows=flows,
        tables=tables,
        told=((UNKNOWN,) * len(flows),) * n,
        fence=(None,) * n,
    )
