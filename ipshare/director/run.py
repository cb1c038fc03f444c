"""run: ``ipshare director run``: reads the file, opens the store, serves the control socket until SIGTERM.

The first start takes its topology from the file as revision 1. Later ones go on with the store's newest
revision, whatever the file says: it is taken with `apply`, or SIGHUP, so that no restart changes a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from ipshare.agent import notify
from ipshare.agent.server import Server
from ipshare.director import config
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.director.store import SqliteStore
from ipshare.director.warden import Warden
from ipshare.director.warden_desk import verbs
from ipshare.errors import ConfigError, IpshareError

log = logging.getLogger(__name__)
SOCKET = "director.sock"


def run_director(file: Path, *, least_term: int = 0) -> None:
    """Raises ConfigError for a file with mistakes, Refused where the store is in use."""
    wanted = config.load(file)
    store = SqliteStore(wanted.settings.state_dir)
    try:
        director = Director(wanted.settings, store, least_term)
        asyncio.run(_serve(director, file, wanted))
    finally:
        store.close()


async def _serve(director: Director, file: Path, wanted: config.Wanted) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: jobs.append(asyncio.ensure_future(_reload(director, file)))
    )
    jobs: list[asyncio.Future[None]] = []
    folder = director.settings.runtime_dir
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise IpshareError(f"cannot make {folder}: {error.strerror}", hint="run as root") from None
    warden = Warden(director, wanted.settings.watch) if wanted.settings.watch is not None else None
    desk = Desk(director, file, verbs(warden) if warden is not None else None)
    server = Server(folder / SOCKET, desk.handle)
    try:
        await director.start()
        if director.revision is None:
            await director.change(wanted.topology, "start", f"the first start, from {file.name}")
        elif director.topology != wanted.topology:
            log.warning(
                "%s differs from revision %d: `ipshare director apply` takes it", file, director.number
            )
        if warden is not None:
            await warden.start()
        await server.start()
        notify.notify("READY=1", f"STATUS=term {director.term}, revision {director.number}")
        await stop.wait()
    finally:
        notify.notify("STOPPING=1")
        await server.stop()
        await asyncio.gather(*jobs, return_exceptions=True)
        if warden is not None:
            await warden.close()
        await director.close()


async def _reload(director: Director, file: Path) -> None:
    with contextlib.suppress(IpshareError):
        try:
            topology = (await asyncio.to_thread(config.load, file)).topology
            await director.change(topology, "SIGHUP", f"{file.name} was read again")
        except ConfigError as error:
            for problem in error.problems:
                log.error("%s", problem)
            raise
        except IpshareError as error:
            log.error("%s", error.message)
            raise
