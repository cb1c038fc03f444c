"""A VPP under test with generator interfaces, and the judgement of what it did with a packet.

pg0, pg1: no offloads. pg2, pg4: GSO (a TCP packet of several buffers that enters by pg2 is a super-packet;
pg4 sends such packets, and unfinished checksums, as they are). pg3: TCP and UDP that enter have their
checksum offloaded. By default all leaves by pg1, before which VPP itself segments and writes checksums.

The judge is tests/cases/judge.py; tests/vpp/taken_over.py lists what VPP decides before the plugin is
asked. What the plugin decided is read from VPP's packet trace, and the totals are compared with its
counters.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipshare.core import VERDICTS
from ipshare.engine.tables import Tables, pack
from tests.cases.judge import expected, other_side
from tests.oracle.checksum import folded, pseudo
from tests.oracle.parse import PARTIAL, PLAIN, TCP, UDP, Offload, Refused
from tests.oracle.rewrite import DST, SRC, address_of, place
from tests.vpp.pg import SENTINEL, Generator, Passed, hop
from tests.vpp.taken_over import ANSWERED_BY_VPP, DROPS
from tests.vpp.vpp_process import Running, vpp

SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
SIDES = ("outer", "inner")
SEGMENT = 1448
BUFFER = 2048
"""Bytes of a packet that VPP's buffers hold by default; longer packets are chains."""
ADDRESSES = ("198.51.100.17/32", "2001:db8:7::17/128")
"""VPP's own, on pg0: sources of the errors that VPP itself sends."""
WAYS = (
    ("0.0.0.0/0", "198.51.100.253"), (f"{SENTINEL[4]}/32", "198.51.100.253"),
    ("::/0", "2001:db8:7::fd"), (f"{SENTINEL[6]}/128", "2001:db8:7::fd"),
)  # fmt: skip
"""Prefixes and next hops, as of a router: what follows from routes without a next hop is another story."""
VERDICT = re.compile(r": ipshare-(?:outer|inner|reply)-ip[46]\n  (?:outer|inner): (\w+) ")


@dataclass(frozen=True)
class Result:
    """``verdict``: the right one; ``decided``: the plugin's, "" where VPP did not ask it; ``onward``: what
    went on after an OK; ``problem``: "" or the whole story."""

    verdict: str
    decided: str
    onward: bytes | None
    problem: str


class PgNode:
    """``running``: its plugin is not configured yet. ``directory``: for files, best on tmpfs."""

    def __init__(
        self, running: Running, directory: Path, *, service: int = 0, delivery: int = 0, cells: int = 1 << 12
    ) -> None:
        self.running, self.directory = running, directory
        self.client = client = running.client
        self.generator = Generator(client.cli, directory)
        self.tables = sorted({service, delivery})
        self.way_out = ""
        for table in self.tables:
            if table:
                self.run(f"ip table add {table}", f"ip6 table add {table}")
        gso = f"gso-enabled gso-size {SEGMENT}"
        for number, options in enumerate(("", "", gso, "csum-offload-enabled", gso)):
            self.generator.interface(number, options=options, table=service)
        self.run("set interface feature gso pg1 enable")
        self.run(*(f"set interface ip address pg0 {own}" for own in ADDRESSES))
        self.leave_by("pg1")
        client.call("ipshare_configure", service_table=service, delivery_table=delivery, counter_cells=cells)

    def leave_by(self, name: str) -> None:
        """Everything that VPP has no better route for is sent by this interface, sentinels too."""
        for verb, interface in (("del", self.way_out), ("add", name)):
            for table in self.tables if interface else ():
                for prefix, via in WAYS:
                    self.run(f"ip route {verb} {prefix} table {table} via {via} {interface}")
        self.way_out = name

    def load(self, content: Tables) -> int:
        """Prepared by file and committed; the generation."""
        return self.commit(self.prepare(bytes(pack(content))))

    def prepare(self, image: bytes) -> int:
        """The generation that a commit makes live. Raises ``ApiRefused``."""
        file = self.directory / "image"
        file.write_bytes(image)
        try:
            return int(self.client.call("ipshare_prepare", path=str(file)).generation)
        finally:
            file.unlink()

    def commit(self, generation: int) -> int:
        return int(self.client.call("ipshare_commit", generation=generation).generation)

    def info(self) -> dict[str, int]:
        """struct ips_tables_info of the plugin, and what it says of itself."""
        reply = self.client.call("ipshare_info")
        return {name: value for name, value in reply._asdict().items() if name not in ("context", "_0")}

    def buffers_used(self) -> int:
        """Buffers that are neither free nor in a thread's cache: lost, where nothing is under way."""
        shown = self.client.cli("show buffers").splitlines()
        at = shown[0].split().index("Used") - len(shown[0].split())
        return sum(int(line.split()[at]) for line in shown[1:] if line.strip())

    def sent(self, name: str) -> int:
        """Packets that this interface has sent since VPP began."""
        found = self.client.dump("sw_interface_dump", name_filter=name, name_filter_valid=True)
        (index,) = (row.sw_if_index for row in found if row.interface_name == name)
        return int(self.running.stats.combined("/if/tx")[0][index])

    def verdicts(self) -> Counter[tuple[str, str]]:
        """What the plugin counted, by (side, verdict), those that occurred."""
        counted = self.client.call("ipshare_counters").verdicts
        named = {
            (side, verdict.name): counted[at * 64 + verdict.number]
            for at, side in enumerate(SIDES)
            for verdict in VERDICTS
        }
        return Counter({key: n for key, n in named.items() if n})

    def through(self, packets: Sequence[bytes], side: str, *, enter: str = "pg0") -> list[Result]:
        """Sends the packets; what VPP did with each, compared with what it must do."""
        before = self.verdicts()
        passed = self.generator.pass_(packets, enter=enter, leave=self.way_out)
        counted = self.verdicts() - before
        results = [judged(packet, side, enter, found) for packet, found in zip(packets, passed, strict=True)]
        traced = Counter((side, one.decided) for one in results if one.decided)
        assert counted == traced, "counters and traces differ"
        return results

    def run(self, *lines: str) -> None:
        """Lines of VPP's debug CLI that print nothing where they succeed."""
        for line in lines:
            said = self.client.cli(line).strip()
            assert not said, f"{line}: {said}"


def is_offloaded(packet: bytes, enter: str) -> bool:
    """Whether VPP's generator says that the checksum is the egress's: it looks at the first protocol
    number."""
    protocol = packet[9 if packet[0] >> 4 == 4 else 6] if len(packet) > 9 else -1
    return (enter == "pg3" and protocol in (TCP, UDP)) or (enter == "pg2" and protocol == TCP)


def as_described(packet: bytes, enter: str) -> tuple[bytes, Offload]:
    """The packet as the plugin hands it to the core: with a partial checksum where VPP's flags leave it to
    the egress. Raises ``Refused`` where the flags contradict the packet."""
    if not is_offloaded(packet, enter):
        return packet, PLAIN
    family, size = packet[0] >> 4, len(packet)
    at, protocol = ((packet[0] & 15) * 4, packet[9]) if family == 4 else (40, packet[6])
    field = at + (16 if protocol == TCP else 6)
    length = (int.from_bytes(packet[2:4]) if family == 4 else 40 + int.from_bytes(packet[4:6])) - at
    if at + (20 if protocol == TCP else 8) > size or length < 8:
        raise Refused("BAD_OFFLOAD")
    ends = address_of(packet, SRC), address_of(packet, DST)
    partial = folded(pseudo(*ends, protocol, length)).to_bytes(2)
    gso = int(enter == "pg2" and size > BUFFER)
    fields = Offload(PARTIAL, at, field - at, gso_type=gso, gso_size=SEGMENT if gso else 0)
    return packet[:field] + partial + packet[field + 2 :], fields


def judged(packet: bytes, side: str, enter: str, found: Passed) -> Result:
    """The verdict is the core's, or the one it would have had where VPP decided."""
    try:
        verdict, sent = expected(*_with_side(packet, side, enter))
    except Refused as refused:
        verdict, sent = refused.args[0], []
    decided = verdict_of(found)
    onward = [hop(one.data) if verdict == "OK" else one.data for one in sent]  # our errors keep their TTL
    if decided:
        good = decided == verdict and list(found.sent) == onward
    else:
        good = is_vpps_business(packet, side, verdict, found)
    story = f"{packet.hex()}: expected {verdict}, {[one.hex() for one in onward]}\n{found}\n{found.trace}"
    return Result(verdict, decided, onward[0] if good and decided == "OK" else None, "" if good else story)


def _with_side(packet: bytes, side: str, enter: str) -> tuple[bytes, str, Offload]:
    data, offload = as_described(packet, enter)
    return data, side, offload


def verdict_of(found: Passed) -> str:
    """The plugin's, by VPP's packet trace; "": it did not see the packet."""
    said = VERDICT.search(found.trace)
    return said[1] if said else ""


def is_vpps_business(packet: bytes, side: str, wanted: str, found: Passed) -> bool:
    """Whether VPP may have decided so without asking the plugin: not ours, or listed in taken_over.py."""
    family = 6 if packet[0] >> 4 == 6 else 4
    if found.error in DROPS:
        listed = DROPS[found.error].instead_of
        return not found.sent and (listed is None or wanted in listed)
    if set(found.nodes) & set(ANSWERED_BY_VPP) and packet[8 if family == 4 else 7] == 0:
        return len(found.sent) <= 1
    destination = packet[place(family, DST)]
    return len(destination) == (4 if family == 4 else 16) and other_side(destination, side) is None


@contextlib.contextmanager
def pg_node(*, cells: int = 1 << 12, **options: Any) -> Iterator[PgNode]:
    """A VPP for tests with generator interfaces. ``options``: of ``vpp_process.vpp``; tables included.

    In the end every buffer has to be back in its pool."""
    service, delivery = options.get("tables", (0, 0))
    with vpp(**options) as running, tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as directory:
        made = PgNode(running, Path(directory), service=service, delivery=delivery, cells=cells)
        yield made
        assert made.buffers_used() == 0
