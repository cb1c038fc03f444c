"""The director and hazards: an earthquake in a feed becomes a proposal, then an evacuation; or an alarm.

Feeds are served on 127.0.0.1, nodes take what the director sends over TLS, engines are in memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.director.evacuation.runner import Evacuations
from ipshare.director.evacuation.watch import HazardWatch
from ipshare.errors import Refused
from ipshare.hazards.feeds import Answer
from ipshare.hazards.poller import Poller
from tests import hazard_feeds as made
from tests.evacuation_world import WORKLOADS, Asked, EvacuationFleet, hazards, play, quakes
from tests.hazard_feeds import Server, nws, serving
from tests.unit.test_agent_daemon import until


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        server.documents = {"/nws": nws(), "/usgs": quakes()}
        yield server


def episode(here: Asked, site: str) -> Any:
    assert here.verbs.watch is not None
    return here.verbs.watch.state.episodes.get(site)


async def stage(here: Asked, site: str, wanted: str) -> str:
    """Until the site's episode is at that stage; its name."""
    await until(lambda: episode(here, site) is not None and episode(here, site).stage == wanted)
    name: str = episode(here, site).id
    return name


def test_an_earthquake_is_proposed_approved_and_evacuated(tmp_path: Path, server: Server) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            await until(lambda: all(feed.polls for feed in here.verbs.watch.poller.known))  # type: ignore[union-attr]
            assert (await here.ask("status"))["troubles"] == []
            server.documents["/usgs"] = quakes("houston")
            id_ = await stage(here, "houston", "approval")
            await until(lambda: id_ in here.evacuations.known)
            found = await here.ask("hazards")
            assert [feed["state"] for feed in found["feeds"]] == ["fresh", "fresh"]
            sites = {site["site"]: site for site in found["sites"]}
            assert sites["houston"]["episode"]["evacuation"] == "proposed"
            assert sites["houston"]["hazards"][0]["event"] == "Earthquake 6.5"
            assert sites["dallas"] == {"site": "dallas", "episode": None, "hazards": []}
            troubles = " ".join((await here.ask("status"))["troubles"])
            assert f"evacuation {id_} waits for an answer: site houston, Earthquake 6.5 (Extreme)" in troubles
            proposal = await here.ask("evacuations", id=id_)
            assert len(proposal["steps"]) == 5 and proposal["episode"] == id_
            assert here.director.number == 1, "nothing moves before somebody agrees"
            done = await here.ask("approve", id=id_, who="ann", why="go")
            assert (done["state"], done["answered_by"]) == ("running", "ann")
            one = await here.seen(id_)
            assert one["state"] == "done" and {step["state"] for step in one["steps"]} == {"done"}
            assert all(fleet.serves(name) == {node} for name, node in here.where().items())
            assert "h1" not in here.where().values()
            with pytest.raises(Refused, match="cannot be answered: it is done"):
                await here.ask("approve", id=id_)
            server.documents["/usgs"] = quakes("houston", "dallas")
            second = await stage(here, "dallas", "approval")
            assert episode(here, "houston").stage == "ordered"
            await until(lambda: second in here.evacuations.known)
            steps = (await here.ask("evacuations", id=second))["steps"]
            assert {step["target"] for step in steps} == {"e1"}, "houston is in danger"
            await here.ask("refuse", id=second, who="bob", why="they are underground")
            number = here.director.number
        server.documents["/usgs"] = quakes("houston", "dallas", magnitude=7)
        async with fleet.evacuating() as here:
            await until(lambda: here.verbs.watch.seen is not None)  # type: ignore[union-attr]
            assert (episode(here, "houston").id, episode(here, "dallas").id) == (id_, second)
            assert here.director.number == number, "an episode is evacuated once"
            states = {one.id: one.state for one in here.evacuations.known.values()}
            assert states == {id_: "done", second: "refused"}

    play(tmp_path, scenario, head=hazards(server.url, 'evacuate = "approve"'))


def test_automatic_is_an_alarm_where_nowhere_is_safe_and_acts_where_something_is(
    tmp_path: Path, server: Server
) -> None:
    server.documents["/usgs"] = quakes("houston", "dallas", "denver")

    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            await stage(here, "houston", "alarm")
            assert episode(here, "denver").stage == "empty"
            assert any("nowhere is safe" in text for text in (await here.ask("status"))["troubles"])
            assert not here.evacuations.known and here.director.number == 1
            server.documents["/usgs"] = quakes("houston", "dallas")
            id_ = await stage(here, "houston", "ordered")
            known = here.evacuations.known
            await until(lambda: id_ in known and known[id_].state != "proposed")
            one = await here.seen(id_)
            assert (one["state"], one["answered_by"]) == ("done", "automatic")
            assert here.where() == dict.fromkeys(WORKLOADS, "e1"), "dallas is in danger"
            assert episode(here, "dallas").stage == "empty", "it takes nobody's turn"

    play(tmp_path, scenario, head=hazards(server.url, 'evacuate = "automatic"\nhold = "1s"'))


def test_automatic_leaves_to_people_what_has_not_room_for_all(tmp_path: Path, server: Server) -> None:
    server.documents["/usgs"] = quakes("houston")

    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            id_ = await stage(here, "houston", "ordered")
            await until(lambda: id_ in here.evacuations.known)
            await until(lambda: bool(here.verbs.watch.stuck))  # type: ignore[union-attr]
            status = await here.ask("status")
            assert any("1 of 5 cannot go: shop: no room" in text for text in status["troubles"])
            assert status["faults"] == ["node h1 holds 6, more than its capacity, 2.5"]
            assert here.director.number == 1 and here.evacuations.known[id_].state == "proposed"
            await here.ask("approve", id=id_, who="ann", why="what can")
            one = await here.seen(id_)
            assert one["state"] == "incomplete" and len(one["stays"]) == 1
            assert sorted(here.where().values()) == ["d1", "d1", "e1", "e1", "h1", "h1"]

    head = hazards(server.url, 'evacuate = "automatic"')
    play(tmp_path, scenario, head=head, capacity=2.5)


def test_automatic_leaves_to_people_what_has_to_be_started(tmp_path: Path, server: Server) -> None:
    server.documents["/usgs"] = quakes("houston")

    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            id_ = await stage(here, "houston", "ordered")
            await until(lambda: bool(here.verbs.watch.stuck))  # type: ignore[union-attr]
            assert any(
                "w6: exclusive, and nothing" in text for text in (await here.ask("status"))["troubles"]
            )
            assert (await here.ask("evacuate", site="houston"))["exclusive"] == WORKLOADS
            await here.ask("approve", id=id_, who="ann", why="moved them by hand")
            assert (await here.seen(id_))["state"] == "done"

    play(tmp_path, scenario, head=hazards(server.url, 'evacuate = "automatic"'), kind="exclusive")


def test_feeds_that_hang_babble_and_flood_are_seen_and_move_nothing(tmp_path: Path, server: Server) -> None:
    server.stalls.add("/usgs")
    server.documents["/nws"] = b'{"features": [' * 9

    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            assert here.verbs.watch is not None
            quake_feed, weather = here.verbs.watch.poller.known
            await until(lambda: bool(quake_feed.failures and weather.failures))
            troubles = (await here.ask("status"))["troubles"]
            assert "feed quakes: never: no answer in time from 127.0.0.1" in troubles
            assert "feed weather: never: not JSON" in troubles
            server.stalls.clear()
            server.documents["/usgs"] = quakes("houston")
            server.headers["/nws"] = {"Content-Encoding": "gzip"}
            server.documents["/nws"] = gzip.compress(b" " * (33 << 20), 1)
            await stage(here, "houston", "would")
            await until(lambda: weather.error == "too long")
            found = await here.ask("hazards")
            assert [feed["state"] for feed in found["feeds"]] == ["fresh", "never"]
            assert set(found["feeds"][1]["refused"]) == {"document: not JSON", "document: too long"}
            assert any("would be evacuated (dry run)" in t for t in (await here.ask("status"))["troubles"])
            assert not here.evacuations.known and here.director.number == 1

    play(tmp_path, scenario, head=hazards(server.url, timeout="2s"))


def test_silence_moves_nothing_and_ends_nothing(tmp_path: Path) -> None:
    class Feeds:
        """Answers as the test says, at the time that it says."""

        now, body, error = made.NOW, b"", ""

        async def get(self, url: str, kind: str, etag: str = "", modified: str = "") -> Answer:
            body = made.nws(now=self.now) if kind == "nws" else self.body
            return Answer(error=self.error) if self.error else Answer(body)

        def clock(self) -> float:
            return self.now

    async def scenario(fleet: EvacuationFleet) -> None:
        director = await fleet.direct("", patience="10s", stale="10s")
        feeds, settings = Feeds(), fleet.wanted(patience="10s").settings.evacuation
        assert settings.hazards is not None
        evacuations = Evacuations(director, settings, wall=feeds.clock)
        await evacuations.start()
        poller = Poller(settings.hazards.feeds, feeds, feeds.clock, feeds.clock)
        watch = HazardWatch(evacuations, settings.hazards, poller, feeds.clock)

        async def after(seconds: float) -> list[str]:
            feeds.now += seconds
            await watch.tick()
            return watch.troubles()

        feeds.body = made.usgs(made.quake_feature(where=[-95.37, 29.76, 10.0]))
        await after(0)
        (id_,) = evacuations.known
        assert evacuations.one(id_).state == "proposed"
        feeds.error = "ConnectError"
        silent = await after(1200)
        assert "feed quakes: stale, 1200 s old: ConnectError" in silent
        assert watch.state.episodes["houston"].stage == "approval", "what it said last goes on counting"
        await after(7 * 3600)
        await after(48 * 3600)
        assert watch.state.episodes["houston"].stage == "hold", "nobody says that it is over"
        with pytest.raises(Refused, match="there is nothing to approve: the hazard is over"):
            await watch.approve(evacuations.one(id_), "ann", "")
        feeds.error, feeds.body = "", made.usgs(now=feeds.now)
        assert await after(3600) == []
        assert evacuations.one(id_).state == "over" and director.number == 1
        feeds.body = made.usgs(made.quake_feature(now=feeds.now, where=[-95.37, 29.76, 10.0]))
        await after(3600)
        assert [one.state for one in evacuations.known.values()] == ["over", "proposed"], "another episode"
        await evacuations.close()

    play(tmp_path, scenario, head=hazards("http://127.0.0.1:9", 'evacuate = "approve"'))
