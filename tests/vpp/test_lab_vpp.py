"""The lab and the demo with VPP at C, D, A and B: up, clean in every variant, and gone without a trace.

Where the servers are, the provider drops every source that is not its own (BCP 38), so that replies which did
not go back through a distribution point would not arrive at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.engine.vpp.startup import Settings
from ipshare.lab import Lab, LabSpec, userns
from ipshare.lab.agents import lab_with_agents
from ipshare.lab.demo.main import main
from ipshare.lab.internet import global_ip
from ipshare.lab.traffic import Ping, Tcp, Udp, serve, start
from tests.lab.test_lab_life import traces

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")

VARIANTS = {
    "ipip": LabSpec(engine="vpp", path="ipip", replies="tunnel", source_filter=("A",)),
    "gue": LabSpec(engine="vpp", path="gue", replies="tunnel", source_filter=("A",)),
    "symmetric": LabSpec(engine="vpp", replies="rewrite", source_filter=("A",)),
    "both roles": LabSpec(engine="vpp", path="gue", replies="tunnel", combined=True),
    "v6": LabSpec(engine="vpp", families=(6,)),
}


@pytest.fixture(params=VARIANTS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with lab_with_agents(VARIANTS[request.param]) as lab, serve(lab, "a1"):
        yield lab


def test_traffic_of_all_kinds_goes_there_and_back(lab: Lab) -> None:
    """S1.3, S1.5, S1.7: by C and by D; datagrams from one byte to several fragments, TCP in super-packets."""
    for family in lab.spec.families:
        address = str(global_ip("a1", family))
        for client in ("c1", "c3"):
            learn = Udp(address, datagrams=4, sizes=(3000,), timeout_s=1, attempts=3)
            start(lab, client, learn).result()  # the path MTU: first by the client, then by the server
            for request in (
                Ping(address),
                Tcp(address, connections=10, bytes=300_000, expect=("a1",)),
                Udp(address, flows=4, datagrams=12, sizes=(1, 1400, 3000, 9000), expect=("a1",)),
            ):
                report = start(lab, client, request).result()
                assert report.is_clean, (client, report)


@pytest.mark.parametrize("path", ["rewrite", "ipip", "gue"])
def test_the_demo_passes(path: str, tmp_path: Path) -> None:
    assert main(["--engine", "vpp", "--quick", "--path", path, "--out", str(tmp_path)]) == 0


def test_a_lab_leaves_nothing() -> None:
    """Its VPPs outlive their agents by design: the lab ends them. What they map of /dev/shm has no name
    there, so that one that is killed leaves nothing either."""

    def named(prefixes: list[str]) -> list[Path]:
        return [path for prefix in prefixes for path in Path("/dev/shm").glob(f"{prefix}*")]

    with lab_with_agents(LabSpec(engine="vpp", families=(4,))) as lab:
        directories = [lab.directory / node.name / "run" / "vpp" for node in lab.data_path()]
        shared = [Settings(directory).prefix for directory in directories]
        assert named(shared) == []
        assert all(each.exists() for each in directories)
    assert traces(lab.prefix) == []
    assert named(shared) == []


@pytest.fixture(scope="module")
def plain() -> Iterator[Lab]:
    with lab_with_agents(LabSpec(engine="vpp")) as lab:
        yield lab


@pytest.mark.parametrize("family", [4, 6])
def test_the_first_packet_to_a_server_arrives(plain: Lab, family: int) -> None:
    """VPP drops a packet for whose destination it has to ask: it knows the servers when the lab is up."""
    report = start(plain, "c1", Ping(str(global_ip("a2", family)), count=1)).result()
    assert report.is_clean, report


def test_a_changed_link_is_changed_in_vpp_too(plain: Lab) -> None:
    """What set_mtu changes at a node of VPP, its agent has told VPP when it returns."""
    ping = ["ping", "-n", "-c", "1", "-M", "do", "-s", "1380", str(global_ip("a1", 4))]
    plain.set_mtu("a1-A", 1400)
    refused = plain.run("c1", ping, check=False)
    assert f"From {plain.address('A', 4)}" in refused and "mtu = 1400" in refused, refused
    plain.set_mtu("A-a1", 1500)
    plain.run("c1", ["ip", "route", "flush", "cache"])
    plain.run("c1", ping)
