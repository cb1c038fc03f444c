"""Every way to refuse an image: the error, the section and the record; and nothing changes (S1.9)."""

from __future__ import annotations

import numpy as np
import pytest

from ipshare.core import ffi, lib
from tests.table_images import (
    HEADER,
    NONE,
    Image,
    Record,
    Refused,
    Tables,
    binding,
    endpoint,
    member,
    network,
    packed,
    peer,
    policy,
)

HEAD, NETWORK, ENDPOINT, POLICY, MEMBER, BINDING, PEER = range(7)
GONE = lib.IPS_KIND_NONE
TUNNEL = {"tunnel": ("192.0.2.1", "192.0.2.2")}
TUNNEL6 = {"tunnel": ("2001:db8::1", "2001:db8::2")}
GOOD = Image(
    networks=[network("203.0.113.0/24"), network("2001:db8:100::/64")],
    endpoints=[
        endpoint("10.0.0.0/24", flags=lib.IPS_EP_SELF),
        endpoint("10.0.1.0/25"),
        endpoint("2001:db8:a::/64"),
        endpoint("", flags=lib.IPS_EP_DISTRIBUTION, encap=lib.IPS_ENCAP_IPIP, **TUNNEL),
    ],
    policies=[policy(0, 2, table_size=307), policy(2, 1), policy(3, 1)],
    members=[member(0), member(1), member(2), member(3)],
    bindings=[
        binding("203.0.113.0/25", 1),
        binding("203.0.113.7/32", 0, 200),
        binding("203.0.113.128/25", 0, kind=lib.IPS_KIND_POLICY),
        binding("2001:db8:100::/64", 2),
    ],
    header={"roles": lib.IPS_ROLE_OUTER | lib.IPS_ROLE_INNER, "reply_policy": 2},
)


def with_row(section: str, index: int, **fields: object) -> Image:
    """The good image with some fields of one record changed."""
    rows = [dict(row) for row in getattr(GOOD, section)]
    rows[index].update(fields)
    return GOOD.but(**{section: rows})


def more(section: str, *rows: Record) -> Image:
    return GOOD.but(**{section: [*getattr(GOOD, section), *rows]})


def header(**fields: object) -> Image:
    return GOOD.but(header={**GOOD.header, **fields})


def offset(address: str) -> list[int]:
    return packed(address)


LONG = [0] * 5 + [1] + [0] * 10
CASES: dict[str, tuple[Image, str, int, int]] = {
    "magic": (header(magic=0x54535048), "BAD_MAGIC", HEAD, 0),
    "version": (header(version=3), "BAD_VERSION", HEAD, 0),
    "unknown flag": (header(flags=4096), "BAD_VERSION", HEAD, 0),
    "unknown role": (header(roles=4096), "BAD_VERSION", HEAD, 0),
    "reserved": (header(reserved=1), "BAD_VERSION", HEAD, 0),
    "header size": (header(header_bytes=8), "BAD_RECORD_SIZE", HEAD, 0),
    **{
        f"{name} size": (
            header(**{f"{name}_bytes": 8 if name != "member" else 16}),
            "BAD_RECORD_SIZE",
            HEAD,
            0,
        )
        for name in ("network", "endpoint", "policy", "member", "peer", "binding")
    },
    "total": (header(total_bytes=10_000), "TRUNCATED", HEAD, 0),
    "count": (header(n_bindings=5), "TRUNCATED", HEAD, 0),
    "too many end points": (header(n_endpoints=70_000), "TOO_LARGE", HEAD, 0),
    "too many bindings": (header(n_bindings=1 << 31), "TOO_LARGE", HEAD, 0),
    "digest": (header(digest=1), "BAD_DIGEST", HEAD, 0),
    "icmp source": (header(icmp_source4=LONG), "BAD_FAMILY", HEAD, 0),
    "reply policy": (header(reply_policy=3), "BAD_TARGET", HEAD, 0),
    "delta without base": (header(flags=lib.IPS_IMAGE_DELTA, base_generation=77), "STALE_BASE", HEAD, 0),
    "term": (header(term=0, revision=99), "STALE_TERM", HEAD, 0),
    "revision": (header(term=1, revision=0), "STALE_TERM", HEAD, 0),
    # networks
    "network family": (with_row("networks", 1, family=5), "BAD_FAMILY", NETWORK, 1),
    "network length": (with_row("networks", 0, prefix_len=7), "BAD_PREFIX", NETWORK, 0),
    "network too long": (with_row("networks", 0, prefix_len=33), "BAD_PREFIX", NETWORK, 0),
    "network host bits": (with_row("networks", 1, prefix_len=32), "BAD_PREFIX", NETWORK, 1),
    "network of v4 with more bytes": (with_row("networks", 0, prefix=LONG), "BAD_PREFIX", NETWORK, 0),
    "network zero": (more("networks", network("0.0.0.0/8")), "BAD_NETWORK", NETWORK, 2),
    "network reserved": (with_row("networks", 1, reserved=[0, 0, 0, 0, 1]), "BAD_NETWORK", NETWORK, 1),
    "network unmatched": (with_row("networks", 0, unmatched=3), "BAD_NETWORK", NETWORK, 0),
    "network within": (more("networks", network("203.0.113.64/26")), "BAD_NETWORK", NETWORK, 2),
    "network around": (more("networks", network("203.0.112.0/22")), "BAD_NETWORK", NETWORK, 2),
    "network twice": (more("networks", network("2001:db8:100::/64")), "BAD_NETWORK", NETWORK, 2),
    "more addresses than cells": (
        more("networks", *(network(f"{i}.0.0.0/8") for i in range(11, 31))),
        "TOO_LARGE",
        NETWORK,
        17,
    ),
    # end points
    "end point family": (with_row("endpoints", 0, family=0), "BAD_FAMILY", ENDPOINT, 0),
    "end point host bits": (with_row("endpoints", 1, prefix_len=8), "BAD_PREFIX", ENDPOINT, 1),
    "end point length": (with_row("endpoints", 2, prefix_len=129), "BAD_PREFIX", ENDPOINT, 2),
    "end point zero": (with_row("endpoints", 1, local=[0] * 16), "BAD_PREFIX", ENDPOINT, 1),
    "distribution point with a local prefix": (
        with_row("endpoints", 3, local=offset("10.0.0.0"), prefix_len=24),
        "BAD_PREFIX",
        ENDPOINT,
        3,
    ),
    "encapsulation without tunnel": (with_row("endpoints", 1, encap=1), "BAD_ENDPOINT", ENDPOINT, 1),
    "trace without tunnel": (
        with_row("endpoints", 1, flags=lib.IPS_EP_TRACE_TUNNEL),
        "BAD_ENDPOINT",
        ENDPOINT,
        1,
    ),
    "unknown encapsulation": (
        more("endpoints", endpoint("10.0.2.0/24", encap=3, **TUNNEL)),
        "BAD_ENDPOINT",
        ENDPOINT,
        4,
    ),
    "tunnel without remote": (
        more(
            "endpoints", endpoint("10.0.2.0/24", encap=1, tunnel_family=4, tunnel_local=packed("192.0.2.1"))
        ),
        "BAD_ENDPOINT",
        ENDPOINT,
        4,
    ),
    "tunnel without local": (
        more(
            "endpoints", endpoint("10.0.2.0/24", encap=1, tunnel_family=4, tunnel_remote=packed("192.0.2.1"))
        ),
        "BAD_ENDPOINT",
        ENDPOINT,
        4,
    ),
    "tunnel family": (with_row("endpoints", 3, tunnel_family=5), "BAD_ENDPOINT", ENDPOINT, 3),
    "tunnel of v4 with more bytes": (
        more("endpoints", endpoint("10.0.2.0/24", encap=1, **TUNNEL6) | {"tunnel_family": 4}),
        "BAD_ENDPOINT",
        ENDPOINT,
        4,
    ),
    "tunnel addresses without family": (
        more("endpoints", endpoint("10.0.2.0/24", **TUNNEL) | {"tunnel_family": 0}),
        "BAD_ENDPOINT",
        ENDPOINT,
        4,
    ),
    "GUE without port": (with_row("endpoints", 3, encap=lib.IPS_ENCAP_GUE), "BAD_ENDPOINT", ENDPOINT, 3),
    "end point flag": (with_row("endpoints", 2, flags=4096), "BAD_ENDPOINT", ENDPOINT, 2),
    "v4 path MTU": (with_row("endpoints", 0, path_mtu=67), "BAD_ENDPOINT", ENDPOINT, 0),
    "v6 path MTU": (with_row("endpoints", 2, path_mtu=1279), "BAD_ENDPOINT", ENDPOINT, 2),
    "huge path MTU": (with_row("endpoints", 2, path_mtu=65536), "BAD_ENDPOINT", ENDPOINT, 2),
    # policies and members
    "policy members": (with_row("policies", 1, n_members=3), "BAD_TARGET", POLICY, 1),
    "policy members far away": (
        with_row("policies", 1, first_member=0xFFFFFFFF, n_members=2),
        "BAD_TARGET",
        POLICY,
        1,
    ),
    "policy members without end": (
        with_row("policies", 1, first_member=1, n_members=0xFFFFFFFF),
        "BAD_TARGET",
        POLICY,
        1,
    ),
    "policy without members": (with_row("policies", 1, n_members=0), "BAD_POLICY", POLICY, 1),
    "policy without weight": (with_row("members", 2, weight=0), "BAD_POLICY", POLICY, 1),
    "table not prime": (with_row("policies", 0, table_size=309), "BAD_POLICY", POLICY, 0),
    "table too small": (with_row("policies", 0, table_size=199), "BAD_POLICY", POLICY, 0),
    "table too large": (with_row("policies", 0, table_size=16777259), "BAD_POLICY", POLICY, 0),
    "client bits": (with_row("policies", 2, v4_bits=33), "BAD_POLICY", POLICY, 2),
    "client bits of v6": (with_row("policies", 2, v6_bits=129), "BAD_POLICY", POLICY, 2),
    "policy with earlier members that are none": (
        with_row("policies", 2, n_previous=1),
        "BAD_TARGET",
        POLICY,
        2,
    ),
    "member index": (with_row("members", 3, endpoint=4), "BAD_TARGET", MEMBER, 3),
    "member twice": (with_row("members", 1, endpoint=0), "BAD_POLICY", MEMBER, 1),
    "replies to nowhere": (with_row("members", 3, endpoint=0), "BAD_TARGET", MEMBER, 3),
    # bindings
    "binding family": (with_row("bindings", 3, family=0), "BAD_FAMILY", BINDING, 3),
    "binding length": (with_row("bindings", 1, prefix_len=33), "BAD_PREFIX", BINDING, 1),
    "binding length zero": (with_row("bindings", 1, prefix_len=0), "BAD_PREFIX", BINDING, 1),
    "binding host bits": (with_row("bindings", 1, prefix_len=31), "BAD_PREFIX", BINDING, 1),
    "binding kind": (with_row("bindings", 0, kind=6), "BAD_KIND", BINDING, 0),
    "binding flag": (with_row("bindings", 0, flags=128), "BAD_KIND", BINDING, 0),
    "removal in a complete image": (with_row("bindings", 1, kind=GONE), "BAD_KIND", BINDING, 1),
    "target": (with_row("bindings", 1, target=4), "BAD_TARGET", BINDING, 1),
    "target of the other family": (with_row("bindings", 1, target=2), "BAD_TARGET", BINDING, 1),
    "target is a distribution point": (with_row("bindings", 1, target=3), "BAD_TARGET", BINDING, 1),
    "target policy": (with_row("bindings", 2, target=3), "BAD_TARGET", BINDING, 2),
    "target policy of the other family": (with_row("bindings", 2, target=1), "BAD_TARGET", BINDING, 2),
    "target policy of distribution points": (with_row("bindings", 2, target=2), "BAD_TARGET", BINDING, 2),
    "target that cannot be rewritten to": (
        with_row("endpoints", 1, local=[0] * 16, prefix_len=0),
        "BAD_TARGET",
        BINDING,
        0,
    ),
    "offset beyond": (with_row("bindings", 1, local=offset("0.0.1.0")), "BAD_OFFSET", BINDING, 1),
    "offset not aligned": (with_row("bindings", 0, local=offset("0.0.0.1")), "BAD_OFFSET", BINDING, 0),
    "offset of v4 with more bytes": (with_row("bindings", 1, local=LONG), "BAD_OFFSET", BINDING, 1),
    "prefix larger than the end point's": (
        with_row("bindings", 0, target=1, prefix_len=24),
        "BAD_OFFSET",
        BINDING,
        0,
    ),
    "prefix larger than a member's": (
        GOOD.but(bindings=[binding("203.0.113.0/24", 0, kind=lib.IPS_KIND_POLICY)]),
        "BAD_OFFSET",
        BINDING,
        0,
    ),
    "address zero": (
        with_row("bindings", 1, kind=lib.IPS_KIND_ADDRESS, local=[0] * 16),
        "BAD_OFFSET",
        BINDING,
        1,
    ),
    "not sorted": (GOOD.but(bindings=[GOOD.bindings[i] for i in (1, 0)]), "NOT_SORTED", BINDING, 1),
    "families not sorted": (GOOD.but(bindings=[GOOD.bindings[i] for i in (3, 0)]), "NOT_SORTED", BINDING, 1),
    "twice": (GOOD.but(bindings=[GOOD.bindings[i] for i in (0, 1, 1)]), "DUPLICATE", BINDING, 2),
    # members of groups
    "too many peers": (header(n_peers=70_000), "TOO_LARGE", HEAD, 0),
    "peer of no family": (GOOD.but(peers=[peer("10.3.0.1", family=5)]), "BAD_FAMILY", PEER, 0),
    "peer with an unknown flag": (GOOD.but(peers=[peer("10.3.0.1", flags=4)]), "BAD_PEER", PEER, 0),
    "peer that is also where it is": (GOOD.but(peers=[peer("10.3.0.1", flags=2)]), "BAD_PEER", PEER, 0),
    "peer reserved": (GOOD.but(peers=[peer("10.3.0.1", reserved=1)]), "BAD_PEER", PEER, 0),
    "peer that is loopback": (GOOD.but(peers=[peer("127.0.0.1")]), "BAD_PEER", PEER, 0),
    "peer without an address": (GOOD.but(peers=[peer("0.0.0.0")]), "BAD_PEER", PEER, 0),
    "peer of v4 with more bytes": (GOOD.but(peers=[peer("10.3.0.1", now=LONG)]), "BAD_PEER", PEER, 0),
    "peer that moved to where it was": (GOOD.but(peers=[peer("fd00::1", "fd00::1")]), "BAD_PEER", PEER, 0),
    "peer twice": (GOOD.but(peers=[peer("10.3.0.1"), peer("10.3.0.1", "10.3.0.2")]), "DUPLICATE", PEER, 1),
    "peer where another was": (
        GOOD.but(peers=[peer("10.3.0.1", "10.3.0.2"), peer("10.3.0.2")]),
        "DUPLICATE",
        PEER,
        1,
    ),
    "two peers in one place": (
        GOOD.but(peers=[peer("10.3.0.1", "10.3.0.3"), peer("10.3.0.2", "10.3.0.3")]),
        "DUPLICATE",
        PEER,
        1,
    ),
    "outside": (with_row("bindings", 3, **{"global": packed("2001:db8:101::")}), "OUTSIDE", BINDING, 3),
    "wider than its network": (
        GOOD.but(
            bindings=[binding("203.0.112.0/23", 0)], endpoints=[endpoint("10.0.0.0/16"), *GOOD.endpoints[1:]]
        ),
        "OUTSIDE",
        BINDING,
        0,
    ),
    "overlap": (
        GOOD.but(bindings=[binding("203.0.113.3/32", 0, 9), binding("203.0.113.4/32", 0, 9)]),
        "OVERLAP",
        BINDING,
        1,
    ),
    "overlap within": (
        GOOD.but(bindings=[binding("203.0.113.0/25", 0), binding("203.0.113.200/32", 0, 9)]),
        "OVERLAP",
        BINDING,
        1,
    ),
}


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    tables.load(GOOD.but(header={**GOOD.header, "term": 1, "revision": 7}))
    return tables


@pytest.mark.parametrize("name", CASES)
def test_refusal_names_the_record_and_changes_nothing(name: str, tables: Tables) -> None:
    image, error, section, index = CASES[name]
    reason = (getattr(lib, f"IPS_LOAD_{error}"), section, index)
    fence = {"term": 1, "revision": 7}
    before, was = tables.dump(), tables.info()
    with pytest.raises(Refused) as refused:
        tables.prepare(image.but(header={**fence, **image.header}))
    assert refused.value.reason == reason, str(refused.value)
    assert tables.dump() == before
    now = tables.info()
    assert {**now, "bytes": 0} == {**was, "bytes": 0}
    tables.prepare(image=GOOD.but(header={**GOOD.header, **fence}))  # the next good one is taken


def test_every_error_has_a_text_and_a_case() -> None:
    names = {name.removeprefix("IPS_LOAD_") for name in dir(lib) if name.startswith("IPS_LOAD_")}
    produced = {error for _, error, _, _ in CASES.values()}
    assert produced | {"OK", "NO_MEMORY"} == names  # memory: native/tests/tables_memory.c
    errors = [getattr(lib, f"IPS_LOAD_{name}") for name in names]
    assert all(ffi.string(lib.ips_load_error_text(error)) for error in errors)
    assert lib.ips_load_error_text(max(errors) + 1) == lib.ips_load_error_text(-1) == ffi.NULL


def test_trailing_bytes_are_not_looked_at_and_missing_ones_are(tables: Tables) -> None:
    raw = GOOD.but(header={**GOOD.header, "term": 2}).pack()
    tables.prepare(raw + b"mapped to the end of its page")
    for n in range(0, len(raw), 7):
        with pytest.raises(Refused) as refused:
            tables.prepare(raw[:n])
        assert refused.value.reason == (lib.IPS_LOAD_TRUNCATED, HEAD, 0)


def test_a_delta_may_take_a_network_away_with_its_bindings() -> None:
    tables = Tables()
    generation = tables.load(GOOD)
    without = GOOD.but(networks=GOOD.networks[:1])
    with pytest.raises(Refused) as refused:  # a binding that the image does not mention loses its ground
        tables.prepare(without.delta(generation, []))
    assert refused.value.reason == (lib.IPS_LOAD_OUTSIDE, BINDING, NONE)
    tables.load(without.delta(generation, [{**GOOD.bindings[3], "kind": GONE}]))
    assert tables.info()["n_bindings"] == 3


def test_a_delta_may_not_pull_the_ground_from_under_what_is_bound() -> None:
    tables = Tables()
    generation = tables.load(GOOD)
    for changed, error in (
        (with_row("endpoints", 1, prefix_len=30), lib.IPS_LOAD_BAD_OFFSET),
        (with_row("members", 0, endpoint=1).but(policies=[policy(0, 1), policy(2, 1), policy(3, 1)]), None),
        (
            with_row("members", 0, endpoint=2).but(policies=[policy(0, 1), policy(2, 1), policy(3, 1)]),
            lib.IPS_LOAD_BAD_TARGET,
        ),
        (GOOD.but(policies=[policy(2, 1), policy(2, 1), policy(3, 1)]), lib.IPS_LOAD_BAD_TARGET),
    ):
        if error is None:
            tables.prepare(changed.delta(generation, []))
            continue
        with pytest.raises(Refused) as refused:
            tables.prepare(changed.delta(generation, []))
        assert refused.value.reason == (error, BINDING, NONE)


def test_an_overlap_that_a_removal_uncovers_names_the_removal() -> None:
    tables = Tables()
    image = GOOD.but(
        bindings=[
            binding("203.0.113.0/25", 0),
            binding("203.0.113.7/32", 1, 7),
            binding("203.0.113.200/32", 0, 7),
        ]
    )
    generation = tables.load(image)
    with pytest.raises(Refused) as refused:
        tables.prepare(image.delta(generation, [binding("203.0.113.7/32", kind=GONE)]))
    assert refused.value.reason[:2] == (lib.IPS_LOAD_OVERLAP, BINDING)


def test_digest_is_the_documented_one() -> None:
    """An independent spelling of native/ips_digest.h; the value is part of the image format."""
    odd = (0xA24BAED4963EE407, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F)
    mask = (1 << 64) - 1

    def rotate(v: int, by: int) -> int:
        return (v << by | v >> (64 - by)) & mask

    def digest(data: bytes) -> int:
        lanes = list(reversed(odd))
        padded = data + bytes(-len(data) % 32)
        for at in range(0, len(padded), 8):
            i = at // 8 % 4
            word = int.from_bytes(padded[at : at + 8], "little")
            lanes[i] = rotate(lanes[i] ^ word, 29) * odd[i] & mask
        h = len(data) * odd[1] & mask
        for lane in lanes:
            h = (rotate(h, 23) ^ lane) * odd[0] & mask
            h ^= h >> 32
        h = h * odd[2] & mask
        return h ^ h >> 29

    raw = np.random.default_rng(1).integers(0, 256, 300, "u1").tobytes()
    for n in range(300):
        assert lib.ips_digest(raw[:n], n) == digest(raw[:n])
    assert lib.ips_digest(raw, 256) != lib.ips_digest(raw[1:257], 256)
    assert HEADER.itemsize % 8 == 0  # sections begin where 64-bit words may be read
