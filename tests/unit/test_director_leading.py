"""Who leads: what a director may do while it does, while that is in doubt, and when it does not; and a store
that answers late or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.client import AgentClient
from ipshare.director import leading
from ipshare.director.config_store import EtcdSettings
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.director.etcd import Unheard
from ipshare.director.leading import Alone, Elected
from ipshare.director.run import _run
from ipshare.director.seat import Sight
from ipshare.director.store import Overtaken, SqliteStore
from ipshare.errors import IpshareError, Refused
from tests import director_world
from tests.director_world import ALL_A, SEVEN_B, Fleet
from tests.pki import Pki
from tests.unit.test_agent_daemon import until
from tests.unit.test_director import node, run, settle

NAMES = ["a1", "b1", "c1"]
SETTINGS = EtcdSettings(("http://x:1",), "/x", None, None, lease_s=10.0, timeout_s=2.0, margin_s=1.0)


class Told(Alone):
    """Leads while nothing is said against it."""

    def __init__(self) -> None:
        self.against = ""

    def bar(self) -> str:
        return self.against


async def directed(fleet: Fleet, told: Told, **more: Any) -> Director:
    found = fleet.wanted(ALL_A, **more)
    fleet.store = SqliteStore(found.settings.state_dir)
    fleet.director = Director(found.settings, fleet.store, 0, told)
    await fleet.director.start()
    await fleet.director.change(found.topology, "test", "first")
    return fleet.director


def test_nothing_is_sent_or_changed_while_it_is_in_doubt_and_all_goes_on_afterwards(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start("b1")
        told, agents = Told(), fleet.agents
        director = await directed(fleet, told, stale="2s")
        await until(lambda: node(director, "c1")["outcome"] == "acked")
        told.against = "etcd does not confirm it"
        await agents["b1"].start()  # it has nothing: something is due
        await until(lambda: node(director, "b1")["state"] == "alive")
        heard = director.nodes["b1"].heard_s
        await until(lambda: director.nodes["b1"].heard_s != heard)
        assert agents["b1"].taken == [], "looked at, and sent nothing"
        status = Desk(director, Path("x")).status()
        assert (status["leads"], status["troubles"]) == (False, ["etcd does not confirm it"])
        with pytest.raises(Refused, match="etcd does not confirm it") as found:
            await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")
        assert "the director that leads" in found.value.hint
        told.against = ""
        await settle(director)
        assert [number[1:] for number in agents["b1"].taken] == [(1, 1)]
        assert await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")
        await settle(director)

    run(tmp_path, scenario, NAMES)


def test_it_is_asked_again_when_the_connection_is_there_and_nothing_was_sent_yet(tmp_path: Path) -> None:
    """To meet a node may take longer than the lease."""

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        told, agents = Told(), fleet.agents
        director = await directed(fleet, told)
        await settle(director)
        link = director.nodes["c1"].link
        link.close()
        meet = link._meet

        async def slowly() -> Any:
            found = await meet()
            told.against = "it is over"
            return found

        link._meet = slowly  # type: ignore[method-assign]
        asyncio.get_running_loop().call_soon(director.nodes["c1"].kick.clear)
        number, text = director.number, director.rollout.text("c1", 1)  # type: ignore[union-attr]
        words = {"number": [director.term, number + 1, 1], "digest": "x", "text": text}
        with pytest.raises(IpshareError, match="nothing was sent: it is over"):
            await link.ask("assign", 30, director.bar, **words)
        assert agents["c1"].assignment.seen.number[1] == number

    run(tmp_path, scenario, NAMES)


@pytest.mark.parametrize("landed", [True, False])
def test_a_revision_of_which_nobody_knows_whether_it_was_written_is_found_out(
    tmp_path: Path, landed: bool
) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director = await fleet.direct(ALL_A)
        await settle(director)
        assert fleet.store is not None
        add, latest = fleet.store.add, fleet.store.latest
        asked = 0

        def unheard(*words: Any) -> None:
            if landed:
                add(*words)
            raise Unheard("etcd does not answer")

        def once_more() -> Any:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise Unheard("etcd does not answer")
            return latest()

        fleet.store.add, fleet.store.latest = unheard, once_more  # type: ignore[assignment, method-assign]
        wanted = fleet.wanted(ALL_A + SEVEN_B).topology
        with pytest.raises(Unheard):
            await director.change(wanted, "me", "")
        assert "etcd does not answer" in Desk(director, Path("x")).status()["troubles"]
        with pytest.raises(Refused, match="has not said yet whether it has a revision 2"):
            await director.change(wanted, "me", "")
        fleet.store.add = add  # type: ignore[method-assign]
        assert director._unsure is not None
        await asyncio.wait_for(director._unsure, 30)
        assert (director.number, asked) == (2 if landed else 1, 2)
        assert await director.change(wanted, "me", "") is not landed
        await settle(director)
        assert fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        assert Desk(director, Path("x")).status()["troubles"] == []

    run(tmp_path, scenario, NAMES)


def test_what_could_not_be_kept_is_kept_later(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director = await fleet.direct(ALL_A)
        store = fleet.store
        assert store is not None
        keep, refusing = store.keep, True

        def unheard(*words: Any) -> None:
            if refusing:
                raise Unheard("etcd does not answer")
            keep(*words)

        store.keep = unheard  # type: ignore[method-assign]
        await until(lambda: director.trouble == "etcd does not answer")
        await settle(director)
        refusing = False
        await until(lambda: not director.trouble)
        await until(lambda: {one.node for one in store.outcomes(1)} == set(NAMES))
        assert {kept.has for kept in store.facts().values()} == {(1, 1)}

    run(tmp_path, scenario, NAMES)


def test_what_is_learnt_while_something_is_written_is_written_too(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start("b1")
        loop, writing, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        director = await directed(fleet, Told())
        store = fleet.store
        assert store is not None
        keep = store.keep

        def slowly(*words: Any) -> None:
            loop.call_soon_threadsafe(writing.set)
            go.wait(60)
            keep(*words)

        store.keep = slowly  # type: ignore[method-assign]
        await writing.wait()
        await fleet.agents["b1"].start()
        await until(lambda: node(director, "b1")["outcome"] == "acked")
        go.set()
        await until(lambda: store.facts()["b1"].has == (1, 1))

    run(tmp_path, scenario, NAMES)


# ---- the seat, on a clock that is turned by hand -----------------------------


class HandSeat:
    """A seat that says what it is told to; each question is waited for."""

    mark = b"d1 here 1"

    def __init__(self) -> None:
        self.now = 100.0
        self.answers: dict[str, Callable[[], Sight]] = {}
        self.asked: list[tuple[str, int]] = []

    def look(self) -> Sight:
        return self._said("look", 0)

    def hold(self, term: int = 0) -> Sight:
        return self._said("hold", term)

    def resign(self) -> None:
        self.asked.append(("resign", 0))

    def close(self) -> None:
        pass

    def held(self) -> Sight:
        return Sight("d1 at here", 1, until=self.now + SETTINGS.lease_s)

    def _said(self, verb: str, term: int) -> Sight:
        self.asked.append((verb, term))
        return self.answers[verb]()


def seated(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[HandSeat, Elected], Awaitable[None]]) -> None:
    seat = HandSeat()
    monkeypatch.setattr(leading, "now", lambda: seat.now)
    monkeypatch.setattr(leading, "LOOK_S", 0.001)
    monkeypatch.setattr(leading, "RETRY_S", 0.001)
    settings = EtcdSettings(("http://x:1",), "/x", None, None, lease_s=10.0, timeout_s=2.0, margin_s=1.0)
    monkeypatch.setattr(EtcdSettings, "renew_s", 0.001)

    async def all_of_it() -> None:
        elected = Elected(seat, settings)  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            await scenario(seat, elected)
        elected.close()

    asyncio.run(all_of_it())


def unheard() -> Sight:
    raise Unheard("etcd does not answer")


def test_a_standby_waits_says_who_leads_and_takes_a_free_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(seat: HandSeat, elected: Elected) -> None:
        seen: list[Sight] = []

        async def follow(sight: Sight) -> None:
            seen.append(sight)

        seat.answers = {"look": unheard, "hold": seat.held}
        gaining = asyncio.create_task(elected.gain(follow))
        await until(lambda: elected.trouble == "etcd does not answer")
        assert elected.bar() == "etcd does not answer"
        seat.answers["look"] = lambda: Sight("d2 at there", 4, 7)
        await until(lambda: bool(seen))
        assert (seen[-1].revision, elected.trouble, elected.bar()) == (7, "", "d2 at there leads")
        assert ("hold", 0) not in seat.asked
        seat.answers["look"] = lambda: Sight("", 4, 7)
        await gaining
        assert elected.bar() == ""
        await elected.resign()
        assert seat.asked[-1] == ("resign", 0)
        assert elected.bar()

    seated(monkeypatch, scenario)


def test_it_sends_nothing_from_a_margin_before_the_end_and_goes_on_if_it_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(seat: HandSeat, elected: Elected) -> None:
        async def follow(sight: Sight) -> None:
            pass

        seat.answers = {"look": Sight, "hold": seat.held}
        await elected.gain(follow)
        elected.begun(3)
        seat.answers["hold"] = unheard
        keeping = asyncio.create_task(elected.keep())
        await until(lambda: elected.trouble != "")
        assert seat.asked[-1] == ("hold", 3)
        seat.now += 8.9
        assert elected.bar() == "", "it is in trouble, and leads"
        seat.now += 0.2
        assert elected.bar() == "etcd does not confirm that this director leads: etcd does not answer"
        seat.now += 1000.0
        assert elected.bar()
        seat.answers["hold"] = Sight  # neither held nor lost
        await until(lambda: elected.trouble == "")
        assert elected.bar()
        seat.answers["hold"] = seat.held
        await until(lambda: elected.bar() == "")
        seat.answers["hold"] = lambda: Sight("d2 at there", 4, is_lost=True)
        await keeping
        assert elected.bar() == "d2 at there leads"
        await elected.resign()
        assert ("resign", 0) not in seat.asked, "it is another's"

    seated(monkeypatch, scenario)


def test_a_renewal_begins_in_time_however_long_the_one_before_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the lease after that one began, as the check of [store] counts."""

    async def scenario(seat: HandSeat, elected: Elected) -> None:
        async def follow(sight: Sight) -> None:
            pass

        def slowly() -> Sight:
            sight = seat.held()
            seat.now += 3600.0
            return sight

        monkeypatch.setattr(EtcdSettings, "renew_s", 3600.0)
        seat.answers = {"look": Sight, "hold": slowly}
        await elected.gain(follow)
        keeping = asyncio.create_task(elected.keep())
        await until(lambda: len(seat.asked) > 3)
        keeping.cancel()

    seated(monkeypatch, scenario)


def test_a_standby_shows_what_the_store_has_and_tends_nobody(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        await fleet.direct(ALL_A)
        await settle(fleet.director)
        await fleet.end()

        class Waiting(Told):
            is_shared, sight = True, Sight("d2 at there", 1, 1)

        told = Waiting()
        told.against = "d2 at there leads"
        settings = fleet.wanted(ALL_A).settings
        fleet.store = SqliteStore(settings.state_dir)
        fleet.director = Director(settings, fleet.store, 0, told)
        await fleet.director.follow(told.sight)
        desk = Desk(fleet.director, Path("x"))
        status = desk.status()
        assert (status["leader"], status["leads"], status["term"]) == ("d2 at there", False, 1)
        assert (status["revision"], status["nodes"], status["troubles"]) == (1, [], [])
        assert (await desk._show(None, {"node": "c1"}))["node"] == "c1"  # type: ignore[arg-type]
        with pytest.raises(Refused, match="d2 at there leads"):
            await fleet.director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")

    run(tmp_path, scenario, NAMES)


def test_a_reign_that_fails_in_its_beginning_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else took the seat right after it was won; then etcd was silent."""
    pki, fails = Pki(tmp_path), [Overtaken("d2 at there leads"), Unheard("etcd does not answer")]
    found = director_world.wanted(tmp_path, pki, NAMES, ALL_A)
    store = SqliteStore(found.settings.state_dir)
    begin = store.begin

    def begun(least: int = 0) -> int:
        if fails:
            raise fails.pop(0)
        return begin(least)

    store.begin = begun  # type: ignore[method-assign]

    async def scenario(seat: HandSeat, elected: Elected) -> None:
        seat.answers = {"look": Sight, "hold": seat.held}
        process = asyncio.create_task(_run(found, tmp_path / "director.toml", store, elected, 5, None))

        def status() -> dict[str, Any]:
            with (
                contextlib.suppress(IpshareError),
                AgentClient(tmp_path, path=tmp_path / "run/director.sock") as it,
            ):
                return it.call("status")
            return {}

        async with asyncio.timeout(60):
            while not (await asyncio.to_thread(status)).get("leads"):
                assert not process.done(), process.result()
        assert (await asyncio.to_thread(status))["term"] == 5, "the operator's word is not lost"
        os.kill(os.getpid(), signal.SIGTERM)
        await process
        assert not fails
        assert seat.asked.count(("resign", 0)) == 3

    seated(monkeypatch, scenario)
    store.close()
