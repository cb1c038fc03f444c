"""S1.1: two distribution points announce to a real BIRD and a real FRR; who dies, and what the routers see
of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from ipshare.api import Node
from ipshare.lab.internet import global_ip
from ipshare.lab.traffic import Tcp, serve, start
from tests.bgp_lab import MISSING, NETWORKS, PASSWORD, BgpLab, Watch, bgp_lab, bird_conf

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")
FAMILIES = (4, 6)


@pytest.fixture(scope="module")
def whole() -> Iterator[BgpLab]:
    with bgp_lab() as world, serve(world.lab, "a1", "b1"):
        yield world


@pytest.fixture
def world(whole: BgpLab) -> Iterator[BgpLab]:
    """Settled before, and again after."""
    whole.r1.read()
    whole.r2.read()
    yield whole
    whole.settled()


def passes(world: BgpLab, client: str, server: str = "a1") -> None:
    for family in FAMILIES:
        address = str(global_ip("a1", family))
        report = start(world.lab, client, Tcp(address, connections=5, expect=(server,))).result()
        assert report.is_clean, report


def goes_by(watch: Watch, device: str) -> None:
    for family in FAMILIES:
        watch.goes_by(device, family)


def test_two_points_announce_and_each_client_comes_by_the_nearer_one(world: BgpLab) -> None:
    for client in ("c1", "c3"):
        passes(world, client)
    heard = world.routers.heard(4)
    for text in ("BGP.as_path: 64500\n", "BGP.as_path: 64497\n", "BGP.med: 7", "BGP.community: (64500,1)"):
        assert text in heard
    world.r1.until(lambda: world.ask("C")["neighbors"][0]["bfd"] == "up", "BFD is up")
    words = [sys.executable, "-m", "ipshare", "bgp", "status", "-c", str(world.lab.site_file("C"))]
    shown = json.loads(world.lab.run("C", [*words, "--json"]))
    assert [row["state"] for row in shown["neighbors"]] == ["established", "established"]
    assert "announced: all is well" in world.lab.run("C", words)


def test_a_new_generation_and_a_dead_end_point_flap_nothing(world: BgpLab) -> None:
    """B is bare in this lab: its paths do not answer."""
    updates = [line for line in world.routers.birdc("show protocols all c4") if "Import" in line]
    pids = [world.ask(node)["bird_pid"] for node in "CD"]
    for target in ("B", "A"):
        for node in "CD":
            world.write_site(node, target=target)
            with Node(world.lab.site_file(node)) as api:
                assert api.apply().changed
    assert any("path to B" in note for note in world.ask("C", "status")["notes"].values())
    assert not world.r1.read() and not world.r2.read()
    assert [line for line in world.routers.birdc("show protocols all c4") if "Import" in line] == updates
    assert [world.ask(node)["bird_pid"] for node in "CD"] == pids
    passes(world, "c1")


def test_an_engine_that_dies_takes_its_announcement_with_it(world: BgpLab) -> None:
    """And the agent's death does not matter: first it dies alone, then the engine dies without anybody
    there."""
    pid = world.ask("C")["bird_pid"]
    engine = world.engine_pid("C")
    world.kill_agent("C")
    passes(world, "c1")
    assert not world.r1.read()
    os.kill(engine, signal.SIGKILL)
    goes_by(world.r1, "r2")
    assert "AS64500" not in world.routers.heard(4)
    passes(world, "c1")
    world.start("C")
    world.settled()
    assert world.ask("C")["bird_pid"] == pid
    world.kill_engine("C")  # now the agent starts another one, and waits
    goes_by(world.r1, "r2")
    world.settled()
    assert world.ask("C")["bird_pid"] == pid


def test_an_engine_that_hangs_is_withdrawn_by_the_agent(world: BgpLab) -> None:
    engine = world.engine_pid("C")
    os.kill(engine, signal.SIGSTOP)
    try:
        goes_by(world.r1, "r2")
    finally:
        os.kill(engine, signal.SIGCONT)
    assert world.engine_pid("C") == engine


def test_a_drain_asks_first_withdraws_then_and_stays(world: BgpLab) -> None:
    assert world.ask("C", "drain", on=True)["state"] == "draining"
    goes_by(world.r1, "r2")
    assert "(65535,0)" in world.routers.heard(4)  # it is still there, for who has nothing else
    world.write_site("C", drain_time="0s")
    with Node(world.lab.site_file("C")) as api:
        api.apply()
    world.r1.until(lambda: "AS64500" not in world.routers.heard(4), "it is withdrawn")
    world.kill_agent("C")
    world.start("C")
    assert world.ask("C")["drain"] and world.ask("C")["state"] == "drained"
    words = [sys.executable, "-m", "ipshare", "bgp", "drain", "off", "-c", str(world.lab.site_file("C"))]
    assert "rising" in world.lab.run("C", words)


def test_a_wrong_password_is_said(world: BgpLab) -> None:
    world.routers.write(bird_conf(world.lab, password="another one"))
    world.routers.birdc("configure")
    world.r1.goes_by("r2", 4)
    first, second = world.ask("C")["neighbors"]
    assert first["state"] != "established" and "the same password" in first["trouble"]
    assert second["state"] == "established"
    world.routers.write(bird_conf(world.lab, password=PASSWORD))
    world.routers.birdc("configure")


def test_what_bird_dies_of_is_mended(world: BgpLab) -> None:
    os.kill(world.ask("C")["bird_pid"], signal.SIGKILL)
    goes_by(world.r1, "r2")


def test_who_is_taken_down_withdraws_and_leaves_nothing(whole: BgpLab) -> None:
    """Last: C is not there afterwards."""
    pid = whole.ask("C")["bird_pid"]
    with Node(whole.lab.site_file("C")) as api:
        whole.lab.inside("C", api.down)
    goes_by(whole.r1, "r2")
    passes(whole, "c1")
    assert not (whole.lab.site_file("C").parent / "run").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert NETWORKS[4] in whole.lab.run("r2", ["ip", "route"])
