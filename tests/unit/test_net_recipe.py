"""Recipes are values: what they contain, in which order, and what they refuse. No kernel here."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ipshare.config import json_schema
from ipshare.net import GlobalNetwork, NetError, NodeNet, Reply, describe, recipe
from ipshare.net.actions import (
    AddressAdd,
    LinkSet,
    NftTable,
    RouteAdd,
    RuleAdd,
    SysctlSet,
    from_json,
    to_json,
)
from ipshare.net.apply import diff

G4, G6 = ip_network("203.0.113.0/24"), ip_network("2001:db8:9::/64")
L4, L6 = ip_network("198.18.1.0/24"), ip_network("2001:db8:1::/64")
OUTER = NodeNet(networks=(GlobalNetwork(G4, 1400), GlobalNetwork(G6, 1400)))
INNER = NodeNet(local_networks=(L4, L6), tunnels=(ip_address("198.18.1.250"),))
EVERYTHING = replace(
    INNER,
    networks=OUTER.networks,
    held=(ip_address("192.0.2.77"), ip_address("2001:db8:7::7")),
    replies=(Reply(G4, "lan"), Reply(G6, "lo")),
    notrack=True,
    ra_devices=("eth0",),
)


def of(kind: type, spec: NodeNet) -> list:
    return [action for action in recipe(spec) if isinstance(action, kind)]


def test_outer_routes_carry_the_path_mtu_and_ipv6_locks_it():
    """Forwarding IPv6, Linux honours a route's MTU only where it is locked (ip6_dst_mtu_maybe_forward)."""
    routes = {(r.prefix, r.kind): r for r in of(RouteAdd, OUTER)}
    assert routes[(str(G4), "unicast")] == RouteAdd(
        17301, str(G4), "unicast", device="ips-out", metric=64, mtu=1400, lock=False
    )
    assert routes[(str(G6), "unicast")].mtu == 1400 and routes[(str(G6), "unicast")].lock


def test_inner_routes_leave_the_size_to_the_engine():
    """The kernel would quote the local address, which no client knows."""
    inner = [r for r in of(RouteAdd, INNER) if r.kind == "unicast"]
    assert {r.prefix for r in inner} == {str(L4), str(L6), "198.18.1.250/32"}
    assert all(r.device == "ips-in" and r.mtu == 0 for r in inner)
    assert LinkSet("ips-in", 65535) in recipe(INNER)


def test_each_route_into_a_device_has_a_fallback_that_loses():
    for unicast in (r for r in of(RouteAdd, EVERYTHING) if r.kind == "unicast"):
        fallback = next(
            r
            for r in of(RouteAdd, EVERYTHING)
            if (r.table, r.prefix) == (unicast.table, unicast.prefix) and r.kind != "unicast"
        )
        assert fallback.metric > unicast.metric and fallback.device is None
        assert fallback.kind == ("unreachable" if unicast.device == "ips-out" else "blackhole")


def test_nothing_is_written_to_main_or_default():
    assert {r.table for r in of(RouteAdd, EVERYTHING)} == {17301, 17302}


@pytest.mark.parametrize("family", [4, 6])
def test_what_the_engine_sends_jumps_over_every_rule_into_our_tables(family: int):
    rules = [r for r in of(RuleAdd, EVERYTHING) if r.family == family]
    landing = next(r for r in rules if r.table is None and r.goto is None)
    jumps = {r.iif: r for r in rules if r.goto is not None}
    lookups = [r for r in rules if r.table is not None]
    assert set(jumps) == {"ips-out", "ips-in"} and all(j.goto == landing.priority for j in jumps.values())
    assert max(j.priority for j in jumps.values()) < min(r.priority for r in lookups)
    assert max(r.priority for r in lookups) < landing.priority
    assert rules.index(landing) < min(map(rules.index, jumps.values())), "a goto without landing is void"
    assert max(map(rules.index, jumps.values())) < min(map(rules.index, lookups)), (
        "no lookup before the jumps"
    )


def test_only_families_in_use_get_rules():
    assert {r.family for r in of(RuleAdd, NodeNet(local_networks=(L6,)))} == {6}


def test_accept_ra_is_raised_before_forwarding_purges_the_default_route():
    paths = [s.path for s in of(SysctlSet, EVERYTHING)]
    assert paths.index("net/ipv6/conf/eth0/accept_ra") < paths.index("net/ipv6/conf/all/forwarding")


def test_notrack_only_where_conntrack_is_in_use():
    assert not of(NftTable, OUTER)
    body = of(NftTable, EVERYTHING)[0].body
    for prefix in (G4, G6, L4, L6):
        assert str(prefix) in body
    assert "hook prerouting priority -450" in body, "after defragmentation (-400) it would be too late"


def test_replies_of_a_distribution_point_enter_the_outer_device():
    spec = replace(OUTER, replies=(Reply(L4, "inside", "out"),))
    assert RouteAdd(17302, "0.0.0.0/0", device="ips-out", metric=64) in recipe(spec)
    assert RuleAdd(4, 502, iif="inside", source=str(L4), table=17302) in recipe(spec)


def test_a_held_address_is_a_host_address_on_lo():
    assert AddressAdd("lo", "192.0.2.77/32") in recipe(EVERYTHING)
    assert AddressAdd("lo", "2001:db8:7::7/128") in recipe(EVERYTHING)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"inner_device": "ips-out"}, "both devices"),
        ({"reply_table": 17301}, "share table"),
        ({"service_table": 254}, "table 254"),
        ({"rule_priority": 0}, "priority 0"),
        ({"rule_priority": 32760}, "priority 32760"),
        ({"replies": (Reply(G4, "a"), Reply(G4, "b", "out"))}, "both devices"),
    ],
)
def test_contradictions_are_one_sentence_with_a_remedy(change: dict, word: str):
    with pytest.raises(NetError, match=word) as refusal:
        recipe(replace(EVERYTHING, **change))
    assert refusal.value.hint


def test_actions_survive_json_and_have_distinct_keys():
    actions = recipe(EVERYTHING)
    assert [from_json(to_json(action)) for action in actions] == actions
    assert len({action.key for action in actions}) == len(actions)
    assert all(describe(action) for action in actions)


def test_diff_of_equals_is_empty():
    assert not diff(recipe(EVERYTHING), recipe(EVERYTHING))


def test_diff_makes_before_it_breaks():
    steps = diff(recipe(OUTER), recipe(INNER))
    assert not steps.first
    assert {a.key for a in steps.last} == {a.key for a in recipe(OUTER)} - {a.key for a in recipe(INNER)}
    assert list(steps.last) == [a for a in reversed(recipe(OUTER)) if a in steps.last], "in reverse"


def test_diff_takes_the_rules_away_first_where_their_landing_moves():
    """An old goto would jump over the new ones, right before the new lookup: a loop."""
    steps = diff(recipe(OUTER), recipe(replace(OUTER, rule_priority=505)))
    assert {type(a) for a in steps.first} == {RuleAdd} and len(steps.first) == 8
    assert steps.first[0].table == 17301, "the lookup goes before the jumps that guard it"


def test_diff_sees_a_changed_mtu():
    changed = replace(OUTER, networks=(GlobalNetwork(G4, 1300), GlobalNetwork(G6, 1400)))
    steps = diff(recipe(OUTER), recipe(changed))
    assert [describe(a) for a in steps.add] == [
        "route add 203.0.113.0/24 dev ips-out mtu 1300 metric 64 table 17301"
    ]
    assert not steps.first and not steps.last


def test_the_configuration_allows_the_priorities_that_there_is_room_for():
    limits = json_schema()["$defs"]["Engine"]["properties"]["rule_priority"]
    recipe(replace(EVERYTHING, rule_priority=limits["maximum"]))
    with pytest.raises(NetError, match="out of range"):
        recipe(replace(EVERYTHING, rule_priority=limits["maximum"] + 1))
