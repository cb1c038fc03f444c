"""What a director may ask of an agent beside assignments: probes, leases, orders to stop, a fence; and that
nobody else may, that nonsense is refused, and what the agent then says of its workloads."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent import workloads
from ipshare.agent.confirm import SystemClock
from ipshare.agent.daemon import Daemon
from ipshare.config import check_text
from tests.pki import Pki
from tests.remote_world import PORT, Caller, RemoteWorld, host
from tests.unit.test_agent_daemon import ask

WORKLOAD = """
[[workload]]
name = "shop"
start = ["/bin/sh", "-c", ": > {mark}"]
stop = ["/bin/rm", "-f", "{mark}"]
status = ["/bin/test", "-e", "{mark}"]
stop_time = "2s"
"""


@pytest.fixture
def world(tmp_path: Path) -> RemoteWorld:
    pki = Pki(tmp_path)
    (tmp_path / "a1").mkdir()
    return RemoteWorld(tmp_path / "a1", pki, host(1), "a1")


def probe(**more: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "address": host(1),
        "kind": "tcp",
        "port": PORT,
        "path": "/",
        "interval_s": 0.05,
        "timeout_s": 5,
    } | more


HOLD = {"name": "shop", "epoch": 1, "boot": "x", "since_ns": 0, "lease_s": 60, "stop_s": 5, "addresses": []}
STRANGE: list[dict[str, Any]] = [
    {"term": 0},
    {"term": "1"},
    {"term": True},
    *({"term": 1, "probes": [bad]} for bad in (
        1, {}, probe(kind="udp"), probe(port=-1), probe(port=1 << 16), probe(port=1.5), probe(port=True),
        probe(path="x"), probe(path="/a b"), probe(path="/a\r\nX: y"), probe(interval_s=0),
        probe(timeout_s=float("nan")), probe(timeout_s=61), probe(address="localhost"), probe(address=None),
    )),
    {"term": 1, "probes": "x"},
    {"term": 1, "probes": [probe()] * 1001},
    *({"term": 1, "holds": [{**HOLD, **bad}]} for bad in (
        {"epoch": 0}, {"epoch": "1"}, {"lease_s": 0}, {"lease_s": 86401}, {"addresses": ["x"]},
        {"addresses": None}, {"boot": 1}, {"since_ns": 0.5}, {"stop_s": None},
    )),
    {"term": 1, "holds": [1]},
    {"term": 1, "holds": 1},
    {"term": 1, "stops": [{"name": "shop"}]},
    {"term": 1, "stops": {"name": "shop"}},
    {"term": 1, "heard": {"boot": "x"}},
    {"term": 1, "heard": []},
]  # fmt: skip


NODE = '[node]\nname = "a1"\n'
REMOTE = '[remote]\nlisten = "10.0.0.1:1"\nca = "x"\ncertificate = "x"\n'
GOOD = NODE + REMOTE + WORKLOAD.format(mark="/run/shop")
MIGRATED = '[[migration]]\nworkload = "shop"\nadapter = "libvirt"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace(REMOTE, ""), "nobody gives leases: without [remote]"),
        (GOOD.replace("/bin/rm", "rm"), "'rm' is not an absolute path"),
        (GOOD.replace('"2s"', '"2h"'), "a stop_time of 7200 s is out of range"),
        (GOOD.replace("status =", "fence ="), "key 'status' is missing"),
        (GOOD + WORKLOAD.format(mark="/run/other"), "the name 'shop' is taken"),
        (GOOD + MIGRATED, "shop has a [[migration]] here"),
    ],
)
def test_a_site_file_in_which_a_workload_cannot_be(text: str, message: str) -> None:
    assert not check_text(GOOD).problems
    assert any(message in problem.message for problem in check_text(text).problems)


def test_nonsense_is_refused_and_the_next_request_is_answered(world: RemoteWorld) -> None:
    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        for words in STRANGE:
            reply = await director.ask(verb="watch", **words)
            assert not reply["ok"], words
            assert "unexpectedly" not in reply["error"]["message"], words
        for words in ({}, {"name": "shop", "node": "b1"}, {"name": "shop", "node": "b1", "within_s": 601}):
            reply = await director.ask(verb="fence", term=1, **words)
            assert not reply["ok"], words
        reply = await director.ask(verb="fence", term=1, name="shop", node="a1", within_s=1)
        assert reply["error"]["message"] == "a node does not fence itself"
        assert (await director.ask(verb="watch", term=1))["ok"]
        await director.close()

    world.serve(scenario)


def test_probes_are_made_for_as_long_as_they_are_asked_for(world: RemoteWorld) -> None:
    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        wanted = [probe(), probe(name="y", port=1)]
        found = (await director.ask(verb="watch", term=3, probes=wanted))["result"]
        while len(seen := found["probes"]) < 2:
            found = (await director.ask(verb="news", version=found["version"], within_s=25))["result"]
        assert {row["name"]: row["up"] for row in seen} == {"x": True, "y": False}
        assert (await director.ask(verb="watch", term=3, probes=wanted[:1]))["result"]["probes"][0][
            "name"
        ] == "x"
        assert len((await director.ask(verb="seen"))["result"]["probes"]) == 1
        stale = await director.ask(verb="watch", term=2)
        assert stale["error"]["message"] == "stale: term 3 was heard of"
        await director.close()

    world.serve(scenario)


def test_news_come_at_once_and_only_to_a_director(
    world: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to wait for far longer than the caller does."""
    site = world.directory / "site.toml"
    site.write_text(site.read_text() + 'roles = ["director", "operator"]\n')

    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        other = await Caller(world.host, world.pki.files("director", "d2")).meet()
        for words in ({}, {"version": "1", "within_s": 1}, {"version": 1, "within_s": 31}, {"version": 1}):
            assert not (await director.ask(verb="news", **words))["ok"], words
        begun = (await director.ask(verb="watch", term=3, probes=[]))["result"]
        monkeypatch.setattr(workloads, "LONGEST_NEWS_S", 600.0)
        news = asyncio.create_task(other.ask(verb="news", version=begun["version"], within_s=600))
        assert (await director.ask(verb="watch", term=3, probes=[probe()]))["ok"]
        told = (await news)["result"]
        assert [row["up"] for row in told["probes"]] == [True]
        assert told["version"] != begun["version"]
        again = (await other.ask(verb="news", version=told["version"], within_s=0.05))["result"]
        assert again["version"] == told["version"]
        operator = await Caller(world.host, world.pki.files("operator", "o1")).meet()
        refused = await operator.ask(verb="news", version=1, within_s=1)
        assert "does not allow that" in refused["error"]["message"]
        for one in (director, other, operator):
            await one.close()

    world.serve(scenario)


def test_only_a_director_gives_leases_and_an_operator_looks(world: RemoteWorld) -> None:
    site = world.directory / "site.toml"
    site.write_text(site.read_text() + 'roles = ["director", "operator"]\n')

    async def scenario(agent: Daemon) -> None:
        operator = await Caller(world.host, world.pki.files("operator", "o1")).meet()
        assert (await operator.ask(verb="seen"))["ok"]
        for verb in ("watch", "fence"):
            assert "does not allow that" in (await operator.ask(verb=verb, term=1))["error"]["message"]
        await operator.close()

    world.serve(scenario)


def test_a_lease_starts_it_its_end_stops_it_and_nothing_else_does(world: RemoteWorld) -> None:
    mark = world.directory / "mark"
    world.write(WORKLOAD.format(mark=mark))

    async def scenario(agent: Daemon) -> None:
        agent.node.clock = SystemClock()  # the keeper is a process, and has that one
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()

        async def watch(**words: Any) -> dict[str, Any]:
            reply = await director.ask(verb="watch", term=1, **words)
            assert reply["ok"], reply
            found: dict[str, Any] = reply["result"]
            return found

        async def until_it_is(word: str) -> dict[str, Any]:
            while (row := (await watch())["workloads"][0])["state"] != word:
                await asyncio.sleep(0.02)
            return row

        await until_it_is("stopped")
        clock = (await watch())["clock"]
        hold = {**HOLD, "boot": clock["boot"], "since_ns": clock["ns"], "addresses": ["203.0.113.7/32"]}
        for bad, why in (
            ({"boot": "another"}, "a lease from before this machine started"),
            ({"since_ns": clock["ns"] + 10**12}, "a lease from the future: of another clock"),
            ({"stop_s": 1}, "its stop_time is above the director's (1 s): no lease is taken"),
        ):
            await watch(holds=[{**hold, **bad}])
            assert (await watch())["workloads"][0]["why"] == why
        await watch(holds=[{**hold, "since_ns": clock["ns"] - 59 * 10**9}])
        assert (await until_it_is("stopped"))["may_run"] is False, "too late for a start"
        assert not mark.exists()
        await watch(holds=[{**hold, "name": "other"}])
        await watch(holds=[hold])
        assert (await until_it_is("running"))["why"] == ""
        assert mark.exists()
        status = await ask(world, "status")
        assert status["workloads"][0]["state"] == "running"
        await watch(stops=[{"name": "shop", "epoch": 1}])
        row = await until_it_is("stopped")
        assert (row["released"], mark.exists()) == (1, False)
        await watch(holds=[{**hold, "since_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}])
        assert (await until_it_is("stopped"))["why"] == "epoch 1 was given back here"
        released = json.loads((world.directory / "state" / "released.json").read_text())
        assert released["content"] == {"shop": 1}
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        await watch(holds=[{**hold, "epoch": 2, "since_ns": now, "lease_s": 10}])
        await until_it_is("running")
        await until_it_is("stopped")
        assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) - now < 10 * 10**9, "before its lease was over"
        await watch(holds=[{**hold, "epoch": 2, "since_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}])
        await until_it_is("running")
        await ask(world, "down")
        assert not mark.exists()
        assert not (world.directory / "run" / "keeper.sock").exists()
        await director.close()

    world.serve(scenario)
