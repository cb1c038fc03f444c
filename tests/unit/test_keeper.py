"""The keeper by itself: leases in, what is done about a workload out; real commands, no agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent import hooks, keeper
from ipshare.agent.confirm import SystemClock
from ipshare.agent.keeper import Keeper

HOOK = """#!/bin/sh
# VERB FOLDER
cd "$2" || exit 1
case "$1" in
status) if test -e silent; then exec sleep 60; fi; test -e runs ;;
start) : > runs; if test -e slow; then sleep 60; fi ;;
stop) if test ! -e lame; then rm -f runs; fi ;;
esac
"""


class Owner:
    is_owner = True


class World:
    """A keeper of one workload, "shop"."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.start_s = folder, SystemClock(), 60.0
        (folder / "hook").write_text(HOOK)
        (folder / "hook").chmod(0o755)
        self.keeper = Keeper(folder, folder / "state", "a1", self.clock)

    def spec(self) -> dict[str, Any]:
        hook, folder = str(self.folder / "hook"), str(self.folder)
        words = {verb: [hook, verb, folder] for verb in ("start", "stop", "status")}
        return {"name": "shop", **words, "fence": [], "stop_s": 5.0, "start_s": self.start_s}

    async def order(self, **more: Any) -> dict[str, Any]:
        """The workload's row, if it has one."""
        told = await self.keeper.handle(Owner(), {"verb": "order", **more})
        return next(iter(told["workloads"]), {})

    async def hold(self, epoch: int) -> dict[str, Any]:
        hold = {
            "name": "shop", "epoch": epoch, "boot": self.clock.boot_id(),
            "since_ns": self.clock.boottime_ns(), "lease_s": 600.0, "stop_s": 5.0,
            "addresses": ["203.0.113.7/32"],
        }  # fmt: skip
        return await self.order(specs=[self.spec()], holds=[hold])

    async def until(self, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while not good(row := await self.order()):
                await asyncio.sleep(0.02)
        return row

    async def close(self) -> None:
        tasks = [kept.task for kept in self.keeper.kept.values() if kept.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_(word: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: row.get("state") == word


async def _a_silent_status(world: World) -> None:
    await world.hold(1)
    await world.until(is_("running"))
    (world.folder / "silent").touch()
    row = await world.until(is_("unknown"))
    assert "nobody knows whether it runs" in row["why"]
    (world.folder / "lame").touch()
    await world.order(stops=[{"name": "shop", "epoch": 1}])
    row = await world.until(lambda row: "it was to be stopped" in row["why"])
    assert (world.folder / "runs").exists() and row["released"] == 0, "it runs, and is given back"
    for name in ("silent", "lame"):
        (world.folder / name).unlink()
    row = await world.until(is_("stopped"))
    assert row["released"] == 1 and not (world.folder / "runs").exists()


def test_a_status_that_does_not_answer_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "STATUS_S", 0.2)
    monkeypatch.setattr(keeper, "AGAIN_S", 0.02)
    monkeypatch.setattr(keeper, "STATUS_EVERY_S", 0.02)
    run(tmp_path, _a_silent_status)


async def _given_back_and_back_again(world: World) -> None:
    await world.hold(5)
    await world.until(is_("running"))
    await world.close()
    world.keeper = Keeper(world.folder, world.folder / "state", "a1", world.clock)  # it was killed
    await world.order(specs=[world.spec()])
    await world.until(is_("running"))
    await world.order(stops=[{"name": "shop", "epoch": 5}])
    await world.until(lambda row: row["released"] == 5)
    await world.order(specs=[])
    await world.until(lambda row: not row)
    row = await world.order(specs=[world.spec()])  # the table is in the site file once more
    assert not row["may_run"], "by the lease that was given back"


async def _the_end_of_the_latest_lease(world: World) -> None:
    def row() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((world.folder / keeper.LEASES).read_text())["leases"]["shop"]
        return found

    await world.hold(5)
    await world.until(is_("running"))
    held = row()
    assert held["word"] == "running" and held["over_ns"] == held["until_ns"] > 0
    (world.folder / "lame").touch()
    await world.order(stops=[{"name": "shop", "epoch": 5}])
    await world.until(lambda row: "it was to be stopped" in row["why"])
    late = row()
    assert late["word"] in ("stuck", "stopping") and late["until_ns"] == 0
    assert late["over_ns"] == held["over_ns"], "until then somebody counts on it"
    await world.close()
    world.keeper = Keeper(world.folder, world.folder / "state", "a1", world.clock)  # it was killed
    await world.order(specs=[world.spec()])
    assert row()["over_ns"] == held["over_ns"], "what it does not know as stopped may still run"
    (world.folder / "lame").unlink()
    await world.until(is_("stopped"))
    assert (row()["word"], row()["over_ns"]) == ("stopped", 0)


def test_until_when_it_has_to_be_stopped_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "AGAIN_S", 0.02)
    run(tmp_path, _the_end_of_the_latest_lease)


async def _a_start_without_an_end(world: World) -> None:
    (world.folder / "slow").touch()
    world.start_s = 0.3
    await world.hold(1)
    row = await world.until(lambda row: "start_time (0.3 s)" in row["why"])
    assert row["may_run"], "it is tried again"
    (world.folder / "slow").unlink()
    assert (await world.until(is_("running")))["why"] == ""


def test_a_start_is_bounded(tmp_path: Path) -> None:
    run(tmp_path, _a_start_without_an_end)


def test_a_damaged_list_of_what_was_given_back_is_kept_and_no_lease_of_before_is_held(tmp_path: Path) -> None:
    async def begin(world: World) -> None:
        await world.hold(5)
        await world.until(is_("running"))
        await world.close()
        path = world.folder / "state" / keeper.RELEASED
        path.write_bytes(b'{"version": 1, "content": {"sh\xff')
        world.keeper = Keeper(world.folder, world.folder / "state", "a1", world.clock)
        assert not (await world.order(specs=[world.spec()]))["may_run"]
        assert path.with_name(path.name + ".damaged").read_bytes().endswith(b"\xff")

    (tmp_path / "state").mkdir()
    run(tmp_path, begin)


def test_a_lease_that_was_given_back_is_over(tmp_path: Path) -> None:
    run(tmp_path, _given_back_and_back_again)


def test_a_kept_lease_that_was_given_back_starts_nothing(tmp_path: Path) -> None:
    """The list of leases could not be written after the order to stop; the one of epochs could."""

    async def begin(world: World) -> None:
        await world.hold(5)
        await world.until(is_("running"))
        await world.close()
        released = {"version": 1, "content": {"shop": 5}}
        (world.folder / "state" / keeper.RELEASED).write_text(json.dumps(released))
        world.keeper = Keeper(world.folder, world.folder / "state", "a1", world.clock)
        assert not (await world.order(specs=[world.spec()]))["may_run"]
        await world.until(is_("stopped"))

    (tmp_path / "state").mkdir()
    run(tmp_path, begin)


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_command_may_write_much(tmp_path: Path, size: int) -> None:
    """Nobody reads while a command runs whose pipe is full: it would wait, and be killed."""
    script = f"head -c {size} /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3"
    ran = asyncio.run(hooks.run(["/bin/sh", "-c", script], 60))
    assert ran.status == 3 and ran.said.endswith("the end") and len(ran.said) <= hooks.MOST_SAID


def run(folder: Path, job: Callable[[World], Any]) -> None:
    async def begin() -> None:
        world = World(folder)
        try:
            await job(world)
        finally:
            await world.close()

    asyncio.run(begin())
