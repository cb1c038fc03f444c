"""S1.3 by Hypothesis: packets nobody wrote down, whole, damaged and cut; C core = oracle, and back again."""

from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests import core_door
from tests.cases.build import build
from tests.examples import examples
from tests.oracle.checksum import checksum
from tests.oracle.parse import PLAIN, Offload, Refused, parse
from tests.oracle.rewrite import DST, SRC, address_of, place, translate

WORD = st.one_of(st.sampled_from([0, 0xFFFF, 1, 0xFFFE]), st.integers(0, 0xFFFF))
SUM: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}), WORD.map(lambda word: {"csum": word}), st.just({"tune": 0}), st.just({"tune": "zero after"})
)

DATA = st.integers(2, 60)
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
    fields: dict[str, Any] = {"ttl": draw(st.integers(0, 255)), "tos": draw(st.integers(0, 255)), **addresses}
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
def packets(draw: st.DrawFn) -> bytes:
    """client -> global: a transport packet, or an ICMP error that quotes global -> client."""
    family = draw(st.sampled_from([4, 6]))
    outer = draw(network(family))
    if draw(st.booleans()):
        return build(outer + draw(transport(family)))
    quoted = draw(network(family, src="global", dst="client")) + draw(transport(family))
    size = len(build(quoted))
    quote = {"quote": {"packet": quoted, "cut": draw(st.one_of(st.just(size), st.integers(0, size)))}}
    kinds = [3, 4, 5, 11, 12] if family == 4 else [1, 2, 3, 4]
    error = {"icmp" if family == 4 else "icmp6": {"type": draw(st.sampled_from(kinds))}}
    if draw(st.integers(0, 7)) == 0:
        next(iter(error.values()))["csum"] = draw(WORD)
    return build([*outer, error, quote])


FIELD = st.sampled_from([SRC, DST])
ADDRESS = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.sampled_from([bytes(16), b"\xff" * 16, bytes.fromhex("cb00710acb00710acb00710acb00710a")]),
)


def agree(data: bytes, field: int, to: bytes, offload: Offload = PLAIN) -> bytes | None:
    """The packet after C core and oracle, which say the same; None where they refuse it."""
    try:
        expected, verdict = translate(data, field, to, offload), "OK"
    except Refused as refused:
        expected, verdict = None, refused.args[0]
    found, changed = core_door.translate(data, field, to, offload)
    assert found == verdict, data.hex()
    if expected is not None:
        assert changed.hex() == expected.hex(), data.hex()
    return expected


def has_ffff(data: bytes) -> bool:
    """0xffff where TCP, DCCP, ICMP or IPv4 may have its sum: the value that cannot come back (ips_csum.h)."""
    return b"\xff\xff" in data


@examples(300)
@given(packets(), FIELD, ADDRESS)
def test_s1_3_generated(data: bytes, field: int, to: bytes) -> None:
    """translate(translate(p)) = p byte for byte, right and wrong sums, whatever the addresses are."""
    to = to[: 4 if data[0] >> 4 == 4 else 16]
    there = agree(data, field, to)
    if there is None:
        return
    back = agree(there, field, address_of(data, field))
    assert back is not None
    if not has_ffff(data):
        assert back.hex() == data.hex()


@examples(120)
@given(packets(), FIELD, ADDRESS)
def test_s1_3_ffff_is_the_only_exception(data: bytes, field: int, to: bytes) -> None:
    """Where a packet does not come back, 0x0000 stands for 0xffff, and nothing else differs."""
    to = to[: 4 if data[0] >> 4 == 4 else 16]
    there = agree(data, field, to)
    assume(there is not None)
    assert there is not None
    back = agree(there, field, address_of(data, field))
    assert back is not None
    differs = [at for at in range(len(data)) if data[at] != back[at]]
    for at in differs:
        assert (data[at], back[at]) == (0xFF, 0)


@examples(300)
@given(
    packets(),
    FIELD,
    st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 160)),
    st.booleans(),
)
def test_mutated(
    data: bytes, field: int, bytes_: list[tuple[int, int]], cut: int | None, repair: bool
) -> None:
    """Any bytes changed, cut anywhere, with and without a header checksum that fits again."""
    damaged = bytearray(data[:cut])
    for at, value in bytes_:
        if at < len(damaged):
            damaged[at] = value
    header = (damaged[0] & 15) * 4 if damaged else 0
    if repair and damaged and damaged[0] >> 4 == 4 and 20 <= header <= len(damaged):
        damaged[2:4] = len(damaged).to_bytes(2)
        damaged[10:12] = b"\0\0"
        damaged[10:12] = checksum(bytes(damaged[:header])).to_bytes(2)
    if repair and len(damaged) >= 40 and damaged[0] >> 4 == 6:
        damaged[4:6] = (len(damaged) - 40).to_bytes(2)
    agree(bytes(damaged), field, bytes(range(16))[: 4 if damaged and damaged[0] >> 4 == 4 else 16])


@examples(300)
@given(st.binary(max_size=200), FIELD)
@example(b"\x60" + bytes(39), DST)
def test_any_bytes(data: bytes, field: int) -> None:
    agree(data, field, bytes(16))


OFFLOADS = st.builds(
    Offload,
    csum=st.integers(0, 3),
    csum_start=st.sampled_from([0, 20, 24, 40, 48, 60, 100]),
    csum_offset=st.sampled_from([0, 2, 6, 16, 200]),
    gso_type=st.sampled_from([0, 0, 0, 1, 2, 3]),
    gso_size=st.sampled_from([0, 8, 1448]),
)


@examples(150)
@given(packets(), FIELD, OFFLOADS)
def test_offloads(data: bytes, field: int, offload: Offload) -> None:
    """Fields that a host got wrong are refused; right ones translate and come back."""
    to = bytes(range(1, 17))[: 4 if data[0] >> 4 == 4 else 16]
    there = agree(data, field, to, offload)
    if there is None:
        return
    back = agree(there, field, address_of(data, field), offload)
    if not has_ffff(data) and not (offload.csum == 1 and b"\0\0" in data[parse(data, offload).l4 :]):
        assert back == data


@examples(100)
@given(packets(), FIELD)
def test_same_address_changes_nothing(data: bytes, field: int) -> None:
    """Not even the spelling of zero in a checksum."""
    old = data[place(4 if data[0] >> 4 == 4 else 6, field)]
    there = agree(data, field, old)
    assert there in (None, data)
