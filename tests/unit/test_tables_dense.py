"""IPv6 host bindings that stand close together: slots repeat what the hash says, whatever is changed.

The model is a dictionary of hosts under two covering prefixes. Groups of 4,096 addresses: one is crowded, one
just about, one nearly empty; kinds, flags and far values that no slot can say stand among the others.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from ipshare.core import lib
from tests.table_images import (
    Image,
    Record,
    Tables,
    binding,
    endpoint,
    in_order,
    member,
    network,
    packed,
    policy,
)

NET, NEAR, FAR = 0x20010DB8_0100 << 80, 0x20010DB8_000A << 80, 0x20010DB8_000B << 80
ENDS = [
    endpoint("2001:db8:a::/64", flags=lib.IPS_EP_SELF),
    endpoint("2001:db8:b::/64", flags=lib.IPS_EP_SELF),
]
SITE = Image(
    networks=[network("2001:db8:100::/64")],
    endpoints=ENDS,
    policies=[policy(0, 2, table_size=307)],
    members=[member(0), member(1)],
    header={"roles": lib.IPS_ROLE_INNER | lib.IPS_ROLE_OUTER},
)
COVERS = [
    binding("2001:db8:100::/118", 1, 1 << 20),  # a quarter of the crowded group
    binding("2001:db8:100::40/122", 0, 1 << 21),  # and within it
]
HOSTS = [*range(4096), *range(4096, 8192), *range(8192, 8400)]
GONE, POLICY = lib.IPS_KIND_NONE, lib.IPS_KIND_POLICY
LEADS_ON = (lib.IPS_KIND_ENDPOINT, lib.IPS_KIND_POLICY, lib.IPS_KIND_ADDRESS)


def host(
    n: int, target: int = 0, offset: int | None = None, kind: int | None = None, flags: int = 0
) -> Record:
    local: int | str = n if offset is None else offset
    return binding(f"2001:db8:100::{n:x}/128", target, local, kind, flags=flags)


def any_host(r: random.Random, n: int) -> Record:
    """Local addresses never meet: each is its own number, plus what only such a one has."""
    what = r.random()
    if what < 0.7:
        return host(n, r.randrange(2))
    if what < 0.8:
        return host(n, 0, kind=POLICY)
    if what < 0.85:
        return host(n, 1, FAR + n, lib.IPS_KIND_ADDRESS)
    if what < 0.9:
        return host(n, r.randrange(2), n | 1 << 44)  # far from where the others go
    if what < 0.95:
        return host(n, r.randrange(2), flags=lib.IPS_BINDING_COPY)
    return host(n, kind=r.choice([lib.IPS_KIND_HERE, lib.IPS_KIND_DOWN]))


def number(raw: Any) -> int:
    return int.from_bytes(bytes(raw), "big")


def local_of(row: Record, end: int) -> int:
    return number(row["local"]) + (0 if row["kind"] == lib.IPS_KIND_ADDRESS else (NEAR, FAR)[end])


def ends_of(row: Record) -> tuple[int, ...]:
    return () if row["kind"] not in LEADS_ON else (0, 1) if row["kind"] == POLICY else (row["target"],)


def cover(n: int) -> Record | None:
    return COVERS[1] if 0x40 <= n < 0x80 else COVERS[0] if n < 1024 else None


def check(tables: Tables, have: dict[int, Record]) -> None:
    cells = dict(zip(have, (cell for cell, _ in tables.cells(list(have.values()))), strict=True))
    raw = b"".join(bytes(packed(NET + n, 6)) for n in HOSTS)
    back: dict[int, tuple[int, int, int, int] | None] = {}
    for n, found in zip(HOSTS, tables.globals(6, raw, raw), strict=True):
        row = have.get(n) or cover(n)
        if row is None:
            assert (found["kind"], found["counter"]) == (GONE, 0xFFFFFFFF), n
            continue
        away = NET + n - number(row["global"])
        assert (found["kind"], found["flags"]) == (row["kind"], row.get("flags", 0)), n
        assert n not in have or found["counter"] == cells[n]
        if ends_of(row):
            assert found["endpoint"] in ends_of(row)
            assert number(found["address"]) == local_of(row, found["endpoint"]) + away, n
        for end in ends_of(row):
            back[local_of(row, end) + away] = (NET + n, end, row.get("flags", 0), found["counter"])
        if n in have and cover(n):  # taken out of what covers it: nobody answers there
            covering = cover(n)
            assert covering
            away = NET + n - number(covering["global"])
            back.setdefault(local_of(covering, covering["target"]) + away)
    back |= {base + n: None for n in HOSTS for base in (NEAR, FAR) if base + n not in back}
    raw = b"".join(bytes(packed(address, 6)) for address in back)
    for address, found in zip(back, tables.locals(6, raw), strict=True):
        expected, kind = back[address], int(found["kind"])
        if expected is None:
            assert kind == GONE, hex(address)
            continue
        got = number(found["address"]), int(found["endpoint"]), int(found["flags"]), int(found["counter"])
        assert kind != GONE and got == expected, hex(address)


def site(have: dict[int, Record]) -> Image:
    return SITE.but(bindings=in_order([*COVERS, *have.values()]))


@pytest.mark.parametrize("seed", range(4))
def test_slots_say_what_the_bindings_say_after_every_change(seed: int) -> None:
    r = random.Random(seed)
    tables = Tables()
    crowd = {
        *r.sample(range(4096), 1500),
        *r.sample(range(4096, 8192), 540),
        *r.sample(range(8192, 8400), 50),
    }
    have = {n: any_host(r, n) for n in crowd}
    generation = tables.load(site(have))
    check(tables, have)
    for step in range(8):
        before = dict(have)
        gone = r.sample(sorted(have), r.choice([1, 40, 250]))
        new = {n: any_host(r, n) for n in r.sample(HOSTS, r.choice([1, 40, 250]))}
        have = {n: row for n, row in have.items() if n not in gone} | new
        change = {n: {**before[n], "kind": GONE} for n in gone} | new
        image = SITE.delta(generation, in_order(change.values())) if step % 4 != 3 else site(have)
        old = generation
        generation = tables.load(image)
        check(tables, have)
        assert tables.dump() == site(have).pack()
        if step == 5:  # the old generation's slots were left alone
            lib.ips_tables_rollback(tables.c)
            check(tables, before)
            assert generation > old
            generation, have = tables.info()["generation"], before


def test_a_crowd_has_a_page_of_slots_in_each_direction_and_no_other_has() -> None:
    def pages(hosts: range) -> float:
        tables = Tables()
        tables.load(SITE.but(bindings=[host(n) for n in hosts]))
        return tables.info()["bytes"] / 32768

    crowd, scattered = pages(range(512)), pages(range(0, 512 * 16, 16))
    assert 1.9 < crowd - scattered < 2.2


def test_what_grows_by_deltas_gets_slots_and_what_shrinks_gives_them_back() -> None:
    tables = Tables()
    generation = tables.load(SITE)
    for begin in range(0, 1024, 32):
        generation = tables.load(SITE.delta(generation, [host(n) for n in range(begin, begin + 32)]))
    tables.load(SITE.delta(generation, []))  # so that live and previous share all
    grown = tables.info()["bytes"]
    other = Tables()
    other.load(SITE.delta(other.load(SITE.but(bindings=[host(n) for n in range(1024)])), []))
    assert abs(grown - other.info()["bytes"]) < 32768  # not a page more or less
    generation = tables.info()["generation"]
    for begin in range(0, 960, 32):
        rows = [host(n, kind=GONE) for n in range(begin, begin + 32)]
        generation = tables.load(SITE.delta(generation, rows))
    tables.load(SITE.delta(generation, []))
    assert tables.info()["bytes"] < grown - 2 * 32768


def test_a_delta_copies_one_page_of_slots() -> None:
    tables = Tables()
    hosts = range(40960)
    generation = tables.load(
        SITE.but(bindings=[host(n) for n in hosts], header={"roles": lib.IPS_ROLE_OUTER})
    )
    before = tables.info()["bytes"]
    outer = SITE.but(header={"roles": lib.IPS_ROLE_OUTER})
    tables.load(outer.delta(generation, [host(7, 1)]))
    assert tables.info()["bytes"] - before < 3 * 32768 + 40_000  # records, hash, slots; directories


def test_a_slot_follows_who_takes_over_a_local_address() -> None:
    """An encapsulated end point's claim yields to another's without being given up."""
    soft = endpoint(
        "2001:db8:a::/64",
        flags=lib.IPS_EP_SELF,
        tunnel=("192.0.2.1", "192.0.2.2"),
        encap=lib.IPS_ENCAP_IPIP,
    )
    shared = SITE.but(endpoints=[ENDS[0], soft], policies=[], members=[])
    tables = Tables()
    generation = tables.load(shared.but(bindings=[host(n, 1) for n in range(600)]))
    assert tables.find_local(["2001:db8:a::7"])[0]["endpoint"] == 1
    tables.load(shared.delta(generation, [host(5000, 0, 7)]))
    found = tables.find_local(["2001:db8:a::7"])[0]
    assert (number(found["address"]), found["endpoint"]) == (NET + 5000, 0)
