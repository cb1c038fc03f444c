"""startup: the startup.conf of a VPP that we start ourselves: small, quiet, on any Linux machine. Pure.

Sections and sizes are those of VPP 26.06. Five of these live on a small machine: no hugepages, no DPDK, small
heaps, only the plugins that are asked for, and a main thread that sleeps between polls. What a configuration
asks of the machine (cores, hugepages, cards) comes in as ``Settings.metal``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipshare.engine.vpp.find import PLUGIN, Install
from ipshare.model import Card, Metal

MB = 1 << 20
PLUGINS = ("af_packet_plugin.so", "ping_plugin.so")
DPDK = "dpdk_plugin.so"
CELL_BYTES = 16
STATS_OWN = 32 * MB
"""What VPP's own counters take, with room for some hundred interfaces."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``directory``: sockets, startup.conf and log; it exists. Sizes in bytes; 0: chosen here. ``workers``:
    threads beside the main thread, each with a processor of its own. ``plugins``: of VPP, besides ours.
    ``is_pinned``: the main thread stays on the processor that it started on, even without workers.
    ``metal``: cores, in place of ``workers``, hugepages and cards. ``extra``: lines for the end of
    startup.conf."""

    directory: Path
    api_socket: Path | None = None
    stats_socket: Path | None = None
    workers: int = 0
    counter_cells: int = 1 << 16
    heap_bytes: int = 256 * MB
    statseg_bytes: int = 0
    buffers: int = 16384
    poll_sleep_us: int = 100
    plugins: tuple[str, ...] = PLUGINS
    is_ours_enabled: bool = True
    is_pinned: bool = False
    metal: Metal = Metal()
    extra: str = ""
    binary: Path | None = None
    plugin_path: Path | None = None

    @property
    def worker_count(self) -> int:
        return len(self.metal.worker_cores) or self.workers

    @property
    def floats(self) -> bool:
        """Whether its main thread may run on any processor: there are no others, and nobody said where."""
        return not self.worker_count and not self.is_pinned and self.metal.main_core is None

    @property
    def api(self) -> Path:
        return self.api_socket or self.directory / "api.sock"

    @property
    def stats(self) -> Path:
        return self.stats_socket or self.directory / "stats.sock"

    @property
    def cli(self) -> Path:
        return self.directory / "cli.sock"

    @property
    def log(self) -> Path:
        return self.directory / "vpp.log"

    @property
    def prefix(self) -> str:
        """Names this VPP's shared memory apart from that of others; the same for the same directory."""
        return f"ipshare-{hashlib.sha256(bytes(self.directory.absolute())).hexdigest()[:12]}"


def statseg_bytes(counter_cells: int, workers: int) -> int:
    """Stats segment that holds so many per-binding counters: each thread, the main one too, has its own."""
    return STATS_OWN + counter_cells * CELL_BYTES * (workers + 1) * 9 // 8


def startup_conf(settings: Settings, install: Install, addresses: Mapping[str, str]) -> str:
    """The text of startup.conf. ``addresses``: PCI address by what ``metal`` calls a card."""
    stats = settings.statseg_bytes or statseg_bytes(settings.counter_cells, settings.worker_count)
    ours = [PLUGIN] if settings.is_ours_enabled and install.plugin is not None else []
    enabled = [*settings.plugins, *([DPDK] if settings.metal.cards else []), *ours]
    # Without a size VPP takes hugepages, and small pages where they are missing; a named size it insists on.
    pages = "" if settings.metal.hugepages else "page-size default "
    added = ":".join(str(path) for path in install.plugin_dirs)
    lines = [
        f"unix {{ nodaemon nosyslog nobanner nocolor cli-listen {settings.cli}"
        f" runtime-dir {settings.directory} poll-sleep-usec {settings.poll_sleep_us} }}",
        f"api-segment {{ prefix {settings.prefix} global-size 8M api-size 4M }}",
        f"socksvr {{ socket-name {settings.api} }}",
        *_cpu(settings),
        f"buffers {{ {pages}buffers-per-numa {settings.buffers} }}",
        f"memory {{ main-heap-size {_megabytes(settings.heap_bytes)} main-heap-page-size default }}",
        f"statseg {{ size {_megabytes(stats)} page-size default socket-name {settings.stats} }}",
        "plugins {",
        f"  path {added}" if added else "",
        "  plugin default { disable }",
        *(f"  plugin {name} {{ enable }}" for name in enabled),
        "}",
        *_dpdk(settings.metal.cards, addresses),
        settings.extra,
    ]
    return "".join(f"{line}\n" for line in lines if line)


def _cpu(settings: Settings) -> Iterator[str]:
    metal = settings.metal
    words = [] if metal.main_core is None else [f"main-core {metal.main_core}"]
    if metal.worker_cores:
        words.append(f"corelist-workers {','.join(map(str, metal.worker_cores))}")
    elif settings.workers:
        words.append(f"workers {settings.workers}")
    if words:
        yield f"cpu {{ {' '.join(words)} }}"


def _dpdk(cards: tuple[Card, ...], addresses: Mapping[str, str]) -> Iterator[str]:
    """Only these cards: without a `dev` VPP would take every one that has no driver of the kernel's."""
    if not cards:
        return
    yield "dpdk {"
    for card in cards:
        options = {
            "name": card.name,
            "num-rx-queues": card.rx_queues,
            "num-tx-queues": card.tx_queues,
            "num-rx-desc": card.rx_descriptors,
            "num-tx-desc": card.tx_descriptors,
        }
        said = " ".join(f"{key} {value}" for key, value in options.items() if value)
        yield f"  dev {addresses[card.device]} {{ {said} }}" if said else f"  dev {addresses[card.device]}"
    yield "}"


def _megabytes(size: int) -> str:
    return f"{-(-size // MB)}M"
