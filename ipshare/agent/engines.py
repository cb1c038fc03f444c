"""engines: which data path and which routes a node has, by `kind` in [engine]: the only place that chooses.

Everything above (reconcile, daemon, api, command line) sees ``DataPath`` and ``Routes``; what one engine
alone can do is asked for here, and refused in words where the other one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ipshare.agent.bgp import preflight as bgp_preflight
from ipshare.agent.datapath import EmbeddedDataPath, NetRoutes
from ipshare.agent.reconcile import DataPath, Routes
from ipshare.engine.capture import Capturing
from ipshare.engine.embedded import EmbeddedEngine
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.errors import Problem, Refused
from ipshare.model import Config

if TYPE_CHECKING:
    from ipshare.agent.copies import CopyEngine
    from ipshare.agent.vpp import VppDataPath, VppRoutes


class Engines:
    """The data path that each configuration asks for."""

    def __init__(self) -> None:
        self._embedded = EmbeddedDataPath()
        self._vpp: VppDataPath | None = None

    def attach(self, config: Config) -> Engine | None:
        return self._of(config).attach(config)

    def launch(self, config: Config) -> Engine:
        return self._of(config).launch(config)

    def ready(self, engine: Engine, config: Config) -> None:
        self._of(config).ready(engine, config)

    def tables(self, engine: Engine, config: Config) -> Tables:
        return self._of(config).tables(engine, config)

    def stop(self, config: Config, engine: Engine | None) -> str:
        return self._of(config).stop(config, engine)

    def copies(self, engine: Engine, config: Config) -> int:
        return self._of(config).copies(engine, config)

    def pair(self, engine: Engine, config: Config) -> bool:
        return self._of(config).pair(engine, config)

    def flows(self, engine: Engine, config: Config) -> bool:
        return self._of(config).flows(engine, config)

    def learn_path(self, engine: Engine, endpoint: int, mtu: int, seconds: int) -> None:
        path = self._embedded if isinstance(engine, EmbeddedEngine) else self._with_vpp()
        path.learn_path(engine, endpoint, mtu, seconds)

    def _of(self, config: Config) -> DataPath:
        return self._embedded if config.vpp is None else self._with_vpp()

    def _with_vpp(self) -> DataPath:
        if self._vpp is None:
            from ipshare.agent.vpp import VppDataPath

            self._vpp = VppDataPath()
        return self._vpp


class EngineRoutes:
    """The routes that each configuration asks for: the kernel's, or VPP's."""

    def __init__(self) -> None:
        self._kernel = NetRoutes()
        self._vpp: VppRoutes | None = None

    def preflight(self, config: Config, *, engine_runs: bool) -> Sequence[Problem]:
        found = self._of(config).preflight(config, engine_runs=engine_runs)
        return [*found, *bgp_preflight(config)]

    def apply(self, config: Config) -> Sequence[str]:
        return self._of(config).apply(config)

    def missing(self, config: Config) -> Sequence[str]:
        return self._of(config).missing(config)

    def left(self, config: Config) -> Sequence[str]:
        return self._of(config).left(config)

    def undo(self, config: Config) -> Sequence[str]:
        return self._of(config).undo(config)

    def _of(self, config: Config) -> Routes:
        if config.vpp is None:
            return self._kernel
        if self._vpp is None:
            from ipshare.agent.vpp import VppRoutes

            self._vpp = VppRoutes()
        return self._vpp


def capturing(engine: Engine) -> CopyEngine:
    """The engine, as one that captures. Raises Refused where it does not."""
    if isinstance(engine, Capturing):
        return cast("CopyEngine", engine)
    raise Refused(f"engine {engine.info().kind} does not capture", hint="the embedded engine and VPP do")


def copy_status(engine: Engine, config: Config) -> list[dict[str, Any]]:
    """The configured copies and what they delivered."""
    from ipshare.agent import copies

    return copies.copy_status(capturing(engine), config) if config.copies else []
