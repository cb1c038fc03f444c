"""Interfaces, bridges, addresses, routes, proxies on a real VPP: made, found, taken back; with traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.agent.vpp import LCP_SYNC, LINUX_CP
from ipshare.engine.failures import EngineGone, EngineRestarted
from ipshare.engine.vpp import ports as p
from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.ports_keep import Ports
from ipshare.engine.vpp.ports_state import read
from ipshare.engine.vpp.ports_wanted import made_up_mac, parts
from ipshare.engine.vpp.startup import PLUGINS
from ipshare.errors import EngineError, Refused
from ipshare.model import Config
from tests.vpp.port_lab import reaches, run, wired_vpp
from tests.vpp.vpp_process import Running, vpp
from tests.vpp_sites import EDITS, PAIR, site

LAN2: tuple[str, str] = (
    "[[bridge]]",
    '[[interface]]\nname = "host-lan2"\nhost = "lan2"\nbridge = "lan"\n[[bridge]]',
)
ELSEWHERE = ('global = "203.0.113.9"', 'global = "203.0.113.64/26"')
WHOLE = ('"203.0.113.1/25"', '"203.0.113.1/24"')


@pytest.fixture(scope="module")
def node() -> Iterator[Running]:
    with wired_vpp() as running:
        running.engine.configure()  # before it the plugin looks at no replies
        yield running


@pytest.fixture
def ports(node: Running, tmp_path: Path) -> Iterator[Ports]:
    keeper = Ports(node.client, tmp_path / "ports.undo", "v1")
    before = everything(node.client)
    yield keeper
    keeper.undo(site(PAIR))
    assert everything(node.client) == before, "what was made is gone"
    assert not keeper.file.exists()


def everything(client: Client) -> frozenset[p.Part]:
    """All parts of the kinds that we make, of every interface."""
    names = [one.interface_name for one in client.dump("sw_interface_dump")]
    return read(client, [p.Admin(name, True) for name in names], range(9)).parts


def configs() -> list[Config]:
    return [site(*edits, *([] if PAIR in edits else [PAIR])) for edits in EDITS]


def test_each_configuration_after_another(ports: Ports, node: Running) -> None:
    """Every edit, from and to the first configuration: the second time there is nothing to do, and VPP has
    what a fresh one would have."""
    found = {}
    wanted = configs()
    for number in [*range(len(wanted)), *(n for other in range(1, len(wanted)) for n in (0, other))]:
        config = wanted[number]
        ports.apply(config)
        assert ports.apply(config) == [], number
        assert ports.missing(config) == [], number
        now = everything(node.client)
        assert {*parts(config)} <= now
        assert found.setdefault(number, now) == now, "the way does not matter"


def test_another_agent_finds_what_this_one_made(ports: Ports, node: Running) -> None:
    config = site(PAIR)
    ports.apply(config)
    successor = Ports(node.client, ports.file, "v1")
    assert successor.apply(config) == []
    ports.file.unlink()
    orphan = Ports(node.client, ports.file, "v1")
    assert orphan.apply(config) == [], "interfaces are known by their tag"
    assert "interface loop0" in orphan.left(config)
    lines = orphan.undo(config)
    assert "undone: interface host-up0 over up0" in lines and "undone: interface loop0" in lines
    assert orphan.left(config) == []


def test_a_step_that_vpp_refuses_is_said_and_nothing_stays(ports: Ports, node: Running) -> None:
    before = everything(node.client)
    nowhere = site(PAIR, ('name = "host-lan1"\nhost = "lan1"', 'name = "host-lan9"\nhost = "lan9"'))
    with pytest.raises(EngineError, match="cannot add interface host-lan9 over lan9: VPP refused") as caught:
        ports.apply(nowhere)
    assert "ip link show lan9" in caught.value.hint
    assert everything(node.client) == before
    missing = site(PAIR, ('name = "host-lan1"\nhost = "lan1"', 'name = "Eth7"'))
    with pytest.raises(Refused, match="VPP has no interface Eth7"):
        ports.apply(missing)
    assert everything(node.client) == before


def test_packets_find_their_way(ports: Ports, node: Running) -> None:
    """Two devices and VPP in one LAN; the uplink; a device that is elsewhere looks like a neighbour, and
    packets to it leave by the service table."""
    ports.apply(site(PAIR, LAN2, WHOLE, ELSEWHERE))
    assert reaches("one", "203.0.113.21"), "over the bridge"
    assert reaches("one", "203.0.113.1"), "the bvi"
    assert reaches("router", "192.0.2.2")
    mac = made_up_mac("v1", "loop0")
    run("router", "ip address add 203.0.113.70/32 dev lo")
    run("router", "ip route add 203.0.113.0/24 via 192.0.2.2")
    counted = int(run("router", "cat /proc/net/snmp").split("Icmp: ")[2].split()[0])
    reaches("one", "203.0.113.70")
    assert f"203.0.113.70 lladdr {mac}" in run("one", "ip neigh show dev eth0").replace("dev eth0 ", "")
    assert int(run("router", "cat /proc/net/snmp").split("Icmp: ")[2].split()[0]) > counted
    assert not reaches("one", "203.0.113.50")
    assert "203.0.113.50 FAILED" in run("one", "ip neigh show dev eth0"), (
        "bound here: its device would answer"
    )


def test_neighbour_solicitations_for_what_is_elsewhere(ports: Ports, node: Running) -> None:
    v6 = ("[[distribution]]", '[[network]]\nname = "g6"\nprefix = "2001:db8:9::/48"\n[[distribution]]')
    local = ('local = ["10.1.0.0/24"]', 'local = ["10.1.0.0/24", "fd00:a::/48"]')
    far = ('local = ["10.2.0.0/24"]', 'local = ["10.2.0.0/24", "fd00:b::/48"]')
    bound = ('to = "B"\n', 'to = "B"\n[[binding]]\nglobal = "2001:db8:9::77"\nto = "B"\n')
    lan = ('"203.0.113.1/25"', '"203.0.113.1/25", "2001:db8:9::1/64"')
    config = site(PAIR, v6, local, far, bound, lan)
    ports.apply(config)
    assert ports.apply(config) == []
    run("one", "ip address add 2001:db8:9::20/64 dev eth0 nodad")
    assert reaches("one", "2001:db8:9::1")
    reaches("one", "2001:db8:9::77")
    run_of = run("one", "ip -6 neigh show dev eth0")
    assert f"2001:db8:9::77 lladdr {made_up_mac('v1', 'loop0')}" in run_of


def test_a_vpp_that_was_restarted_gets_everything_again(ports: Ports, node: Running) -> None:
    config = site(PAIR)
    lines = ports.apply(config)
    node.restart()
    for said in (EngineGone, EngineRestarted):  # the connection says so
        with pytest.raises(said):
            node.client.call("control_ping")
    assert ports.missing(config)
    assert ports.apply(config)[-len(lines) :] == lines
    assert reaches("router", "192.0.2.2")


def test_a_pair_in_linux_or_why_not(tmp_path: Path) -> None:
    """Where the machine has no /dev/vhost-net, VPP cannot make one: said, with remedy, and nothing stays."""
    with vpp(plugins=(*PLUGINS, *LINUX_CP), startup=LCP_SYNC) as node:
        ports = Ports(node.client, tmp_path / "ports.undo", "v1")
        config = site(
            ('name = "host-lan1"\nhost = "lan1"', 'name = "loop5"'),
            ('name = "host-up0"\nhost = "up0"', 'name = "loop6"'),
        )
        before = everything(node.client)
        if Path("/dev/vhost-net").exists():
            ports.apply(config)
            assert p.LinuxPair("loop0", "lan0", "") in everything(node.client)
            ports.undo(config)
        else:
            with pytest.raises(
                EngineError, match="cannot add loop0: linux-cp pair lan0: VPP refused"
            ) as caught:
                ports.apply(config)
            assert "/dev/vhost-net" in caught.value.hint
        assert everything(node.client) == before
