"""Packets nobody wrote down, for Hypothesis: whole ones, and damaged ones.

As in packets.yaml each goes from ``client`` to ``global``, or to ``local`` as between the two translations.
"""

from typing import Any

from hypothesis import strategies as st

from tests.cases.build import build
from tests.oracle.checksum import checksum

WORD = st.one_of(st.sampled_from([0, 0xFFFF, 1, 0xFFFE]), st.integers(0, 0xFFFF))
SUM: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}), WORD.map(lambda word: {"csum": word}), st.just({"tune": 0}), st.just({"tune": "zero after"})
)

DATA = st.integers(2, 60)
HOPS = st.one_of(st.integers(0, 255), st.integers(0, 2))
CHANGES = st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=4)
FRAGMENT = st.tuples(st.integers(0, 6), st.integers(1, 12)).map(lambda f: (f[0] * 8, f[0] * 8 + f[1] * 8))


@st.composite
def transport(draw: st.DrawFn, /, family: int) -> list[Any]:
    """A transport header with payload."""
    summed = ["tcp", "udp", "udplite", "dccp", "icmp" if family == 4 else "icmp6"]
    name = draw(st.sampled_from([*summed, *summed, "sctp", "esp", "gre"]))
    return [{name: draw(SUM) if name in summed else {}}, {"data": draw(DATA)}]


@st.composite
def network(draw: st.DrawFn, /, family: int, **addresses: str) -> list[Any]:
    """An IP header with options or extension headers, perhaps of a fragment."""
    fields: dict[str, Any] = {"ttl": draw(HOPS), "tos": draw(st.integers(0, 255)), **addresses}
    fragment = draw(st.one_of(st.none(), st.none(), FRAGMENT))
    if family == 4:
        fields["options"] = draw(st.sampled_from(["", "", "01010101", "94040000", "0707040a00000000"]))
        fields["id"] = draw(st.integers(0, 0xFFFF))
        fields["df"] = draw(st.booleans())
        return [{"ip4": fields | ({"fragment": fragment} if fragment else {})}]
    extensions = draw(st.lists(st.sampled_from(["dstopts", "routing", "active"]), max_size=3))
    chain: list[Any] = [{"routing": {"left": 1}} if name == "active" else name for name in extensions]
    if draw(st.booleans()):
        chain.insert(0, "hopopts")
    if fragment:
        chain.insert(draw(st.integers(min(1, len(chain)), len(chain))), {"frag": {"fragment": fragment}})
    return [{"ip6": fields}, *chain]


@st.composite
def packets(draw: st.DrawFn, to: str = "global") -> bytes:
    """client -> to: a transport packet, or an ICMP error that quotes to -> client."""
    family = draw(st.sampled_from([4, 6]))
    outer = draw(network(family, dst=to))
    if draw(st.booleans()):
        return build(outer + draw(transport(family)))
    quoted = draw(network(family, src=to, dst="client")) + draw(transport(family))
    size = len(build(quoted))
    quote = {"quote": {"packet": quoted, "cut": draw(st.one_of(st.just(size), st.integers(0, size)))}}
    kinds = [3, 4, 5, 11, 12] if family == 4 else [1, 2, 3, 4]
    error = {"icmp" if family == 4 else "icmp6": {"type": draw(st.sampled_from(kinds))}}
    if draw(st.integers(0, 7)) == 0:
        next(iter(error.values()))["csum"] = draw(WORD)
    return build([*outer, error, quote])


def with_true_lengths(packet: bytearray) -> bytes:
    """Length and IPv4 header checksum made to fit again, or every damage would end at those checks."""
    header = (packet[0] & 15) * 4 if packet else 0
    if packet and packet[0] >> 4 == 4 and 20 <= header <= len(packet):
        packet[2:4] = len(packet).to_bytes(2)
        packet[10:12] = b"\0\0"
        packet[10:12] = checksum(bytes(packet[:header])).to_bytes(2)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        packet[4:6] = (len(packet) - 40).to_bytes(2)
    return bytes(packet)


@st.composite
def damaged(draw: st.DrawFn, to: str = "global") -> bytes:
    """Some bytes changed, cut anywhere, with and without lengths that fit."""
    packet = bytearray(draw(packets(to))[: draw(st.one_of(st.none(), st.integers(0, 160)))])
    for at, value in draw(CHANGES):
        if at < len(packet):
            packet[at] = value
    return with_true_lengths(packet) if draw(st.booleans()) else bytes(packet)
