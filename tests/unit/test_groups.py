"""S5: members of a group keep talking when an address of one of them changes: packets, tables, routes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from ipshare.agent.netspec import Facts, netspec
from ipshare.config import check_text
from ipshare.engine.desired import desired
from ipshare.engine.plan import diff
from ipshare.engine.plan_text import peer_rows, summarize
from ipshare.net import recipe
from ipshare.net.actions import RouteAdd, RuleAdd
from tests.group_sites import (
    APP,
    APP_NOW,
    BOTH_MOVED,
    DB,
    DB_NOW,
    MOVED,
    SITES,
    STRANGER,
    Sites,
    configured,
    group,
    member,
    sites,
)

DATA = Raw(bytes(range(200)))
FAMILIES = (0, 1)
PAYLOADS = {
    "tcp": TCP(sport=4000, dport=5432, flags="A") / DATA,
    "syn": TCP(sport=4000, dport=5432, flags="S", options=[("MSS", 1460)]),
    "udp": UDP(sport=4000, dport=53) / DATA,
    "sctp": Raw(bytes(60)),
}


def ip(
    family: int, source: tuple[str, ...], target: tuple[str, ...], payload: Packet, **fields: object
) -> bytes:
    header = IPv6 if family else IP
    if isinstance(payload, Raw):
        fields["nh" if family else "proto"] = 132
    return bytes(header(src=source[family], dst=target[family], **fields) / payload)


def read(family: int, packet: bytes) -> Packet:
    return (IPv6 if family else IP)(packet)


def sound(family: int, packet: bytes) -> Packet:
    """The packet, whose checksums must be what they would be if it were made anew."""
    parsed = read(family, packet)
    again = parsed.copy()
    for layer in (IP, TCP, UDP, ICMP):
        if layer in again and hasattr(again[layer], "chksum"):
            del again[layer].chksum
    assert bytes(again) == packet
    return parsed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("groups", [MOVED, BOTH_MOVED], ids=["one moved", "both moved"])
def test_a_member_gets_what_its_peer_sent(name: str, family: int, groups: str) -> None:
    """S5.1, S5.2: byte for byte, both ways; on the way it bears the addresses of now."""
    app_now = APP_NOW if groups is BOTH_MOVED else APP
    with sites(groups) as nodes:
        there, back = (ip(family, *ends, PAYLOADS[name]) for ends in ((APP, DB), (DB, APP)))
        between = sound(family, nodes.one("P", there))
        assert (between.src, between.dst) == (app_now[family], DB_NOW[family])
        assert nodes.through(there) == there
        between = sound(family, nodes.one("B", back))
        assert (between.src, between.dst) == (DB_NOW[family], app_now[family])
        assert nodes.through(back, "B") == back


@given(
    family=st.sampled_from(FAMILIES),
    payload=st.binary(max_size=600),
    ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    is_udp=st.booleans(),
)
def test_whatever_is_said_arrives(family: int, payload: bytes, ports: tuple[int, int], is_udp: bool) -> None:
    layer = UDP if is_udp else TCP
    packet = ip(family, APP, DB, layer(sport=ports[0], dport=ports[1]) / Raw(payload))
    with sites(BOTH_MOVED) as nodes:
        sound(family, nodes.one("P", packet))
        assert nodes.through(packet) == packet


def test_fragments_go_the_same_way() -> None:
    with sites() as nodes:
        for fields in ({"flags": "MF"}, {"frag": 100}):
            packet = bytes(IP(src=APP[0], dst=DB[0], id=9, proto=17, **fields) / Raw(bytes(200)))
            if "frag" not in fields:
                packet = ip(0, APP, DB, UDP(sport=1, dport=2, len=4000) / Raw(bytes(192)), flags="MF")
            assert nodes.through(packet) == packet


@pytest.mark.parametrize("groups", [MOVED, BOTH_MOVED], ids=["one moved", "both moved"])
def test_errors_follow_the_connection_that_they_quote(groups: str) -> None:
    """By a router between the nodes, by the peer itself, and by a router behind the peer's node."""
    app_now = APP_NOW if groups is BOTH_MOVED else APP
    with sites(groups) as nodes:
        sent = ip(0, APP, DB, UDP(sport=4000, dport=53) / DATA)
        between = nodes.one("P", sent)
        on_the_way = bytes(
            IP(src="192.0.2.77", dst=app_now[0]) / ICMP(type=3, code=4, nexthopmtu=1400) / IP(between)
        )
        told = sound(0, nodes.one("P", on_the_way))
        assert (told.src, told.dst) == ("192.0.2.77", APP[0])
        assert (told[IPerror].src, told[IPerror].dst) == (APP[0], DB[0])
        for reporter in (DB[0], "10.2.0.254"):
            error = bytes(IP(src=reporter, dst=APP[0]) / ICMP(type=3, code=3) / IP(sent))
            assert nodes.through(error, "B") == error or reporter != DB[0]
            told = sound(0, nodes.through(error, "B"))
            assert (told.dst, told[IPerror].src, told[IPerror].dst) == (APP[0], APP[0], DB[0])
        sent6 = ip(1, APP, DB, UDP(sport=4000, dport=53) / DATA)
        between6 = nodes.one("P", sent6)
        for kind in (ICMPv6PacketTooBig(mtu=1400), ICMPv6DestUnreach(code=3)):
            error6 = bytes(IPv6(src="2001:db8:f::77", dst=app_now[1]) / kind / IPv6(between6))
            told6 = nodes.one("P", error6)
            assert (IPv6(told6).dst, told6[48:].find(ip_address(DB[1]).packed)) == (APP[1], 24)
            assert told6 == bytes(IPv6(src="2001:db8:f::77", dst=APP[1]) / kind / IPv6(sent6))


def test_an_error_about_somebody_elses_packet_is_passed_on() -> None:
    with sites() as nodes:
        foreign = IP(src=APP[0], dst=STRANGER[0]) / UDP(sport=1, dport=2)
        error = bytes(IP(src="192.0.2.77", dst=APP[0]) / ICMP(type=3, code=1) / foreign)
        assert nodes.one("P", error, "PASS") == error
        contradicts = IP(src="10.9.9.9", dst=DB_NOW[0]) / UDP(sport=1, dport=2)
        error = bytes(IP(src="192.0.2.77", dst=APP[0]) / ICMP(type=3, code=1) / contradicts)
        assert nodes.one("P", error, "PASS") == error
        cut = bytes(IP(src=DB_NOW[0], dst=APP[0]) / ICMP(type=3, code=1) / Raw(bytes([0x45] + [0] * 8)))
        assert nodes.one("P", cut, "PASS") == cut


@pytest.mark.parametrize("family", FAMILIES)
def test_whoever_is_no_member_is_passed_on_as_he_came(family: int) -> None:
    with sites() as nodes:
        for node, source, target in (
            ("P", STRANGER, DB),  # somebody else behind the node uses an address that a member once had
            ("P", DB_NOW, STRANGER),
            ("B", DB, STRANGER),  # the member itself, with the world
            ("B", STRANGER, DB_NOW),
            ("B", DB_NOW, APP),  # the member under its new address
        ):
            packet = ip(family, source, target, PAYLOADS["tcp"])
            assert nodes.one(node, packet, "PASS") == packet


def test_members_of_different_groups_do_not_meet() -> None:
    other = group(
        member("web", "P", STRANGER), member("x", "B", ("10.1.0.77",), ("10.2.0.77",)), name="other"
    )
    with sites(MOVED + other) as nodes:
        packet = ip(0, STRANGER, DB, PAYLOADS["tcp"])
        assert nodes.one("P", packet, "PASS") == packet


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packet_out_of_time_is_answered_in_the_senders_words(family: int) -> None:
    with sites(BOTH_MOVED) as nodes:
        field = "hlim" if family else "ttl"
        made = nodes.P.process("inner", ip(family, APP, DB, PAYLOADS["udp"], **{field: 1}))
        assert made.verdict.name == "TTL_EXPIRED"
        (error,) = made.errors
        assert read(family, error).dst == APP[family]
        assert error.count(ip_address(DB[family]).packed) == 1


def test_super_packets_keep_their_unfinished_checksum() -> None:
    packet = ip(0, APP, DB, TCP(sport=1, dport=2, flags="A", chksum=0x1234) / Raw(bytes(3000)))
    with sites() as nodes:
        fields = {"gso_type": 1, "gso_size": 1000, "csum": 1, "csum_start": 20, "csum_offset": 16}
        between = IP(nodes.one("P", packet, **fields))
        assert between.dst == DB_NOW[0] and between[TCP].chksum != 0x1234


BEFORE = group(member("app", "P", APP), member("db", "B", DB, (), DB_NOW))
AFTER = group(member("app", "P", APP), member("db", "B", DB, DB_NOW, ("10.3.0.9", "fd00:3::9")))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("late", ["P", "B"])
def test_nodes_may_learn_of_a_move_one_after_the_other(family: int, late: str) -> None:
    """Where the new address is understood before it is used, and the last one after it was, no packet ever
    gets to somebody who does not know the connection."""
    second = group(member("app", "P", APP), member("db", "B", DB, ("10.3.0.9", "fd00:3::9"), DB_NOW))
    for old, new in ((BEFORE, MOVED), (AFTER, second)):
        with sites(old) as was, sites(new) as now:
            mixed = Sites(was.P, now.B) if late == "P" else Sites(now.P, was.B)
            there, back = (ip(family, *ends, PAYLOADS["tcp"]) for ends in ((APP, DB), (DB, APP)))
            if old is BEFORE and late == "P":  # it still sends to where the database was; nobody is there
                assert mixed.one("P", there) == there
            else:
                assert mixed.through(there) == there
            if old is BEFORE and late == "B":
                assert mixed.one("B", back) == back
            else:
                assert mixed.through(back, "B") == back


# ---- tables and routes ----


def test_only_nodes_next_to_a_member_are_told_and_only_of_families_in_which_something_moved() -> None:
    """S5.2."""
    partly = group(member("app", "P", APP), member("db", "B", DB, DB_NOW[:1]))
    assert len(desired(configured("P", partly)).peers) == 2
    assert not len(desired(configured("C", partly)).peers)
    still = group(member("app", "P", APP), member("db", "B", DB))
    assert not len(desired(configured("P", still)).peers)


def test_a_second_move_replaces_the_first_and_leaving_removes_everything() -> None:
    """S5.3."""
    first = desired(configured("P", MOVED))
    again = group(member("app", "P", APP), member("db", "C", DB, ("10.3.0.9", "fd00:3::9")))
    second = desired(configured("P", again))
    assert len(second.peers) == len(first.peers)
    assert summarize(diff(first, second)).lines() == [
        "~ peer 10.1.0.9: 10.2.0.9 -> 10.3.0.9",
        "~ peer fd00:1::9: fd00:2::9 -> fd00:3::9",
    ]
    gone = desired(configured("P", group(member("app", "P", APP))))
    assert {change.verb for change in diff(first, gone)} == {"remove"} and not len(gone.peers)
    away = netspec(configured("P", group(member("app", "P", APP))), Facts())
    assert not away.peers.addresses


def test_what_goes_into_the_engine() -> None:
    spec = netspec(configured("P", MOVED), Facts())
    actions = recipe(spec)
    routes = {(a.table, a.prefix, a.device) for a in actions if isinstance(a, RouteAdd) and a.device}
    assert (4900, "10.1.0.9/32", "ips-in") in routes and (4903, "10.1.0.5/32", "ips-in") in routes
    assert (4900, "fd00:1::9/128", "ips-in") in routes and (4903, "fd00:1::5/128", "ips-in") in routes
    rules = {
        (a.source, a.destination, a.protocol) for a in actions if isinstance(a, RuleAdd) and a.table == 4903
    }
    assert rules == {
        ("10.2.0.9/32", None, None),
        (None, "10.1.0.5/32", 1),
        ("fd00:2::9/128", None, None),
        (None, "fd00:1::5/128", 58),
    }
    moved = netspec(configured("B", MOVED), Facts())
    assert moved.peers.diverted == (ip_address(DB_NOW[0]), ip_address(DB_NOW[1]))
    assert moved.peers.sources == (ip_address(DB[0]), ip_address(DB[1]))
    assert ip_network("10.1.0.9/32") not in moved.local_networks


def test_show_names_what_each_member_is_called_and_where_it_is() -> None:
    rows = peer_rows(desired(configured("B", AFTER)))
    assert rows[1] == {"group": 1, "address": DB[0], "now": DB_NOW[0], "also": ["10.3.0.9"], "here": True}
    assert rows[0] == {"group": 1, "address": APP[0], "now": APP[0], "also": [], "here": False}


MISTAKES = {
    "no member": ('[[group]]\nname = "g"\nmember = []\n', "has no member"),
    "no such end point": (group(member("app", "Q", APP)), "no end point named 'Q'"),
    "two of a name": (group(member("app", "P", APP), member("app", "B", DB)), "'app' is taken"),
    "no address": (group(member("app", "P", ())), "no address"),
    "two of a family": (group(member("app", "P", ("10.1.0.5", "10.1.0.6"))), "second IPv4"),
    "from one family to another": (group(member("app", "P", APP[:1], APP_NOW[1:])), "is IPv6"),
    "to where it was": (group(member("app", "P", APP, APP[:1])), "is an address of its already"),
    "an address of two": (group(member("app", "P", APP), member("db", "B", APP[:1])), "a member's already"),
    "where another was": (
        group(member("app", "P", APP), member("db", "B", DB, APP[:1])),
        "a member's already",
    ),
    "an address in two groups": (MOVED + group(member("db", "B", DB), name="more"), "a member's already"),
    "loopback": (group(member("app", "P", ("127.0.0.1",))), "no member can have it"),
    "in a local network": (group(member("app", "P", ("10.101.0.5",))), "in local network"),
    "a Global IP": (
        '[[network]]\nname = "g"\nprefix = "10.1.0.0/24"\n' + group(member("app", "P", APP)),
        "in Global Network",
    ),
    "two groups of a name": (MOVED + group(member("x", "P", STRANGER)), "'shop' is taken"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_said_where_they_are(name: str) -> None:
    text, words = MISTAKES[name]
    report = check_text(SITES.format(node="P") + text.replace("'", '"'))
    assert report.config is None
    assert any(words in problem.message for problem in report.problems), report.problems
    assert all(problem.line for problem in report.problems)
