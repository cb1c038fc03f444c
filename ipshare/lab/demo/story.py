"""What the demo does in one lab: traffic, the move from A to B under traffic, traffic again, and back.

Facts only: every number is counted by the clients, the servers or a packet capture. The address is remapped,
and open connections stay where they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ipshare.lab.agents import lab_with_agents
from ipshare.lab.demo.moving import Moving
from ipshare.lab.internet import CLIENTS, LabSpec, global_ip, global_network
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import Ping, Record, Running, Tcp, Udp, serve, start
from ipshare.model import packed

DATAGRAM_SIZES = (64, 700, 1200)  # bytes; with its headers each fits into every path of the lab
WARM_UP_S, STREAM_S = 1.5, 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much traffic: per client and family."""

    connections: int = 60
    bytes: int = 20_000
    flows: int = 10
    datagrams: int = 60
    pings: int = 5
    long_connections: int = 5
    stream: int = 120  # new connections while the address moves


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over clients. corrupted: payload differs; misdelivered: wrong server or address."""

    tried: int = 0
    good: int = 0
    failed: int = 0
    corrupted: int = 0
    misdelivered: int = 0
    corrupted_bytes: int = 0
    bytes_checked: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Phase:
    """Traffic against one server, by kind (TCP connections, UDP datagrams, pings)."""

    name: str
    tallies: dict[str, Tally]


@dataclass(frozen=True, slots=True)
class Move:
    """The flip, in seconds since the stream of new connections began."""

    began: float
    ended: float
    commits: dict[str, float]
    stream: tuple[Record, ...]
    stream_corrupted: int
    stream_misdelivered: int
    broken_new: int  # opened after the flip, and failed
    cut_by_flip: int  # of the stream: opened before, not finished then, and failed
    long_open: int
    long_broken: int
    old_server_after: int  # opened after the flip, and answered by the old end point
    origin: str = "A"
    to: str = "B"
    left: tuple[tuple[float, int], ...] = ()  # seconds, connections at the old place
    drained: float | None = None

    @property
    def broken(self) -> int:
        """Of the connections that were open when the address moved."""
        return self.long_broken + self.cut_by_flip

    @property
    def open(self) -> int:
        return self.long_open + self.cut_by_flip


@dataclass(frozen=True, slots=True)
class Replies:
    """Packets from a Global IP, seen by packet capture."""

    from_end_points: int
    through_distribution_points: int


@dataclass(frozen=True, slots=True)
class Chapter:
    """One run of the story."""

    path: str
    seconds_to_build: float
    before: Phase
    move: Move
    after: Phase
    replies: Replies
    back: Move

    @property
    def moves(self) -> tuple[Move, ...]:
        return (self.move, self.back)

    @property
    def is_clean(self) -> bool:
        """Nothing corrupted, misdelivered or lost, replies direct, and every new connection served."""
        whole = all(t.good == t.tried for phase in (self.before, self.after) for t in phase.tallies.values())
        stray = sum(
            m.stream_corrupted + m.stream_misdelivered + m.broken_new + m.old_server_after + m.broken
            for m in self.moves
        )
        direct = self.replies.through_distribution_points == 0 and self.replies.from_end_points > 0
        return whole and stray == 0 and direct


def tell(spec: LabSpec, scale: Scale, say: Say) -> Chapter:
    """Runs the story once, there and back. Raises IpshareError where the lab or an agent does not start."""
    began = time.monotonic()
    spec = replace(spec, channel="ipip")
    say(f"building the lab: 3 clients, 2 routers, C and D distribute, A and B serve; path {spec.path}")
    with lab_with_agents(spec) as lab, serve(lab, "a1", "b1"):
        built = time.monotonic() - began
        say(f"lab up in {built:.1f} s; both Global Networks are at A")
        with _reply_counter(lab) as replies:
            before = _phase(lab, scale, "at A", "a1", say)
        seen = replies()
        move = _move(lab, scale, "A", "B", say)
        after = _phase(lab, scale, "at B", "b1", say)
        back = _move(lab, scale, "B", "A", say)
    return Chapter(spec.path, built, before, move, after, seen, back)


def _targets(spec: LabSpec) -> list[tuple[str, str]]:
    return [(client, str(global_ip("a1", family))) for family in spec.families for client in CLIENTS]


def _phase(lab: Lab, scale: Scale, name: str, server: str, say: Say) -> Phase:
    count = len(_targets(lab.spec))
    say(
        f"{count * scale.connections} TCP connections, {count * scale.flows} UDP flows and pings "
        f"from {len(CLIENTS)} clients, through C and D at once"
    )
    running: list[tuple[str, int, Running[Any]]] = []
    for number, (client, address) in enumerate(_targets(lab.spec)):
        tcp = Tcp(address, scale.connections, scale.bytes, spread_s=1.0, expect=(server,), seed=number)
        udp = Udp(address, scale.flows, scale.datagrams, DATAGRAM_SIZES, 0.002, expect=(server,), seed=number)
        ping = Ping(address, scale.pings, seed=number)
        running += [
            ("TCP connections", scale.bytes, start(lab, client, tcp)),
            ("UDP datagrams", sum(DATAGRAM_SIZES) // len(DATAGRAM_SIZES), start(lab, client, udp)),
            ("pings", ping.bytes, start(lab, client, ping)),
        ]
    tallies: dict[str, Tally] = {}
    for kind, size, each in running:
        tallies[kind] = tallies.get(kind, Tally()) + _tally(each.result(), size)
    return Phase(name, tallies)


def _tally(report: Any, size: int) -> Tally:
    tried = report.connections if hasattr(report, "connections") else report.sent
    good = report.completed if hasattr(report, "completed") else report.received
    failed = report.failed if hasattr(report, "failed") else report.lost
    return Tally(
        tried=tried,
        good=good,
        failed=failed,
        corrupted=report.corrupted,
        misdelivered=report.misdelivered,
        corrupted_bytes=report.corrupted * size,
        bytes_checked=(good + report.corrupted) * size,
    )


def _move(lab: Lab, scale: Scale, origin: str, to: str, say: Say) -> Move:
    say(f"new connections all the time, some that stay open, and the address moves from {origin} to {to}")
    moving = Moving(lab, origin, to)
    long, stream = [], []
    for number, (client, address) in enumerate(_targets(lab.spec)):
        slow = Tcp(
            address, scale.long_connections, 60_000, chunks=60, pause_s=0.08, timeout_s=12, seed=number
        )
        quick = Tcp(address, scale.stream, 2_000, spread_s=STREAM_S, timeout_s=12, seed=number)
        long.append(start(lab, client, slow))
        stream.append(start(lab, client, quick))
    for each in [*long, *stream]:
        each.wait_begun()
    zero = time.monotonic()
    time.sleep(WARM_UP_S)
    began = time.monotonic()
    moving.flip()
    ended = time.monotonic()
    say(f"every distribution point sends to {to}, {(ended - began) * 1000:.0f} ms after the first word")
    reports = [each.result() for each in stream]
    held = [each.result() for each in long]
    moving.finish()
    if moving.drained is not None:
        say(f"nothing is left at {origin}, {moving.drained - ended:.1f} s later: the remap is complete")
    records = sorted((r for report in reports for r in report.records), key=lambda r: r.started)
    failed = [r for r in records if not r.server]
    return Move(
        began=began - zero,
        ended=ended - zero,
        commits={name: at - zero for name, at in moving.commits.items()},
        stream=tuple(Record(r.started - zero, r.ended - zero, r.server, r.good) for r in records),
        stream_corrupted=sum(r.corrupted for r in [*reports, *held]),
        stream_misdelivered=sum(r.misdelivered for r in [*reports, *held]),
        broken_new=sum(r.started > ended or r.ended < began for r in failed),
        cut_by_flip=sum(r.started <= ended and r.ended >= began for r in failed),
        long_open=sum(r.connections for r in held),
        long_broken=sum(r.failed for r in held),
        old_server_after=sum(r.server == f"{origin.lower()}1" and r.started > ended for r in records),
        origin=origin,
        to=to,
        left=tuple((at - zero, count) for at, count in moving.left),
        drained=moving.drained - zero if moving.drained is not None else None,
    )


@contextmanager
def _reply_counter(lab: Lab) -> Iterator[Callable[[], Replies]]:
    """Captures at the uplinks of all four data path nodes while the block runs."""
    with ExitStack() as stack:
        captures = {
            name: stack.enter_context(lab.capture(name, "r1" if name in "CB" else "r2")) for name in "CDAB"
        }
        yield lambda: Replies(
            from_end_points=sum(_from_global(captures[name], lab) for name in "AB"),
            through_distribution_points=sum(_from_global(captures[name], lab) for name in "CD"),
        )


def _from_global(capture: Any, lab: Lab) -> int:
    count = 0
    for family in lab.spec.families:
        network = global_network(family)
        at, size = (12, network.prefixlen // 8) if family == 4 else (8, network.prefixlen // 8)
        start_of = packed(network.network_address)[:size]
        count += sum(packet[at : at + size] == start_of for packet in capture.packets(family))
    return count
