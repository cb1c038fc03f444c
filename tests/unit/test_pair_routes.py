"""Routes of a pair: run once in a reign, again until they succeed, only for a node that is active."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipshare.agent import pair_routes
from ipshare.agent.pair_routes import PairRoutes, command_of, run
from ipshare.model import PairRoute
from tests.unit.test_pair_engine import PAIR

LINUX = PairRoute("linux", ip_network("0.0.0.0/0"), ip_address("10.0.0.1"))
PATIENCE_S = 30.0


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (LINUX, "ip -4 route replace 0.0.0.0/0 via 10.0.0.1"),
        (
            PairRoute("linux", ip_network("::/0"), ip_address("fe80::1"), "eth1", "private", 7),
            "ip -n private -6 route replace ::/0 via fe80::1 dev eth1 table 7",
        ),
        (replace(LINUX, kind="command", command=("/x", "a b")), "/x a b"),
    ],
)
def test_the_command(route: PairRoute, words: str) -> None:
    assert " ".join(command_of(route)) == words


def script(path: Path, text: str) -> PairRoute:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return replace(LINUX, kind="command", command=(str(path),))


async def until(path: Path, lines: int) -> list[str]:
    """As soon as there are so many."""
    async with asyncio.timeout(PATIENCE_S):
        while not (path.exists() and len(path.read_text().splitlines()) >= lines):
            await asyncio.sleep(0.01)
    return path.read_text().splitlines()


def test_it_is_told_and_run_once_in_a_reign(tmp_path: Path) -> None:
    log = tmp_path / "log"
    route = script(
        tmp_path / "r", f'echo "$IPSHARE_PREFIX $IPSHARE_VIA $IPSHARE_NODE $IPSHARE_EPOCH" >>{log}'
    )
    pair = replace(PAIR, routes=(route,))

    async def reigns() -> list[str]:
        routes = PairRoutes(lambda _trouble: None)
        routes.look(pair, "standby", 4)
        for epoch in (5, 5, 7):
            routes.look(pair, "active", epoch)
            lines = await until(log, 2 if epoch == 7 else 1)
        await routes.close()
        return lines

    assert asyncio.run(reigns()) == [f"0.0.0.0/0 10.0.0.1 1 {epoch}" for epoch in (5, 7)]


def test_one_that_fails_is_run_again_until_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_routes, "FIRST_AGAIN_S", 0.01)
    log, said = tmp_path / "log", []
    route = script(
        tmp_path / "r", f"echo x >>{log}; test $(wc -l <{log}) -ge 3 || {{ echo no >&2; exit 9; }}"
    )

    async def tried() -> None:
        well = asyncio.Event()

        def say(trouble: str) -> None:
            said.append(trouble)
            if len(said) > 2 and not trouble:
                well.set()

        routes = PairRoutes(say)
        routes.look(replace(PAIR, routes=(route,)), "active", 1)
        await asyncio.wait_for(well.wait(), PATIENCE_S)
        await routes.close()

    asyncio.run(tried())
    assert len(log.read_text().splitlines()) == 3
    assert any(
        "could not be pointed to 10.0.0.1" in text and text.endswith("ended with 9: no") for text in said
    )


def test_a_node_that_is_active_no_more_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    route = script(tmp_path / "r", f"echo $$ >>{log}; exec sleep 1000")

    async def ended() -> int:
        routes = PairRoutes(lambda _trouble: None)
        routes.look(replace(PAIR, routes=(route,)), "active", 1)
        [pid] = await until(log, 1)
        tasks = list(routes._tasks)
        routes.look(replace(PAIR, routes=(route,)), "standby", 2)
        await asyncio.gather(*tasks, return_exceptions=True)
        return int(pid)

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(ended()), 0)


def test_a_command_is_bounded_and_may_be_missing() -> None:
    assert "took longer than 0.1 s" in asyncio.run(run(["sleep", "1000"], {}, timeout_s=0.1))
    assert "could not be started: No such file" in asyncio.run(run(["/nowhere"], {}))
    assert asyncio.run(run(["true"], {})) == ""
