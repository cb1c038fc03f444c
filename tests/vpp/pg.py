"""IP packets into a VPP and what becomes of each, byte for byte, by VPP's own packet generator.

``Generator.pass_`` writes the packets to a pcap file, has a stream replay it one packet a frame, and reads
what left by the sending interface from another file. VPP finishes with a frame before it makes the next
one, and behind each packet goes a sentinel that plain routing forwards: what is captured between two
sentinels came of the packet between them. VPP's packet trace, one record per packet, names the nodes that a
packet visited.

Interfaces are of mode ip4: no link layer, IPv6 packets use them as well. A batch costs a few messages,
however large it is. Nothing here knows of ipshare: ``Passed.trace`` is text. VPP captures 9,216 bytes of a
packet at most.
"""

from __future__ import annotations

import itertools
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from tests.oracle.checksum import checksum

FILE = struct.Struct("=IHHiIII")  # struct pcap_file_header
RECORD = struct.Struct("=IIII")  # seconds, microseconds, bytes stored, bytes of the packet
RAW = 101  # LINKTYPE_RAW: the version field tells IPv4 from IPv6
SENTINEL = {4: "198.51.100.254", 6: "2001:db8:7::fe"}
"""Where sentinels go: the VPP under test has a route for it by the captured interface."""
MARK = b"sentinel"
BATCH = 250
"""Packets whose traces fit into one answer: VPP takes its memory from a segment of a few megabytes, or
dies."""
NODE = re.compile(r"^\d\d:\d\d:\d\d:\d+: (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Passed:
    """What became of one packet. ``nodes``: of VPP's graph, in order; ``error``: why it was dropped, or "".

    ``trace`` is all that VPP prints about it."""

    sent: tuple[bytes, ...]
    nodes: tuple[str, ...] = ()
    error: str = ""
    trace: str = field(default="", repr=False, compare=False)


def read_pcap(path: Path) -> list[bytes]:
    """The packets of a file of this machine's byte order."""
    raw, at, found = path.read_bytes(), FILE.size, []
    while at + RECORD.size <= len(raw):
        stored = RECORD.unpack_from(raw, at)[2]
        at += RECORD.size
        found.append(raw[at : at + stored])
        at += stored
    return found


def write_pcap(path: Path, packets: Sequence[bytes]) -> None:
    head = FILE.pack(0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, RAW)
    path.write_bytes(head + b"".join(RECORD.pack(0, 0, len(p), len(p)) + p for p in packets))


def hop(packet: bytes) -> bytes:
    """The packet as VPP's rewrite sends it: one hop used up (RFC 791 3.2, RFC 8200 3)."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:]
    head = (packet[0] & 15) * 4
    bare = packet[:8] + bytes([packet[8] - 1]) + packet[9:10] + b"\0\0" + packet[12:head]
    return bare[:10] + struct.pack(">H", checksum(bare)) + bare[12:] + packet[head:]


def sentinel(family: int, serial: int) -> bytes:
    """A UDP datagram without checksum, its number in the last 8 bytes."""
    body = struct.pack(">HHHH", 9, 9, 24, 0) + MARK + struct.pack(">Q", serial)
    to = ip_address(SENTINEL[family]).packed
    if family == 6:
        return struct.pack(">IHBB", 6 << 28, len(body), 17, 64) + to + to + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, 17, 0) + to + to
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


class Generator:
    """The packet generator of one VPP. Files are made in ``directory`` and removed after use."""

    def __init__(self, cli: Callable[[str], str], directory: Path, *, patience_s: float = 60) -> None:
        """cli: runs a line of VPP's debug CLI and returns what it prints."""
        self.cli, self.directory, self.patience_s = cli, directory, patience_s
        self._serial = itertools.count(1)

    def interface(self, number: int, *, options: str = "", mtu: int = 9000, table: int = 0) -> str:
        """Makes ``pg<number>``, up, without link layer. options: e.g. ``gso-enabled gso-size 1448``.
        table: the FIB, of both families, where its packets are looked up."""
        name = f"pg{number}"
        self._run(f"create packet-generator interface {name} {options} mode ip4")
        if table:
            self._run(f"set interface ip table {name} {table}")
            self._run(f"set interface ip6 table {name} {table}")
        self._run(f"set interface state {name} up")
        self._run(f"set interface mtu packet {mtu} {name}")
        self._run(f"enable ip4 interface {name}")
        self._run(f"enable ip6 interface {name}")
        return name

    def pass_(
        self, packets: Sequence[bytes], *, enter: str = "pg0", leave: str = "pg1", stream: str = ""
    ) -> list[Passed]:
        """What became of each, in order. stream: more words for ``packet-generator new``."""
        results: dict[int, Passed] = {}
        for family in (4, 6):
            chosen = [i for i, packet in enumerate(packets) if (packet[0] >> 4 == 6) == (family == 6)]
            for at in range(0, len(chosen), BATCH):
                some = chosen[at : at + BATCH]
                found = self._pass([packets[i] for i in some], family, enter, leave, stream)
                results.update(zip(some, found, strict=True))
        return [results[i] for i in range(len(packets))]

    def _pass(
        self, packets: Sequence[bytes], family: int, enter: str, leave: str, stream: str
    ) -> Iterator[Passed]:
        first = next(self._serial)
        serials = [first, *(next(self._serial) for _ in packets)]
        batch = [sentinel(family, first)]
        for packet, serial in zip(packets, serials[1:], strict=True):
            batch += packet, sentinel(family, serial)
        into, out = self.directory / f"in-{first}.pcap", self.directory / f"out-{first}.pcap"
        write_pcap(into, batch)
        self._run("clear trace")
        self._run(f"trace add pg-input {len(batch)}")
        self._run(f"packet-generator capture {leave} pcap {out}")
        self._run(
            f"packet-generator new {{ name cases pcap {into} source {enter} node ip{family}-input"
            f" maxframe 1 limit {len(batch)} {stream} }}"
        )
        self._run("packet-generator enable-stream cases")
        self.until_idle()
        self._run(f"packet-generator capture {leave} disable")
        self._run("packet-generator delete cases")
        sent = _between(read_pcap(out), serials)
        traces = split_trace(self.cli(f"show trace max {len(batch)}"))[1::2]
        into.unlink()
        out.unlink()
        return (_passed(*both) for both in zip(sent, traces, strict=True))

    def burst(
        self, packets: Sequence[bytes], *, enter: str = "pg0", leave: str = "pg1", stream: str = ""
    ) -> list[bytes]:
        """What leaves when packets of one family enter in frames as full as they get, in the order of
        leaving."""
        serial, family = next(self._serial), 6 if packets[0][0] >> 4 == 6 else 4
        into, out = self.directory / f"in-{serial}.pcap", self.directory / f"out-{serial}.pcap"
        write_pcap(into, packets)
        self._run(f"packet-generator capture {leave} pcap {out}")
        self._run(
            f"packet-generator new {{ name burst pcap {into} source {enter} node ip{family}-input"
            f" limit {len(packets)} {stream} }}"
        )
        self._run("packet-generator enable-stream burst")
        self.until_idle()
        self._run(f"packet-generator capture {leave} disable")
        self._run("packet-generator delete burst")
        into.unlink()
        sent = read_pcap(out) if out.exists() else []
        out.unlink(missing_ok=True)
        return sent

    def until_idle(self) -> None:
        """VPP disables the stream at its limit, one turn of its loop after the last packet is through."""
        deadline = time.monotonic() + self.patience_s
        while re.search(r"^\S+\s+Yes", self.cli("show packet-generator"), re.MULTILINE):
            assert time.monotonic() < deadline, "the packet generator does not come to an end"

    def _run(self, line: str) -> None:
        said = self.cli(line).strip()
        assert not said, f"{line}: {said}"


def split_trace(text: str) -> list[str]:
    """The records of ``show trace``, in the order of the packets."""
    return re.split(r"^Packet \d+$", text, flags=re.MULTILINE)[1:]


def _passed(sent: list[bytes], trace: str) -> Passed:
    nodes = tuple(NODE.findall(trace))
    return Passed(tuple(sent), nodes, _error(trace, nodes), trace)


def _error(trace: str, nodes: tuple[str, ...]) -> str:
    """The last line of a packet that ended in a drop: "node: reason"."""
    if not nodes or nodes[-1] not in ("drop", "punt", "error-drop", "error-punt"):
        return ""
    return trace.strip().splitlines()[-1].strip()


def _between(captured: list[bytes], serials: list[int]) -> list[list[bytes]]:
    """Packets behind each sentinel but the last one."""
    groups: list[list[bytes]] = []
    expected = iter(serials)
    for packet in captured:
        if packet[-16:-8] == MARK and len(packet) in (44, 64):
            assert struct.unpack(">Q", packet[-8:])[0] == next(expected), "sentinels out of order"
            groups.append([])
        else:
            groups[-1].append(packet)
    assert len(groups) == len(serials), f"{len(serials) - len(groups)} sentinels were lost"
    assert not groups[-1], "packets behind the last sentinel"
    return groups[:-1]
