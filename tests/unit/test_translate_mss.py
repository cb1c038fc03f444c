"""MSS clamping (S1.7): the option of a SYN is lowered, never raised or added; right sums stay right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tests import core_door
from tests.cases.build import build
from tests.examples import examples
from tests.oracle.checksum import checksum, pseudo
from tests.oracle.parse import EGRESS, PARTIAL, Offload

SYN, ACK = 0x02, 0x10
MSS_1460 = "020405b4"
# Where the option's value begins at an even and at an odd byte (RFC 1071: the odd one counts byte-swapped).
LAYOUTS = {"first": MSS_1460, "even": "0101" + MSS_1460 + "0000", "odd": "01" + MSS_1460 + "010101"} | {
    "odd after timestamps": "080a000000010000000201" + MSS_1460 + "00"
}


def syn(family: int, options: str, flags: int = SYN, **tcp: object) -> bytes:
    return build([f"ip{family}", {"tcp": {"flags": flags, "options": options, **tcp}}])


def mss(packet: bytes) -> int | None:
    options = dict((IP if packet[0] >> 4 == 4 else IPv6)(packet)[TCP].options)
    return options.get("MSS")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("flags", [SYN, SYN | ACK])
def test_lowered_with_a_right_checksum(family: int, options: str, flags: int) -> None:
    clamped = core_door.clamp(syn(family, options, flags), 1381)
    assert mss(clamped) == 1381
    assert clamped == syn(family, options.replace(MSS_1460, "02040565"), flags)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_not_raised(family: int, options: str) -> None:
    for bound in (1460, 1461, 9000, 65536, 2**32 - 1):
        assert core_door.clamp(syn(family, options), bound) == syn(family, options)


def test_wrong_checksum_stays_wrong() -> None:
    packet = core_door.clamp(syn(4, MSS_1460, csum=0x1111), 1000)
    again = IP(packet)
    again[TCP].chksum = None
    assert mss(packet) == 1000
    assert IP(bytes(again))[TCP].chksum != IP(packet)[TCP].chksum


UNTOUCHED = {
    "no SYN": build(["ip4", {"tcp": {"flags": ACK, "options": MSS_1460}}]),
    "no option": build(["ip4", {"tcp": {"flags": SYN}}]),
    "behind end of options": syn(4, "00" + MSS_1460 + "000000"),
    "option of a wrong length": syn(4, "020605b40000" + "0101"),
    "option of length 0": syn(4, "0300" + MSS_1460 + "0101"),
    "option beyond the header": syn(4, "01010204"),
    "type without length": syn(4, "01010102"),
    "data offset below 5": syn(4, MSS_1460, words=4),
    "later fragment": build(
        [{"ip4": {"fragment": [24, 48]}}, {"tcp": {"flags": SYN, "options": MSS_1460}}, {"data": 40}]
    ),
    "UDP": build(["ip4", "udp", {"data": "000200000000000000020405b4"}]),
    "TCP behind AH": build(["ip6", "ah", {"tcp": {"flags": SYN, "options": MSS_1460}}]),
}


@pytest.mark.parametrize("packet", UNTOUCHED.values(), ids=UNTOUCHED.keys())
def test_untouched(packet: bytes) -> None:
    assert core_door.clamp(packet, 500) == packet


def test_data_offset_beyond_the_packet() -> None:
    """An option behind the packet's end is none of its."""
    packet = syn(4, "01010101", words=15)
    assert core_door.clamp(packet + bytes.fromhex(MSS_1460), 500) == packet


def test_offloaded_checksum_is_left_to_who_completes_it() -> None:
    for offload in (Offload(PARTIAL, 20, 16), Offload(EGRESS)):
        before = syn(4, MSS_1460)
        after = core_door.clamp(before, 1381, offload)
        assert after == before[:42] + (1381).to_bytes(2) + before[44:]


@examples(150)
@given(st.binary(max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 15))
def test_any_options(options: bytes, bound: int, words: int) -> None:
    """At most two bytes and the checksum change, and the checksum stays right."""
    options += bytes(-len(options) % 4)
    before = syn(4, options.hex(), words=words)
    after = core_door.clamp(before, bound)
    differs = {at for at in range(len(before)) if before[at] != after[at]} - {36, 37}
    assert not differs or max(differs) - min(differs) <= 1
    assert checksum(after[20:], pseudo(after[12:16], after[16:20], 6, len(after) - 20)) == 0
