"""The exclusive protocol as a model whose every state is visited: a director, two nodes, their clocks, and a
network that delays, repeats and loses. The decisions are those of ipshare.exclusive; the world is here.

Time is a tick of true time; each machine's clock runs slow, true or fast, within the drift that ``wait_s``
was made for. Only differences of times matter, so that there are few enough states to visit them all.

What can happen, in any order: a tick; the director hears of the node that has it, sends a lease (if the store
says that this director still counts) or an order to stop; what it sent arrives, twice, or never; a keeper
does what is due, or is killed and started again, or its machine starts anew; the workload ends by itself;
another director goes on from the store beside the old one; the workload is wanted elsewhere. `Broken` where
it runs at both nodes. ``Rules`` leaves out one thing that the protocol does: then it has to break.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ipshare.errors import Refused
from ipshare.exclusive import grants, holder
from ipshare.exclusive.grants import Grant, Seen
from ipshare.exclusive.holder import Held
from ipshare.exclusive.timing import wait_s

UNIT = 10
"""Of a true clock, in a tick; of a slow one 9, of a fast one 11."""
LEASE, STOP, DRIFT = 4 * UNIT, 2 * UNIT, 0.1
WAIT = int(wait_s(LEASE, STOP, DRIFT)) + 1
FAR = WAIT + UNIT
"""Longer ago than anybody asks."""
FRESH = UNIT + 1
NODES = ("a", "b")
Message = tuple[int, int, int, int]


class Broken(AssertionError):
    """It runs at two nodes, by these steps."""


@dataclass(frozen=True)
class Rules:
    """What the protocol does."""

    asks_store: bool = True  # before a lease leaves, the director asks whether it still counts
    echoes: bool = True  # a lease counts from the node's own reading, not from when it arrives
    wait: int = WAIT  # how long the director waits: lease and stop time, by the worst clocks
    remembers: bool = True  # a node takes no lease of what it gave back
    stops_early: bool = True  # so that it is stopped when the lease ends
    begins_quiet: bool = True  # a director that begins counts from then


@dataclass(frozen=True)
class Troubles:
    """What may happen once, beside lost and late messages."""

    director: bool = False
    keeper: bool = False
    machine: bool = False
    sticks: bool = False  # stops fail, again and again


class Node(NamedTuple):
    """Its clock shows 0 now: times move. ``stops``: of a stop under way, to its end, by its own clock."""

    held: Held = Held(word="stopped")
    stops: int = 0
    boot: int = 0

    @property
    def runs(self) -> bool:
        return self.held.word in ("starting", "running", "stopping", "stuck")


class Director(NamedTuple):
    """``quiet``: how long ago, by its clock, the newest reading came that a lease of this grant was counted
    from. ``stamp``: what the holder's clock showed, less what it shows now; its boot; how long ago that
    came."""

    counts: bool = True
    grant: Grant = Grant(1, "a", False)
    quiet: int = 0
    stamp: tuple[int, int, int] | None = None
    said: Seen | None = None


class World(NamedTuple):
    """``leases``, ``order``: the last of each director on its way: (node, epoch, since, boot)."""

    nodes: tuple[Node, ...]
    directors: tuple[Director, ...]
    kept: Grant
    wanted: str
    leases: tuple[Message | None, ...]
    order: Message | None
    left: Troubles


def begin(troubles: Troubles) -> World:
    """Epoch 1 runs at a, whose lease is new."""
    runs = Node(Held(1, LEASE, LEASE, word="running"))
    director = Director(stamp=(0, 0, 0), said=Seen(1, 0, "running"))
    return World((runs, Node()), (director,), director.grant, "a", (None, None), None, troubles)


Step = tuple[str, World]


def replaced() -> World:
    """As `begin`, when another director has just taken over, and the workload is wanted at b."""
    world = begin(Troubles())
    old = Director(False, world.kept, 0, (0, 0, 0))
    return world._replace(directors=(old, Director(grant=world.kept)), wanted="b")


def stuck() -> World:
    """A could not stop it, which the director has heard; it tries again, and may fail again."""
    world = begin(Troubles(sticks=True))
    node = Node(Held(1, leaving=1, word="stuck"))
    grant = replace(world.kept, leaving=True, stuck=True)
    director = Director(grant=grant, said=Seen(1, 0, "stuck"))
    return world._replace(nodes=(node, Node()), directors=(director,), kept=grant, wanted="b")


def explore(rates: tuple[int, int, int], first: World, rules: Rules = Rules()) -> list[World]:
    """All worlds that can be reached from the first one. ``rates``: of the director, of a, of b."""
    came: dict[World, tuple[World | None, str]] = {first: (None, "")}
    edge = deque([first])
    while edge:
        world = edge.popleft()
        for name, after in _steps(world, rates, rules):
            if after not in came:
                came[after] = (world, name)
                if all(node.runs for node in after.nodes):
                    raise Broken(" | ".join(_way(came, after)))
                edge.append(after)
    return list(came)


def _way(came: dict[World, tuple[World | None, str]], world: World | None) -> list[str]:
    found: list[str] = []
    while world is not None:
        world, name = came[world]
        found.append(name)
    return found[-2::-1]


def _steps(world: World, rates: tuple[int, int, int], rules: Rules) -> Iterator[Step]:
    yield from _tick(world, rates, rules)
    if world.wanted == "a":
        yield "wanted at b", world._replace(wanted="b")
    for index, director in enumerate(world.directors):
        yield from _director(world, index, director, rules)
    for message in (*world.leases, world.order):
        if message is not None:
            yield from _arrives(world, message, message is world.order, rules)
    for index, node in enumerate(world.nodes):
        yield from _node(world, index, node, rules)
    if world.left.director:
        new = Director(grant=world.kept, quiet=0 if rules.begins_quiet else FAR)
        old = world.directors[0]._replace(counts=False, quiet=0, said=None)  # it decides nothing any more
        old = old._replace(stamp=None) if rules.asks_store else old
        yield (
            "another director",
            world._replace(directors=(old, new), left=replace(world.left, director=False)),
        )


def _tick(world: World, rates: tuple[int, int, int], rules: Rules) -> Iterator[Step]:
    """A keeper does in time what is due (the slack of a lease is for timers that are late): no tick passes
    the time to stop, or the end of a stop."""
    nodes = []
    for node, rate in zip(world.nodes, rates[1:], strict=True):
        held, stops = node.held, node.stops
        if held.until_ns:
            until = max(0, held.until_ns - rate)
            held = replace(held, until_ns=until, lease_ns=held.lease_ns if until else 0)
        if held.word == "stopping":
            if stops < rate:
                return
            stops -= rate
        elif node.runs and not held.may_run(0, _stop(rules)) and not world.left.sticks:
            return
        nodes.append(Node(held, stops, node.boot))
    directors = []
    for director in world.directors:
        stamp, said = director.stamp, director.said
        if stamp is not None:
            rate = rates[1 + NODES.index(director.grant.node)]
            stamp = (max(stamp[0] - rate, -LEASE), stamp[1], min(stamp[2] + rates[0], FAR))
            said = said if stamp[2] <= FRESH else None
        quiet = min(director.quiet + rates[0], FAR) if director.counts else 0
        directors.append(Director(director.counts, director.grant, quiet, stamp, said))
    leases = tuple(
        one and (*one[:2], max(one[2] - rates[1 + one[0]], -LEASE), one[3]) for one in world.leases
    )
    yield "tick", world._replace(nodes=tuple(nodes), directors=tuple(directors), leases=leases)


def _director(world: World, index: int, director: Director, rules: Rules) -> Iterator[Step]:
    grant, who = director.grant, f"director {index}"
    if not director.counts and rules.asks_store:
        return

    def now(director: Director, **more: Any) -> World:
        return world._replace(directors=_with(world.directors, index, director), **more)

    after = grants.step(grant, world.wanted, director.said, director.quiet, rules.wait, 0)
    if after != grant and director.counts:  # what it decides is in the store, or not at all
        if after.epoch != grant.epoch:
            director = Director(True, after, FAR)  # nobody was given a lease of that one
        yield f"{who}: {after}", now(director._replace(grant=after), kept=after)
        director = world.directors[index]
    at = NODES.index(grant.node)
    node = world.nodes[at]
    if grant.leaving and director.counts:
        yield f"{who} orders off {grant.node}", world._replace(order=(at, grant.epoch, 0, 0))
    elif director.stamp is not None and (director.counts or not rules.asks_store):
        message = (at, grant.epoch, *director.stamp[:2])
        sent = director._replace(quiet=min(director.quiet, director.stamp[2]) if director.counts else 0)
        yield f"{who} sends a lease to {grant.node}", now(sent, leases=_with(world.leases, index, message))
    said = Seen(node.held.epoch, node.held.released, node.held.word) if director.counts else None
    heard = director._replace(stamp=(0, node.boot, 0), said=said)
    yield f"{who} hears {grant.node}", now(heard)


def _arrives(world: World, message: Message, is_order: bool, rules: Rules) -> Iterator[Step]:
    """It may come again."""
    to, epoch, since, boot = message
    node = world.nodes[to]
    if is_order:
        held = holder.ordered_off(node.held, epoch)
    elif boot != node.boot:
        return
    else:
        known = node.held if rules.remembers else replace(node.held, released=0, leaving=0)
        try:
            held = holder.granted(known, epoch, since if rules.echoes else 0, LEASE, 0)
        except Refused:
            return
        if held.until_ns <= 0:
            held = replace(held, until_ns=0, lease_ns=0)
    what = "the order" if is_order else "a lease"
    yield (
        f"{what} arrives at {NODES[to]}",
        world._replace(nodes=_with(world.nodes, to, node._replace(held=held))),
    )


def _node(world: World, index: int, node: Node, rules: Rules) -> Iterator[Step]:
    name, left = NODES[index], world.left
    due = holder.due(node.held, 0, _stop(rules))

    def now(held: Held, stops: int = 0, boot: int = node.boot, left: Troubles = left) -> World:
        return world._replace(nodes=_with(world.nodes, index, Node(held, stops, boot)), left=left)

    if due == "start":
        yield f"{name} starts", now(holder.became(node.held, "running"))
    if due == "stop":
        yield f"{name} stops", now(holder.became(node.held, "stopping"), STOP)
    if node.held.word == "stopping":
        yield f"{name} has stopped", now(holder.became(node.held, "stopped"))
        if left.sticks:
            yield f"{name} could not stop it", now(holder.became(node.held, "stuck"))
    if node.held.word == "running":
        yield f"{name}: it ended by itself", now(holder.became(node.held, "stopped"))
    if left.keeper and node.held.word in ("running", "stopping"):  # it is back before anything is late
        word = "running" if node.held.may_run(0, _stop(rules)) else "stuck"
        again = now(holder.became(node.held, "running" if word == "running" else "stuck"))
        yield f"another keeper at {name}", again._replace(left=replace(left, keeper=False))
    if left.machine and node.runs:
        fresh = Held(released=node.held.released, word="stopped")
        yield f"{name} boots", now(fresh, 0, node.boot + 1, replace(left, machine=False))


def _stop(rules: Rules) -> int:
    return STOP if rules.stops_early else -STOP


def _with(items: Any, index: int, item: Any) -> Any:
    return (*items[:index], item, *items[index + 1 :])
