"""S1.3 by Hypothesis: packets nobody wrote down, whole, damaged and cut; C core = oracle, and back again."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests import core_door
from tests.cases.generate import damaged, packets
from tests.examples import examples
from tests.oracle.parse import PLAIN, Offload, Refused, parse
from tests.oracle.rewrite import DST, SRC, address_of, place, translate

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
@given(damaged(), FIELD)
def test_mutated(data: bytes, field: int) -> None:
    agree(data, field, bytes(range(16))[: 4 if data and data[0] >> 4 == 4 else 16])


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
