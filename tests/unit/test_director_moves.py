"""Workloads at other nodes: their bindings come with them, groups as a whole; nothing else changes."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from ipshare.director.moves import moved
from ipshare.director.topology import Topology, changes
from ipshare.errors import Refused

NODES = [
    {"name": "a1", "address": "10.0.0.1:1", "endpoint": "A"},
    {"name": "b1", "address": "10.0.0.2:1", "endpoint": "B"},
    {"name": "c1", "address": "10.0.0.3:1", "distribution": "C"},
]
BINDINGS = [
    {"global": "203.0.113.0/24", "to": "A"},
    {"global": "203.0.113.7/32", "to": "A", "track": "tcp"},
    {"global": "2001:db8::7/128", "to": "A"},
    {"global": "203.0.113.8/32", "to": "A"},
]
SHOP = {"name": "shop", "node": "a1", "group": "g", "addresses": ["203.0.113.7", "2001:db8::7/128"]}
BASE = {"name": "base", "node": "a1", "group": "g", "addresses": ["203.0.113.8/32"]}
MAIL = {"name": "mail", "node": "a1"}


def topology(workloads: Any = (SHOP, BASE, MAIL), bindings: Any = BINDINGS) -> Topology:
    return Topology({"node": NODES, "binding": bindings, "workload": list(workloads)})


def test_a_group_moves_with_all_its_addresses() -> None:
    old = topology()
    new = moved(old, {"shop": "b1", "base": "b1"})
    assert {str(prefix): row["to"] for prefix, row in new.bindings.items()} == {
        "203.0.113.0/24": "A",
        "203.0.113.7/32": "B",
        "2001:db8::7/128": "B",
        "203.0.113.8/32": "B",
    }
    assert new.bindings[ip_network("203.0.113.7/32")]["track"] == "tcp"
    assert list(changes(old, new)) == [
        "~ binding 203.0.113.7/32: to A -> B",
        "~ binding 2001:db8::7/128: to A -> B",
        "~ binding 203.0.113.8/32: to A -> B",
        "~ workload shop: node a1 -> b1",
        "~ workload base: node a1 -> b1",
    ]
    assert moved(new, {"shop": "a1", "base": "a1"}) == old


def test_a_workload_without_addresses_moves_alone() -> None:
    assert list(changes(topology(), moved(topology(), {"mail": "b1"}))) == ["~ workload mail: node a1 -> b1"]
    assert moved(topology(), {"mail": "a1"}) == topology()


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ({"shop": "b1"}, "shop is of group g, and base would not come with it"),
        ({"shop": "b1", "base": "a1"}, "would not come with it"),
        ({"nobody": "b1"}, "there is no workload 'nobody'"),
        ({"mail": "z9"}, "there is no node 'z9'"),
        ({"mail": "c1"}, "node c1 is no end point"),
    ],
)
def test_what_cannot_be(moves: dict[str, str], message: str) -> None:
    with pytest.raises(Refused, match=message):
        moved(topology(), moves)


def test_an_address_that_is_written_down() -> None:
    bindings = [*BINDINGS[:3], {"global": "203.0.113.8/32", "to": "A", "local": "10.1.0.99/32"}]
    alone = {key: value for key, value in BASE.items() if key != "group"}
    with pytest.raises(Refused, match="203.0.113.8/32 has a local address written down"):
        moved(topology([alone], bindings), {"base": "b1"})
