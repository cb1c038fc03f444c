"""What a VPP of the lab is told, as values and as text: the same as a kernel would be, and the two tables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ipshare.errors import NoPrivilege, NotRunning
from ipshare.lab import agents
from ipshare.lab.internet import GLOBAL4, GLOBAL6, LabSpec, internet
from ipshare.lab.sites import site_toml
from ipshare.lab.topology import Node, Vpp
from ipshare.net.actions import AddressAdd, RouteAdd


def vpp_of(node: Node) -> Vpp:
    assert node.vpp is not None
    return node.vpp


def site(spec: LabSpec, node: str) -> dict[str, Any]:
    return tomllib.loads(site_toml(spec, node, Path("/run/lab"), target="A"))


@pytest.mark.parametrize("replies", ["direct", "rewrite"])
def test_vpp_gets_the_addresses_and_routes_of_the_kernel(replies: Any) -> None:
    spec = LabSpec(replies=replies)
    ours = internet(LabSpec(engine="vpp", replies=replies)).nodes
    for name in "CDAB":
        kernel = internet(spec).nodes[name].actions
        vpp = vpp_of(ours[name])
        addresses = {address for port in vpp.ports for address in port.addresses if port.host != "vpp"}
        assert addresses == {action.address for action in kernel if isinstance(action, AddressAdd)}
        routes = {(route.prefix, route.via) for route in vpp.routes}
        assert routes == {(action.prefix, action.via) for action in kernel if isinstance(action, RouteAdd)}


def test_one_table_is_enough_for_one_role() -> None:
    for name in "CDAB":
        vpp = vpp_of(internet(LabSpec(engine="vpp")).nodes[name])
        assert vpp.delivery_table == 0
        assert {thing.table for thing in (*vpp.ports, *vpp.routes)} == {"service"}


def test_with_both_roles_the_lan_is_in_a_table_of_its_own_with_a_way_out() -> None:
    vpp = vpp_of(internet(LabSpec(engine="vpp", combined=True)).nodes["C"])
    assert vpp.delivery_table == 1
    lan = vpp.bvis["lan"]
    assert [port.name for port in vpp.ports if port.table == "delivery"] == [lan]
    delivered = {(route.prefix, route.port) for route in vpp.routes if route.table == "delivery"}
    assert {(str(GLOBAL4), lan), (str(GLOBAL6), lan)} <= delivered
    assert {("0.0.0.0/0", "host-r1"), ("::/0", "host-r1")} <= delivered
    service = {route.prefix for route in vpp.routes if route.table == "service"}
    assert service == {"0.0.0.0/0", "::/0"}, "a Global Network there would beat the plugin's entries"


def test_a_bridge_is_as_wide_as_its_narrowest_port() -> None:
    spec = LabSpec(engine="vpp", mtu={"a2-A": 1300, "r2-A": 1200})
    ports = {port.name: port.mtu for port in vpp_of(internet(spec).nodes["A"]).ports}
    assert ports == {"host-r2": 1200, "host-a1": 1500, "host-a2": 1300, "loop0": 1300, "host-vpp": 1500}


def test_vpps_know_each_other_without_asking() -> None:
    """On the cables that replies = "rewrite" adds: each has the other's address there, and its MAC."""
    nodes = internet(LabSpec(engine="vpp", replies="rewrite")).nodes
    for one, other in (("C", "A"), ("A", "C"), ("D", "B"), ("B", "D")):
        far = next(port for port in vpp_of(nodes[other]).ports if port.host == one)
        known = {(neighbor.address, neighbor.mac) for neighbor in vpp_of(nodes[one]).neighbors}
        assert known == {(address.split("/")[0], far.mac) for address in far.addresses}
    assert not any(
        vpp_of(node).neighbors for node in internet(LabSpec(engine="vpp")).nodes.values() if node.vpp
    )


def test_no_two_ports_have_one_mac() -> None:
    nodes = internet(LabSpec(engine="vpp", replies="rewrite")).nodes.values()
    macs = [port.mac for node in nodes if node.vpp for port in node.vpp.ports if port.mac]
    assert len(macs) == len(set(macs))


def test_the_configuration_names_what_vpp_has() -> None:
    document = site(LabSpec(engine="vpp", replies="tunnel"), "A")
    assert document["engine"]["kind"] == "vpp" and document["vpp"]["managed"] is True
    assert document["node"]["inside"] == ["loop0"]
    assert document["bridge"] == [{"name": "lan", "id": 1, "bvi": "loop0"}]
    names = [port["name"] for port in document["interface"]]
    assert names == ["host-r2", "host-a1", "host-a2", "loop0", "host-vpp"]
    assert site(LabSpec(engine="vpp", replies="rewrite"), "C")["node"]["inside"] == ["host-A"]
    assert "vpp" not in site(LabSpec(), "A") and "engine" not in site(LabSpec(), "A")


def test_without_vpp_nothing_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPSHARE_VPP", str(tmp_path / "vpp"))
    with pytest.raises(NotRunning, match="does not exist"):
        agents.lab_with_agents(LabSpec(engine="vpp"))


def test_memory_that_may_not_be_locked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        plugin = Path("ipshare_plugin.so")

    monkeypatch.setattr("ipshare.engine.vpp.find.find", Found)
    monkeypatch.setattr(agents.resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    monkeypatch.setattr(agents.Path, "read_text", lambda _: "         0       1000          1\n")
    with pytest.raises(NoPrivilege, match="8 MiB are allowed"):
        agents.require_vpp()
