"""The faults of a redundant pair, as data: how each is made, what is to be seen of it, and how it is undone.

A row is about one node, the active one (DESIGN.md 9, decision 0013). Its `strike` makes the fault and, at
the end of the block, heals it. The nodes are tests.pair_nodes' in the lab of tests.pair_lab; what is seen
while the fault lasts is asked of engines directly, since agents are among what is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipshare.core import ffi, lib
from ipshare.errors import IpshareError
from tests.engine_lab import run
from tests.pair_lab import VIPS, Half, until
from tests.pair_nodes import Node, Nodes
from tests.pair_probes import Probes

PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000
ACTIVE, STANDBY, INOP = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY, lib.IPS_PAIR_INOP
SILENT: frozenset[int] = frozenset()
"""Of a node that nobody can ask."""
PATIENT = 25
"""Dead times that a takeover may take on a machine that does much else."""


class World:
    """Two nodes, probes through them, and the engines' own words."""

    def __init__(self, nodes: Nodes, probes: Probes) -> None:
        self.nodes, self.lab, self.probes = nodes, nodes.lab, probes
        self.halves: dict[str, Half] = {"a": self.lab.a, "b": self.lab.b}
        for node in (nodes.a, nodes.b):
            self.half(node).attach(node.dir / "run")

    def half(self, node: Node) -> Half:
        return self.halves[node.name]

    def state(self, node: Node) -> Any:
        """What its engine says of the pair; None: no engine, or no pair yet."""
        with contextlib.suppress(IpshareError, AssertionError):
            return self.half(node).state()
        return None

    def answers(self, node: Node) -> bool:
        """Whether its engine can be asked at all: not where the thread that answers is the one that hangs."""
        return self.state(node) is not None

    def is_in(self, node: Node, *states: int) -> bool:
        state = self.state(node)
        return state is not None and int(state["state"]) in states

    def why(self, node: Node) -> str:
        """The reason of its engine's last change."""
        state = self.state(node)
        return "" if state is None else ffi.string(lib.ips_pair_reason_name(int(state["reason"]))).decode()

    def roles(self) -> tuple[Node, Node] | None:
        """(the active one, the standby), where each hears the other on every path and says the same."""
        found = [self.state(node) for node in (self.nodes.a, self.nodes.b)]
        if any(one is None or int(one["paths_up"]) != 3 for one in found):
            return None
        if found[0]["epoch"] != found[1]["epoch"]:
            return None
        said = [(int(one["state"]), int(one["peer_state"])) for one in found]
        if said == [(ACTIVE, STANDBY), (STANDBY, ACTIVE)]:
            return self.nodes.a, self.nodes.b
        return (self.nodes.b, self.nodes.a) if said == [(STANDBY, ACTIVE), (ACTIVE, STANDBY)] else None

    def settled(self) -> tuple[Node, Node]:
        return until(self.roles)

    def router(self) -> str:
        """What is configured at the upstream router: its routes and its static neighbours."""
        client = self.lab.names["client"]
        shown = ("ip route show", "ip -6 route show", "ip neighbor show nud permanent", "ip rule show")
        return "".join(run(client, words) for words in shown)

    def turned_to(self, node: Node) -> bool:
        """Whether the router has this node's MAC address for both VIPs."""
        return all(self.nodes.neighbour(vip) == self.lab.mac(node.name) for vip in VIPS)

    def serves(self, node: Node, since_ns: int) -> int:
        """When the first probe to the VIP, sent since then, came out of that node."""
        return until(lambda: self.probes.served(self.half(node).number, since_ns))

    def port(self, node: Node, up: bool) -> None:
        """The cable of its access link, at the switch's end."""
        run(self.lab.names["lan"], f"ip link set to-{node.name} {'up' if up else 'down'}")

    def links(self, node: Node, names: tuple[str, ...], up: bool) -> None:
        for device in names:
            run(self.lab.names[node.name], f"ip link set {device} {'up' if up else 'down'}")

    @property
    def between(self) -> tuple[str, ...]:
        """The links from node to node; the first one is path 0 of the pair."""
        return ("direct", "second") if self.lab.kind.owns_lan else ("direct",)


@contextlib.contextmanager
def agent_killed(world: World, node: Node) -> Iterator[None]:
    assert node.agent is not None
    node.agent.kill()
    node.agent.wait()
    yield
    node.start()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def agent_stopped(world: World, node: Node) -> AbstractContextManager[None]:
    assert node.agent is not None
    return stopped(node.agent.pid)


@contextlib.contextmanager
def engine_killed(world: World, node: Node) -> Iterator[None]:
    """Its agent, which would start another one within the dead time, is held until the heal."""
    pid = node.status()["engine_pid"]
    with agent_stopped(world, node):
        os.kill(pid, signal.SIGKILL)
        yield


def engine_stopped(world: World, node: Node) -> AbstractContextManager[None]:
    return stopped(node.status()["engine_pid"])


@contextlib.contextmanager
def hung(pid: int, thread: str) -> Iterator[None]:
    """One thread of a process stands still, as a debugger would have it; the others go on."""
    tasks = Path(f"/proc/{pid}/task")
    tid = next(int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == thread)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_ATTACH, tid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        if libc.ptrace(PTRACE_DETACH, tid, None, None) != 0:
            assert ctypes.get_errno() == errno.ESRCH, os.strerror(ctypes.get_errno())
            os.waitpid(tid, WALL)  # its process has died, and ends when whoever traced the thread knows


def worker_hung(world: World, node: Node) -> AbstractContextManager[None]:
    return hung(node.status()["engine_pid"], world.half(node).worker)


@contextlib.contextmanager
def sync_cut(world: World, node: Node) -> Iterator[None]:
    world.links(node, world.between[:1], False)
    yield
    world.links(node, world.between[:1], True)


@contextlib.contextmanager
def access_cut(world: World, node: Node) -> Iterator[None]:
    world.port(node, False)
    yield
    world.port(node, True)


@contextlib.contextmanager
def all_links_cut(world: World, node: Node) -> Iterator[None]:
    world.links(node, world.between, False)
    world.port(node, False)
    yield
    world.links(node, world.between, True)
    world.port(node, True)


@contextlib.contextmanager
def partition(world: World, node: Node) -> Iterator[None]:
    world.lab.cut()
    yield
    world.lab.cut(False)


@contextlib.contextmanager
def power(world: World, node: Node) -> Iterator[None]:
    """All of its processes, and its links, at one moment."""
    pids = [node.status()["engine_pid"], node.agent.pid if node.agent else 0]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    with all_links_cut(world, node):
        assert node.agent is not None
        node.agent.wait()
        yield
    node.start()


@dataclass(frozen=True)
class Fault:
    """``struck``, ``other``: states that the two nodes come to while it lasts."""

    strike: Callable[[World, Node], AbstractContextManager[None]]
    struck: frozenset[int]
    other: int = ACTIVE
    both_forward: bool = False

    @property
    def name(self) -> str:
        return self.strike.__name__

    @property
    def moves(self) -> bool:
        """Whether the other node takes over."""
        return self.other == ACTIVE


FAULTS = (
    Fault(agent_killed, frozenset({ACTIVE}), STANDBY),
    Fault(agent_stopped, frozenset({ACTIVE}), STANDBY),
    Fault(sync_cut, frozenset({ACTIVE}), STANDBY),
    Fault(engine_killed, SILENT),
    Fault(engine_stopped, SILENT),
    Fault(worker_hung, frozenset({INOP})),
    Fault(access_cut, frozenset({INOP})),
    Fault(all_links_cut, frozenset({INOP})),
    Fault(partition, frozenset({ACTIVE}), both_forward=True),
    Fault(power, SILENT),
)
