"""Promises kept on real packets: PMTU discovery, traceroute, no loop, odd hosts, shared addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipshare.agent.client import AgentClient
from ipshare.api import Node
from ipshare.lab.agents import lab_with_agents, start_agent
from ipshare.lab.internet import CLIENTS, Engine, LabSpec, global_ip, uplink_address
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import Ping, Tcp, Udp, serve, start

PATHS = ("rewrite", "ipip", "gue")
LINKS = ("C-r1", "r1-r2", "A-r2", "a1-A")
"""Every link between a client's router and the device, on the way of c1's packets."""
FAMILIES = (4, 6)
SMALL = 1360  # every encapsulation of the lab still leaves IPv6 its 1,280 bytes


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Tests for every engine are imported by tests/vpp/test_paths_vpp.py, which has a fixture of its own."""
    return "embedded"


@pytest.fixture(scope="module", params=PATHS)
def served(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Lab]:
    """A lab with agents and servers, one for each path."""
    with (
        lab_with_agents(LabSpec(path=request.param, engine=engine)) as lab,
        serve(lab, "a1", "a2", "b1", "b2"),
    ):
        yield lab


def clean(lab: Lab, client: str, request: Tcp | Udp | Ping) -> None:
    report = start(lab, client, request).result()
    assert report.is_clean, report


def probe(lab: Lab) -> None:
    """Every agent measures its paths now, and tells its engine (as it does every minute)."""
    agents = [AgentClient(lab.directory / node.name / "run") for node in lab.data_path()]
    with ThreadPoolExecutor() as pool:
        for answer in pool.map(lambda agent: agent.call("probe"), agents):
            assert answer["paths"]
    for agent in agents:
        agent.close()


def forget_routes(lab: Lab) -> None:
    for node in ("c1", "a1"):
        for family in ("-4", "-6"):
            lab.run(node, ["ip", family, "route", "flush", "cache"])


@pytest.mark.parametrize("link", LINKS)
def test_path_mtu_discovery_with_a_small_link(served: Lab, link: str) -> None:
    """S1.7: wherever the path is narrow, the client learns it and bulk TCP goes through, both ways."""
    served.set_mtu(link, SMALL)
    try:
        probe(served)
        forget_routes(served)
        for family in FAMILIES:
            address = str(global_ip("a1", family))
            ping = ["ping", f"-{family}", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1400", address]
            refused = served.run("c1", ping, check=False)
            learned = served.run("c1", ["ip", "route", "get", address])
            assert re.search(r"mtu (\d+)", learned), f"the client learned nothing: {refused}"
            clean(served, "c1", Tcp(address, connections=3, bytes=200_000, timeout_s=20, expect=("a1",)))
    finally:
        served.set_mtu(link, 1500)
        probe(served)


@pytest.mark.parametrize("family", FAMILIES)
def test_traceroute_shows_every_hop(served: Lab, family: int) -> None:
    address = str(global_ip("a1", family))
    out = served.run("c1", ["traceroute", f"-{family}", "-n", "-q", "1", "-w", "2", "-m", "16", address])
    hops = [line.split()[1] for line in out.splitlines()[1:]]
    assert "*" not in hops, out
    assert hops[-1] == address, out
    for node in ("C", "A"):
        assert str(uplink_address(served.spec, node, family)) in hops, out


@pytest.mark.parametrize("node", ["C", "A", "r1"])
def test_a_client_on_a_node_of_the_path(served: Lab, node: str) -> None:
    for family in FAMILIES:
        address = str(global_ip("a1", family))
        clean(served, node, Tcp(address, connections=5, expect=("a1",)))
        clean(served, node, Ping(address))


def test_fragments_of_every_kind_arrive_together(served: Lab) -> None:
    for family in FAMILIES:
        address = str(global_ip("a1", family))
        start(served, "c1", Udp(address, datagrams=4, sizes=(3000,))).result()  # the path MTU is learned
        clean(served, "c1", Udp(address, flows=4, datagrams=20, sizes=(64, 1400, 3000, 9000), expect=("a1",)))


def share(lab: Lab) -> None:
    """Binds the Global Networks to both end points by a policy, at every node."""
    for node in lab.data_path():
        text = lab.site_file(node.name).read_text()
        head = text[: text.index("[[binding]]")]
        policy = '[[policy]]\nname = "both"\nmembers = [{ endpoint = "A" }, { endpoint = "B" }]\n'
        bindings = [
            f'[[binding]]\nglobal = "{prefix}"\npolicy = "both"\n'
            for prefix in ("203.0.113.0/24", "2001:db8:9::/64")
        ]
        lab.site_file(node.name).write_text(head + policy + "".join(bindings))
        with Node(lab.site_file(node.name)) as api:
            api.apply()


@pytest.fixture(scope="module", params=["rewrite", "gue"])
def shared(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Lab]:
    with lab_with_agents(LabSpec(path=request.param, engine=engine)) as lab, serve(lab, "a1", "b1"):
        share(lab)
        yield lab


def test_a_client_stays_at_one_end_point_whatever_it_sends(shared: Lab) -> None:
    """S1.8: TCP, UDP of mixed sizes (fragments), from any client through either distribution point."""
    seen = set()
    for client in CLIENTS:
        for family in FAMILIES:
            address = str(global_ip("a1", family))
            start(shared, client, Udp(address, datagrams=4, sizes=(3000,))).result()
            udp = start(shared, client, Udp(address, flows=5, datagrams=12, sizes=(64, 1300, 4000))).result()
            tcp = start(shared, client, Tcp(address, connections=10)).result()
            assert udp.is_clean and tcp.is_clean, (udp, tcp)
            assert len(udp.servers.keys() | tcp.servers.keys()) == 1, (
                client,
                family,
                udp.servers,
                tcp.servers,
            )
            seen |= udp.servers.keys()
    assert seen == {"a1", "b1"}


def test_icmp_errors_reach_the_right_server_behind_a_shared_address(shared: Lab) -> None:
    """The servers' packets are too long for the way to the client: its router's error goes to the Global IP.

    Narrow is the router's route, not its device: a device smaller than its peer silently drops what the
    client sends, too.
    """
    seen = set()
    for client, router in (("c1", "r1"), ("c2", "r1"), ("c3", "r2")):
        for family in FAMILIES:
            own = str(shared.address(client, family))
            narrow = ["ip", f"-{family}", "route", "add", own, "dev", client, "mtu", "lock", str(SMALL)]
            shared.run(router, narrow)
            address = str(global_ip("a1", family))
            report = start(shared, client, Tcp(address, connections=3, bytes=200_000, timeout_s=20)).result()
            assert report.is_clean, (client, family, report)
            for server in report.servers:
                route = shared.run(server, ["ip", f"-{family}", "route", "get", own])
                assert f"mtu {SMALL}" in route, (client, server, route)
            seen |= report.servers.keys()
    assert seen == {"a1", "b1"}


@pytest.fixture(scope="module")
def combined(engine: Engine) -> Iterator[Lab]:
    with lab_with_agents(LabSpec(combined=True, engine=engine)) as lab, serve(lab, "a1", "b1"):
        yield lab


@pytest.mark.parametrize("family", FAMILIES)
def test_both_roles_on_one_node_make_no_loop(combined: Lab, family: int) -> None:
    """Each echo request crosses the node once: captured at its uplink, in and out."""
    address = str(global_ip("a1", family))
    with combined.capture("C", "r1") as capture:
        clean(combined, "c1", Ping(address, count=5))
        clean(combined, "c3", Ping(address, count=5))  # by way of D: outer there, inner at C
    protocol, at = (1, 9) if family == 4 else (58, 6)
    kinds = (0, 8) if family == 4 else (128, 129)
    header = 20 if family == 4 else 40
    echoes = [p for p in capture.packets(family) if p[at] == protocol and p[header] in kinds]
    ends = [combined.address(client, family).packed for client in ("c1", "c3")]
    assert len([p for p in echoes if any(end in p[:header] for end in ends)]) == 20  # the agents probe, too


def test_traffic_of_all_kinds_with_both_roles_on_one_node(combined: Lab) -> None:
    for client in CLIENTS:
        for family in FAMILIES:
            address = str(global_ip("a1", family))
            clean(combined, client, Tcp(address, connections=10, bytes=50_000, expect=("a1",)))
            clean(combined, client, Udp(address, flows=3, expect=("a1",)))


DOCKER = """
table ip docker {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state invalid drop
    ct state established,related accept
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
  }
}
table ip6 docker {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state invalid drop
  }
}
"""


def test_hosts_with_connection_tracking_and_docker_like_rules(tmp_path: Path) -> None:
    """Half of each connection passes a node: to connection tracking that would be invalid."""
    rules = tmp_path / "docker.nft"
    rules.write_text(DOCKER)

    def start_beside_docker(lab: Lab, node: str, file: Path):  # type: ignore[no-untyped-def]
        lab.run(node, ["nft", "-f", str(rules)])
        return start_agent(lab, node, file)

    with Lab(LabSpec(), start=start_beside_docker) as lab, serve(lab, "a1"):
        for family in FAMILIES:
            clean(lab, "c1", Tcp(str(global_ip("a1", family)), connections=20, bytes=50_000, expect=("a1",)))
            clean(lab, "c3", Udp(str(global_ip("a1", family)), flows=5, expect=("a1",)))
        lab.run("C", ["sh", "-c", "ping -c 1 $(ip -4 route show default | cut -d' ' -f3)"])
        assert "icmp" in lab.run("C", ["conntrack", "-L", "-f", "ipv4"]), "tracking sees what is not ours"
        for family in ("ipv4", "ipv6"):
            flows = lab.run("C", ["conntrack", "-L", "-f", family]).splitlines()
            assert not [flow for flow in flows if flow.startswith(("tcp", "udp"))], flows


def test_a_forward_policy_that_drops_is_named(tmp_path: Path) -> None:
    def start_behind_a_wall(lab: Lab, node: str, file: Path):  # type: ignore[no-untyped-def]
        if node == "C":
            lab.run(node, ["iptables", "-P", "FORWARD", "DROP"])
        return start_agent(lab, node, file)

    with pytest.raises(Exception, match="FORWARD"), Lab(LabSpec(families=(4,)), start=start_behind_a_wall):
        pass
