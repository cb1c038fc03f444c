"""The poller: asks feeds when they are due, all at the same time, and has their reports for ``look``.

Both clocks and the fetching are parameters. Whatever a feed does, ``poll`` returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ipshare.hazards import feeds
from ipshare.hazards.feeds import Answer, Feed, Known
from ipshare.hazards.look import look
from ipshare.hazards.model import Look, Place, Policy, Report

Clock = Callable[[], float]


class Fetches(Protocol):
    async def get(self, url: str, kind: str, etag: str = "", modified: str = "") -> Answer: ...


class Poller:
    """Feeds and what is known of them."""

    def __init__(
        self,
        wanted: Iterable[Feed],
        fetcher: Fetches,
        monotonic: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self.known = [Known(feed) for feed in wanted]
        self._fetcher, self._monotonic, self._wall = fetcher, monotonic, wall

    async def poll(self) -> list[str]:
        """Asks every feed that is due. Names of those that were asked."""
        at = self._monotonic()
        due = [known for known in self.known if known.due_at <= at or not known.polls]
        await asyncio.gather(*map(self._ask, due))
        return [known.feed.name for known in due]

    async def _ask(self, known: Known) -> None:
        feed = known.feed
        answer = await self._fetcher.get(feed.url, feed.kind, known.etag, known.modified)
        if answer.body is not None:
            parsed = await asyncio.to_thread(feeds.parse, feed.kind, answer.body)
            answer = replace(answer, parsed=parsed)
        feeds.take(known, answer, self._monotonic(), self._wall())

    def next_s(self) -> float:
        """Seconds until the next feed is due."""
        at = self._monotonic()
        return max(0.0, min((known.due_at - at for known in self.known), default=60.0))

    def reports(self) -> list[Report]:
        return [feeds.report(known, self._monotonic(), self._wall()) for known in self.known]

    def look(self, sites: Sequence[Place], policy: Policy) -> Look:
        return look(self._wall(), sites, self.reports(), policy)

    def status(self) -> list[dict[str, Any]]:
        return [feeds.status(known, self._monotonic(), self._wall()) for known in self.known]
