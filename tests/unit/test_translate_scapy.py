"""S1.3, third opinion: scapy, which shares nothing with oracle or core, verifies translated packets.

Every checksum that was right before a translation is right after it: of the packet and of the one it quotes.
"""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, _ICMPv6Error
from scapy.packet import Packet, Raw

from tests import core_door
from tests.cases import Case, address, cases
from tests.oracle.rewrite import DST, SRC

CASES = [case for case in cases() if case.verdict == "OK" and case.on_wire]
FIELDS = {IP: "chksum", TCP: "chksum", UDP: "chksum", ICMP: "chksum", ICMPv6EchoRequest: "cksum"} | {
    ICMPv6EchoReply: "cksum"
}


def sums(packet: bytes) -> list[tuple[str, int, int]]:
    """(layer, checksum in the packet, checksum that scapy computes) down to the first payload."""
    kind = IP if packet[0] >> 4 == 4 else IPv6
    parsed = kind(packet)
    if (parsed.frag or parsed.flags.MF) if kind is IP else packet[6] == 44:
        parsed = kind(packet[: parsed.ihl * 4 if kind is IP else 40])
    again = kind(packet)
    found = []
    layer: Packet | None = parsed
    for position in range(16):
        layer = parsed.getlayer(position)
        if layer is None or isinstance(layer, IPerror | ICMPerror | Raw):
            break
        if position and isinstance(layer, IP | IPv6):
            break
        name = FIELDS.get(type(layer)) or ("cksum" if isinstance(layer, _ICMPv6Error) else None)
        if name:
            setattr(again.getlayer(position), name, None)
            found.append((type(layer).__name__, getattr(layer, name), position))
    rebuilt = kind(bytes(again))
    names = {kind_.__name__: name for kind_, name in FIELDS.items()}
    return [(n, held, getattr(rebuilt.getlayer(at), names.get(n, "cksum"))) for n, held, at in found]


def right(packet: bytes) -> dict[str, bool]:
    return {name: held == computed for name, held, computed in sums(packet)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("field", [SRC, DST])
def test_right_sums_stay_right(case: Case, field: int) -> None:
    before = right(case.packet)
    _, translated = core_door.translate(case.packet, field, address("local", case.family))
    assert right(translated) == before


def test_scapy_sees_a_wrong_sum() -> None:
    """The judge can say no."""
    packet = next(case.packet for case in CASES if case.name == "tcp4")
    assert right(packet) == {"IP": True, "TCP": True}
    assert right(packet[:30] + b"\xaa" + packet[31:]) == {"IP": True, "TCP": False}


def test_quoted_packet_verifies() -> None:
    """The quote, taken out of a translated error, is the packet as it would be with the other address."""
    for name in ("error4-udp-ffff", "error4-tcp/48", "error6-udp/52", "error6-tcp/68"):
        header = 28 if name.startswith("error4") else 48
        case = next(case for case in CASES if case.name == name)
        _, translated = core_door.translate(case.packet, DST, address("local", case.family))
        assert all(right(translated).values())
        assert right(translated[header:]) == right(case.packet[header:])
        assert all(right(translated[header:]).values()), name
