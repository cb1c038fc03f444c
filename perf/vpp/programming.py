"""programming: a million bindings into a VPP, idle and under full load, without and with a worker.

Loaded: the packet generator sends translated packets as fast as they pass, all the time. Counted: packets
that did not come out, and worker barriers by VPP's event log (`event-logger trace barrier`); those of the
command line that reads the log are left out. Commands of VPP's command line are sent before and after,
never in between. The bindings replace others of the same network; a network that comes or goes changes the
FIB, which takes barriers, as does any client of the API that connects or leaves.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ipshare.bench import sites
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables, pack
from ipshare.engine.vpp import VppEngine
from vpp import flows, ours
from vpp.cases import interfaces
from vpp.process import ANSWER_S, Vpp, VppFailed
from vpp.runtime import Streams, read

MILLION = 1_000_000
TIMES = 5
FOREVER = 10**12
_BARRIER = re.compile(r"bar-trace-(\S+)-#\d+")
_OF_THE_CLI = "vlib_cli_dispatch_sub_commands"


@dataclass(frozen=True, slots=True)
class Programming:
    """One state of a VPP. Times in seconds, all of them, in the order in which they were taken."""

    workers: int
    is_loaded: bool
    packed: list[float]  # arrays and image, in Python
    loads: list[ours.Loaded]  # of a million bindings, in the place of others
    evacuations: list[ours.Loaded]  # of a million bindings: every end point gets another prefix
    driven: list[float]  # the driver: arrays, diff against half of them, image, prepare, commit
    counted: list[float]  # the driver: reading the counters of all cells
    barriers: list[str]  # who asked for each one, during the loads and evacuations
    packets: int  # that passed meanwhile
    lost: int

    @property
    def name(self) -> str:
        return f"{self.workers}-worker.{'loaded' if self.is_loaded else 'idle'}"


def states(n: int = MILLION, times: int = TIMES) -> Iterator[Programming]:
    for workers in (0, 1):
        with Vpp((ours.PLUGIN,), workers=workers, statseg="1G", heap="4G", nice=0) as vpp:
            vpp.run(interfaces(1))
            streams, loader = Streams(vpp), ours.Loader(vpp)
            variant = ours.Variant(4, "stacked")
            frames = ours.packets_of(variant, "tcp", flows.numbers("few", ours.SIZES["1k"]))
            streams.define("load", 4, "pg1", frames, FOREVER)
            loader.load(pack(loader.tables(variant, ours.SIZES["1k"])))
            vpp.cli("event-logger trace barrier")
            for loaded in (False, True):
                yield _state(vpp, streams, loader, workers, loaded, n, times)


def _state(
    vpp: Vpp, streams: Streams, loader: ours.Loader, workers: int, loaded: bool, n: int, times: int
) -> Programming:
    variant = ours.Variant(4, "stacked")
    vpp.cli("clear runtime")
    if loaded:
        streams.start("load")
        _await_packets(vpp)
    engine = VppEngine(
        vpp.dir / "api.sock", vpp.dir / "stats.sock", counter_cells=ours.CELLS, timeout_s=ANSWER_S
    )
    engine.configure()
    vpp.cli("event-logger clear")
    packed, loads, evacuations, driven, counted = [], [], [], [], []
    for _ in range(times):
        begin = time.perf_counter()
        tables = loader.tables(variant, n)
        image = pack(tables)
        packed.append(time.perf_counter() - begin)
        loads.append(loader.load(image))
        evacuations.append(loader.load(_evacuation(vpp, tables)))
        loader.load(_half(tables))
        half = engine.read()
        begin = time.perf_counter()
        engine.apply(diff(half, loader.tables(variant, n)))
        driven.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        engine.cell_totals(n)
        counted.append(time.perf_counter() - begin)
        loader.load(_half(tables))
    asked = _BARRIER.findall(vpp.cli("show event-logger all"))
    engine.close()
    if loaded:
        streams.stop("load")
    sample = read(vpp.cli("show runtime"), 4) if loaded else None
    lost = sample.packets - sample.sent if sample else 0
    passed = sample.packets if sample else 0
    own = [who for who in asked if who != _OF_THE_CLI]
    return Programming(
        workers, loaded, packed, loads, evacuations, driven, counted, own, passed, max(lost, 0)
    )


def _await_packets(vpp: Vpp) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if re.search(r"^ipshare-outer-ip4\b", vpp.cli("show runtime"), re.M):
            return
    raise VppFailed(f"no packet is translated\n{vpp.cli('show errors')}")


def _evacuation(vpp: Vpp, tables: Tables) -> bytearray:
    """The image that moves every end point elsewhere: a delta without bindings."""
    ends = tables.endpoints.copy()
    ends["local"][:, 0] = 11
    live = int(vpp.client.call("ipshare_info").generation)
    return pack(replace(tables, endpoints=ends), changes=tables.bindings[:0], base_generation=live)


def _half(tables: Tables) -> bytearray:
    """Half of them, so that the next load has something to do."""
    return pack(replace(tables, bindings=tables.bindings[: len(tables.bindings) // 2]))


def restart(n: int) -> tuple[float, float]:
    """Seconds of a new VPP from its API being up until n bindings are live, and of its start before that."""
    tables = sites.site(4, n)
    image = pack(tables)
    begin = time.perf_counter()
    with Vpp((ours.PLUGIN,), statseg=ours.STATSEG) as vpp:
        up = time.perf_counter()
        vpp.run(interfaces(1))
        ours.Loader(vpp).load(image)
        return time.perf_counter() - up, up - begin
