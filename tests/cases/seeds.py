"""Seed corpora for the fuzz targets, out of the packet cases: ``python -m tests.cases.seeds DIRECTORY``.

Writes DIRECTORY/TARGET for each native/fuzz/TARGET.c, in the input format that the target describes at its
top. The packets for fuzz_forward bear addresses of the tables that it loads.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import numpy as np

from ipshare.core import ffi, lib
from ipshare.engine.tables import BINDING, ENDPOINT, HEADER, MEMBER, NETWORK, POLICY, Tables, pack
from tests.cases import Case, address, cases
from tests.oracle.checksum import checksum
from tests.oracle.encap import encap
from tests.oracle.parse import Refused
from tests.oracle.rewrite import DST, SRC, translate

GUE = 6080
Inputs = Iterator[tuple[str, bytes]]


def write(directory: Path) -> None:
    """One file for each input of each target."""
    for target, inputs in TARGETS.items():
        (directory / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs():
            (directory / target / name.replace("/", "-")).write_bytes(data)


def _fields(case: Case, number: int) -> bytes:
    o = case.offload
    sizes = (min(o.gso_size, 255), 0, number % 2, 20)
    return bytes((o.csum, o.csum_start // 2, o.csum_offset // 2, o.gso_type, *sizes))


def parse() -> Inputs:
    for number, case in enumerate(cases()):
        yield case.name, _fields(case, number) + case.packet


def rewrite() -> Inputs:
    for number, case in enumerate(cases()):
        local = address("local", case.family).ljust(16, b"\0")
        yield case.name, _fields(case, number) + local + case.packet


def _sent_to(packet: bytes, to: str, field: int = DST) -> bytes:
    try:
        return translate(packet, field, ip_address(to).packed)
    except Refused:
        return packet


def _side_and_fields(gso_type: int, csum: int) -> int:
    """First byte of fuzz_forward: outer side, true header sums, these fields."""
    fits = (
        b
        for b in range(0x20, 256, 2)
        if b & 0x20 and (b >> 1) % 3 == gso_type % 3 and (b >> 3) % 3 == csum % 3
    )
    return next(fits)


def forward() -> Inputs:
    """To each kind of binding in turn, outer and inner; through the tunnel of the distribution point too."""
    for number, case in enumerate(cases()):
        o, four = case.offload, case.family == 4
        flags = _side_and_fields(o.gso_type, o.csum)
        rest = struct.pack("<HHH", o.gso_size, o.csum_start, o.csum_offset)
        outer = _sent_to(case.packet, f"203.0.113.{number % 7}" if four else "2001:db8:1::10")
        inner = _sent_to(case.packet, "10.4.0.3" if four else "2001:db8:a::10")
        yield f"{case.name}-outer", bytes((flags, 0)) + rest + outer
        yield f"{case.name}-inner", bytes((flags | 1, 0)) + rest + inner
        yield f"{case.name}-peers", bytes((flags | 1, 24)) + rest + outer
        yield f"{case.name}-cluster", bytes((flags, 32)) + rest + outer
        if four:
            yield from _remapped(case, flags, rest, number)
        if four and case.verdict == "OK":
            tunnel = encap(_sent_to(case.packet, "203.0.113.3"), "192.0.2.20", "10.4.0.254", gue_port=GUE)
            yield f"{case.name}-tunnel", bytes((_side_and_fields(0, 0) | 1, number % 2)) + bytes(6) + tunnel


def _remapped(case: Case, flags: int, rest: bytes, number: int) -> Inputs:
    """To an address that is remapped (native/fuzz/remaps.h), by the network and through each channel."""
    for which in (1, 2, 3):
        head = bytes((flags | 1, which << 1)) + rest
        yield f"{case.name}-remap{which}", head + _sent_to(case.packet, "10.4.0.3")
        ends = [("192.0.2.64", "192.0.2.32"), ("192.0.2.65", "192.0.2.33"), ("192.0.2.72", "192.0.2.40")]
        if case.verdict == "OK" and not any(rest):
            inner = encap(_sent_to(case.packet, "203.0.113.3"), *ends[number % 3])
            yield (
                f"{case.name}-channel{which}",
                bytes((_side_and_fields(0, 0) | 1, which << 1)) + bytes(6) + inner,
            )
            back = _sent_to(case.packet, "192.0.2.131")
            yield (
                f"{case.name}-back{which}",
                bytes((_side_and_fields(0, 0) | 1, which << 1)) + bytes(6) + back,
            )


def decap() -> Inputs:
    for number, case in enumerate(cases()):
        ends = ("192.0.2.20", "10.4.0.254") if number % 2 else ("2001:db8::1", "2001:db8::2")
        yield f"{case.name}-plain", b"\0" + case.packet
        if case.verdict == "OK":
            yield f"{case.name}-gue", b"\0" + encap(case.packet, *ends, gue_port=GUE)
            yield f"{case.name}-ip", b"\0" + encap(case.packet, *ends)


def gso() -> Inputs:
    """Each packet cut, and three times in a row, of which two continue the first, joined."""
    for case in cases():
        o, size = case.offload, len(case.packet)
        cut = bytes((o.gso_type << 1 | (o.csum & 1) << 3, 0)) + struct.pack("<H", o.gso_size or 100)
        yield f"{case.name}-cut", cut + bytes((o.csum_start, o.csum_offset)) + b"\x40\x01" + case.packet
        if size < 512:
            once = bytes((size & 255, size >> 8)) + case.packet
            yield f"{case.name}-join", b"\x01" + bytes(7) + once + b"\x01\x04x\x01\x04y"


def frag() -> Inputs:
    rng = random.Random(1)
    for number in range(32):
        yield f"{number}", rng.randbytes(5 * 40)


def pair() -> Inputs:
    """Records, frames, and lists of steps (what each first byte means: fuzz_pair.c)."""
    rng = random.Random(4)
    for kind, state, flags in ((1, 2, 1), (2, 3, 12), (3, 3, 20), (4, 4, 16)):
        claim = 5 if flags & 24 else 0
        fields = (1, kind, state, flags, 2, 7, 9, 1000, 900, claim, 4, 1, 0, 0)
        yield f"record-{kind}", b"\0" + struct.pack(">4BI6QIB3x", *fields[:13])
    ether = bytes.fromhex("ffffffffffff 0200000000aa 0806")
    arp = bytes.fromhex("0001080006040001 0200000000aa c0000263 000000000000 c0000201")
    yield "arp", b"\1" + ether + arp
    target = ip_address("2001:db8::1").packed
    source, to = ip_address("2001:db8::99").packed, ip_address("ff02::1:ff00:1").packed
    body = struct.pack(">BBHI", 135, 0, 0, 0) + target + bytes.fromhex("01010200000000aa")
    pseudo = source + to + struct.pack(">II", len(body), 58)
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    ip6 = struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + source + to
    yield "ns", b"\1" + bytes.fromhex("3333ff000001 0200000000aa 86dd") + ip6 + body
    for number in range(24):
        yield f"steps-{number}", b"\2" + rng.randbytes(4 * 60 + number % 16)


def natlog() -> Inputs:
    """Records of every kind, in both families."""
    kinds = [(event, 0) for event in (4, 5, 8, 9, 12, 99)] + [(13, quota) for quota in range(4)]
    for room, losses in ((0, 0), (9, 1), (255, 200)):
        found = b""
        for (event, quota), family in [(kind, family) for kind in kinds for family in (4, 6)]:
            r = ffi.new("struct ips_natlog_rec *", {"at_ns": 100, "event": event, "quota": quota, "limit": 7})
            r.flow.family, r.flow.proto, r.flow.src_port = family, 17, 1000
            found += bytes(ffi.buffer(r))
        yield f"{room}", bytes((room, losses, 5)) + found


def natlog_ring() -> Inputs:
    rng = random.Random(6)
    for number in range(8):
        yield f"{number}", rng.randbytes(120)


def witness() -> Inputs:
    """Records of each kind, and steps (fuzz_witness.c)."""
    rng = random.Random(7)
    for kind, answer, counter in ((1, 0, 3), (2, 0, 3), (3, 1, 3)):
        yield f"record-{kind}", b"\1" + struct.pack(">4BI4Q", 1, kind, answer, 0, 1, counter, 900, 1000, 3)
    for number in range(16):
        yield f"steps-{number}", b"\2" + rng.randbytes(6 * 30)


def napt() -> Inputs:
    """Each packet from inside, and to a pool address as an answer would be."""

    def step(how: int, data: bytes) -> bytes:
        return struct.pack("<BH", how, len(data)) + data

    for case in cases():
        four = case.family == 4
        how = {6: 4, 17: 8}.get(case.packet[9 if four else 6] if len(case.packet) > 9 else 0, 0)
        out = _sent_to(case.packet, "10.0.0.1" if four else "fd00::1", SRC)
        to = _sent_to(case.packet, "203.0.113.0" if four else "2001:db8:1::", DST)
        yield f"{case.name}-out", b"\0" + step(how, out) + step(how | 1, to) + step(2, b"") + step(how, out)
        yield (
            f"{case.name}-in",
            b"\1" + step(how | 1, to) + step(how, _sent_to(to, "10.0.0.2", SRC) if four else to),
        )


def image() -> Inputs:
    """One site of both families, and the same again as a second image."""
    rows = [np.zeros(2, layout) for layout in (NETWORK, ENDPOINT, POLICY, MEMBER, BINDING)]
    networks, endpoints, policies, members, bindings = rows
    for i, (net, local) in enumerate((("203.0.113.0", "10.4.0.0"), ("2001:db8:1::", "2001:db8:a::"))):
        family, length = (4, 24) if i == 0 else (6, 64)
        for records, name, text in (
            (networks, "prefix", net),
            (endpoints, "local", local),
            (bindings, "global", net),
        ):
            records[i][name] = np.frombuffer(ip_address(text).packed.ljust(16, b"\0"), np.uint8)
            records[i]["family"], records[i]["prefix_len"] = family, length
        endpoints[i]["flags"] = lib.IPS_EP_SELF
        policies[i]["first_member"], policies[i]["n_members"], policies[i]["table_size"] = i, 1, 307
        policies[i]["v4_bits"], policies[i]["v6_bits"] = 32, 64
        members[i]["endpoint"], members[i]["weight"] = i, 1
        bindings[i]["target"] = i
    for kind in (lib.IPS_KIND_ENDPOINT, lib.IPS_KIND_POLICY, lib.IPS_KIND_HERE):
        bindings["kind"] = kind
        made = Tables(
            networks=networks, endpoints=endpoints, policies=policies, members=members, bindings=bindings
        )
        records = bytes((0, lib.IPS_ROLE_INNER, 2, 2, 2, 2)) + bytes(pack(made))[HEADER.itemsize :]
        yield f"{kind}", struct.pack(">H", len(records)) + records + records


def mirror() -> Inputs:
    """Each kind of step with octets that mean something there, alone and after each other."""
    flow = struct.pack(">BHHH", 6, 7, 1024, 443)
    four, six = bytes((10, 0, 0, 1, 198, 51, 100, 1)), bytes(range(32))
    body = struct.pack(">BBII", 2, 2, 5, 7)
    upsert = b"\x09" + flow + struct.pack(">Q", 5) + four + body + bytes((192, 0, 2, 1, 0, 80))
    large = (
        b"\x3d"
        + flow
        + struct.pack(">Q", 9)
        + six
        + body
        + bytes(range(1, 19))
        + b"\0\0\0\x01"
        + b"\x85\x01" * 4
    )
    delete = b"\x02" + flow + struct.pack(">Q", 6) + four
    head = struct.pack(">BBQIQ", 1, 0, 1, 1, 2)
    ack = struct.pack(">BBBBIQHQHH", 3, 1, 0, 1, 1, 1, 4, 1, 2, 1)
    marks = b"\xf2\0\xf3\x07\xf4\x07\xf1\0"
    sums = b"\xf5\0" + b"\xff" * 32 + bytes(1024)
    diverged = b"\x04" + bytes(3) + struct.pack(">I", 1) + b"\xff" * 32
    sealed = b"\x01\x10\x01\0" + bytes(60)
    hello = b"\x01\x01\x01\0" + bytes(116)
    steps = [
        *((0, d) for d in (head + upsert, head + delete, head + marks, b"\x02" + head[1:], b"\xf0\0")),
        *((1, d) for d in (ack, diverged)),
        *((2, d) for d in (upsert, delete, large, marks, sums, upsert + large + delete + marks)),
        *((3, d) for d in (sealed, hello)),
        *((5, d) for d in (upsert, large, delete)),
        *((6, d) for d in (b"\x01\x01", b"\0\x02\x05\x80")),
        (7, b""),
    ]
    packed = [bytes((kind,)) + struct.pack("<H", len(data)) + data for kind, data in steps]
    tick = b"\x04\0\0"
    for number, step in enumerate(packed):
        yield f"{number}", step + tick
    yield "all", tick.join(packed)


MAKERS = (natlog, natlog_ring, witness, parse, rewrite, forward, decap, gso, frag, pair, napt, image, mirror)
TARGETS = {f"fuzz_{maker.__name__}": maker for maker in MAKERS}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
