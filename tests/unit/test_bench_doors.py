"""The benchmark's doors to the core refuse what they would read or write past the end of."""

from __future__ import annotations

import numpy as np
import pytest

from ipshare.bench import sessions
from ipshare.core import ffi, lib
from tests.table_images import Image, Tables, binding, member, packed, policy

STRIDE = 64


def copying(lengths: list[int], stride: int = STRIDE) -> int:
    """Nanoseconds for one pass that only copies; 0: refused."""
    packets = np.zeros((len(lengths), stride), np.uint8)
    sizes = np.array(lengths, np.uint16)
    return int(
        lib.ips_bench_packets(
            ffi.NULL,
            0,
            ffi.from_buffer("uint8_t *", packets),
            stride,
            ffi.from_buffer("uint16_t *", sizes),
            len(lengths),
            1,
            0,
        )
    )


@pytest.mark.parametrize("place", [0, 299])
def test_a_packet_longer_than_its_place_is_refused(place: int) -> None:
    lengths = [STRIDE] * 300
    assert copying(lengths) > 0
    lengths[place] += 1
    assert copying(lengths) == 0


def test_places_as_large_as_the_header_says() -> None:
    assert copying([1984], 1984) > 0
    assert copying([1], 1985) == 0


def test_looking_up_without_clients_leaves_a_policy_unchosen() -> None:
    tables = Tables()
    shared = binding("203.0.113.0/24", kind=lib.IPS_KIND_POLICY)
    assert lib.ips_bench_lookup(tables.c, 0, 4, bytes(16), ffi.NULL, 1, 1, 0) == 0  # nothing loaded
    tables.load(Image(policies=[policy(0, 2)], members=[member(0), member(1)], bindings=[shared]))
    keys = bytes(packed("203.0.113.7")) * 4
    assert lib.ips_bench_lookup(tables.c, 0, 4, keys, ffi.NULL, 4, 100, 2) > 0


def test_sessions_are_measured_and_none_is_left() -> None:
    """Too small a table says so, and so do packets that are longer than their places."""
    made = {r.name: r.value for r in sessions.figures(lambda _line: None, million=2000, repeats=3)}
    assert all(value > 0 for value in made.values())
    assert {name.split(".")[0] for name in made} == {"sessions", "napt"}
    config = ffi.new("struct ips_sessions_config *", {"sessions": 10, "half_open": 10})
    table = lib.ips_sessions_new(config)
    assert lib.ips_bench_sessions(table, 11, 1, ffi.new("uint64_t[3]")) == -1
    assert lib.ips_bench_napt(ffi.NULL, b"", 4000, ffi.NULL, 0, 1, 0, 1) == 0
    lib.ips_sessions_free(table)
