"""News of probes: what a node sees reaches a director when it changes, by whichever way it comes first, and
what is no news. A watcher with probes that answer when told to, an ear with a node that does as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from ipshare.agent import watcher
from ipshare.agent.watcher import Watched, Watcher
from ipshare.director import listening
from ipshare.director.health import Observation
from ipshare.director.link import Silent
from ipshare.director.listening import Ear, heard
from ipshare.model import ClusterProbe

ECHO = Watched("A", ip_address("192.0.2.1"), ClusterProbe("icmp", 0, "/", 0.05, 0.2, 1, 1))


class Far:
    """What is probed: each probe waits until it is told how it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[asyncio.Future[float | None]] = []
        self._more = asyncio.Event()
        monkeypatch.setattr(watcher, "probe", self.probe)

    async def probe(self, *_: object) -> float | None:
        self.asked.append(asyncio.get_running_loop().create_future())
        self._more.set()
        return await self.asked[-1]

    async def come(self, number: int) -> None:
        while len(self.asked) < number:
            self._more.clear()
            await self._more.wait()


def test_probes_do_not_wait_for_each_other_and_the_newest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        far, now = Far(monkeypatch), [100.0]
        made = Watcher(lambda: now[0])
        made.follow([ECHO])
        for number in range(1, 5):
            await far.come(number)
            now[0] += 0.0625
        first = made.version
        far.asked[1].set_result(0.001)
        await made.changed(first, 60.0)
        assert made.report()[0]["up"], "it need not wait for the one before"
        far.asked[0].set_result(None)
        await far.come(5)
        assert made.report()[0]["up"], "what was asked before says nothing any more"
        since = made.version
        far.asked[2].set_result(None)
        await made.changed(since, 60.0)
        row = made.report()[0]
        assert (row["up"], row["age_s"], row["for_s"]) == (False, 0.125, 0.125)
        far.asked[3].set_result(None)
        await far.come(6)
        row = made.report()[0]
        assert (row["age_s"], row["for_s"]) == (0.062, 0.125), "it is down since the first that failed"
        assert made.version == since + 1, "that is no news"
        await made.close()

    asyncio.run(scenario())


def test_a_failure_that_was_slept_through_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        far, now = Far(monkeypatch), [100.0]
        made = Watcher(lambda: now[0])
        made.follow([ECHO])
        await far.come(1)
        now[0] = 100.0 + 0.2 + watcher.LATE_S + 0.01
        far.asked[0].set_result(None)
        await far.come(2)
        assert made.report() == []
        far.asked[1].set_result(0.001)
        await made.changed(made.version, 60.0)
        assert [row["up"] for row in made.report()] == [True]
        await made.close()

    asyncio.run(scenario())


class Node:
    """The far end of a director's connection."""

    name = "c1"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: asyncio.Queue[dict[str, Any] | Silent] = asyncio.Queue()

    async def ask(self, verb: str, _timeout_s: float, **words: Any) -> dict[str, Any]:
        assert verb == "news"
        self.asked.append(words)
        answer = await self.answers.get()
        if isinstance(answer, Silent):
            raise answer
        return answer

    def close(self) -> None:
        pass


def told(ns: int, version: int, up: bool, boot: str = "x") -> dict[str, Any]:
    row = {"name": "A", "address": "192.0.2.1", "up": up, "age_s": 0.5, "for_s": 2.0}
    return {"read": [boot, ns], "version": version, "probes": [row, {**row, "name": "gone"}]}


def test_an_ear_wakes_at_news_and_believes_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening.time, "clock_gettime", lambda _clock: 50.0)

    async def until(claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not claim():
                await asyncio.sleep(0.001)

    async def scenario() -> None:
        node, woken, listens, looked = Node(), list[int](), [False], list[bool]()

        def may_listen() -> bool:
            looked.append(listens[0])
            return listens[0]

        ear = Ear(node, lambda: woken.append(1), may_listen, 0.001, 1.0)  # type: ignore[arg-type]
        await until(lambda: len(looked) > 2)
        assert node.asked == []
        listens[0] = True
        ear.take(told(10, 7, True), 40.0)
        await until(lambda: bool(node.asked))
        node.answers.put_nowait(told(20, 8, False))
        await until(lambda: len(woken) == 1)
        found = heard([ear], {"A": "A"})
        assert found == [Observation("c1", "A", False, 49.5, "A", 48.0)], (
            "what is not looked after is left out"
        )
        ear.take(told(15, 7, True), 51.0)
        assert heard([ear], {"A": "A"}) == found, "a look that was overtaken by news"
        await until(lambda: len(node.asked) == 2)
        node.answers.put_nowait(Silent("no answer in time"))
        await until(lambda: len(node.asked) == 3)
        assert node.asked[-1] == {"version": 8, "within_s": listening.LISTEN_S}
        node.answers.put_nowait(told(30, 8, False))
        await until(lambda: len(node.asked) == 4)
        assert len(woken) == 1, "no news"
        ear.take(told(1, 3, True, "another boot"), 60.0)
        assert [one.up for one in ear.observations({"A": "A"})] == [True]
        await ear.close()

    asyncio.run(scenario())
