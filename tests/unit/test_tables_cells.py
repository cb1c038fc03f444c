"""Counter cells: stable while their prefix is there, never mixed up when they are used again."""

from __future__ import annotations

from ipshare.core import lib
from tests.table_images import NONE, Image, Tables, binding, endpoint, network

GONE = lib.IPS_KIND_NONE
ENDS = (endpoint("2001:db8:a::/64"), endpoint("2001:db8:b::/64"), endpoint("10.0.0.0/24"))
SITE = Image(networks=[network("203.0.113.0/24"), network("2001:db8:100::/64")], endpoints=ENDS)


def host6(i: int, target: int = 0, **fields: int) -> dict[str, object]:
    return binding(f"2001:db8:100::{i:x}/128", target, i, **fields)


def test_an_ipv4_cell_belongs_to_its_address() -> None:
    tables = Tables()
    rows = [binding("203.0.113.0/24", 2), binding("203.0.113.7/32", 2, 7)]
    generation = tables.load(SITE.but(bindings=rows[:1]))
    (first, span), (seventh, one) = tables.cells(rows)
    assert (span, seventh, one) == (256, first + 7, 1)
    assert tables.find_global(["203.0.113.7"])[0]["counter"] == seventh
    tables.load(SITE.delta(generation, rows[1:]))
    assert tables.cells(rows) == [(first, 256), (seventh, 1)]
    assert tables.cells([binding("198.51.100.0/24"), host6(1)]) == [(NONE, 0), (NONE, 0)]
    assert lib.ips_tables_counter_cells(tables.c) >= 256


def test_an_ipv6_prefix_keeps_its_cell_whatever_it_is_bound_to() -> None:
    tables = Tables()
    rows = [host6(i) for i in range(1, 50)]
    generation = tables.load(SITE.but(bindings=rows))
    cells = tables.cells(rows)
    assert len({index for index, _ in cells}) == 49 and {span for _, span in cells} == {1}
    tables.load(SITE.delta(generation, [host6(7, 1), host6(9, 0, kind=GONE)]))
    assert [cell for cell in tables.cells(rows) if cell[0] != NONE] == cells[:8] + cells[9:]
    others = [binding("2001:db8:100::/96"), *(host6(i, 1) for i in range(1, 50))]
    tables.load(SITE.but(bindings=others))  # built anew: still the same
    assert [cell for i, cell in enumerate(tables.cells(rows)) if i != 8] == cells[:8] + cells[9:]
    assert tables.find_global(["2001:db8:100::1"])[0]["counter"] == cells[0][0]


def test_a_networks_cells_stay_when_others_come_and_go() -> None:
    tables = Tables()
    tables.load(SITE)
    first = tables.cells([binding("203.0.113.0/24")])[0][0]
    tables.load(SITE.but(networks=[network("192.0.2.0/24"), *SITE.networks]))
    tables.load(SITE)
    assert tables.cells([binding("203.0.113.0/24")])[0][0] == first


def test_a_cell_is_used_again_only_after_its_owner_is_forgotten_and_is_announced() -> None:
    """Model: who a cell belongs to in every generation that a worker or a rollback may still see."""
    tables = Tables()
    live: dict[int, str] = {}
    previous: dict[int, str] = {}
    ever: set[int] = set()
    reused: set[int] = set()
    for step in range(30):
        rows = [host6(step * 1000 + i) for i in range(1, 1001)]
        generation = tables.prepare(SITE.but(bindings=rows))
        fresh = tables.fresh_cells()
        lib.ips_tables_commit(tables.c, generation)
        lib.ips_tables_reclaim(tables.c)
        owners = {index: str(row["global"]) for (index, _), row in zip(tables.cells(rows), rows, strict=True)}
        assert not owners.keys() & (live.keys() | previous.keys())  # no prefix in common with these
        again = owners.keys() & ever
        assert again <= fresh, "a cell with a history was given out without being announced"
        reused |= again
        ever |= owners.keys()
        previous, live = live, owners
    assert reused, "cells were never used again"
    assert lib.ips_tables_counter_cells(tables.c) < 12_000
    assert tables.fresh_cells() == set()


def test_rolling_back_finds_the_old_cells_unused_by_others() -> None:
    tables = Tables()
    old = [host6(i) for i in range(1, 3001)]
    tables.load(SITE.but(bindings=old))
    cells = tables.cells(old)
    tables.load(SITE.but(bindings=[host6(i) for i in range(5000, 8000)]))
    generation = lib.ips_tables_rollback(tables.c)
    assert tables.cells(old) == cells
    new = [host6(i) for i in range(9000, 12000)]
    tables.load(SITE.delta(generation, new))
    assert not {c for c, _ in tables.cells(new)} & {c for c, _ in cells}
    assert tables.cells(old) == cells
