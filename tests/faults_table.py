"""The faults of an installation, as data: how each is made, what the design says of it, and what is seen.

A row says by when a client's new connections have to be answered again, from where that bound comes, which of
the kept connections may be lost, and who is out of reach until it is healed, because of where the client is.
`run` makes one row in tests.faults_lab's world: everything is at rest and at home, connections are opened and
speak, the fault strikes, the clients say when they are served again, it is healed, and the connections are
counted. The bounds are the design's (docs/faults.md), none of them was measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.faults_lab import AT, CLIENTS, Client, World, until
from tests.remap_agents import _pids

STEP_S = 0.1
STEADY_S = 1.5
"""Served again: for so long everything succeeded."""
WATCH_S = 8.0
"""Where nothing is to be noticed: for so long at least, above all that goes stale."""
ROUTED_S, FAILOVER_S, FRR_S = 0.3, 1.0, 11.0
STALE_S, LEASE_S, LOOK_S, ROLL_S, START_S = 5.0, 10.0, 1.0, 0.45, 1.0
HOLD_S = 9.0 + ROUTED_S
WAIT_S = (20 + 10) * 1.01 / 0.99
Strike = Callable[[World], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """``bound_s``: until all that is not in ``dark`` is served; 0: no new connection fails. ``may_lose``,
    ``dark``: beginnings of flows ("c1 web"). ``leads``: the other director leads within so long.
    ``shop``: of the exclusive workload alone."""

    name: str
    strike: Strike
    bound_s: float
    why: str
    may_lose: tuple[str, ...] = ()
    dark: tuple[str, ...] = ()
    leads: float = 0.0
    shop: bool = False


@dataclass
class Row:
    """What was seen. ``again_s``: until all were served; ``dark``: who was not before it was healed."""

    fault: Fault
    connections: int
    again_s: float = 0.0
    leads_s: float | None = None
    late: dict[str, float] = field(default_factory=dict)
    kept: int = 0
    lost: dict[str, dict[str, int]] = field(default_factory=dict)
    allowed: int = 0

    @property
    def wrongly_lost(self) -> dict[str, dict[str, int]]:
        return {flow: why for flow, why in self.lost.items() if not flow.startswith(self.fault.may_lose)}

    @property
    def in_time(self) -> bool:
        led = self.leads_s is None or self.leads_s <= self.fault.leads
        return self.again_s <= self.fault.bound_s + STEP_S and led


def killed(pid: Callable[[World], int], again: Callable[[World], None] = lambda _w: None) -> Strike:
    @contextlib.contextmanager
    def strike(world: World) -> Iterator[None]:
        number = pid(world)
        world.mark()
        os.kill(number, signal.SIGKILL)
        yield
        again(world)

    return strike


def process(name: str, again: Callable[[World], None]) -> Strike:
    """One of ours, which its service would start again; that is done when the fault is healed."""

    @contextlib.contextmanager
    def strike(world: World) -> Iterator[None]:
        world.mark()
        world.kill(name)
        yield
        again(world)

    return strike


def engine_of(node: str) -> Callable[[World], int]:
    """Asked of /proc: it takes less time than its agent."""
    return lambda world: _pids("--socket", str(world.lab.directory / node / "run" / "engine.sock"))[0]


@contextlib.contextmanager
def node_dies(world: World, node: str) -> Iterator[None]:
    """Engine and agent; who keeps its workloads goes on."""
    pid = engine_of(node)(world)
    world.mark()
    world.processes[node].kill()
    os.kill(pid, signal.SIGKILL)
    yield
    world.processes[node].wait()
    world.agent(node)


@contextlib.contextmanager
def director_dies(world: World, leads: bool) -> Iterator[None]:
    name = world.leader()
    name = name if leads else next(other for other in AT if other != name)
    world.mark()
    world.kill(name)
    yield
    world.director(name)


@contextlib.contextmanager
def etcd_dies(world: World) -> Iterator[None]:
    world.mark()
    world.etcd.kill()
    yield
    world.etcd.start()


@contextlib.contextmanager
def router_dies(world: World, *names: str, at_once: bool = False) -> Iterator[None]:
    """FRR's daemons and BIRD are started again by what watches over them."""
    world.mark()
    for name in names:
        world.routers.processes[name].kill()
        world.routers.processes[name].wait()
    if at_once:
        for name in names:
            world.routers.start(name)
    yield
    for name in () if at_once else (*names, *(("bgpd",) if "zebra" in names else ())):
        if name == "bgpd":  # watchfrr starts it again with zebra
            world.routers.processes[name].kill()
            world.routers.processes[name].wait()
        world.routers.start(name)


def link(a: str, b: str) -> Strike:
    return lambda world: world.cut(a, b)


@contextlib.contextmanager
def unmanaged(world: World, node: str) -> Iterator[None]:
    with world.deaf(node, 7443):
        yield


@contextlib.contextmanager
def without_etcd(world: World, leads: bool) -> Iterator[None]:
    name = world.leader()
    name = name if leads else next(other for other in AT if other != name)
    with world.deaf("c2", 2379, str(world.lab.address(AT[name], 4))):
        yield


DATA = "Nodes forward without it"
TOLD = "Nodes go on without a director"
ROUTE = "The route hangs on the engine's device; the other point has the same tables"
MOVED = "Echoes 0.1 s + shared_after 0.45 s + roll-out"
LEADS_S = LEASE_S + 2.0
FAULTS = (
    Fault("leading director", partial(director_dies, leads=True), 0, DATA, leads=LEADS_S),
    Fault("standing-by director", partial(director_dies, leads=False), 0, DATA),
    Fault("etcd", etcd_dies, 0, TOLD),
    *(
        Fault(f"agent of {node}", process(node, lambda world, node=node: world.agent(node)), 0, DATA)  # type: ignore[misc]
        for node in "ABCD"
    ),
    Fault("engine of A", killed(engine_of("A")), FAILOVER_S, MOVED, ("c1 web", "c3 web")),
    Fault("engine of B", killed(engine_of("B")), FAILOVER_S, MOVED, ("c1 app", "c3 app")),
    Fault("engine and agent of A", partial(node_dies, node="A"), FAILOVER_S, MOVED, ("c1 web", "c3 web")),
    Fault("engine of C", killed(engine_of("C")), ROUTED_S, ROUTE),
    Fault("engine of D", killed(engine_of("D")), ROUTED_S, ROUTE),
    Fault("BIRD of C", killed(lambda world: world.bird("C")), ROUTED_S, "The session ends with it"),
    Fault("BIRD of D", killed(lambda world: world.bird("D")), ROUTED_S, "The session ends with it"),
    Fault("keeper of B", killed(lambda world: world.keeper("B")), 0, "Its leases are on the disk", shop=True),
    Fault("engine and agent of B, for the exclusive workload", partial(node_dies, node="B"),
          WAIT_S + 3 * LOOK_S + START_S + ROLL_S,
          "(lease 20 s + stop_time 10 s) x 1.01/0.99, three looks, its start, roll-out",
          ("c1 app", "c3 app"), shop=True),
    Fault("BIRD of r1", lambda w: router_dies(w, "bird"), 0,
          "The router's kernel keeps its routes"),
    Fault("bgpd of r2, started again at once", lambda w: router_dies(w, "bgpd", at_once=True), FRR_S,
          "c3 has no other router: bgpd starts, D's session opens (retry 5 s + wait 2 s, twice)"),
    Fault("zebra of r2", lambda w: router_dies(w, "zebra"), 0, "The router's kernel keeps its routes"),
    Fault("link C-r1", link("r1", "C"), ROUTED_S, "The router sees that the link is dark, or by BFD"),
    Fault("link D-r2", link("r2", "D"), HOLD_S, "No BFD with r2: its hold time, 9 s, and the routers"),
    Fault("link A-r2", link("r2", "A"), FAILOVER_S, MOVED, ("c1 web", "c3 web")),
    Fault("link B-r1", link("r1", "B"), FAILOVER_S, MOVED, ("c1 app", "c3 app")),
    Fault("link r1-r2", link("r1", "r2"), STALE_S + LOOK_S + ROLL_S,
          "What D saw is stale after 5 s; a look; roll-out",
          ("c1 web", "c3 web"), dark=("c3 app",)),
    *(
        Fault(f"management of {node}", partial(unmanaged, node=node), 0, TOLD)
        for node in "ABCD"
    ),
    Fault("etcd from the leader", partial(without_etcd, leads=True), 0, DATA, leads=LEADS_S),
    Fault("etcd from the other one", partial(without_etcd, leads=False), 0, DATA),
)  # fmt: skip
FEW = ("leading director", "engine of C", "agent of B", "link A-r2")


def run(world: World, fault: Fault, connections: int = 500) -> Row:
    """One row. The world is at rest again afterwards."""
    world.lead("d1")
    world.home()
    row = Row(fault, connections)
    with ExitStack() as stack:
        clients = [Client(world.lab, node, connections // 2, 1.0, fault.shop) for node in CLIENTS]
        for one in clients:
            assert one.line() == "ready\n"
        before = world.leader()
        stack.enter_context(fault.strike(world))
        struck = world.struck_s
        if fault.leads:
            other = next(name for name in AT if name != before)
            until(lambda: world.leader() == other, f"{other} leads")
            row.leads_s = time.monotonic() - struck
        late = until(lambda: _served(clients, fault, struck), f"{fault.name}: served again")
        row.late = {flow: round(s, 2) for flow, s in late.items() if s > 0}
        row.again_s = max(late.values())
    world.settled()
    for one in clients:
        for flow, found in one.end().items():
            row.kept += found["kept"]
            row.allowed += (found["kept"] + sum(found["lost"].values())) * flow.startswith(fault.may_lose)
            if found["lost"]:
                row.lost[flow] = found["lost"]
    return row


def _served(clients: list[Client], fault: Fault, struck: float) -> dict[str, float] | None:
    """Flow -> s from the strike to the first attempt after which none failed; None: not yet."""
    found: dict[str, float] = {}
    for one in clients:
        for flow, (bad, good, first, _, _) in one.look().items():
            if flow.startswith(fault.dark or ("-",)) or (fault.shop and " shop " not in flow):
                continue
            least_s = STEADY_S if fault.bound_s else WATCH_S
            if good < max(bad + STEADY_S, struck + least_s):
                return None
            found[flow] = first - struck if bad > struck - STEP_S else 0.0
    return found


def facts(row: Row) -> dict[str, Any]:
    return {
        "fault": row.fault.name, "why": row.fault.why, "bound_s": row.fault.bound_s, "again_s": row.again_s,
        "leads_s": row.leads_s, "kept": row.kept, "lost": row.lost, "allowed": row.allowed, "late": row.late,
        "wrongly_lost": row.wrongly_lost, "in_time": row.in_time,
    }  # fmt: skip
