"""S1.3 on VPP by Hypothesis and by a fixed seed: packets nobody wrote down, in batches, both directions.

Whatever the bytes are: the verdict is the oracle's, what is sent is the oracle's, nothing else comes out,
and VPP lives. ``MUTANTS`` packets a side and door come from the cases by a seeded generator, beside
Hypothesis's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import address, cases
from tests.cases.generate import damaged, packets, with_true_lengths
from tests.cases.judge import INNER, OUTER
from tests.examples import examples
from tests.oracle.rewrite import DST, place
from tests.vpp.pg import hop
from tests.vpp.pg_node import PgNode, Result, pg_node

MUTANTS, BATCH = 2000, 500
SEED = 26
TABLES = {"outer": OUTER, "inner": INNER}


@pytest.fixture(scope="module")
def node() -> Iterator[PgNode]:
    with pg_node() as made:
        yield made


def good(results: list[Result]) -> list[Result]:
    for result in results:
        assert not result.problem, result.problem
    return results


def through(node: PgNode, batch: list[bytes], side: str) -> list[Result]:
    node.leave_by("pg1")
    node.load(TABLES[side])
    return good(node.through(batch, side))


@examples(60)
@given(st.lists(packets(), min_size=1, max_size=20))
def test_s1_3_generated(node: PgNode, batch: list[bytes]) -> None:
    """inner(outer(p)) = p but for the hops."""
    there = [
        (p, one.onward) for p, one in zip(batch, through(node, batch, "outer"), strict=True) if one.onward
    ]
    back = through(node, [between for _, between in there if between], "inner")
    for (packet, _), result in zip(there, back, strict=True):
        if b"\xff\xff" in packet or result.decided != "OK":  # the sum that cannot come back: ips_csum.h
            continue
        assert result.onward is not None
        assert result.onward.hex() == hop(hop(packet)).hex()


@examples(40)
@given(st.lists(packets("local"), min_size=1, max_size=20))
def test_between(node: PgNode, batch: list[bytes]) -> None:
    """What reaches the end point, its hop limit used up on the way or not."""
    through(node, batch, "inner")


@examples(40)
@given(st.lists(damaged(), max_size=20), st.lists(damaged("local"), max_size=20))
def test_damaged(node: PgNode, to_global: list[bytes], to_local: list[bytes]) -> None:
    through(node, [packet for packet in to_global if packet], "outer")
    through(node, [packet for packet in to_local if packet], "inner")


def mutants(rng: random.Random, side: str) -> Iterator[bytes]:
    """Case packets to this side, damaged, cut, prolonged; lengths and header sum true again in two of
    three."""
    sources = [case for case in cases() if case.packet and case.on_wire]
    while True:
        case = rng.choice(sources)
        packet = bytearray(case.packet)
        where = place(case.family, DST)
        if side == "inner" and len(packet) >= where.stop:
            packet[where] = address("local", case.family)
        for _ in range(rng.randrange(4)):
            packet[rng.randrange(min(len(packet), rng.choice((24, 64, 200))))] = rng.randrange(256)
        if rng.random() < 0.3:
            del packet[rng.randrange(1, len(packet) + 1) :]
        if rng.random() < 0.1:
            packet += rng.randbytes(rng.randrange(1, 3000))
        yield with_true_lengths(packet) if rng.random() < 0.7 else bytes(packet)


@pytest.mark.parametrize("side", TABLES)
def test_mutants(node: PgNode, side: str) -> None:
    """Judged one by one where nothing is offloaded."""
    source = mutants(random.Random(SEED), side)
    for _ in range(MUTANTS // BATCH):
        through(node, [next(source) for _ in range(BATCH)], side)


@pytest.mark.parametrize("enter", ["pg2", "pg3"])
@pytest.mark.parametrize("side", TABLES)
def test_mutants_with_offloads(node: PgNode, side: str, enter: str) -> None:
    """Flags that the generator sets by the first protocol number, whatever the packet is: right verdict, and
    VPP lives."""
    node.leave_by("pg4")
    node.load(TABLES[side])
    source = mutants(random.Random(SEED + 1), side)
    for _ in range(MUTANTS // BATCH):
        good(node.through([next(source) for _ in range(BATCH)], side, enter=enter))
