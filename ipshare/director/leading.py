"""leading: whether this director leads now: with a store of its own always, else while it has the seat.

``gain`` ends when it does, ``keep`` when it does no more. Between the two the seat is renewed every fifth of
the lease, by requests of a bounded time (ipshare.director.etcd); ``bar`` says, at any moment and without
asking anybody, why nothing may be sent: from ``margin`` before the end of what was counted on. That may pass:
if nobody else took the seat, etcd gives it back later. What is sent all the same, by a process that was
paused after it looked, is refused by nodes, by its term.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ipshare.director.config_store import EtcdSettings
from ipshare.director.seat import Seat, Sight, now
from ipshare.director.store_etcd import who
from ipshare.errors import IpshareError

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_S = 0.25
LOOK_S = 0.5
"""A standby looks so often whether the seat is free."""
Follow = Callable[[Sight], Awaitable[None]]


class Leading(Protocol):
    """As a director and its process ask for it."""

    kind: str
    """Of the store."""
    is_shared: bool
    """Whether there may be others."""
    sight: Sight
    """What was seen last."""
    trouble: str
    """Why that was long ago."""

    def bar(self) -> str:
        """Why nothing may be changed or sent now; "": it may."""

    async def gain(self, follow: Follow) -> None:
        """Until this one leads. ``follow`` is told what a standby sees."""

    async def keep(self) -> None:
        """Until it does not lead any more."""

    def begun(self, term: int) -> None:
        """This is the term that it leads in."""

    async def resign(self) -> None:
        """It does not want to lead any more. Raises nothing."""

    def close(self) -> None:
        """At the end of the process."""


class Alone:
    """With a store that nobody else may use."""

    kind, is_shared, sight, trouble = "sqlite", False, Sight(), ""

    def bar(self) -> str:
        return ""

    async def gain(self, follow: Follow) -> None:
        pass

    async def keep(self) -> None:
        await asyncio.Event().wait()

    def begun(self, term: int) -> None:
        pass

    async def resign(self) -> None:
        pass

    def close(self) -> None:
        pass


class Elected:
    """While ``seat`` is held."""

    kind, is_shared = "etcd", True

    def __init__(self, seat: Seat, settings: EtcdSettings) -> None:
        self._seat, self._settings = seat, settings
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="seat")
        self.mark = seat.mark
        self._term, self._until = 0, 0.0
        self.sight, self.trouble = Sight(), ""

    def bar(self) -> str:
        if not self._until:
            if self.sight.leader:
                return f"{self.sight.leader} leads"
            return self.trouble or "no director leads yet"
        left = self._until - self._settings.margin_s - now()
        if left > 0:
            return ""
        return f"etcd does not confirm that this director leads: {self.trouble or 'it was not asked in time'}"

    async def gain(self, follow: Follow) -> None:
        self._term = 0
        while not self._until:
            try:
                self.sight = await self._work(self._seat.look)
                if self.sight.leader in ("", who(self.mark)):
                    self._heard(await self._work(self._seat.hold))
                self.trouble = ""
                if not self._until:
                    await follow(self.sight)
            except IpshareError as error:
                self._troubled(error)
            if not self._until:
                await asyncio.sleep(LOOK_S)

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(max(self._due() - now(), RETRY_S))
            try:
                sight = await self._work(self._seat.hold, self._term)
            except IpshareError as error:
                self._troubled(error)
                continue
            self.trouble = ""
            if sight.is_lost:
                self.sight, self._until = sight, 0.0
                log.error(
                    "this director does not lead any more: %s leads, term %d",
                    sight.leader or "nobody",
                    sight.term,
                )
                return
            self._heard(sight)

    def begun(self, term: int) -> None:
        self._term = term

    async def resign(self) -> None:
        held, self._until = self._until, 0.0
        with contextlib.suppress(IpshareError):  # then it ends by itself
            if held:
                await self._work(self._seat.resign)

    def close(self) -> None:
        self._worker.shutdown()
        self._seat.close()

    async def _work(self, job: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *arguments)

    def _due(self) -> float:
        """When the seat is to be renewed: counted, as all of it, from when it was asked for."""
        return self._until - self._settings.lease_s + self._settings.renew_s

    def _heard(self, sight: Sight) -> None:
        if sight.until:
            self.sight, self._until = sight, sight.until

    def _troubled(self, error: IpshareError) -> None:
        if not self.trouble:
            log.error("%s", error.message)
        self.trouble = error.message
