"""runtime: bursts of the packet generator through a VPP, and what `show runtime` says of its nodes
afterwards.

A stream is a pcap of whole IP packets that VPP replays over and over, 256 at a time, from an input
interface; a burst is as many packets as it is told, and the next one goes on where it ended. A burst is
short, two milliseconds, so that the scheduler lets one pass undisturbed on a busy machine as well: VPP
counts the time that others had as its node's. Nodes before the IP input node and after the rewrite (the
generator, the interface's output) belong to the bench and not to what is measured.
"""

from __future__ import annotations

import re
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ipshare.bench.packets import Frames
from vpp.process import Vpp, VppFailed

BURST_S = 60.0
TRIES = 20
_RAW_IP = 101
_LINE = re.compile(r"^(\S+)\s+\S.*?\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+e-?\d+)\s+([\d.]+)\s*$")
_BENCH = re.compile(r"^(pg-input|pg\d+-(output|tx)|interface-output|unix-epoll-input|drop)$")
BASE = {f: {f"ip{f}-lookup", f"ip{f}-rewrite"} for f in (4, 6)}
INPUT = {f: {f"ip{f}-input", f"ip{f}-input-no-checksum"} for f in (4, 6)}


@dataclass(frozen=True, slots=True)
class Node:
    vectors: int
    clocks: float  # per packet


@dataclass(frozen=True, slots=True)
class Sample:
    """One burst. Clocks are per packet of the burst, not per packet of a node."""

    family: int
    packets: int
    sent: int  # that reached the output interface
    nodes: dict[str, Node]
    disturbed: int = 0  # how often the scheduler gave the processor to somebody else meanwhile

    @property
    def base(self) -> float:
        """One pass through ip-lookup and ip-rewrite."""
        return sum(self.nodes[name].clocks for name in BASE[self.family])

    @property
    def added(self) -> float:
        """Everything else that the packets needed between IP input and output, further lookups included."""
        total = sum(
            node.clocks * node.vectors / self.packets
            for name, node in self.nodes.items()
            if not _BENCH.match(name) and name not in INPUT[self.family]
        )
        return total - self.base

    @property
    def ratio(self) -> float:
        return self.added / self.base


def write_pcap(file: Path, frames: Frames) -> None:
    flat, stride = frames.data.tobytes(), frames.data.shape[1]
    rows = [flat[i * stride : i * stride + int(n)] for i, n in enumerate(frames.lengths)]
    with file.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP))
        out.write(b"".join(struct.pack("<IIII", 0, 0, len(row), len(row)) + row for row in rows))


class Streams:
    """The streams of one VPP; each is defined once and sent as often as wanted."""

    def __init__(self, vpp: Vpp) -> None:
        self.vpp = vpp
        # By name: what VPP calls it, whose table has narrow columns, and the family.
        self._known: dict[str, tuple[str, int]] = {}

    def define(
        self,
        name: str,
        family: int,
        interface: str,
        frames: Frames,
        packets: int,
    ) -> None:
        """A burst of this stream is ``packets`` long."""
        short = f"s{len(self._known)}"
        file = self.vpp.dir / f"{short}.pcap"
        write_pcap(file, frames)
        self.vpp.cli(
            f"packet-generator new {{ name {short} limit {packets} "
            f"node ip{family}-input interface {interface} pcap {file} }}"
        )
        file.unlink()
        self._known[name] = (short, family)

    def start(self, name: str) -> None:
        self.vpp.cli(f"packet-generator enable-stream {self._known[name][0]}")

    def stop(self, name: str) -> None:
        """Packets that are under way still arrive."""
        self.vpp.cli(f"packet-generator disable-stream {self._known[name][0]}")

    def running(self, name: str) -> bool:
        line = re.search(rf"^{self._known[name][0]}\s+(Yes|No)", self.vpp.cli("show packet-generator"), re.M)
        if line is None:
            raise VppFailed(f"the packet generator has no stream {name}")
        return line[1] == "Yes"

    def burst(self, name: str) -> Sample:
        self.vpp.cli("clear runtime")
        before = self.vpp.switches()
        self.start(name)
        until = time.monotonic() + BURST_S
        while self.running(name):
            if time.monotonic() > until:
                raise VppFailed(f"{name}: the burst does not end")
        disturbed = self.vpp.switches() - before
        sample = read(self.vpp.cli("show runtime"), self._known[name][1])
        return replace(sample, disturbed=disturbed)

    def undisturbed(self, name: str) -> Sample:
        """A burst during which VPP kept its processor; the least disturbed one if none of several did."""
        least = self.burst(name)
        for _ in range(TRIES):
            if not least.disturbed:
                break
            least = min(least, self.burst(name), key=lambda s: s.disturbed)
        return least


def read(text: str, family: int) -> Sample:
    """The nodes of all threads that had packets."""
    nodes: dict[str, Node] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and int(found[3]):
            before = nodes.get(found[1])
            vectors, clocks = int(found[3]), float(found[5])
            if before:
                clocks = (clocks * vectors + before.clocks * before.vectors) / (vectors + before.vectors)
                vectors += before.vectors
            nodes[found[1]] = Node(vectors, clocks)
    sent = sum(node.vectors for name, node in nodes.items() if re.fullmatch(r"pg\d+-tx", name))
    entered = nodes.get("pg-input", Node(0, 0.0))
    return Sample(family, entered.vectors, sent, nodes)
