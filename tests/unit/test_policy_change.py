"""A policy that changes, through the core of a distribution point and two end points in this process: what
moves goes on where it was (DESIGN.md 4).

The three nodes have the tables that one installation's files say; packets go from one's outcome to the other
by their outer destination. Packets are made by Scapy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror, fragment
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from ipshare.core import ffi, lib
from ipshare.core.remap import RemapWorker
from ipshare.core.worker import LoadError
from ipshare.engine.desired import desired
from ipshare.engine.tables import pack
from ipshare.model import Member
from tests.policy_world import CHANNEL, GLOBAL, TUNNEL, changed, site


@dataclass
class Net:
    """C, A and B. Weights 1:0 -> 0:1: every client moves from A to B."""

    kind: str = "gue"
    was: tuple[int, int] | None = (1, 0)
    now: tuple[int, int] = (0, 1)
    path: str = "gue"
    nodes: dict[str, RemapWorker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in "CAB":
            self.nodes[name] = RemapWorker(sessions=64, coalesces=False)
            self.change(name, self.was, self.now)

    def change(self, name: str, was: tuple[int, int] | None, now: tuple[int, int]) -> None:
        self.nodes[name].load(pack(changed(name, was, now, kind=self.kind, path=self.path)))

    def send(self, packet: bytes) -> tuple[list[str], bytes]:
        """Verdicts on its way from C on, the nodes' names with them; and what the last of them delivered."""
        at, side, way = "C", "outer", []
        for _ in range(4):
            out = self.nodes[at].process(side, packet)  # type: ignore[arg-type]
            way.append(f"{at} {out.verdict.name}")
            if not out.packets:
                return way, b""
            packet, side = out.packets[0], "inner"
            to = str((IP if packet[0] >> 4 == 4 else IPv6)(packet).dst)
            named = [name for name in "AB" if to in (*TUNNEL[name], *CHANNEL[name])]
            if not named:
                return way, packet
            at = named[0]
        raise AssertionError(f"goes round and round: {way}")

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


@pytest.fixture(params=["gue", "ipip"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    made = Net(kind=request.param)
    yield made
    made.close()


def ip(family: int, host: int = 7) -> IP | IPv6:
    if family == 4:
        return IP(src=f"198.51.100.{host}", dst=GLOBAL[4])
    return IPv6(src=f"2001:db8:c::{host:x}", dst=GLOBAL[6])


def tcp(flags: str, family: int = 4, sport: int = 1000, data: bytes = b"") -> bytes:
    return bytes(ip(family) / TCP(sport=sport, dport=80, flags=flags) / Raw(data))


def udp(family: int = 4, sport: int = 1000, dport: int = 53, data: bytes = b"?") -> bytes:
    return bytes(ip(family) / UDP(sport=sport, dport=dport) / Raw(data))


TO_B, ON_TO_A = "C ENCAPSULATED", ["C ENCAPSULATED", "B FOLLOWED", "A FINAL_HERE"]


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_under_way_goes_on_at_the_old_one_and_what_is_new_opens(net: Net, family: int) -> None:
    assert net.send(tcp("A", family, data=b"more")) == (ON_TO_A, tcp("A", family, data=b"more"))
    assert net.send(tcp("S", family, sport=2000))[0] == [TO_B, "B OPENED_HERE"]
    assert net.send(tcp("A", family, sport=2000)) == ([TO_B, "B DECAPSULATED"], tcp("A", family, sport=2000))
    assert net.send(udp(family))[0] == [TO_B, "B OPENED_HERE"]
    assert net.send(tcp("R", family, sport=3000))[0] == ON_TO_A


def test_quic_is_told_by_its_port(net: Net) -> None:
    assert net.send(udp(dport=443, data=b"\x40short"))[0] == ON_TO_A
    assert net.send(udp(dport=443, sport=5, data=b"\xc0long"))[0] == [TO_B, "B OPENED_HERE"]
    assert net.send(udp(dport=443, sport=5, data=b"\x40short"))[0] == [TO_B, "B DECAPSULATED"]
    assert net.send(udp(data=b"\x40short"))[0] == [TO_B, "B OPENED_HERE"]


def test_an_error_goes_with_the_flow_that_it_quotes(net: Net) -> None:
    def error(sport: int) -> bytes:
        quote = IPerror(src=GLOBAL[4], dst="198.51.100.7") / UDPerror(sport=443, dport=sport)
        return bytes(IP(src="198.51.100.7", dst=GLOBAL[4]) / ICMP(type=3, code=3) / quote / Raw(b"q"))

    assert net.send(error(1000))[0] == ON_TO_A
    net.send(udp(dport=443, sport=5, data=b"\xc0long"))
    assert net.send(error(5))[0] == [TO_B, "B DECAPSULATED"]


def test_nothing_is_named_once_the_time_is_over_or_the_path_cannot(net: Net) -> None:
    before = net.send(tcp("A"))[0]
    net.change("C", None, (0, 1))
    assert before == ON_TO_A and net.send(tcp("A"))[0] == [TO_B, "B DECAPSULATED"]
    for path in ("ipip", "rewrite"):
        other = Net(path=path)
        assert (
            other.send(tcp("A"))[0][1:] == ["B DECAPSULATED" if path == "ipip" else "B OK"]
            or path == "rewrite"
        )
        assert not any("FOLLOWED" in word for word in other.send(tcp("A"))[0])
        other.close()


def test_the_old_end_point_delivers_though_it_is_a_member_no_more(net: Net) -> None:
    """Until the time is over; then what still comes is nobody's."""
    only_b = replace(site("A", (1, 1), kind=net.kind).policies[0], members=(Member("B", 1),))
    whole = replace(site("A", (1, 1), kind=net.kind), policies=(replace(only_b, previous=(Member("A", 1),)),))
    net.nodes["A"].load(pack(desired(whole)))
    assert net.send(tcp("A"))[0] == ON_TO_A
    net.nodes["A"].load(pack(desired(replace(whole, policies=(only_b,)))))
    assert net.send(tcp("A"))[0] == [*ON_TO_A[:2], "A NOT_OF_REMAP"]


def test_back_again_whoever_spoke_meanwhile_is_known(net: Net) -> None:
    net.send(tcp("A"))  # by B to A, which follows it from now on
    net.send(tcp("S", sport=2000))
    for name in "CAB":
        net.change(name, (0, 1), (1, 0))
    assert net.send(tcp("A"))[0] == [TO_B, "A DECAPSULATED"]
    assert net.send(tcp("A", sport=2000))[0] == [TO_B, "A FOLLOWED", "B FINAL_HERE"]


def test_only_who_is_configured_is_believed(net: Net) -> None:
    packet = net.nodes["C"].process("outer", tcp("A")).packets[0]
    stranger = IP(packet)
    stranger.src = "10.66.0.1"
    del stranger.chksum
    assert net.nodes["B"].process("inner", bytes(stranger)).verdict.name == "TUNNEL_SOURCE"
    named = packet.index(bytes([10, 1, 0, 250]), 28)
    other = packet[:named] + bytes([10, 66, 0, 1]) + packet[named + 4 :]
    assert (
        net.nodes["B"].process("inner", other).verdict.name == "DECAPSULATED"
    )  # nobody that B has a channel to
    final = packet[: named - 4] + b"\1" + packet[named - 3 :]
    assert net.nodes["B"].process("inner", final).verdict.name == "TUNNEL_HEADER"
    for octets in (b"\3\0\0\1", b"\4\0\0\0", b"\2\0\0\0"):
        wrong = packet[: named - 4] + octets + packet[named:]
        assert net.nodes["B"].process("inner", wrong).verdict.name == "TUNNEL_HEADER"


def test_the_name_is_in_the_private_data_and_counts_in_the_length(net: Net) -> None:
    for family, size in ((4, 8), (6, 20)):
        packet = net.nodes["C"].process("outer", tcp("A", family)).packets[0]
        header = 20 if packet[0] >> 4 == 4 else 40
        gue = packet[header + 8 :]
        assert gue[0] == size // 4 and gue[4:8] == b"\3\0\0\0" and gue[2:4] == b"\0\0"
        assert gue[4 + size :] == tcp("A", family)
        udp_header = packet[header : header + 8]
        assert int.from_bytes(udp_header[4:6]) == len(packet) - header
        assert len(gue[8 : 4 + size]) in (4, 16)
    longest = 1500 - 20 - 8 - 4 - 8
    fits = bytes(
        IP(src="198.51.100.7", dst=GLOBAL[4], flags="DF") / UDP(sport=1, dport=2) / Raw(b"x" * (longest - 28))
    )
    assert net.nodes["C"].process("outer", fits).verdict.name == "ENCAPSULATED"
    more = bytes(
        IP(src="198.51.100.7", dst=GLOBAL[4], flags="DF") / UDP(sport=1, dport=2) / Raw(b"x" * (longest - 27))
    )
    refused = net.nodes["C"].process("outer", more)
    assert refused.verdict.name == "TOO_BIG" and IP(refused.errors[0])[ICMP].nexthopmtu == longest


def test_without_a_session_table_all_is_delivered(net: Net) -> None:
    lib.ips_worker_set_flows(net.nodes["B"].handle, ffi.NULL, ffi.NULL)
    assert net.send(tcp("A"))[0] == [TO_B, "B DECAPSULATED"]


def test_later_fragments_go_where_the_first_one_went(net: Net) -> None:
    ends = [net.nodes[name] for name in "AB"]
    settings = ffi.new("struct ips_napt_config *")
    napts = [lib.ips_napt_new(end.sessions, end._frags, settings) for end in ends]
    for end, napt in zip(ends, napts, strict=True):  # as hosts do: NAT's table of fragments
        lib.ips_worker_set_flows(end.handle, end.sessions, napt)
    whole = (
        IP(src="198.51.100.7", dst=GLOBAL[4], id=77) / TCP(sport=9, dport=80, flags="A") / Raw(b"d" * 1200)
    )
    first, later = (bytes(piece) for piece in fragment(whole, fragsize=800))
    assert net.send(first)[0] == ON_TO_A
    assert net.send(later)[0] == ON_TO_A
    for end, napt in zip(ends, napts, strict=True):
        lib.ips_worker_set_flows(end.handle, end.sessions, ffi.NULL)
        lib.ips_napt_free(napt)
    assert net.send(first)[0] == [TO_B, "B FRAGMENTS_FULL"]


def test_a_full_table_refuses_tcp_and_delivers_the_rest(net: Net) -> None:
    verdicts = [net.send(tcp("S", sport=3000 + n))[0][-1] for n in range(200)]
    assert verdicts[0] == "B OPENED_HERE" and verdicts[-1] == "B SOURCE_LIMIT"
    assert net.send(udp(sport=9))[0] == [TO_B, "B OPENED_HERE"]


@pytest.mark.parametrize("what", ["no weight", "twice", "too many", "a way", "no name", "mark"])
def test_images_that_make_no_sense_are_refused(what: str) -> None:
    tables = changed("B" if what in ("a way", "no name", "mark") else "C", (1, 0), (0, 1))
    policies, members, endpoints = (
        part.copy() for part in (tables.policies, tables.members, tables.endpoints)
    )
    ways = [i for i, e in enumerate(endpoints) if e["flags"] & lib.IPS_EP_WAY]
    if what == "no weight":
        members[2]["weight"] = 0
    elif what == "twice":
        members[3]["endpoint"] = members[2]["endpoint"]
    elif what == "too many":
        policies[-1]["n_previous"] += 1
    elif what == "a way":
        members[2]["endpoint"] = ways[0]
    elif what == "no name":
        endpoints[ways[0]]["local"] = 0
    else:
        endpoints[ways[0]]["flags"] = lib.IPS_EP_WAY
    with RemapWorker() as worker, pytest.raises(LoadError):
        worker.load(pack(replace(tables, policies=policies, members=members, endpoints=endpoints)))


def test_shares_that_stay_name_nobody() -> None:
    """1:1 -> 1:3: a client that stays where it was is not named; about a quarter moves."""
    net = Net(was=(1, 1), now=(1, 3))
    ways = []
    for host in range(1, 255):
        packet = bytes(IP(src=f"198.51.100.{host}", dst=GLOBAL[4]) / TCP(sport=1, dport=80, flags="A"))
        ways.append(net.send(packet)[0])
    net.close()
    followed = sum(way == ON_TO_A for way in ways)
    assert 30 < followed < 100
    assert all(way == ON_TO_A or way[1] in ("A DECAPSULATED", "B DECAPSULATED") for way in ways)
