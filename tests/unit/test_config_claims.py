"""Who claims which local address: the sweep, its NumPy counterpart, and a slow and obvious oracle agree."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.config import bulk_claims
from ipshare.config.bulk_wide import Wide
from ipshare.config.claims import Claim, Span, conflicts, effective
from ipshare.model import Prefix, packed
from tests.examples import examples

BASE4, BASE6 = (
    int(IPv4Network("203.0.112.0/20").network_address),
    int(IPv6Network("2001:db8::").network_address),
)


@st.composite
def prefixes(draw: st.DrawFn, family: int) -> list[Prefix]:
    """Distinct prefixes within 32 addresses, so that they nest and touch."""
    chosen = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 31)), max_size=12))
    base, bits = (BASE4, 32) if family == 4 else (BASE6 + (0xFFFFFFFF << 32) + 0xFFFFFFE0, 128)
    nets = {(base + (at >> bits_of << bits_of), bits - bits_of) for bits_of, at in chosen}
    kind = IPv4Network if family == 4 else IPv6Network
    return [kind(net) for net in sorted(nets)]


def owners(nets: list[Prefix]) -> dict[int, int]:
    """Address -> the longest prefix that covers it."""
    found: dict[int, int] = {}
    for index in sorted(range(len(nets)), key=lambda i: nets[i].prefixlen):
        for address in range(int(nets[index].network_address), int(nets[index].broadcast_address) + 1):
            found[address] = index
    return found


def spelled_out(spans: list[Span]) -> dict[int, int]:
    """Address -> owner; fails where two spans share one."""
    found: dict[int, int] = {}
    for span in spans:
        for address in range(span.first, span.last + 1):
            assert address not in found
            found[address] = span.owner
    return found


def bulk_spans(nets: list[Prefix], family: int) -> list[Span]:
    first = Wide.of(np.array([list(packed(net.network_address)) for net in nets], np.uint8).reshape(-1, 16))
    segments = bulk_claims.effective(first, np.array([net.prefixlen for net in nets], np.uint8))
    shift = 96 if family == 4 else 0
    return [
        Span(
            int.from_bytes(segments.first.one(i), "big") >> shift,
            int.from_bytes(segments.last.one(i), "big") >> shift,
            int(owner),
        )
        for i, owner in enumerate(segments.owner)
    ]


@pytest.mark.parametrize("family", [4, 6])
@given(st.data())
@examples(100)
def test_effective(family: int, data: st.DataObject) -> None:
    nets = data.draw(prefixes(family))
    spans = [Span(int(n.network_address), int(n.broadcast_address), i) for i, n in enumerate(nets)]
    assert spelled_out(list(effective(spans))) == owners(nets)
    assert spelled_out(bulk_spans(nets, family)) == owners(nets)


CLAIMS = st.lists(
    st.builds(
        lambda endpoint, first, length, owner: Claim(endpoint, 4, first, first + length, owner),
        st.sampled_from(["A", "B"]),
        st.integers(0, 40),
        st.integers(0, 6),
        st.integers(0, 9),
    ),
    max_size=8,
)


@given(CLAIMS)
@examples(150)
def test_conflicts(claims: list[Claim]) -> None:
    shared = {
        (one, other)
        for i, one in enumerate(claims)
        for other in claims[i + 1 :]
        if one.endpoint == other.endpoint and one.first <= other.last and other.first <= one.last
    }
    found = list(conflicts(claims))
    assert bool(found) == bool(shared)
    assert all((one, other) in shared or (other, one) in shared for one, other in found)
    number = [0 if claim.endpoint == "A" else 1 for claim in claims]
    low = [np.array([getattr(c, name) for c in claims], np.uint64) for name in ("first", "last")]
    wide = [Wide(np.zeros(len(claims), np.uint64), words) for words in low]
    bulk = bulk_claims.Claims(np.array(number, np.int64), *wide, np.arange(len(claims)))
    pairs = [(claims[one], claims[other]) for one, other in bulk_claims.conflicts(bulk)]
    assert bool(pairs) == bool(shared)
    assert all((one, other) in shared or (other, one) in shared for one, other in pairs)


@given(st.lists(st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1)), min_size=1, max_size=5))
def test_wide(pairs: list[tuple[int, int]]) -> None:
    def wide(column: int) -> Wide:
        flat = b"".join(pair[column].to_bytes(16, "big") for pair in pairs)
        return Wide.of(np.frombuffer(flat, np.uint8).reshape(-1, 16))

    def numbers(found: Wide) -> list[int]:
        return [int.from_bytes(found.one(i), "big") for i in range(len(pairs))]

    one, other = wide(0), wide(1)
    assert numbers(one.plus(other)) == [(a + b) % 2**128 for a, b in pairs]
    assert numbers(one.minus(other)) == [(a - b) % 2**128 for a, b in pairs]
    assert one.at_most(other).tolist() == [a <= b for a, b in pairs]
    assert one.same(other).tolist() == [a == b for a, b in pairs]
    assert (one.text() <= other.text()).tolist() == [a <= b for a, b in pairs]
