"""plan.diff: pure, total, empty for equal tables, and it arrives from wherever it was interrupted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipshare.core import LoadError, Worker, lib
from ipshare.engine.plan import diff
from ipshare.engine.tables import (
    BINDING,
    ENDPOINT,
    NETWORK,
    ImageError,
    Tables,
    binding_keys,
    pack,
    sort_bindings,
    unpack,
)

NETWORKS = np.zeros(2, NETWORK)
NETWORKS["family"] = 4, 6
NETWORKS["prefix_len"] = 20, 64
NETWORKS["prefix"][0, :4] = 198, 18, 0, 0
NETWORKS["prefix"][1, :4] = 0x20, 0x01, 0x0D, 0xB8
ENDPOINTS = np.zeros(4, ENDPOINT)
ENDPOINTS["family"] = 4, 4, 6, 6
ENDPOINTS["prefix_len"] = 16, 16, 64, 64
ENDPOINTS["local"][:, 0] = 10, 172, 0xFD, 0xFD
ENDPOINTS["local"][:, 1] = 0, 16, 0xAA, 0xBB
ENDPOINTS["path_mtu"] = 1500


def tables(rows: dict[tuple[int, int], tuple[int, int]], mtu: int = 1500, rate: int = 100) -> Tables:
    """rows: (family, host) -> (which end point of the family, copy flag)."""
    bindings = np.zeros(len(rows), BINDING)
    for row, ((family, host), (which, copy)) in zip(bindings, rows.items(), strict=True):
        size = 4 if family == 4 else 16
        base = NETWORKS["prefix"][0 if family == 4 else 1].tobytes()[:size]
        address = (int.from_bytes(base, "big") + host).to_bytes(size, "big").ljust(16, b"\0")
        row["global"] = np.frombuffer(address, np.uint8)
        row["local"] = np.frombuffer(host.to_bytes(size, "big").ljust(16, b"\0"), np.uint8)
        row["family"], row["prefix_len"], row["kind"] = family, size * 8, lib.IPS_KIND_ENDPOINT
        row["target"], row["flags"] = which + (0 if family == 4 else 2), copy
    endpoints = ENDPOINTS.copy()
    endpoints["path_mtu"] = mtu
    return Tables(
        NETWORKS, endpoints, bindings=sort_bindings(bindings), roles=lib.IPS_ROLE_OUTER, icmp_rate=rate
    )


rows = st.dictionaries(
    st.tuples(st.sampled_from([4, 6]), st.integers(0, 4095)),
    st.tuples(st.integers(0, 1), st.integers(0, 1)),
    max_size=40,
)
any_tables = st.builds(tables, rows, st.sampled_from([1280, 1500]), st.sampled_from([1, 100]))


@given(any_tables)
def test_nothing_to_do_between_equal_tables(value: Tables) -> None:
    again = unpack(pack(value))
    assert again == value
    assert not diff(value, again)


@settings(deadline=None)
@given(st.lists(any_tables, min_size=1, max_size=5))
def test_every_configuration_is_reachable_from_every_other(values: list[Tables]) -> None:
    with Worker() as worker:
        actual = Tables()
        for desired in values:
            plan = diff(actual, desired)
            generation = worker.load(plan.image(worker.info()["generation"]))
            assert generation == worker.info()["generation"]
            actual = unpack(worker.dump())
            assert actual == desired
            assert not diff(actual, desired)


@settings(deadline=None)
@given(any_tables, any_tables)
def test_counts_are_those_of_a_dictionary(old: Tables, new: Tables) -> None:
    have = {key: row.tobytes() for key, row in zip(binding_keys(old.bindings), old.bindings, strict=True)}
    want = {key: row.tobytes() for key, row in zip(binding_keys(new.bindings), new.bindings, strict=True)}
    counts = {c.verb: c.count for c in diff(old, new) if c.section == "binding"}
    assert counts.get("add", 0) == len(want.keys() - have.keys())
    assert counts.get("remove", 0) == len(have.keys() - want.keys())
    assert counts.get("change", 0) == sum(have[key] != want[key] for key in have.keys() & want.keys())


def test_what_is_added_comes_before_what_is_removed() -> None:
    plan = diff(tables({(4, 1): (0, 0), (4, 2): (0, 0)}), tables({(4, 2): (1, 0), (4, 3): (0, 0)}))
    assert [change.verb for change in plan] == ["add", "change", "remove"]


def test_a_small_change_travels_as_a_delta_and_a_large_one_whole() -> None:
    many = {(4, host): (0, 0) for host in range(100)}
    moved = many | {(4, 7): (1, 0)}
    assert len(diff(tables(many), tables(moved)).image(3)) < len(pack(tables(moved))) / 2
    assert diff(Tables(), tables(moved)).image(0) == pack(tables(moved))


def test_a_delta_to_another_generation_is_refused_and_changes_nothing() -> None:
    old, new = tables({(4, n): (0, 0) for n in range(50)}), tables({(4, n): (0, 0) for n in range(49)})
    with Worker() as worker:
        live = worker.load(pack(old))
        with pytest.raises(LoadError, match="header|delta|generation"):
            worker.load(diff(old, new).image(live + 1))
        assert unpack(worker.dump()) == old


def test_a_stale_director_is_fenced() -> None:
    old = tables({(4, 1): (0, 0)}).numbered(5, 7)
    with Worker() as worker:
        worker.load(pack(old))
        for term, revision in ((5, 6), (4, 9)):
            with pytest.raises(LoadError):
                worker.load(pack(replace(old, term=term, revision=revision)))
        worker.load(pack(replace(old, term=6, revision=0)))


@pytest.mark.parametrize("cut", [0, 1, 20, 119, -1])
def test_a_cut_image_is_named(cut: int) -> None:
    with pytest.raises(ImageError):
        unpack(bytes(pack(tables({(4, 1): (0, 0)})))[:cut])


def test_a_damaged_image_is_named() -> None:
    image = pack(tables({(4, 1): (0, 0)}))
    image[-1] ^= 1
    with pytest.raises(ImageError, match="digest"):
        unpack(image)
