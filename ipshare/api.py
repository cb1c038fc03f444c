"""api: one node, for Python code: what the command line does, as typed calls. Blocking; ipshare.aio is its
twin.

    from ipshare.api import Node

    with Node("site.toml") as node:
        print(node.diff().lines())
        node.apply(confirm_within_s=300)
        print(node.why("tcp 198.51.100.7:1234 > 203.0.113.5:80 syn").verdict)
        node.confirm()

With an agent running, changes go through it; without one they are made here, under the node's lock. Reading
goes to the engine directly. Errors are ipshare.errors, each with a hint; nothing prints, exits or logs in.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipshare import config as configuration
from ipshare.agent.client import AgentClient
from ipshare.agent.confirm import Clock, SystemClock
from ipshare.agent.datapath import node_lock, remove_runtime_dir
from ipshare.agent.engines import EngineRoutes, Engines
from ipshare.agent.reconcile import DataPath, Done, Reconciler, Routes
from ipshare.agent.store import Store
from ipshare.api_clusters import ClusterViews
from ipshare.api_pair import PairHalf
from ipshare.api_remap import RemapHalves
from ipshare.engine.asking import Answer, ask
from ipshare.engine.desired import desired
from ipshare.engine.flows import Flowing, FlowsState, SessionDump
from ipshare.engine.flows_text import mirror_report, nat_report
from ipshare.engine.memory import MemoryEngine
from ipshare.engine.moved import shares
from ipshare.engine.natlog import Block, NatLogging, nat_log_report, whois
from ipshare.engine.packet_words import packet as packet_of
from ipshare.engine.plan import Plan, diff
from ipshare.engine.plan_text import MAX_ITEMS, Summary, named, summarize
from ipshare.engine.protocol import Engine, EngineInfo, Side
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.settings_text import setting_items
from ipshare.engine.tables import Records, Tables
from ipshare.engine.totals import Totals, count
from ipshare.engine.watching import Watch
from ipshare.errors import EngineError, IpshareError, NotRunning, Problem, Refused
from ipshare.model import Config


@dataclass(frozen=True, slots=True)
class Applied:
    """What a change did. ``changed`` False: everything was so already. ``routes``: a line for each change."""

    generation: int
    changed: bool
    changes: int
    routes: tuple[str, ...]
    by_agent: bool


STATUS_S = 5.0
"""How long ``status`` waits for an agent that may be at work."""


class Node(PairHalf, RemapHalves, ClusterViews):
    """One node. ``source``: a configuration file, or a Config.

    ``data_path``, ``routes`` and ``clock`` are for other hosts than this machine's kernel, and for tests.
    Raises ConfigError with every mistake of the file. Thread-safe.
    """

    def __init__(
        self,
        source: Config | Path | str,
        *,
        data_path: DataPath | None = None,
        routes: Routes | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.file = None if isinstance(source, Config) else Path(source).absolute()
        self.config = source if isinstance(source, Config) else configuration.load(source)
        self.store = Store(self.config.node.state_dir)
        self._reconciler = Reconciler(
            self.store, data_path or Engines(), routes or EngineRoutes(), clock or SystemClock()
        )
        self._lock = threading.RLock()

    @classmethod
    def stored(cls, state_dir: Path) -> Self:
        """The node whose state is in ``state_dir``, by the configuration that was applied to it last.

        Raises NotRunning if nothing was.
        """
        config = Store(state_dir).current()
        if config is None:
            raise NotRunning(
                f"nothing was applied to a node with its state in {state_dir}", hint="use -c FILE"
            )
        return cls(config)

    # ---- looking ------------------------------------------------------------

    def check(self) -> Sequence[Problem]:
        """What this machine has against the configuration (privileges, rp_filter, firewalls, occupied
        names)."""
        with self._lock:
            return self._reconciler.preflight(self.config)

    def plan(self) -> Plan:
        """From the engine's tables to those of the configuration. Raises NotRunning."""
        with self._lock:
            if self._reconciler.attached(self.config) is None:
                raise self._no_engine()
            return self._reconciler.plan(self.config)

    def diff(self, *, max_items: int = MAX_ITEMS) -> Summary:
        """The plan in words, with the share of clients that changed policies move, and what changes in pair,
        sessions, NAT and mirror since the last configuration. Raises NotRunning."""
        plan = self.plan()
        found = shares(plan)
        summary = summarize(
            plan,
            moved={name: moved for name, (moved, _) in found.items()},
            kept={name: kept for name, (_, kept) in found.items() if kept},
            drain_s={p.name: p.drain_s for p in self.config.policies if found.get(p.name, (0, 0))[1]},
            max_items=max_items,
        )
        return replace(summary, items=(*summary.items, *setting_items(self.store.current(), self.config)))

    def info(self) -> EngineInfo:
        """Identity and live generation of the engine. Raises NotRunning."""
        return self.engine.info()

    def tables(self) -> Tables:
        """The live tables, with the names of the configuration that was applied. Raises NotRunning."""
        tables = self.engine.read()
        return named(tables, desired(self.store.current() or self.config))

    def counters(self) -> Totals:
        """Counters by binding, verdict and reason, as NumPy arrays. Raises NotRunning."""
        return count(self.engine, self.tables())

    def watch(self, interval_s: float = 1.0) -> Iterator[Totals]:
        """Increments of the counters, one for each interval in which tables and engine stayed the same
        (another ``boot_id``: another engine). Goes on as long as an agent would start the engine again; then
        raises NotRunning."""
        pause, watch = threading.Event(), self.watching()
        watch.look()
        while True:
            pause.wait(interval_s)
            if (delta := watch.look()) is not None:
                yield delta

    def watching(self) -> Watch:
        """What ``watch`` does, one look at a time."""
        return Watch(lambda: self.engine, self.tables, self._is_kept)

    def why(self, packet: str | bytes, *, side: Side | None = None, offline: bool = False) -> Answer:
        """What happens to a packet, given in words (ipshare.engine.packet_words) or as bytes.

        ``offline``: asks the C core in this process with the tables of the configuration; no engine is
        needed. Raises DescriptionError, NotRunning.
        """
        data = packet_of(packet) if isinstance(packet, str) else packet
        if offline:
            wanted, engine = desired(self.config), MemoryEngine()
            try:
                engine.apply(diff(Tables(), wanted))
                return ask(engine, wanted, data, side)
            finally:
                engine.stop()
        return ask(self.engine, self.tables(), data, side or self._side_of_cluster(data))

    @property
    def engine(self) -> Engine:
        """The running engine. Raises NotRunning."""
        with self._lock:
            engine = self._reconciler.attached(self.config)
        if engine is None:
            raise self._no_engine()
        return engine

    # ---- changing -----------------------------------------------------------

    def apply(self, *, confirm_within_s: float | None = None, start_engine: bool = False) -> Applied:
        """Makes the configuration the node's. ``confirm_within_s``: it is rolled back unless ``confirm``
        comes in time; that takes an agent. ``start_engine``: where neither agent nor engine runs, start one.

        Raises Refused (nothing changed), NotRunning, EngineError, NetError.
        """
        agent = self._agent()
        if agent is not None:
            with agent:
                if self.file is None:
                    raise Refused(
                        "an agent runs this node: it takes files only",
                        hint="write the configuration to a file",
                    )
                return _from_agent(
                    agent.call("apply", path=str(self.file), confirm_within_s=confirm_within_s)
                )
        if confirm_within_s is not None:
            raise NotRunning(
                "no agent runs, and nobody else could roll back", hint="start it: ipshare agent FILE"
            )
        with self._alone():
            if not start_engine and self._reconciler.attached(self.config) is None:
                raise self._no_engine()
            return _done(self._reconciler.apply(self.config))

    def confirm(self) -> None:
        """The configuration on trial stays. Raises Refused if there is none, NotRunning without agent."""
        with AgentClient(self.config.node.runtime_dir) as agent:
            agent.call("confirm")

    def rollback(self) -> Applied:
        """The configuration before the current one, tables and routes. Twice returns to where one was."""
        agent = self._agent()
        if agent is not None:
            with agent:
                return _from_agent(agent.call("rollback"))
        with self._alone():
            if self._reconciler.attached(self.config) is None:
                raise self._no_engine()
            return _done(self._reconciler.rollback())

    def down(self) -> list[str]:
        """Ends the agent and the engine, and takes routes back; a line for each thing. Empty: nothing was
        there."""
        agent = self._agent()
        lines: list[str] = []
        if agent is not None:
            with agent:
                result = agent.call("down")
                lines = ["agent ended", *filter(None, [result["engine"]]), *result["routes"]]
                if not agent.wait_gone():
                    raise EngineError("the agent took the node down and does not end", hint="see its log")
        with self._alone():
            down = self._reconciler.down(self.store.current() or self.config)
            lines += [*filter(None, [down.engine]), *down.routes]
            remove_runtime_dir(self.config)
            if not lines and (left := self._reconciler.routes.left(self.config)):
                raise _unknown(self.config, left)
        return lines

    def status(self, *, timeout_s: float = STATUS_S) -> dict[str, Any]:
        """What the agent says of itself: trial, notes, measured paths. Raises NotRunning, AgentSilent."""
        with AgentClient(self.config.node.runtime_dir, timeout_s=timeout_s) as agent:
            return agent.call("status")

    def leases(self) -> list[dict[str, Any]]:
        """A row for each workload of [[lease]]: address, state, end, trouble. Raises as ``status``."""
        rows: list[dict[str, Any]] = self.status().get("leases", [])
        return rows

    # ---- announcements (S1.1) -----------------------------------------------

    def bgp(self) -> dict[str, Any]:
        """What this node announces, why or why not, and its sessions (ipshare.agent.bgp). Raises Refused (it
        announces nothing), NotRunning."""
        with AgentClient(self.config.node.runtime_dir, timeout_s=STATUS_S) as agent:
            return agent.call("bgp")

    def drain(self, on: bool) -> dict[str, Any]:
        """``on``: neighbours are asked to prefer other nodes, then the announcements are withdrawn, until
        ``drain(False)``. Returns as ``bgp``, when BIRD was told. Raises as that."""
        with AgentClient(self.config.node.runtime_dir) as agent:
            return agent.call("drain", on=on)

    # ---- tracked connections (S2.7, S3) -------------------------------------

    def sessions(self, **wanted: Any) -> Records:
        """Open sessions as one array, (n,) records of ipshare.engine.flows.SESSION; ``wanted``: words of
        ipshare.engine.session_filter. Raises Refused (nothing is tracked), BadFilter, NotRunning."""
        return self.session_dump(SessionFilter.parse(wanted)).records

    def session_dump(self, wanted: SessionFilter) -> SessionDump:
        """The same, with how many matched and when. Raises as ``sessions``."""
        return self._flowing().sessions(wanted)

    def close_sessions(self, wanted: SessionFilter) -> int:
        """Ends what matches, and returns how many. Raises as ``sessions``."""
        wanted.encode()
        agent = self._agent()
        if agent is None:
            return self._flowing().close_sessions(wanted)
        with agent:
            return int(agent.call("close_sessions", wanted=wanted.to_json())["closed"])

    def flows(self) -> FlowsState:
        """Numbers of session table and mirror. Raises Refused (nothing is tracked), NotRunning."""
        state = self._flowing().flows_state()
        if state is None or not state.has_flows:
            raise Refused("the engine tracks no connections yet", hint="ipshare apply makes it")
        return state

    def nat(self, *, limit: int = 0) -> dict[str, Any]:
        """Each NAT, its addresses, ports in use (ipshare.engine.flows_text.nat_report). Raises as
        ``flows``."""
        state, nats = self.flows(), self._applied().nats
        if not nats:
            raise Refused("this node translates nothing by NAT", hint="see [[nat]] in docs/configuration.md")
        exhausted = state.sessions["ports_exhausted"]
        return nat_report(self._flowing().nat_addresses(), nats, exhausted, limit=limit)

    def nat_log(self) -> dict[str, Any]:
        """Collectors, what was sent, what was lost. Raises Refused (no NAT log), NotRunning."""
        log, engine = self._applied().nat_log, self._flowing()
        state = engine.nat_log_state() if isinstance(engine, NatLogging) else None
        if log is None or state is None:
            raise Refused("this node keeps no NAT log", hint="see [nat_log] in docs/configuration.md")
        return nat_log_report(log, state)

    def nat_whois(self, address: str, port: int | None = None) -> list[Block]:
        """Whose a public port is, or which ports an inside address has. Raises Refused: no address, or no
        NAT has deterministic ports."""
        nats = self.config.nats
        if not any(nat.deterministic for nat in nats):
            raise Refused("no NAT of this node has deterministic ports", hint="see deterministic in [[nat]]")
        try:
            return whois(nats, ip_address(address), port)
        except ValueError:
            raise Refused(f"not an IP address: {address!r}") from None

    def mirror_status(self) -> dict[str, Any]:
        """Role, peers, lag, what is wrong (ipshare.engine.flows_text.mirror_report). Raises Refused (nothing
        is mirrored), NotRunning."""
        return mirror_report(self.mirror_state(), self._applied())

    def mirror_state(self) -> FlowsState:
        """The numbers behind ``mirror_status``. Raises as that."""
        if self._applied().mirror is None:
            raise Refused("this node mirrors no sessions", hint="see [mirror] in docs/configuration.md")
        state = self.flows()
        if not state.has_mirror:
            raise Refused("the engine mirrors no sessions yet", hint="ipshare apply makes it")
        return state

    def _flowing(self) -> Flowing:
        if self._applied().sessions is None:
            raise Refused(
                "this node tracks no connections", hint="see [[nat]] and track in docs/configuration.md"
            )
        engine = self.engine
        if not isinstance(engine, Flowing):
            raise Refused(f"engine {engine.info().kind} tracks no connections")
        return engine

    def _applied(self) -> Config:
        return self.store.current() or self.config

    def _no_engine(self) -> NotRunning:
        """Why nobody answers at the engine's socket."""
        name, pid, vpp = self.config.node.name, None, self.config.vpp
        if vpp is not None and not vpp.managed:
            return NotRunning(f"no VPP answers at {vpp.api_socket}", hint="systemctl start vpp")
        with contextlib.suppress(IpshareError):
            pid = self.status()["engine_pid"]
        if pid is None:
            return NotRunning(f"node {name} has no engine running", hint="start it: ipshare agent FILE")
        return NotRunning(
            f"engine {pid} of node {name} runs, but its socket was removed or replaced",
            hint=f"kill {pid}: the agent starts another at once, with a moment without traffic",
        )

    # ---- housekeeping -------------------------------------------------------

    def close(self) -> None:
        """Ends the connection to the engine; the data path goes on."""
        with self._lock:
            if self._reconciler.engine is not None:
                self._reconciler.engine.close()
            self._reconciler.engine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_kept(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent.close()
        return agent is not None

    def _agent(self) -> AgentClient | None:
        try:
            return AgentClient(self.config.node.runtime_dir)
        except NotRunning:
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock, node_lock(self.config):
            yield


def _unknown(config: Config, left: Sequence[str]) -> EngineError:
    """Not "nothing to do": the journal that says what to put back is gone, or another node has the kernel."""
    if config.vpp is not None:
        return EngineError(
            f"nothing is known of node {config.node.name}, but VPP has what it makes: {left[0]}",
            hint="runtime_dir was removed: `ipshare agent FILE` takes the node over, so that `ipshare down` "
            "can end it",
        )
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    return EngineError(
        f"nothing is known of node {config.node.name}, but routes and rules like its own are there: "
        f"{left[0]}{more}",
        hint="another node has them, or runtime_dir was removed: then "
        f"`ip link del {config.engine.outer_device}` ends its engine, and "
        "`ipshare agent FILE` takes the node over, so that `ipshare down` can end it",
    )


def _from_agent(result: dict[str, Any]) -> Applied:
    return Applied(result["generation"], result["changed"], result["changes"], tuple(result["routes"]), True)


def _done(done: Done) -> Applied:
    return Applied(done.generation, not done.is_empty, done.changes, done.routes, False)
