"""run: ``ipshare director run``: reads the file, opens the store, serves the control socket until SIGTERM.

The first start takes its topology from the file as revision 1. Later ones go on with the store's newest
revision, whatever the file says: it is taken with `apply`, or SIGHUP, so that no restart changes a node.
With a store in etcd a director stands by until it leads, and again when another one does: each time anew,
with nothing in mind but what the store has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from ipshare.agent import notify
from ipshare.agent.server import Server
from ipshare.director import config
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.director.drains_desk import draining
from ipshare.director.etcd import Etcd, Unheard
from ipshare.director.evacuation.begin import evacuating
from ipshare.director.evacuation.verbs import VERBS
from ipshare.director.leading import Alone, Elected, Leading
from ipshare.director.migrations_desk import migrating
from ipshare.director.seat import Seat
from ipshare.director.store import Overtaken, SqliteStore, Store, lock
from ipshare.director.store_etcd import EtcdStore
from ipshare.director.warden_desk import keeping, looking_after
from ipshare.errors import ConfigError, IpshareError

log = logging.getLogger(__name__)
SOCKET = "director.sock"
Beside = Callable[[Director, Desk], AbstractAsyncContextManager[object]]
"""What else is in the process, from the director's start to its end."""


def run_director(file: Path, *, least_term: int = 0, beside: Beside | None = None) -> None:
    """Raises ConfigError for a file with mistakes, Refused where the store is in use."""
    wanted = config.load(file)
    with ExitStack() as stack:
        store, leading = _opened(wanted.settings, stack)
        asyncio.run(_run(wanted, file, store, leading, least_term, beside))


def _opened(settings: config.Settings, stack: ExitStack) -> tuple[Store, Leading]:
    if settings.etcd is None:
        alone = SqliteStore(settings.state_dir)
        stack.callback(alone.close)
        return alone, Alone()
    stack.callback(os.close, lock(settings.state_dir))  # one process, whatever the store
    made = settings.etcd
    doors = [Etcd(made.endpoints, made.timeout_s, made.ca, made.certificate) for _ in range(2)]
    leading = Elected(Seat(doors[0], made.prefix, settings.name, made.lease_s), made)
    stack.callback(leading.close)
    store = EtcdStore(doors[1], made.prefix, leading.mark)
    stack.callback(store.close)
    return store, leading


async def _run(
    wanted: config.Wanted, file: Path, store: Store, leading: Leading, least_term: int,
    beside: Beside | None = None,
) -> None:  # fmt: skip
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        director = Director(wanted.settings, store, least_term, leading)
        try:
            await _reign(director, file, wanted, stop, beside)
        except (Unheard, Overtaken) as error:  # in the middle of its beginning
            if not leading.is_shared:
                raise
            log.error("%s", error.message)
        finally:
            await leading.resign()
        least_term = 0 if director.term else least_term


async def _reign(
    director: Director, file: Path, wanted: config.Wanted, stop: asyncio.Event,
    beside: Beside | None = None,
) -> None:  # fmt: skip
    """Stands by until it leads, and leads until another one does, or ``stop``."""
    loop, leading = asyncio.get_running_loop(), director.leading
    loop.add_signal_handler(
        signal.SIGHUP, lambda: jobs.append(asyncio.ensure_future(_reload(director, file)))
    )
    jobs: list[asyncio.Future[None]] = []
    folder = director.settings.runtime_dir
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise IpshareError(f"cannot make {folder}: {error.strerror}", hint="run as root") from None
    desk, others = Desk(director, file), AsyncExitStack()
    desk.coming = VERBS
    server = Server(folder / SOCKET, desk.handle)
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    ended = [stopped]
    try:
        if leading.is_shared:
            await server.start()
            await _others(others, beside, director, desk)
            notify.notify("READY=1", "STATUS=stands by")
        if not await _first(leading.gain(director.follow), stopped):
            return
        lost = asyncio.ensure_future(leading.keep())
        ended.append(lost)
        await director.start()
        if director.revision is None:
            await director.change(wanted.topology, "start", f"the first start, from {file.name}")
        elif director.topology != wanted.topology:
            log.warning(
                "%s differs from revision %d: `ipshare director apply` takes it", file, director.number
            )
        async with (
            migrating(director) as alive,
            looking_after(director, wanted.settings.watch, desk, alive.migrations) as warden,
            evacuating(
                director, wanted.settings.evacuation, *keeping(warden), migrations=alive.migrations
            ) as verbs,
            draining(director, desk),
        ):
            desk.add(verbs.verbs, verbs.troubles)
            desk.add(alive.verbs, alive.troubles)
            if not leading.is_shared:
                await server.start()
                await _others(others, beside, director, desk)
            notify.notify("READY=1", f"STATUS=term {director.term}, revision {director.number}")
            await asyncio.wait((lost, stopped), return_when=asyncio.FIRST_COMPLETED)
            await others.aclose()
        if lost.done():
            lost.result()
    finally:
        if stop.is_set():
            notify.notify("STOPPING=1")
        await others.aclose()
        await server.stop()
        for job in ended:
            job.cancel()
        await asyncio.gather(*jobs, *ended, return_exceptions=True)
        await director.close()


async def _others(others: AsyncExitStack, beside: Beside | None, director: Director, desk: Desk) -> None:
    """What else is in the process begins."""
    if beside is not None:
        await others.enter_async_context(beside(director, desk))


async def _first(job: Coroutine[Any, Any, None], stopped: asyncio.Future[Any]) -> bool:
    """Whether ``job`` was done before."""
    task = asyncio.ensure_future(job)
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
