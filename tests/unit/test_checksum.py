"""The checksum oracle against the RFCs' own numbers. The C core's arithmetic, exhaustively:
native/tests/csum_exhaustive.c."""

from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.checksum import checksum, folded, mended, mended_partial, pseudo, words

EVEN = st.binary(min_size=2, max_size=64).filter(lambda data: len(data) % 2 == 0)


def test_rfc_1071_example() -> None:
    assert folded(words(bytes.fromhex("0001f203f4f5f6f7"))) == 0xDDF2


def test_rfc_1624_example() -> None:
    """Section 4: field 0xdd2f, a word 0x5555 becomes 0x3285: 0x0000, not 0xffff."""
    assert mended(0xDD2F, b"\x55\x55", b"\x32\x85") == 0


def test_pseudo_header_of_a_known_datagram() -> None:
    source, destination = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2])
    datagram = bytes.fromhex("0035003500090000ab")
    total = 0xC000 + 0x0201 + 0xC633 + 0x6402 + 17 + 9 + 0x35 + 0x35 + 9 + 0xAB00
    assert checksum(datagram, pseudo(source, destination, 17, 9)) == 0xFFFF - folded(total)


@given(EVEN, EVEN, st.binary(max_size=32), st.booleans())
def test_mended_is_what_a_sender_would_compute(before: bytes, after: bytes, rest: bytes, none: bool) -> None:
    """The oracle's own proof: mending a right sum gives the sum computed afresh."""
    after = (after + bytes(64))[: len(before)]
    covered = b"\x11\x22" + rest  # a pseudo header is never all zero

    def fresh(data: bytes) -> int:
        value = checksum(data + covered)
        return 0xFFFF if none and value == 0 else value

    assert mended(fresh(before), before, after, none) == fresh(after)


@given(EVEN, EVEN, st.binary(max_size=32))
def test_partial_is_the_sum_of_what_is_there(before: bytes, after: bytes, rest: bytes) -> None:
    after = (after + bytes(64))[: len(before)]
    covered = b"\x11\x22" + rest
    expected = folded(words(after + covered))
    assert mended_partial(folded(words(before + covered)), before, after) == expected
