"""listening: what a node's probes say reaches the director when it changes, not when the director looks next.

Beside the looks of ipshare.director.warden, on a connection of its own, the director asks each node that
probes for news: the node answers as soon as what it sees has changed, or after LISTEN_S. Both ways say the
same, and the newer one by the node's clock counts. Nothing of a lease depends on this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ipshare.director import answers
from ipshare.director.health import Observation
from ipshare.director.link import Link
from ipshare.errors import IpshareError

log = logging.getLogger(__name__)
LISTEN_S = 5.0


class Ear:
    """On the node of ``link``. ``wakes`` is called at news; ``listens``: whether it is asked now. A node that
    does not answer for ``patience_s`` more than it may take is asked again after ``pause_s``."""

    def __init__(
        self, link: Link, wakes: Callable[[], None], listens: Callable[[], bool], pause_s: float,
        patience_s: float,
    ) -> None:  # fmt: skip
        self.name, self._link, self._wakes, self._listens = link.name, link, wakes, listens
        self._pause_s, self._patience_s = pause_s, patience_s
        self._read: tuple[str, int] = ("", 0)
        self._version = 0
        self._probes: list[dict[str, Any]] = []
        self._at_s = 0.0
        self._task = asyncio.create_task(self._run(), name=f"listen {link.name}")

    def take(self, told: dict[str, Any], now_s: float) -> None:
        """What a look, or news, said of probes; it came at ``now_s``."""
        boot, ns = told["read"]
        if boot == self._read[0] and ns < self._read[1]:
            return  # it was overtaken on its way
        self._read, self._version = (boot, ns), told["version"]
        self._probes, self._at_s = told["probes"], now_s

    def observations(self, places: Mapping[str, str]) -> Iterator[Observation]:
        """As of when they came: what took time on the way is older than it looks, never younger."""
        for row in self._probes:
            if row["name"] in places:
                at_s, since_s = self._at_s - row["age_s"], self._at_s - row["for_s"]
                yield Observation(self.name, row["name"], row["up"], at_s, places[row["name"]], since_s)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._link.close()

    async def _run(self) -> None:
        while True:
            try:
                if self._listens():
                    version = self._version
                    said = await self._link.ask(
                        "news", LISTEN_S + self._patience_s, version=version, within_s=LISTEN_S
                    )
                    told = answers.news(said)
                    self.take(told, time.clock_gettime(time.CLOCK_BOOTTIME))
                    if told["version"] != version:
                        self._wakes()
                    continue
            except IpshareError:
                pass  # the looks say why
            except Exception:
                log.exception("node %s: news that cannot be read; it is asked again", self.name)
            await asyncio.sleep(self._pause_s)


def heard(ears: Iterable[Ear], places: Mapping[str, str]) -> list[Observation]:
    """All that is known."""
    return [one for ear in ears for one in ear.observations(places)]
