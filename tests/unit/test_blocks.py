"""Deterministic ports (RFC 7422): arithmetic both ways beside a naive table, and what the NAT makes of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.core import ffi, lib
from tests.napt_door import (
    ECHO,
    ESP,
    INDEPENDENT,
    INSIDE,
    POOL4,
    REMOTE,
    SYN,
    TCP,
    UDP,
    WEB,
    A,
    Flow,
    Nat,
    packed,
    through,
    unpacked,
)

FAMILIES = pytest.mark.parametrize("family", (4, 6))
Block = tuple[str, int, int]  # public address, first port, last port


def pool(
    first: str, n: int, inside: str, unit: int, block: int, ports: tuple[int, int] = (0, 0), **fields: Any
) -> Any:
    prefix = ip_network(inside)
    values = {
        "first": list(packed(first)),
        "n": n,
        "family": prefix.version,
        "first_port": ports[0],
        "last_port": ports[1],
        "inside": list(packed(str(prefix.network_address))),
        "inside_len": prefix.prefixlen,
        "unit_len": unit,
        "block": block,
    }
    return ffi.new("struct ips_napt_pool_rec *", values | fields)


def block_of(p: Any, inside: str) -> Block | None:
    b = ffi.new("struct ips_block *")
    if not lib.ips_block_of(p, packed(inside), b):
        return None
    assert unpacked(b.address, p.family) == str(ip_address(unpacked(p.first, p.family)) + b.index)
    return unpacked(b.address, p.family), b.first, b.last


def owner(p: Any, public: str, port: int) -> str | None:
    b = ffi.new("struct ips_block *")
    if not lib.ips_block_at(p, packed(public), port, b):
        return None
    assert b.first <= port <= b.last and b.subscriber_len == p.unit_len
    return unpacked(b.subscriber, p.family)


def table(first: str, n: int, inside: str, unit: int, block: int, ports: tuple[int, int]) -> dict[str, Block]:
    """Everything written out: one block after the other, one subscriber after the other."""
    low, high = ports if any(ports) else (1024, 65535)
    free = [
        (str(ip_address(first) + a), port, port + block - 1)
        for a in range(n)
        for port in range(low, high - block + 2, block)
    ]
    names = [str(s.network_address) for s in ip_network(inside).subnets(new_prefix=unit)]
    return dict(zip(names, free, strict=False)) if len(names) <= len(free) else {}


PLANS = st.sampled_from(
    [
        ("203.0.113.0", "10.0.0.0/26", 32),
        ("203.0.113.255", "10.1.2.128/27", 32),
        ("203.0.113.0", "10.0.0.0/20", 26),
        ("2001:db8:ff::", "fd00::/58", 64),
        ("2001:db8:ff::ffff", "fd00:0:0:1::/122", 128),
    ]
).flatmap(
    lambda plan: st.tuples(
        st.just(plan[0]),
        st.integers(1, 5),
        st.just(plan[1]),
        st.just(plan[2]),
        st.integers(1, 5000),
        st.one_of(
            st.just((0, 0)), st.tuples(st.integers(1, 30000), st.integers(30000, 65535)), st.just((9, 9))
        ),
    )
)


@given(PLANS)
def test_both_ways_are_the_written_out_table(plan: tuple[str, int, str, int, int, tuple[int, int]]) -> None:
    p, want = pool(*plan), table(*plan)
    for subscriber in ip_network(plan[2]).subnets(new_prefix=plan[3]):
        block = want.get(str(subscriber.network_address))
        assert block_of(p, str(subscriber.network_address)) == block
        assert block_of(p, str(subscriber.broadcast_address)) == block
    for name, (address, low, high) in want.items():
        assert owner(p, address, low) == owner(p, address, high) == name
    ends = {(a, port) for a, low, high in want.values() for port in (low - 1, high + 1) if 0 <= port < 65536}
    for address, port in ends | {(str(ip_address(plan[0]) - 1), 2000), (plan[0], 0), (plan[0], 65535)}:
        names = [name for name, (a, low, high) in want.items() if a == address and low <= port <= high]
        assert owner(p, address, port) == (names[0] if names else None)


def test_a_neighbour_of_the_inside_prefix_has_no_block() -> None:
    p = pool("203.0.113.0", 1, "10.0.0.64/26", 32, 1000)
    assert block_of(p, "10.0.0.64") == ("203.0.113.0", 1024, 2023)
    assert block_of(p, "10.0.0.63") is None and block_of(p, "10.0.0.128") is None


BAD = [
    {"block": 0},
    {"inside_len": 0},
    {"inside_len": 33},
    {"unit_len": 33},
    {"unit_len": 20},
    {"family": 5},
    {"inside_len": 4},
    {"first_port": 2000, "last_port": 1999},
    {"first_port": 0, "last_port": 1999},
    {"block": 3000},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_what_makes_no_sense_has_no_block(change: dict[str, int]) -> None:
    p = pool("203.0.113.0", 1, "10.0.0.0/27", 32, 1000)
    assert block_of(p, "10.0.0.0") and owner(p, "203.0.113.0", 5000)
    for field, value in change.items():
        setattr(p, field, value)
    assert block_of(p, "10.0.0.0") is None and owner(p, "203.0.113.0", 5000) is None


# ---- in the NAT ----------------------------------------------------------------


def block_in(nat: Nat, family: int, inside: str) -> Block | None:
    return block_of(nat.config.pools + (0 if family == 4 else 1), inside)


@FAMILIES
def test_every_port_is_of_the_subscribers_block(family: int) -> None:
    nat = Nat(blocks=(6, 1500), half_open=4000, half_open_per_source=4000)
    for subscriber in (0, 1, 42, 43, 63):
        inside = str(ip_address("10.0.0.0") + subscriber)
        if family == 6:
            inside = str(ip_address("fd00::") + (subscriber << 64) + 77)
        block = block_in(nat, family, inside)
        for proto in (TCP, UDP, ECHO[family]):
            for port in range(1, 6):
                address, public = through(nat, proto, (inside, port), REMOTE[family])
                assert block and block[0] == address and block[1] <= public <= block[2]
                which = owner(nat.config.pools + (family == 6), address, public)
                assert which == (inside if family == 4 else str(ip_address("fd00::") + (subscriber << 64)))


@FAMILIES
def test_a_full_block_is_refused_while_others_have_ports(family: int) -> None:
    """Whoever overflowed into another block would make the answer of `whois` a lie."""
    nat = Nat(blocks=(2, 3), ports=(5000, 5011), addresses=1)
    address = INSIDE[family][0]
    got = {through(nat, UDP, (address, port), REMOTE[family])[1] for port in (1, 2, 3)}
    assert len(got) == 3
    assert nat.out(Flow(UDP, (address, 4), REMOTE[family]))[0] == "PORTS_EXHAUSTED"
    assert nat.out(Flow(TCP, (address, 4), REMOTE[family]))[0] == "OK"
    other = str(ip_address(address) + (1 if family == 4 else 1 << 64))
    assert nat.out(Flow(UDP, (other, 4), REMOTE[family]))[0] == "OK"
    nat.close(Flow(UDP, (address, 1), REMOTE[family]))
    assert through(nat, UDP, (address, 4), REMOTE[family])[1] in got


def test_the_mapping_stays_endpoint_independent() -> None:
    nat = Nat(blocks=(6, 1000), filtering=INDEPENDENT)
    ends = {through(nat, UDP, A, ("198.51.100.9", port)) for port in range(1, 9)}
    assert len(ends) == 1
    verdict, came = nat.back(Flow(UDP, ("192.0.2.1", 4444), ends.pop()))
    assert (verdict, came.dst) == ("OK", A)


def test_hairpinning_between_two_subscribers() -> None:
    """RFC 4787 REQ-9."""
    nat = Nat(blocks=(6, 1000), filtering=INDEPENDENT)
    other = ("10.0.0.9", 99)
    public = through(nat, UDP, other, WEB)
    verdict, went = nat.out(Flow(UDP, A, public))
    assert (verdict, went.dst) == ("HAIRPINNED", other)
    assert owner(nat.config.pools, *went.src) == A[0]


def test_a_protocol_without_ports_is_at_the_subscribers_address() -> None:
    nat = Nat(blocks=(7, 1000))
    verdict, went = nat.out(Flow(ESP, ("10.0.0.100", 0), WEB))
    block = block_in(nat, 4, "10.0.0.100")
    assert verdict == "OK" and block and went.src[0] == block[0] == str(ip_address(POOL4) + 1)


def test_an_inside_address_outside_the_plan_has_no_port_of_it() -> None:
    nat = Nat(blocks=(4, 1000))
    assert nat.out(Flow(UDP, ("10.0.0.16", 1), WEB))[0] == "PORTS_EXHAUSTED"


def napt(nat: Nat, pools: list[Any]) -> bool:
    records = ffi.new("struct ips_napt_pool_rec[]", len(pools))
    for i, p in enumerate(pools):
        records[i] = p[0]
    values = {"pools": records, "n_pools": len(pools), "insides": nat.config.insides, "n_insides": 0}
    n = lib.ips_napt_new(nat.s, nat.frags, ffi.new("struct ips_napt_config *", values))
    lib.ips_napt_free(n)
    return bool(n)


OTHER = "192.0.2.0"


@pytest.mark.parametrize(
    ("inside", "made"),
    [("10.0.0.0/26", False), ("10.0.0.0/24", False), ("10.0.0.32/27", False), ("10.0.0.64/26", True)],
)
def test_no_inside_address_has_two_blocks(inside: str, made: bool) -> None:
    first = pool("198.18.0.0", 1, "10.0.0.0/26", 32, 100)
    assert napt(Nat(), [first, pool(OTHER, 1, inside, 32, 100)]) is made


def test_more_subscribers_than_blocks_are_no_pool() -> None:
    assert napt(Nat(), [pool(OTHER, 1, "10.0.0.0/26", 32, 1008)])
    assert not napt(Nat(), [pool(OTHER, 1, "10.0.0.0/26", 32, 1009)])


def test_a_dynamic_pool_beside_it_is_for_the_others() -> None:
    pools = [pool("198.18.0.0", 1, "10.0.0.0/28", 32, 100), pool("198.18.1.0", 1, "10.0.0.0/8", 32, 0)]
    records = ffi.new("struct ips_napt_pool_rec[2]", [pools[0][0], pools[1][0]])
    insides = ffi.new("struct ips_napt_inside_rec[1]")
    insides[0].prefix, insides[0].family, insides[0].prefix_len = list(packed("10.0.0.0")), 4, 8
    values = {"pools": records, "n_pools": 2, "insides": insides, "n_insides": 1}
    fresh = Nat(addresses=1)
    n = lib.ips_napt_new(fresh.s, fresh.frags, ffi.new("struct ips_napt_config *", values))
    fresh.n = ffi.gc(n, lib.ips_napt_free)
    assert through(fresh, UDP, ("10.0.0.15", 5), WEB)[0] == "198.18.0.0"
    assert through(fresh, UDP, ("10.0.0.16", 5), WEB)[0] == "198.18.1.0"
    assert fresh.out(Flow(TCP, ("10.0.0.3", 1), WEB), SYN)[0] == "OK"
