"""vpp: a node's VPP and its interfaces, as ipshare.agent.reconcile wants them.

A managed VPP is ours: started with a startup.conf of its own in runtime_dir/vpp, ended by `down`. Any other
one is somebody else's (systemd's): it is waited for, never started or ended; `down` takes tables, interfaces,
addresses and routes out of it that we put there. Either may die at any time; who comes next is empty, and
the next pass fills it. One connection for each VPP and process: the layouts of its messages take long to
read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ipshare.agent.ending import SILENT_TIMEOUT_S, end, silent, terminate
from ipshare.agent.flows import align as align_flows
from ipshare.agent.flows import empty as empty_flows
from ipshare.agent.natlog import align_nat_log
from ipshare.agent.pair import Told
from ipshare.agent.pair import align as align_pair
from ipshare.core import lib
from ipshare.engine.desired import desired
from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.engine.plan import diff
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.find import find
from ipshare.engine.vpp.launch import start
from ipshare.engine.vpp.ports_apply import make_tables
from ipshare.engine.vpp.ports_keep import Ports
from ipshare.engine.vpp.retval import Retval
from ipshare.engine.vpp.slice import way_in
from ipshare.engine.vpp.startup import PLUGINS, Settings
from ipshare.errors import NoPrivilege, NotRunning, Problem
from ipshare.model import Config, Vpp

log = logging.getLogger(__name__)

PROGRAM = "vpp"
LINUX_CP = ("tap_plugin.so", "linux_cp_plugin.so")
"""linux_cp makes the pairs with devices of tap. Not linux_nl: see decision 0103."""
LCP_SYNC = "linux-cp { lcp-sync }"
"""The pairs get addresses, MTU and state of VPP's interfaces."""
JOURNAL = "ports.undo"


def vpp_of(config: Config) -> Vpp:
    """The [vpp] of a node that has one."""
    assert config.vpp is not None, "a node whose engine is VPP"
    return config.vpp


def engine_of(config: Config) -> VppEngine:
    """The node's VPP, whether it runs or not."""
    vpp = vpp_of(config)
    tables = (vpp.service_table, vpp.delivery_table)
    return _engine(
        vpp.api_socket, vpp.stats_socket, *tables, config.engine.counter_cells, vpp.binary, vpp.plugin_path
    )


@lru_cache(maxsize=16)
def _engine(
    api: Path, stats: Path, service: int, delivery: int, cells: int, binary: Path | None, plugins: Path | None
) -> VppEngine:
    return VppEngine(
        api,
        stats,
        service_table=service,
        delivery_table=delivery,
        counter_cells=cells,
        api_dirs=find(binary, plugins).api_dirs,
    )


def settings(config: Config) -> Settings:
    """What a managed VPP is started with."""
    vpp = vpp_of(config)
    pairs = any(port.linux_cp for port in vpp.interfaces)
    return Settings(
        directory=vpp.api_socket.parent,
        api_socket=vpp.api_socket,
        stats_socket=vpp.stats_socket,
        workers=config.engine.workers,
        counter_cells=config.engine.counter_cells,
        heap_bytes=vpp.heap_size,
        statseg_bytes=vpp.statseg_size,
        buffers=vpp.buffers,
        poll_sleep_us=round(vpp.poll_sleep_s * 1e6),
        metal=vpp.metal,
        plugins=(*PLUGINS, *(LINUX_CP if pairs else ())),
        binary=vpp.binary,
        plugin_path=vpp.plugin_path,
        extra=LCP_SYNC if pairs else "",
    )


class VppDataPath:
    """FD.io VPP with our plugin."""

    def __init__(self) -> None:
        self._pair: Told | None = None

    def attach(self, config: Config) -> VppEngine | None:
        vpp = vpp_of(config)
        try:
            if not vpp.api_socket.exists():
                return None
        except PermissionError:
            raise NoPrivilege(f"may not look into {vpp.api_socket.parent}", hint="run as root") from None
        engine = engine_of(config)
        try:
            _answers(engine)
        except EngineGone as error:
            if isinstance(error.__cause__, PermissionError):
                raise NoPrivilege(
                    f"may not talk to VPP at {vpp.api_socket}",
                    hint="run as root, or as a member of VPP's group (startup.conf: unix { gid vpp })",
                ) from None
            if vpp.managed and (pid := silent(vpp.api_socket, PROGRAM)):
                # stopped or hung: it would go on beside another one, with the same addresses
                raise EngineSilent(f"VPP {pid} does not answer", hint="ipshare down ends it") from None
            return None
        return engine

    def launch(self, config: Config) -> VppEngine:
        vpp = vpp_of(config)
        if not vpp.managed:
            raise no_vpp(vpp)
        from ipshare.agent.datapath import make_runtime_dir

        make_runtime_dir(config.node.runtime_dir)
        vpp.api_socket.parent.mkdir(mode=0o755, exist_ok=True)
        wrap = way_in(vpp.metal)
        if vpp.metal.is_isolated and not wrap:
            log.warning("VPP's cores are not its own: ipshare vpp prepare was not run, or could not")
        process = start(settings(config), wrap=wrap).process
        process.returncode = 0  # it outlives us: Popen must not warn; EngineGuard reaps
        engine = engine_of(config)
        _answers(engine)
        return engine

    def ready(self, engine: Engine, config: Config) -> None:
        """The two tables are there when the plugin is told of them, and it is told before anything else."""
        vpp = vpp_of(config)
        make_tables(_ours(engine).client, [vpp.service_table, vpp.delivery_table])
        _ours(engine).configure()

    def tables(self, engine: Engine, config: Config) -> Tables:
        """Next hops are told to VPP, and named in the end points' records by the numbers that it answers.

        VPP has room for a thousand in its life, since a rollback may want any: later ones are looked up."""
        wanted, table = desired(config), vpp_of(config).delivery_table
        numbers: dict[tuple[str, int], int] = {}
        for endpoint in config.endpoints:
            for hop in (endpoint.next_hop4, endpoint.next_hop6):
                if hop is None:
                    continue
                try:
                    numbers[endpoint.name, hop.version] = _ours(engine).control.add_next_hop(hop, table)
                except ApiRefused as error:
                    if error.retval != Retval.LIMIT_EXCEEDED:
                        raise
                    log.warning(
                        "VPP knows too many next hops: %s, of end point %s, is looked up", hop, endpoint.name
                    )
        return _by_next_hop(wanted, numbers) if numbers else wanted

    def stop(self, config: Config, engine: Engine | None) -> str:
        managed, file = vpp_of(config).managed, config.node.runtime_dir / "flows.json"
        done = ""
        if engine is not None:
            with contextlib.closing(_ours(engine)) as ours:
                done = end(ours.info().pid, "VPP", terminate) if managed else _taken_out(ours, file)
        elif managed and (pid := silent(vpp_of(config).api_socket, PROGRAM)):
            done = end(pid, "VPP", terminate, SILENT_TIMEOUT_S)
        file.unlink(missing_ok=True)
        if managed:
            _remove(settings(config))
            (config.node.runtime_dir / JOURNAL).unlink(missing_ok=True)
        return done

    def copies(self, engine: Engine, config: Config) -> int:
        from ipshare.agent.copies import align

        return align(_ours(engine), config, config.node.runtime_dir / "copies.json")

    def pair(self, engine: Engine, config: Config) -> bool:
        self._pair, changed = align_pair(engine, config, self._pair)
        return changed

    def flows(self, engine: Engine, config: Config) -> bool:
        changed = align_flows(engine, config, config.node.runtime_dir / "flows.json")
        return align_nat_log(engine, config) or changed

    def learn_path(self, engine: Engine, endpoint: int, mtu: int, seconds: int) -> None:
        _ours(engine).set_path_mtu(endpoint, mtu, seconds)


class VppRoutes:
    """Interfaces, addresses, routes and what else VPP shall have, through its API."""

    def __init__(self) -> None:
        self._ports: dict[Path, Ports] = {}

    def preflight(self, config: Config, *, engine_runs: bool) -> Sequence[Problem]:
        from ipshare.agent.vpp_preflight import preflight

        return preflight(config, engine_of(config) if engine_runs else None)

    def apply(self, config: Config) -> Sequence[str]:
        return self._of(config).apply(config)

    def missing(self, config: Config) -> Sequence[str]:
        return self._of(config).missing(config)

    def left(self, config: Config) -> Sequence[str]:
        return [] if self._is_gone(config) else self._of(config).left(config)

    def undo(self, config: Config) -> Sequence[str]:
        """Nothing in a managed VPP, which is ended next, nor in one that is gone: all of it went with it."""
        if vpp_of(config).managed or self._is_gone(config):
            (config.node.runtime_dir / JOURNAL).unlink(missing_ok=True)
            return []
        return self._of(config).undo(config)

    def _is_gone(self, config: Config) -> bool:
        return VppDataPath().attach(config) is None

    def _of(self, config: Config) -> Ports:
        file = config.node.runtime_dir / JOURNAL
        ports = self._ports.get(file)
        client = engine_of(config).client
        if ports is None or ports.client is not client:
            ports = self._ports[file] = Ports(client, file, config.node.name)
        return ports


def no_vpp(vpp: Vpp) -> NotRunning:
    """Somebody else's VPP is missing."""
    hint = "systemctl start vpp, or correct api_socket in [vpp]"
    return NotRunning(f"no VPP answers at {vpp.api_socket}", hint=hint)


def _answers(engine: VppEngine) -> None:
    """Raises EngineGone, or what VPP has against us.

    A connection tells first that the VPP of before is gone, then that another one answers, which is fine."""
    for _ in ("gone", "another"):
        with contextlib.suppress(EngineGone):
            engine.info()
            return
    engine.info()


def _ours(engine: Engine) -> VppEngine:
    assert isinstance(engine, VppEngine), "this data path makes no other"
    return engine


def _taken_out(engine: VppEngine, file: Path) -> str:
    """The pair last: a half of a pair that knows no pair any more would translate."""
    done = []
    if plan := diff(engine.read(), Tables()):
        engine.apply(plan)
        done.append("tables")
    remaps = engine.remaps()
    for remap in remaps:
        engine.clear_remap(remap.id)
    if remaps:
        done.append("remaps")
    if empty_flows(engine, file):
        done.append("NAT")
    if engine.pair_state() is not None:
        engine.clear_pair()
        done.append("the pair")
    return f"{' and '.join(done)} taken out of VPP, which goes on" if done else ""


def _by_next_hop(tables: Tables, numbers: Mapping[tuple[str, int], int]) -> Tables:
    """The same with next hops in the records. ``numbers``: by name of the end point and family on the way."""
    records = tables.endpoints.copy()
    for record, name in zip(records, tables.endpoint_names, strict=True):
        family = int(record["tunnel_family"] if record["encap"] else record["family"])
        if not record["flags"] & lib.IPS_EP_DISTRIBUTION:
            record["via"] = numbers.get((name, family), 0)
    return replace(tables, endpoints=records)


def _remove(what: Settings) -> None:
    from ipshare.engine.vpp.launch import clean

    clean(what)
    for path in (what.log, what.directory / "startup.conf"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or somebody else's files
        what.directory.rmdir()
