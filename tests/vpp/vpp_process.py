"""One VPP for a test: started in a network namespace, sockets in a directory of its own, ended afterwards.

    with vpp() as node:
        node.client.call("show_version"); node.cli("show int"); node.stats.names(); node.engine.info()

Where a test fails while VPP is dead, the error carries what VPP printed. VPP's main thread sleeps between
polls (``poll_sleep_us``), because the machine is shared; timing runs say 0.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipshare.engine.failures import EngineGone
from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.launch import Vpp, clean, said, start
from ipshare.engine.vpp.startup import PLUGINS, Settings
from ipshare.engine.vpp.stats import Segment


@dataclass
class Running:
    """A VPP and the ways to talk to it, each made when first asked for."""

    settings: Settings
    wrap: tuple[str, ...]
    needs_plugin: bool
    process: Vpp
    tables: tuple[int, int] = (0, 0)
    _engines: list[VppEngine] = field(default_factory=list)

    @functools.cached_property
    def client(self) -> Client:
        return Client(self.settings.api, plugin=self.needs_plugin)

    @property
    def stats(self) -> Segment:
        """The stats segment of the process that runs now, mapped anew."""
        return Segment(self.settings.stats)

    @functools.cached_property
    def engine(self) -> VppEngine:
        return self.new_engine()

    def new_engine(self, **options: object) -> VppEngine:
        """Another driver of the same VPP, as another process would have it."""
        made = VppEngine(
            self.settings.api,
            self.settings.stats,
            service_table=self.tables[0],
            delivery_table=self.tables[1],
            counter_cells=self.settings.counter_cells,
            **options,  # type: ignore[arg-type]
        )
        self._engines.append(made)
        return made

    def cli(self, command: str) -> str:
        return self.client.cli(command)

    def kill(self) -> None:
        """As a crash would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.process.wait()

    def restart(self) -> None:
        """Another process with the same sockets; whoever was connected finds out."""
        if self.process.is_alive():
            self.kill()
        self.process = start(self.settings, needs_plugin=self.needs_plugin, wrap=self.wrap)

    def close(self) -> None:
        for connected in (*self._engines, self.client):
            connected.close()
        if self.process.is_alive():
            self.process.terminate()
        clean(self.settings)  # what was killed left its sockets


@contextlib.contextmanager
def vpp(
    *,
    netns: str | None = None,
    workers: int = 0,
    counter_cells: int = 1 << 12,
    plugins: tuple[str, ...] = PLUGINS,
    needs_plugin: bool = True,
    tables: tuple[int, int] = (0, 0),
    startup: str = "",
    **settings: int,
) -> Iterator[Running]:
    """``netns``: a namespace below /run/netns; None: a new one without a name. ``tables``: service and
    delivery table of ``engine``. ``startup``: more of startup.conf. ``settings``: others of ``Settings``.
    """
    directory = Path(tempfile.mkdtemp(prefix="ipshare-vpp-"))
    wrap = ("unshare", "--net") if netns is None else ("nsenter", f"--net=/run/netns/{netns}")
    wanted = replace(
        Settings(directory, workers=workers, counter_cells=counter_cells, plugins=plugins, extra=startup),
        **settings,  # type: ignore[arg-type]
    )
    try:
        process = start(wanted, needs_plugin=needs_plugin, wrap=wrap)
        node = Running(wanted, wrap, needs_plugin, process, tables)
        try:
            yield node
        except BaseException as error:
            if isinstance(error, EngineGone):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.process.process.wait(5)
            if not node.process.is_alive():
                code = node.process.process.returncode
                error.add_note(f"VPP has ended, with {code}: {said(node.settings.log, 12)}")
            raise
        finally:
            node.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
