"""S1.2, S1.3: the packet cases through oracle and C core, both fields, both ways, whole and damaged.

The same table runs through the engines elsewhere; here it is about every byte.
"""

from typing import Any

import pytest

from tests import core_door
from tests.cases import Case, address, cases
from tests.cases.build import build
from tests.oracle.checksum import checksum
from tests.oracle.parse import PLAIN, Offload, Refused, parse
from tests.oracle.rewrite import DST, SRC, address_of, translate

CASES = cases()
WHOLE = [case for case in CASES if "/" not in case.name and len(case.packet) < 400]


def by_oracle(
    data: bytes, field: int, to: bytes, offload: Offload = PLAIN, buffer: int | None = None
) -> tuple[str, bytes | None]:
    try:
        return "OK", translate(data, field, to, offload, buffer)
    except Refused as refused:
        return refused.args[0], None


def same(data: bytes, field: int, to: bytes, offload: Offload = PLAIN, buffer: int | None = None) -> str:
    """C core and oracle agree on verdict and bytes; the verdict."""
    expected, packet = by_oracle(data, field, to, offload, buffer)
    verdict, changed = core_door.translate(data, field, to, offload, buffer)
    assert verdict == expected, data.hex()
    if packet is not None:
        shown = packet if buffer is None else packet[:buffer]
        assert changed.hex() == shown.hex(), data.hex()
    return verdict


def there_and_back(data: bytes, field: int, to: bytes, offload: Offload = PLAIN) -> tuple[bytes, bytes]:
    """(translated, translated back)."""
    _, there = core_door.translate(data, field, to, offload)
    _, back = core_door.translate(there, field, address_of(data, field), offload)
    return there, back


def named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=named)
def test_s1_2_case(case: Case) -> None:
    """The verdict that the table says, the bytes that the oracle says, outer and inner; and back: S1.3."""
    local, to_global = address("local", case.family), address("global", case.family)
    assert same(case.packet, DST, local, case.offload) == case.verdict
    if case.verdict != "OK":
        return
    there, back = there_and_back(case.packet, DST, local, case.offload)
    assert address_of(there, DST) == local
    assert same(there, DST, to_global, case.offload) == "OK"
    assert back == case.packet[: len(back)]
    assert len(back) == parse(case.packet, case.offload).ip_len


@pytest.mark.parametrize("case", CASES, ids=named)
def test_s1_5_case_source(case: Case) -> None:
    """The same packets with their source rewritten (symmetric path), and back."""
    to = address("other", case.family)
    verdict = same(case.packet, SRC, to, case.offload)
    assert verdict == ("OK" if case.verdict == "BAD_QUOTE" and "other" in case.name else case.verdict)
    if verdict == "OK":
        _, back = there_and_back(case.packet, SRC, to, case.offload)
        assert back == case.packet[: len(back)]


def test_every_translation_verdict_has_a_case() -> None:
    seen = {case.verdict for case in CASES}
    wanted = {
        "OK", "SHORT", "BAD_VERSION", "BAD_HEADER_LENGTH", "BAD_TOTAL_LENGTH", "BAD_HEADER_CHECKSUM",
        "SOURCE_ROUTE", "BAD_OPTION", "BAD_EXTENSION", "SHORT_L4", "SHORT_FIRST_FRAGMENT", "BAD_FRAGMENT",
        "BAD_QUOTE", "BAD_OFFLOAD",
    }  # fmt: skip
    assert seen == wanted


@pytest.mark.parametrize("case", CASES, ids=named)
def test_view(case: Case) -> None:
    """ips_parse finds what the oracle finds."""
    verdict, found = core_door.view(case.packet, case.offload)
    if verdict == "OK":
        assert found == parse(case.packet, case.offload)
    else:
        with pytest.raises(Refused, match=f"^{verdict}$"):
            parse(case.packet, case.offload)


def shortened(packet: bytes, length: int) -> bytes:
    """The packet cut to ``length`` with IP lengths and IPv4 sum that fit."""
    cut = bytearray(packet[:length])
    if cut[:1] and cut[0] >> 4 == 4 and length >= (cut[0] & 15) * 4 >= 20:
        cut[2:4] = length.to_bytes(2)
        return with_header_sum(cut)
    if cut[:1] and cut[0] >> 4 == 6 and length >= 40:
        cut[4:6] = (length - 40).to_bytes(2)
    return bytes(cut)


def with_header_sum(packet: bytearray) -> bytes:
    header = (packet[0] & 15) * 4
    packet[10:12] = b"\0\0"
    packet[10:12] = checksum(bytes(packet[:header])).to_bytes(2)
    return bytes(packet)


@pytest.mark.parametrize("case", WHOLE, ids=named)
def test_truncated_at_each_byte(case: Case) -> None:
    """As received too short, and as a shorter packet that is honest about it."""
    local = address("local", case.family)
    for length in range(len(case.packet)):
        same(case.packet[:length], DST, local, case.offload)
        whole = shortened(case.packet, length)
        if same(whole, DST, local, case.offload) == "OK":
            there, back = there_and_back(whole, DST, local, case.offload)
            assert back == whole


@pytest.mark.parametrize("case", WHOLE, ids=named)
def test_each_bit_flipped(case: Case) -> None:
    """Every bit of the headers; an IPv4 header sum is also made to fit, or all would end at that check."""
    local = address("local", case.family)
    for bit in range(min(len(case.packet), 112) * 8):
        damaged = bytearray(case.packet)
        damaged[bit // 8] ^= 1 << bit % 8
        same(bytes(damaged), DST, local, case.offload)
        if damaged[0] >> 4 == 4 and 20 <= (damaged[0] & 15) * 4 <= len(damaged) and bit < 480:
            same(with_header_sum(damaged), DST, local, case.offload)


@pytest.mark.parametrize("case", WHOLE, ids=named)
def test_first_buffer_of_a_chain(case: Case) -> None:
    """A host that shows only the beginning of a packet: no more is needed, or the packet is refused."""
    local = address("local", case.family)
    for shown in range(len(case.packet)):
        same(case.packet, DST, local, case.offload, shown)


def test_udp_none_stays_none_in_both_families() -> None:
    for name, at in (("udp4-none", 26), ("udp6-none", 46)):
        case = next(case for case in CASES if case.name == name)
        there, back = there_and_back(case.packet, DST, address("local", case.family))
        assert there[at : at + 2] == b"\0\0" == back[at : at + 2]


def test_udp_sum_that_becomes_zero_is_written_ffff() -> None:
    for name, at in (("udp4-to-zero", 26), ("udp6-to-zero", 46)):
        case = next(case for case in CASES if case.name == name)
        there, _ = there_and_back(case.packet, DST, address("local", case.family))
        assert there[at : at + 2] == b"\xff\xff"


TRANSPORTS: dict[str, list[Any]] = {
    "tcp": ["tcp", {"data": 4}],
    "udp": ["udp", {"data": 4}],
    "no sum": [{"udp": {"csum": 0}}],
    "sctp": ["sctp"],
    "wrong": [{"tcp": {"csum": "wrong"}}],
}


CHAINS: dict[str, tuple[int, list[Any]]] = {
    "v4": (4, []),
    "v6": (6, []),
    "options": (6, ["dstopts"]),
    "segments left": (6, [{"routing": {"left": 1}}]),
    "no segments left": (6, [{"routing": {"left": 0}}]),
}


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS.keys())
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_s1_5_error_from_a_device(chain: tuple[int, list[Any]], transport: list[Any]) -> None:
    """Source rewritten (symmetric path): the quoted destination is mended, its sums where they cover it."""
    family, between = chain
    ip, error = f"ip{family}", {"icmp": {"type": 3}} if family == 4 else {"icmp6": {"type": 1}}
    quoted = build([{ip: {"src": "client", "dst": "global"}}, *between, *transport])
    for cut in range(len(quoted) + 1):
        packet = build([{ip: {"src": "global", "dst": "client"}}, error, {"data": quoted[:cut].hex()}])
        assert same(packet, SRC, address("local", family)) == "OK"
        there, back = there_and_back(packet, SRC, address("local", family))
        assert back == packet
    if transport is not TRANSPORTS["wrong"]:  # of that one the oracle alone can tell how wrong it must be
        assert there.endswith(build([{ip: {"src": "client", "dst": "local"}}, *between, *transport]))


def test_error_from_a_device_that_quotes_a_packet_to_another() -> None:
    """Source rewritten (symmetric path): a quote of a packet to a host behind the device stays as it is.

    One to the address that the source gets is refused: on the way back it would be taken for the device's.
    """
    quoted = {"quote": {"packet": [{"ip4": {"src": "client", "dst": "other"}}, "udp"]}}
    error = build([{"ip4": {"src": "global", "dst": "client"}}, {"icmp": {"type": 3}}, quoted])
    assert same(error, SRC, address("local", 4)) == "OK"
    there, back = there_and_back(error, SRC, address("local", 4))
    assert there[20:] == error[20:] and back == error
    assert same(error, SRC, address("other", 4)) == "BAD_QUOTE"


@pytest.mark.parametrize("name", ["tcp4", "dccp4", "tcp6", "echo6"])
def test_the_one_field_that_cannot_come_back(name: str) -> None:
    """0xffff, which no sender computes, comes back as the other zero; every other field as it was."""
    case = next(case for case in CASES if case.name == name)
    at = {"tcp4": 36, "dccp4": 26, "tcp6": 56, "echo6": 42}[name]
    for field in (0x0000, 0x0001, 0x7FFF, 0xFFFE, 0xFFFF):
        sent = case.packet[:at] + field.to_bytes(2) + case.packet[at + 2 :]
        _, back = there_and_back(sent, DST, address("local", case.family))
        assert back[at : at + 2] == (b"\0\0" if field == 0xFFFF else field.to_bytes(2))
        assert back[:at] + back[at + 2 :] == sent[:at] + sent[at + 2 :]
        _, unchanged = core_door.translate(sent, DST, address_of(sent, DST))
        assert unchanged == sent
