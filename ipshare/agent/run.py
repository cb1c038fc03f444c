"""run: ``ipshare agent FILE``: reads the file, takes the node's lock, runs the daemon."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ipshare import config as configuration
from ipshare.agent.confirm import SystemClock
from ipshare.agent.daemon import Daemon
from ipshare.agent.datapath import engine_socket, node_lock, remove_runtime_dir
from ipshare.agent.engines import EngineRoutes, Engines
from ipshare.agent.reconcile import Reconciler
from ipshare.agent.store import Store
from ipshare.errors import ConfigError, IpshareError
from ipshare.model import Config

log = logging.getLogger(__name__)
STATE_ROOT = Path("/var/lib/ipshare")


def run_agent(file: Path, *, group: str | None = None, last_good: bool = False) -> None:
    """Until it is told to end. Raises ConfigError for a bad file.

    ``last_good``: then what was applied from that file the last time is taken instead.
    """
    try:
        config = configuration.load(file)
    except ConfigError as error:
        found = applied_last(file) if last_good else None
        if found is None:
            raise
        for problem in error.problems:
            log.error("%s", problem)
        log.error("%s has mistakes: starting with what was applied last", file)
        config = found
    with node_lock(config) as lock:
        reconciler = Reconciler(Store(config.node.state_dir), Engines(), EngineRoutes(), SystemClock())
        try:
            asyncio.run(Daemon(file, config, reconciler, group=group, keep_lock=lock.keep).run())
        except IpshareError:
            if not _engine_socket(config).exists():  # refused before anything ran
                remove_runtime_dir(config)
            raise


def _engine_socket(config: Config) -> Path:
    """Of the engine that the agent starts."""
    if config.vpp is not None:
        return config.node.runtime_dir / "vpp" / "api.sock"
    return engine_socket(config.node.runtime_dir)


def applied_last(file: Path) -> Config | None:
    """The stored configuration whose main file was ``file``."""
    for folder in sorted(STATE_ROOT.iterdir()) if STATE_ROOT.is_dir() else ():
        config = Store(folder).current()
        if config is not None and config.files and config.files[0].absolute() == file:
            return config
    return None
