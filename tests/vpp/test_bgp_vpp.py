"""[bgp] on VPP: announced through linux-cp pairs to a real BIRD and a real FRR; VPP dies; a drain; the end.

Needs /dev/vhost-net; where this kernel has none: tests.vpp.in_guest, whose text says how.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bgp_lab import MISSING
from tests.vpp.bgp_vpp import LINKS, WAIT_S, BgpNode, bgp_node, reaches, until
from tests.vpp.port_lab import run, space

VHOST = Path("/dev/vhost-net")
WHY_NOT = MISSING or ("" if VHOST.exists() else f"{VHOST}, which this kernel has not (tests/vpp/in_guest.py)")
real = pytest.mark.skipif(bool(WHY_NOT), reason=f"[bgp] ON VPP IS NOT TESTED HERE: needs {WHY_NOT}")
ALL = [f"{router} {family}" for router in LINKS for family in (4, 6)]


def test_what_the_machine_lacks_is_said_before_anything_starts(tmp_path: Path) -> None:
    """Runs wherever VPP is installed."""
    with contextlib.ExitStack() as stack:
        world = BgpNode(tmp_path, stack)
        world.file.write_text(world.file.read_text().replace(space("bird"), "ips-nowhere"))
        started = world.cli("agent", str(world.file))
        assert started.returncode == 3
        assert "there is no network namespace ips-nowhere for the pair to1 of host-up1" in started.stderr
        assert ("/dev/vhost-net is missing" in started.stderr) is not VHOST.exists()
        assert not world.runtime.exists()


@pytest.fixture(scope="module")
def node() -> Iterator[BgpNode]:
    with bgp_node() as world:
        yield world


def is_settled(node: BgpNode) -> bool:
    return node.routes() == ALL


def inode(path: str) -> int:
    return Path(path).stat().st_ino


@real
def test_it_announces_through_vpp_and_forwards(node: BgpNode) -> None:
    until(lambda: is_settled(node), "both routers have routes of both families")
    for router in LINKS:
        for family in (4, 6):
            until(
                lambda r=router, f=family: reaches(r, f), f"{router} reaches the device by IPv{family}", 120
            )
    found = node.ask()
    assert found["state"] == "announced"
    until(lambda: all(row["bfd"] == "up" for row in node.ask()["neighbors"]), "BFD is up, through VPP")
    assert inode(f"/proc/{found['bird_pid']}/ns/net") == inode(f"/run/netns/{space('bird')}")
    assert "192.0.2.2/29" in run("bird", "ip -4 addr show dev to1"), "lcp-sync: the pair has VPP's address"
    assert "to1" not in run("node", "ip link"), "the pair is in BIRD's namespace alone"


@real
def test_a_new_generation_flaps_nothing(node: BgpNode) -> None:
    before = node.imports()
    node.file.write_text(node.file.read_text().replace('global = "203.0.113.99"', 'global = "203.0.113.98"'))
    assert node.ask("apply")["changed"]
    assert node.routes() == ALL and node.imports() == before
    assert reaches("r1", 4)


@real
def test_vpp_dies_and_comes_back(node: BgpNode) -> None:
    """BIRD stays; the announcement comes back when another VPP has all tables, and then packets pass."""
    bird, engine = node.ask()["bird_pid"], node.ask("status")["engine_pid"]
    os.kill(engine, signal.SIGKILL)
    until(lambda: not node.routes(), "both routers withdraw")
    found: list[str] = []
    until(lambda: found.extend(came_back(node)) or found, "a route comes back")
    status = node.ask("status")
    assert status["engine_pid"] not in (None, engine) and status["generation"] >= 1
    router, family = found[0].split()
    assert reaches(router, int(family))
    until(lambda: is_settled(node), "all routes are back")
    assert node.ask()["bird_pid"] == bird


def came_back(node: BgpNode) -> list[str]:
    """Routes that are there; then the agent has said so, and what it says is asked after they were seen."""
    routes, state = node.routes(), node.ask()["state"]
    assert not routes or state == "announced", f"announced while {state}"
    return routes


@real
def test_a_drain(node: BgpNode) -> None:
    assert node.ask("drain", on=True)["state"] == "draining"
    until(lambda: all("(65535,0)" in node.heard(family) for family in (4, 6)), "GRACEFUL_SHUTDOWN")
    assert reaches("r1", 4), "it still translates"
    until(lambda: not node.routes(), "withdrawn after drain_time")
    assert node.ask()["state"] == "drained" and reaches_without_route(node)
    node.ask("drain", on=False)
    until(lambda: is_settled(node), "announced again")


def reaches_without_route(node: BgpNode) -> bool:
    """The node translates all the same, for who sends to it."""
    run("r1", "ip route add 203.0.113.0/24 via 192.0.2.2")
    try:
        return reaches("r1", 4)
    finally:
        run("r1", "ip route del 203.0.113.0/24 via 192.0.2.2")


@real
def test_down_leaves_nothing(node: BgpNode) -> None:
    """Last: nothing is there afterwards."""
    bird = node.ask()["bird_pid"]
    node.ask("down")
    until(lambda: not node.routes(), "withdrawn")
    assert node.agent.wait(WAIT_S) == 0, "it ends by itself"
    until(lambda: not Path(f"/proc/{bird}").exists(), "BIRD ends")
    assert "to1" not in run("bird", "ip link") and not node.runtime.exists()
