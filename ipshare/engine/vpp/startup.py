"""startup: the startup.conf of a VPP that we start ourselves: small, quiet, on any Linux machine. Pure.

Sections and sizes are those of VPP 26.06. Five of these live on a small machine: no hugepages, no DPDK, small
heaps, only the plugins that are asked for, and a main thread that sleeps between polls.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ipshare.engine.vpp.find import PLUGIN, Install

MB = 1 << 20
PLUGINS = ("af_packet_plugin.so", "ping_plugin.so")
CELL_BYTES = 16
STATS_OWN = 32 * MB
"""What VPP's own counters take, with room for some hundred interfaces."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``directory``: sockets, startup.conf and log; it exists. Sizes in bytes; 0: chosen here. ``workers``:
    threads beside the main thread, each with a processor of its own. ``plugins``: of VPP, besides ours.
    ``is_pinned``: the main thread stays on the processor that it started on, even without workers.
    ``extra``: lines for the end of startup.conf."""

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
    extra: str = ""
    binary: Path | None = None
    plugin_path: Path | None = None

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


def startup_conf(settings: Settings, install: Install) -> str:
    """The text of startup.conf."""
    stats = settings.statseg_bytes or statseg_bytes(settings.counter_cells, settings.workers)
    ours = [PLUGIN] if settings.is_ours_enabled and install.plugin is not None else []
    enabled = [*settings.plugins, *ours]
    added = ":".join(str(path) for path in install.plugin_dirs)
    lines = [
        f"unix {{ nodaemon nosyslog nobanner nocolor cli-listen {settings.cli}"
        f" runtime-dir {settings.directory} poll-sleep-usec {settings.poll_sleep_us} }}",
        f"api-segment {{ prefix {settings.prefix} global-size 8M api-size 4M }}",
        f"socksvr {{ socket-name {settings.api} }}",
        f"cpu {{ workers {settings.workers} }}" if settings.workers else "",
        f"buffers {{ page-size default buffers-per-numa {settings.buffers} }}",
        f"memory {{ main-heap-size {_megabytes(settings.heap_bytes)} main-heap-page-size default }}",
        f"statseg {{ size {_megabytes(stats)} page-size default socket-name {settings.stats} }}",
        "plugins {",
        f"  path {added}" if added else "",
        "  plugin default { disable }",
        *(f"  plugin {name} {{ enable }}" for name in enabled),
        "}",
        settings.extra,
    ]
    return "".join(f"{line}\n" for line in lines if line)


def _megabytes(size: int) -> str:
    return f"{-(-size // MB)}M"
