"""reconcile: one node's configuration made real, and kept real: engine, pair, sessions, tables, copies,
routes, in that order: a half of a pair, or of a remap, must not translate before it knows that it is one.

Everything blocking, in one thread at a time, and no clock but the injected one (and the bound of a wait).
Each step looks at what is there first, so a pass that was interrupted anywhere (or a second agent after a
crash) is finished by the next pass. What a pass changed it takes back where a later step fails: tables by the
engine's rollback, routes by their journal.

``DataPath`` and ``Routes`` are this module's view of the world; ipshare.agent.datapath implements them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ipshare.agent import drains, redirects, remaps
from ipshare.agent.alike import process, same_network
from ipshare.agent.clusters import Clusters
from ipshare.agent.confirm import Clock, State, applied, confirmed, remaining_s, rolled_back, trial_of
from ipshare.agent.flows import drift as flows_drift
from ipshare.agent.hand_over import hand_over
from ipshare.agent.leases import addresses_in
from ipshare.agent.pair_ports import made_here
from ipshare.agent.pair_ports import remove as remove_ports
from ipshare.agent.store import Store, Unwritable, same
from ipshare.bgp.speaker import Speaker
from ipshare.engine.desired import desired
from ipshare.engine.drained import Drain, with_drains
from ipshare.engine.failures import EngineSilent
from ipshare.engine.flows import Flowing, FlowsState
from ipshare.engine.halted import with_halted
from ipshare.engine.leased import with_leases
from ipshare.engine.pairing import Order, Pairing, PairState
from ipshare.engine.plan import Plan, diff
from ipshare.engine.plan_text import named
from ipshare.engine.protocol import Engine, EngineInfo
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.tables import Tables
from ipshare.errors import IpshareError, NotRunning, Problem, Refused
from ipshare.model import Config, Prefix

log = logging.getLogger(__name__)

Measured = Mapping[tuple[str, int], int]
"""(end point or distribution point, family of the path) -> bytes of the largest packet that passed."""


class DataPath(Protocol):
    """How this node gets, keeps and ends its engine."""

    def attach(self, config: Config) -> Engine | None:
        """The running engine of this node; None if none runs."""

    def launch(self, config: Config) -> Engine:
        """A new engine process, ready for tables."""

    def ready(self, engine: Engine, config: Config) -> None:
        """Makes what ``engine`` needs before its tables. Repeatable."""

    def tables(self, engine: Engine, config: Config) -> Tables:
        """What ``config`` asks for, with what only ``engine`` can fill in."""

    def stop(self, config: Config, engine: Engine | None) -> str:
        """Ends ``engine`` if it is ours, else takes the tables out of it, and removes our files.

        Returns what was done, for people; empty: there was nothing to do."""

    def copies(self, engine: Engine, config: Config) -> int:
        """Brings the copies (S1.16) in line with the configuration; returns how many were started or
        ended."""

    def pair(self, engine: Engine, config: Config) -> bool:
        """Makes the engine half of the pair that the configuration names, or of none; True: that was a
        change."""

    def flows(self, engine: Engine, config: Config) -> bool:
        """Brings session table, NAT pools and mirror in line with the configuration; True: that was a
        change."""

    def learn_path(self, engine: Engine, endpoint: int, mtu: int, seconds: int) -> None:
        """The path to end point record ``endpoint`` carries ``mtu`` bytes; 0: as configured."""


class Routes(Protocol):
    """The node's routes, rules and sysctls."""

    def preflight(self, config: Config, *, engine_runs: bool) -> Sequence[Problem]:
        """What this machine has against the configuration. Changes nothing."""

    def apply(self, config: Config) -> Sequence[str]:
        """Establishes them; returns a line for each change. Takes back what it did if it fails."""

    def missing(self, config: Config) -> Sequence[str]:
        """A line for each thing that is not as ``apply`` left it."""

    def left(self, config: Config) -> Sequence[str]:
        """A line for each route and rule that is there as ``apply`` makes it, whoever made it."""

    def undo(self, config: Config) -> Sequence[str]:
        """Takes everything back; returns a line for each change."""


class NotReady(Refused):
    """This machine has something against the configuration: all of it in ``problems``."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(p.message for p in problems), hint="; ".join(p.hint for p in problems))


@dataclass(frozen=True, slots=True)
class Done:
    """What a pass did. ``changes``: records of tables added, changed or removed."""

    generation: int
    changes: int = 0
    copies: int = 0
    routes: tuple[str, ...] = ()
    engine_started: bool = False
    pair: bool = False
    flows: bool = False
    remaps: bool = False

    @property
    def is_empty(self) -> bool:
        did = (self.changes, self.copies, self.routes, self.engine_started)
        return not any((*did, self.pair, self.flows, self.remaps))


@dataclass(frozen=True, slots=True)
class Down:
    """What was ended and taken back."""

    engine: str  # what was done to it; empty: there was none
    routes: tuple[str, ...]

    @property
    def engine_stopped(self) -> bool:
        return bool(self.engine)


@dataclass
class Reconciler:
    """The node. ``config``: what it is on, None before ``start``."""

    store: Store
    data_path: DataPath
    routes: Routes
    clock: Clock
    config: Config | None = None
    engine: Engine | None = None
    speaker: Speaker = field(default_factory=Speaker)
    clusters: Clusters = field(default_factory=Clusters)
    """What is known of clusters' servers."""
    remap_trouble: str = ""
    """Why the engine is not half of a remap that it should be half of."""
    halted: frozenset[Prefix] = frozenset()
    """Global IPs that are not delivered here (ipshare.agent.workloads)."""
    _learned: frozenset[tuple[str, int]] = frozenset()
    _left: tuple[str, int] = ("", 0)
    _is_down: bool = False  # taken down: who looks for drift before the agent ends mends nothing
    _drains: tuple[Drain, ...] = ()

    def start(self, wanted: Config) -> tuple[Done, str]:
        """The first pass of an agent that was started with ``wanted``: (what it did, a note for the
        operator).

        A trial that another run of the agent began goes on, or has expired and is rolled back; a
        configuration that was rolled back is not taken again just because its file still says so.
        """
        state, note = self.store.state(), ""
        if state.trial is not None:
            if remaining_s(state, self.clock):
                note = "a configuration waits for its confirmation; it goes on being tried"
                return self._pass(self._stored(state.current)), note
            state = self._expire(state)
        kept, rejected = self.store.config(state.current), self.store.config(state.rejected)
        if kept is not None and rejected is not None and same(rejected, wanted):
            note = "the file holds what was rolled back: staying on the one before; `ipshare apply` takes it"
            return self._pass(kept), note
        try:
            return self.apply(wanted), note
        except Unwritable as error:
            if self.store.state() != state:
                raise
            what = "what was applied last" if kept is not None else "the file, of which nothing is kept"
            return self._pass(wanted if kept is None else kept), f"{error.message}: starting with {what}"

    def apply(self, wanted: Config, confirm_within_s: float | None = None, *, quick: bool = False) -> Done:
        """Makes ``wanted`` the node's configuration. On any error the node is on the one before. ``quick``:
        the kernel is not asked where only bindings differ.

        Raises Refused (nothing changed), EngineError, NetError.
        """
        before = self.store.state()
        now = self.store.config(before.current)
        trial = trial_of(confirm_within_s, self.clock) if confirm_within_s is not None else None
        applied(before, before.last + 1, trial)  # refused before anything is looked at
        if now is not None and same(now, wanted):
            if trial is not None:
                raise Refused("this is what the node is on already: there is nothing to try")
            if before.rejected:
                self.store.put(replace(before, rejected=0))
            return self._pass(wanted, preflight=self.attached(wanted) is None)
        self._check_same_engine(wanted)
        remaps.check_channels(self.store, wanted)
        return self._switch(before, applied(before, self.store.add(wanted), trial), wanted, quick)

    def confirm(self) -> None:
        """The trial's configuration stays."""
        self.store.put(confirmed(self.store.state()))

    def rollback(self) -> Done:
        """The previous configuration becomes current; a trial ends."""
        before = self.store.state()
        after = rolled_back(before)
        target = self._stored(after.current)
        self._check_same_engine(target)
        remaps.check_channels(self.store, target)
        return self._switch(before, after, target)

    def expire(self) -> Done | None:
        """Rolls back if the trial's time is over; None: nothing to do yet."""
        state = self.store.state()
        if state.trial is None or remaining_s(state, self.clock):
            return None
        log.warning("the configuration was not confirmed in time: rolling back")
        return self.rollback()

    def reconcile(self) -> Done:
        """Another pass for the current configuration. No preflight: what the node was running with a moment
        ago comes back at once, whatever somebody did to this machine meanwhile."""
        if self.config is None:
            raise NotRunning("no configuration was applied yet")
        return self._pass(self.config, preflight=False)

    def drift(self) -> list[str]:
        """What is not as the last pass left it, cheaply found: no table is read."""
        if self.config is None:
            return [] if self._is_down else ["nothing is applied yet"]
        info = self.engine_info()
        if info is None:
            return ["the engine is gone"]
        found = list(self.routes.missing(redirects.effective(self.store, self.config)))
        if (info.boot_id, info.generation) != self._left:
            found.append(f"the engine has generation {info.generation}, which is not ours")
        state = self.pair_state()
        if (state is None) != (self.config.pair is None):
            found.append(
                "the engine is half of a pair " + ("no more" if state is None else "that is not ours")
            )
        found += flows_drift(self.config, self.flows_state())
        left = {drain.policy for drain in drains.alive(drains.load(self.store), self.clock)}
        over = sorted({drain.policy for drain in self._drains} - left)
        found += [f"policy {name}: the time of what it had before is over" for name in over]
        return [*found, *remaps.drift(self.engine, remaps.load(self.store).halves)]

    def flows_state(self) -> FlowsState | None:
        """Of the engine in hand; None: it tracks nothing, or is gone."""
        try:
            return self.engine.flows_state() if isinstance(self.engine, Flowing) else None
        except IpshareError:
            return None

    def close_sessions(self, wanted: SessionFilter) -> int:
        """Ends what matches; returns how many. Raises Refused (nothing is tracked), NotRunning."""
        config = self.config or self.store.current()
        engine = self.attached(config) if config is not None else None
        if engine is None:
            raise NotRunning("this node has no engine running", hint="start it: ipshare agent FILE")
        if not isinstance(engine, Flowing):
            raise Refused(f"engine {engine.info().kind} tracks no connections")
        return engine.close_sessions(wanted)

    def pair_state(self) -> PairState | None:
        """Of the engine in hand; None: it is half of no pair, or gone."""
        try:
            return self.engine.pair_state() if isinstance(self.engine, Pairing) else None
        except IpshareError:
            return None

    def pair_command(self, order: Order) -> None:
        """To the engine's half of the pair. Raises Refused: why that cannot be; NotRunning."""
        config = self.config or self.store.current()
        if config is None or config.pair is None:
            raise Refused("this node is half of no pair", hint="see [pair] in docs/configuration.md")
        engine = self.attached(config)
        if not isinstance(engine, Pairing):
            raise NotRunning(
                f"node {config.node.name} has no engine running", hint="start it: ipshare agent FILE"
            )
        engine.pair_command(order)

    def is_reachable(self) -> bool:
        """False: the engine in hand runs, but whoever else looks for it does not find it."""
        if self.config is None or self.engine_info() is None:
            return True
        try:
            found = self.data_path.attach(self.config)
        except IpshareError:
            return True  # it was found, and is busy
        if found is not None and found is not self.engine:
            found.close()
        return found is not None

    def engine_info(self) -> EngineInfo | None:
        """Of the engine in hand; None if it is gone."""
        try:
            return self.engine.info() if self.engine is not None else None
        except IpshareError:
            return None

    @property
    def left(self) -> tuple[str, int]:
        """Boot id and generation that the last pass left in the engine."""
        return self._left

    def down(self, config: Config) -> Down:
        """Routes back to what they were, engine ended. A trial ends too: its configuration is not kept."""
        engine = None
        with contextlib.suppress(EngineSilent):  # stopped or hung: the data path finds its process
            engine = self.attached(config)  # refused where it is not ours to end: before anything is undone
        if isinstance(engine, Pairing) and config.pair is not None:
            hand_over(engine)  # before our routes go
        self.speaker.end(config.node.runtime_dir)  # so do the announcements
        lines = tuple(self.routes.undo(config))
        stopped = self.data_path.stop(config, engine)
        if config.pair is not None and made_here(config.pair):
            remove_ports(config.node.state_dir)
        self.engine, self.config, self._is_down = None, None, True
        state = self.store.state()
        if state.trial is not None:
            self.store.put(rolled_back(state))
        return Down(stopped, lines)

    def learn(self, measured: Measured, seconds: int) -> int:
        """Tells the engine what paths really carry, for so many seconds; returns for how many records.

        The configured path MTU stays the upper bound. A path that is not in ``measured`` is as configured
        again.
        """
        if self.config is None or self.engine is None:
            return 0
        tables, told = desired(self.config), 0
        for index, name in enumerate(tables.endpoint_names):
            record = tables.endpoints[index]
            key = (name, int(record["tunnel_family"] if record["encap"] else record["family"]))
            if key in measured or key in self._learned:
                self.data_path.learn_path(self.engine, index, measured.get(key, 0), seconds)
                told += 1
        self._learned = frozenset(measured)
        return told

    def plan(self, config: Config) -> Plan:
        """From what the engine has to what ``config`` wants. Raises NotRunning."""
        engine = self.attached(config)
        if engine is None:
            raise NotRunning(
                f"node {config.node.name} has no engine running", hint="start it: ipshare agent FILE"
            )
        actual, now = engine.read(), self.store.current()
        wanted = self.data_path.tables(
            engine, self._effective(config, drains.after(self.store, config, self.clock))
        )
        return diff(named(actual, desired(now)) if now is not None else actual, wanted)

    def preflight(self, config: Config) -> Sequence[Problem]:
        """What this machine has against ``config``."""
        return self.routes.preflight(config, engine_runs=self.attached(config) is not None)

    def _pass(self, config: Config, *, preflight: bool = True, routes: bool = True) -> Done:
        engine, started = self.attached(config), False
        if preflight and (problems := self.routes.preflight(config, engine_runs=engine is not None)):
            raise NotReady(problems)
        if engine is None:
            self.speaker.hold(config.node.runtime_dir)  # until its tables are there
            engine, started = self.data_path.launch(config), True
            self.engine = engine
        info = engine.info()
        before = generation = info.generation
        if not started and (not before or self._left[0] not in ("", info.boot_id)):
            self.speaker.hold(config.node.runtime_dir)  # somebody else started it
        try:
            self.data_path.ready(engine, config)
            paired = self.data_path.pair(engine, config)
            tracked = self.data_path.flows(engine, config)
            tracked = self.clusters.align(engine, config) or tracked
            remapped = self._align_remaps(engine)
            draining = drains.settle(self.store, config, self.clock)
            plan = diff(engine.read(), self.data_path.tables(engine, self._effective(config, draining)))
            generation = engine.apply(plan)
            copies = self.data_path.copies(engine, config)
            lines = tuple(self.routes.apply(redirects.effective(self.store, config))) if routes else ()
        except (Exception, KeyboardInterrupt):
            if started:
                self.data_path.stop(config, engine)
                self.engine = None
            elif before and generation != before:
                engine.rollback()
            raise
        self.config, self._drains = config, draining
        self._left = (engine.info().boot_id, generation)
        count = sum(change.count for change in plan)
        return Done(generation, count, copies, lines, started, paired, tracked, remapped)

    def _effective(self, config: Config, draining: Sequence[Drain]) -> Config:
        """With what its workloads have by DHCP, what remaps moved, and what policies had before."""
        config = with_halted(with_drains(config, draining), self.halted)
        if config.leases:
            config = with_leases(config, addresses_in(config.node.state_dir))
        return redirects.effective(self.store, remaps.effective(self.store, config))

    def _align_remaps(self, engine: Engine) -> bool:
        """A half that the engine refuses keeps no packet of the others: it is said, and tried again."""
        try:
            changed = remaps.align(engine, remaps.load(self.store).halves)
        except IpshareError as error:
            changed, self.remap_trouble = False, error.message
        else:
            self.remap_trouble = ""
        return changed

    def attached(self, config: Config) -> Engine | None:
        """The running engine; None if none runs."""
        if self.engine is not None:
            try:
                self.engine.info()
                return self.engine
            except IpshareError as error:
                self.engine.close()
                self.engine = None
                if isinstance(error, EngineSilent):  # it lives: another try would wait as long
                    raise
        self.engine = self.data_path.attach(config)
        return self.engine

    def _switch(self, before: State, after: State, config: Config, quick: bool = False) -> Done:
        """From one state to another; back to the one before if that fails. The state is written first: an
        agent that dies in between leaves a trial with its deadline, or a configuration that its successor
        compares."""
        now = self.store.config(before.current) if before.current else self.config
        was_up = now is not None and (self.config is not None or self.attached(now) is not None)
        kept = drains.load(self.store)
        drains.save(self.store, drains.after(self.store, config, self.clock))
        self.store.put(after)
        try:
            same = quick and self._is_same_network(config)
            return self._pass(config, preflight=not same, routes=not same)
        except (Exception, KeyboardInterrupt):
            self.store.put(before)
            drains.save(self.store, kept)
            if now is not None and was_up:  # else: a node that was down stays down
                try:
                    self._pass(now, preflight=False)
                except IpshareError as error:
                    log.error("could not restore the configuration before: %s", error)
            raise

    def _is_same_network(self, config: Config) -> bool:
        """And the engine is the one that has its routes: the kernel need not be asked about it, which takes
        longer than all the rest. Whether it is as it should be is looked at now and then anyway."""
        engine = self.attached(config)
        known = self.config is not None and engine is not None and engine.info().boot_id == self._left[0]
        return known and same_network(self.config, config)

    def _expire(self, state: State) -> State:
        log.warning("the configuration was not confirmed in time: rolling back")
        after = rolled_back(state)
        self.store.put(after)
        return after

    def _stored(self, serial: int) -> Config:
        config = self.store.config(serial)
        if config is None:
            raise Refused(
                "the stored configuration is gone or unreadable", hint="apply the file that you want"
            )
        return config

    def _check_same_engine(self, wanted: Config) -> None:
        """What an engine is started with cannot change under it."""
        ours = self.config or self.store.current()
        engine = self.attached(ours) if ours is not None else None
        if ours is None or engine is None or _is_bare(ours, engine):
            return
        if process(ours) != process(wanted):
            raise Refused(
                "[engine], [vpp] or runtime_dir changed: that needs a new engine, and a moment "
                "without traffic",
                hint="ipshare down with the old file, then start the agent with the new one",
            )


def _is_bare(config: Config, engine: Engine) -> bool:
    """An engine that others run, with nothing of ours in it: it is as good as none."""
    return config.vpp is not None and not config.vpp.managed and not diff(engine.read(), Tables())
