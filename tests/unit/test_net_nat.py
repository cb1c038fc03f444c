"""The recipe of NAT: what goes into the engine, what stays out, and what a configuration makes of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipshare.agent.netspec import Facts, netspec
from ipshare.config import load_text
from ipshare.net import Inside, NetError, NodeNet, describe, recipe
from ipshare.net.actions import NftTable, RouteAdd, RuleAdd, from_json, to_json
from tests.cases.flow_mistakes import GOOD_NAT

IN4, IN6 = ip_network("10.0.0.0/16"), ip_network("fd00:5::/64")
POOL4, POOL6 = ip_network("198.51.100.8/29"), ip_network("2001:db8:5::/124")
SPEC = NodeNet(pools=(POOL4, POOL6), insides=(Inside(IN4, "lan"), Inside(IN6, "lan"), Inside(IN4, "wifi")))


def routes(spec: NodeNet, table: int) -> dict[tuple[str, str], RouteAdd]:
    found = [a for a in recipe(spec) if isinstance(a, RouteAdd) and a.table == table]
    return {(route.prefix, route.kind): route for route in found}


def way(spec: NodeNet, destination: str) -> str:
    """Where the NAT's table sends a packet: the longest prefix, then the lowest metric, as in a kernel."""
    address = ip_address(destination)
    fits = [r for r in routes(spec, spec.nat_table).values() if address in ip_network(r.prefix)]
    best = min(fits, key=lambda r: (-ip_network(r.prefix).prefixlen, r.metric))
    return best.device or best.kind


@pytest.mark.parametrize(
    ("destination", "goes"),
    [
        ("203.0.113.5", "ips-in"),
        ("198.51.100.9", "ips-in"),  # a pool address: hairpinning
        ("10.0.77.1", "throw"),  # inside
        ("10.64.0.1", "ips-in"),
        ("224.0.0.251", "throw"),
        ("169.254.169.254", "throw"),
        ("2001:db8:ff::1", "ips-in"),
        ("2001:db8:5::3", "ips-in"),
        ("fd00:5::9", "throw"),
        ("fe80::1", "throw"),
        ("ff02::fb", "throw"),
    ],
)
def test_what_goes_into_the_engine_and_what_stays(destination: str, goes: str) -> None:
    assert way(SPEC, destination) == goes


def test_local_networks_and_tunnels_stay_too() -> None:
    spec = replace(SPEC, local_networks=(ip_network("198.18.1.0/24"),), tunnels=(ip_address("192.0.2.10"),))
    assert way(spec, "198.18.1.7") == way(spec, "192.0.2.10") == "throw"
    assert way(SPEC, "198.18.1.7") == "ips-in"


def test_inside_prefixes_that_nest_are_one_route() -> None:
    spec = replace(SPEC, insides=(Inside(IN4, "lan"), Inside(ip_network("10.0.3.0/24"), "lan")))
    assert [p for p, kind in routes(spec, spec.nat_table) if kind == "throw" and p.startswith("10.")] == [
        "10.0.0.0/16"
    ]


def test_nothing_untranslated_leaves_while_the_engine_is_away() -> None:
    for everything in ("0.0.0.0/0", "::/0"):
        found = routes(SPEC, SPEC.nat_table)
        assert found[everything, "blackhole"].metric > found[everything, "unicast"].metric
    assert routes(SPEC, SPEC.service_table)[str(POOL4), "unreachable"].device is None


def test_only_what_comes_in_by_its_device_is_asked_about() -> None:
    rules = [a for a in recipe(SPEC) if isinstance(a, RuleAdd) and a.table == SPEC.nat_table]
    assert {(r.family, r.iif, r.source) for r in rules} == {
        (4, "lan", str(IN4)), (6, "lan", str(IN6)), (4, "wifi", str(IN4)),
    }  # fmt: skip
    service = next(a for a in recipe(SPEC) if isinstance(a, RuleAdd) and a.table == SPEC.service_table)
    jumps = [a for a in recipe(SPEC) if isinstance(a, RuleAdd) and a.goto is not None]
    assert {rule.priority for rule in rules} == {SPEC.rule_priority + 3}
    assert max(jump.priority for jump in jumps) < SPEC.rule_priority + 3 < service.priority


def test_pools_go_into_the_outer_device() -> None:
    found = routes(SPEC, SPEC.service_table)
    assert {found[str(pool), "unicast"].device for pool in (POOL4, POOL6)} == {"ips-out"}


def test_conntrack_sees_neither_side() -> None:
    [table] = [a for a in recipe(replace(SPEC, notrack=True)) if isinstance(a, NftTable)]
    for prefix in (IN4, IN6, POOL4, POOL6):
        assert str(prefix) in table.body


def test_a_node_without_nat_has_none_of_it() -> None:
    plain = recipe(NodeNet(local_networks=(ip_network("198.18.1.0/24"),)))
    assert all(getattr(action, "table", None) != 17303 for action in plain)
    assert all(getattr(action, "kind", None) != "throw" for action in plain)


def test_actions_survive_json_and_have_distinct_keys() -> None:
    actions = recipe(SPEC)
    assert [from_json(to_json(action)) for action in actions] == actions
    assert len({action.key for action in actions}) == len(actions)
    assert "route add throw 10.0.0.0/16 metric 64 table 17303" in [describe(a) for a in actions]


def test_tables_are_three() -> None:
    with pytest.raises(NetError, match="service and NAT routes share table 17301"):
        recipe(replace(SPEC, nat_table=17301))


def test_what_a_pair_of_gateways_needs() -> None:
    spec = netspec(load_text(GOOD_NAT, Path("/etc/ipshare/site.toml")), Facts())
    assert spec.nat_table == 4902
    assert [str(pool) for pool in spec.pools] == [
        "198.51.100.8/29", "2001:db8:5::10/124", "198.51.100.16/30",
    ]  # fmt: skip
    assert {(str(i.source), i.device) for i in spec.insides} == {
        ("10.0.0.0/16", "eth1"), ("fd00:5::/64", "eth1"), ("10.64.0.0/16", "eth2"),
    }  # fmt: skip
    assert way(spec, "10.64.0.1") == "throw", "the other NAT's inside is inside too"
    assert way(spec, "10.9.0.1") == "ips-in", "a path's end is reached by the local table, before every rule"
