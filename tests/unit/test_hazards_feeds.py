"""Feeds over real HTTP: what is asked, what is believed, what a feed that fails looks like."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ipshare.hazards import fetch
from ipshare.hazards.feeds import Answer, Feed, Known, report, state, status, take
from ipshare.hazards.fetch import Fetcher
from ipshare.hazards.model import Parsed, Place, Policy
from ipshare.hazards.poller import Poller
from tests import hazard_feeds as made
from tests.hazard_feeds import NOW, SENDER, Server, serving

HOUSTON = Place("houston", -95.37, 29.76)
FEED = Feed("weather", "nws", "http://127.0.0.1/x", interval_s=60, max_age_s=600)
PATIENT_S = 120.0
"""A busy machine is no silent feed."""
GOOD = made.nws(made.nws_feature())


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def wall(self) -> float:
        return NOW + self.at - 1000


def asked(server: Server, path: str, kind: str = "nws", **more: Any) -> Answer:
    async def ask() -> Answer:
        fetcher = Fetcher(contact="noc@example.net", timeout_s=more.pop("timeout_s", PATIENT_S))
        try:
            return await fetcher.get(server.url + path, kind, **more)
        finally:
            await fetcher.close()

    return asyncio.run(ask())


def test_what_a_server_is_asked(server: Server) -> None:
    server.documents["/a"] = GOOD
    server.headers["/a"] = {"ETag": '"7"', "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}
    first = asked(server, "/a")
    assert first == Answer(GOOD, '"7"', "Sat, 28 Nov 2026 10:00:00 GMT")
    assert asked(server, "/a", etag=first.etag, modified=first.modified) == Answer()
    _, headers = server.asked[1]
    assert headers["If-None-Match"] == '"7"'
    assert headers["If-Modified-Since"] == "Sat, 28 Nov 2026 10:00:00 GMT"
    assert "noc@example.net" in headers["User-Agent"] and headers["Accept"] == "application/geo+json"


def test_a_packed_answer_and_one_that_unpacks_to_too_much(server: Server) -> None:
    server.documents = {"/a": gzip.compress(GOOD), "/bomb": gzip.compress(bytes(40 << 20))}
    server.documents["/cut"] = server.documents["/a"][:-9]
    server.headers = {path: {"Content-Encoding": "gzip"} for path in server.documents}
    assert asked(server, "/a").body == GOOD
    assert asked(server, "/bomb").error == "too long"
    assert asked(server, "/cut").error == "cut off"
    server.documents["/a"] = b"no gzip"
    assert "error" in asked(server, "/a").error.lower()
    server.headers["/a"] = {"Content-Encoding": "br"}
    assert asked(server, "/a").error == "packed as br"


def test_unpacking_ends_at_the_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than that is ever made of an answer, not even for a moment."""
    made_of: list[int] = []

    class Watched:
        def __init__(self, bits: int) -> None:
            self.inner = zlib.decompressobj(bits)

        def decompress(self, *words: Any) -> bytes:
            made_of.append(len(found := self.inner.decompress(*words)))
            return found

    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    monkeypatch.setattr(fetch, "zlib", SimpleNamespace(decompressobj=Watched, error=zlib.error))
    server.documents = {"/bomb": gzip.compress(bytes(1 << 20))}
    server.headers = {"/bomb": {"Content-Encoding": "gzip"}}
    assert asked(server, "/bomb").error == "too long"
    assert sum(made_of) == 1001


def test_answers_that_are_none(server: Server) -> None:
    server.status = {"/500": 500, "/busy": 503, "/moved": 302}
    server.headers = {"/busy": {"Retry-After": "120"}, "/moved": {"Location": server.url + "/a"}}
    server.documents = {"/short": GOOD}
    server.headers["/short"] = {"X-Length": str(len(GOOD) + 5)}
    assert asked(server, "/none").error == "HTTP 404"
    assert asked(server, "/500").error == "HTTP 500"
    assert asked(server, "/moved").error == "HTTP 302"
    assert asked(server, "/busy") == Answer(error="HTTP 503", retry_after_s=120)
    assert asked(server, "/short").error


def test_nobody_there_and_nobody_who_speaks(server: Server) -> None:
    server.stalls.add("/silent")
    assert asked(server, "/silent", timeout_s=0.2).error == "no answer in time from 127.0.0.1"
    server.drips.add("/drip")  # it never waits long, and never comes to an end
    assert asked(server, "/drip", timeout_s=0.2).error == "no answer in time from 127.0.0.1"
    nobody = replace(server, url="http://127.0.0.1:1")
    assert "ConnectError" in asked(nobody, "/a").error


def watched(server: Server, *feeds: Feed) -> tuple[Poller, Clock]:
    clock = Clock()
    there = [replace(feed, url=server.url + feed.url) for feed in feeds]

    class Once:
        """A client for each question: each has an event loop of its own here."""

        async def get(self, *words: str) -> Answer:
            is_silent = words[0].removeprefix(server.url) in server.stalls
            fetcher = Fetcher(timeout_s=0.5 if is_silent else PATIENT_S)
            try:
                return await fetcher.get(*words)
            finally:
                await fetcher.close()

    return Poller(there, Once(), clock.monotonic, clock.wall), clock


def test_a_watch_over_good_and_bad_hours(server: Server) -> None:
    feeds = (replace(FEED, url="/nws"), Feed("quakes", "usgs", "/usgs", 60, 600))
    server.documents = {"/nws": GOOD, "/usgs": made.usgs()}
    server.headers["/nws"] = {"ETag": '"1"'}
    poller, clock = watched(server, *feeds)
    assert asyncio.run(poller.poll()) == ["weather", "quakes"]
    assert [f["state"] for f in poller.status()] == ["fresh", "fresh"]
    assert [f.site for f in poller.look([HOUSTON], Policy()).findings] == ["houston"]
    assert asyncio.run(poller.poll()) == [] and poller.next_s() == 60
    clock.at += 60
    assert asyncio.run(poller.poll()) == ["weather", "quakes"]
    assert poller.status()[0]["unchanged"] == 1
    assert poller.look([HOUSTON], Policy()).findings, "a feed that says nothing new says the same"
    server.status["/nws"] = 500
    for _ in range(12):
        clock.at += max(poller.next_s(), 1)
        asyncio.run(poller.poll())
    about = poller.status()[0]
    assert (about["state"], about["why"]) == ("stale", "HTTP 500") and about["failures"] >= 3
    picture = poller.look([HOUSTON], Policy())
    assert picture.blind == ("weather",) and picture.findings, "an alert ends by its own times"
    clock.at += 3600
    assert not poller.look([HOUSTON], Policy()).findings
    server.status.clear()
    asyncio.run(poller.poll())
    assert poller.status()[0]["state"] == "fresh"


def test_a_silent_feed_delays_no_other(server: Server) -> None:
    server.documents = {"/usgs": made.usgs(made.quake_feature())}
    server.stalls.add("/nws")
    poller, _ = watched(server, replace(FEED, url="/nws"), Feed("quakes", "usgs", "/usgs"))
    assert asyncio.run(poller.poll()) == ["weather", "quakes"]
    assert [f["state"] for f in poller.status()] == ["never", "fresh"]
    assert poller.look([HOUSTON], Policy()).blind == ("weather",)


def known(**more: Any) -> Known:
    return Known(replace(FEED, **more))


def test_pauses_grow_and_are_forgotten() -> None:
    one = known()
    waits = []
    for number in range(8):
        take(one, Answer(error="HTTP 500"), at=number, now=NOW)
        waits.append(one.due_at - number)
    assert waits == [120, 240, 480, 900, 900, 900, 900, 900]
    take(one, Answer(error="HTTP 503", retry_after_s=3000), at=0, now=NOW)
    assert one.due_at == 3000
    take(one, Answer(error="HTTP 503", retry_after_s=1e6), at=0, now=NOW)
    assert one.due_at == 3600
    take(one, Answer(GOOD), at=0, now=NOW)
    assert (one.due_at, one.failures, one.error) == (60, 0, "")


def test_a_bad_document_is_a_failure_and_the_good_one_before_stays() -> None:
    one = known()
    take(one, Answer(GOOD, etag='"1"'), at=0, now=NOW)
    take(one, Answer(b"<html>Sorry</html>", etag='"2"'), at=60, now=NOW)
    assert one.etag == '"1"', "or the bad one would be confirmed by 304"
    assert status(one, 60, NOW)["why"] == "not JSON" and len(report(one, 60, NOW).alerts) == 1
    assert status(one, 60, NOW)["refused"] == {"document: not JSON": 1}


def test_a_parser_that_has_a_bug_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> Parsed:
        raise ZeroDivisionError

    monkeypatch.setitem(__import__("ipshare.hazards.feeds", fromlist=["PARSERS"]).PARSERS, "nws", broken)
    one = known()
    take(one, Answer(GOOD), at=0, now=NOW)
    assert state(one, 0, NOW) == ("never", "unexpected ZeroDivisionError")


def test_a_first_answer_that_says_nothing_changed() -> None:
    one = known()
    take(one, Answer(), at=0, now=NOW)
    assert state(one, 0, NOW)[0] == "never"


def test_a_feed_that_stopped_and_goes_on_answering() -> None:
    one = known(kind="usgs", content_max_age_s=1800)
    take(one, Answer(made.usgs()), at=0, now=NOW)
    assert state(one, 1, NOW + 1)[0] == "fresh"
    take(one, Answer(), at=1801, now=NOW + 1801)
    assert state(one, 1801, NOW + 1801) == ("stale", "answers, but what it says is 1801 s old")
    take(one, Answer(b'{"features": []}'), at=1900, now=NOW + 1900)
    assert state(one, 1900, NOW + 1900) == ("stale", "does not say when it was written")


def test_a_cancel_is_remembered_after_the_feed_forgot_it() -> None:
    one = known()
    cancel = made.nws_feature(2, messageType="Cancel", references=[made.reference(1)])
    take(one, Answer(made.nws(cancel)), at=0, now=NOW)
    take(one, Answer(made.nws()), at=60, now=NOW + 60)
    assert report(one, 60, NOW + 60).voids == {(SENDER, made.reference(1)["identifier"])}
    take(one, Answer(made.nws()), at=172_900, now=NOW + 172_900)
    assert report(one, 172_900, NOW + 172_900).voids == frozenset()


def test_what_follows_a_packed_document_is_not_read() -> None:
    """It would be kept, whatever its length: here there is no end of it."""

    async def scenario() -> Answer:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
            writer.write(head + gzip.compress(GOOD))
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(bytes(1 << 10))
                    await writer.drain()
                    await asyncio.sleep(0.01)

        door = await asyncio.start_server(serve, "127.0.0.1", 0)
        fetcher = Fetcher(timeout_s=30.0)
        try:
            port = door.sockets[0].getsockname()[1]
            return await fetcher.get(f"http://127.0.0.1:{port}/x", "nws")
        finally:
            await fetcher.close()
            door.close()

    assert asyncio.run(scenario()).body == GOOD
