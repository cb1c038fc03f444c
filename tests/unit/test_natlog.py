"""NAT logs: what is recorded, the IPFIX messages (RFC 7011, RFC 8158) and syslog lines (RFC 5424) of it.

Messages are read by two readers that share nothing with the writer: tests/ipfix.py, and scapy's.
"""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.netflow import NetflowDataflowsetV9, NetflowHeader, NetflowSession

from ipshare.core import ffi, lib
from tests.ipfix import Collector, plain
from tests.napt_door import (
    ACK,
    INDEPENDENT,
    INSIDE,
    REALM,
    REMOTE,
    RST,
    SYN,
    TCP,
    TICK,
    UDP,
    WEB,
    A,
    B,
    Flow,
    Nat,
    S,
    through,
    unpacked,
)

UNIX = 1_790_000_000 * S + 123_000_000
SESSIONS, MAPPINGS, LIMITS = 1, 2, 4
CREATE, DELETE, BIND, UNBIND, EXHAUSTED, QUOTA = 4, 5, 8, 9, 12, 13
FAMILIES = pytest.mark.parametrize("family", (4, 6))


class Log:
    """A log behind a NAT, and the writers of its messages."""

    def __init__(self, nat: Nat | None, what: int, *, workers: int = 2, records: int = 64) -> None:
        self.nat, self.x = nat, ffi.new("struct ips_ipfix *", {"domain": 77, "template_ns": 600 * S})
        self.s = ffi.new("struct ips_syslog *", {"facility": 16, "pid": 4711, "host": b"gw-1"})
        self.l = lib.ips_natlog_new(workers, records)
        assert self.l
        lib.ips_natlog_want(self.l, what)
        if nat:
            lib.ips_sessions_set_log(nat.s, self.l)

    def __del__(self) -> None:
        if self.nat:
            lib.ips_sessions_set_log(self.nat.s, ffi.NULL)
        lib.ips_natlog_free(self.l)

    def take(self, room: int = 100) -> Any:
        out = ffi.new("struct ips_natlog_rec[]", room)
        return out[0 : lib.ips_natlog_take(self.l, out, room)]

    def events(self) -> list[tuple[int, tuple[str, int], tuple[str, int]]]:
        """(event, inside end, public end) of all there are."""
        found = []
        for r in self.take():
            inside = (unpacked(r.flow.src, r.flow.family), r.flow.src_port)
            found.append((r.event, inside, (unpacked(r.mapped, r.flow.family), r.mapped_port)))
        return found

    @property
    def lost(self) -> int:
        stats = ffi.new("struct ips_natlog_stats *")
        lib.ips_natlog_stats(self.l, stats)
        assert stats.put >= stats.taken
        return int(stats.lost)

    def messages(self, records: Any, lost: int = 0, room: int = 1400, now: int = 10**12) -> list[bytes]:
        """All of the records, and what else is due."""
        n, found = len(records), []
        array = ffi.new("struct ips_natlog_rec[]", max(n, 1))
        for i in range(n):
            array[i] = records[i]
        used, out, at = ffi.new("size_t *"), ffi.new("uint8_t[]", room), 0
        while size := lib.ips_ipfix_message(self.x, array + at, n - at, used, lost, now, UNIX, out, room):
            assert size <= room
            found.append(bytes(ffi.buffer(out, size)))
            at += used[0]
        assert at + used[0] == n
        return found

    def line(self, record: Any, now: int, room: int = 512) -> str:
        out = ffi.new("char[]", room)
        p = ffi.new("struct ips_natlog_rec *", record)
        return bytes(ffi.buffer(out, lib.ips_syslog_line(self.s, p, now, UNIX, out, room))).decode()


def record(event: int = CREATE, family: int = 4, **fields: Any) -> Any:
    flow = {
        "src": list(ip_address(INSIDE[family][0]).packed.ljust(16, b"\0")),
        "dst": list(ip_address(REMOTE[family][0]).packed.ljust(16, b"\0")),
        "src_port": 1000,
        "dst_port": 443,
        "family": family,
        "proto": TCP,
        "realm": REALM,
    }
    mapped = {4: "203.0.113.9", 6: "2001:db8:ff::9"}[family]
    values = {
        "flow": flow,
        "mapped": list(ip_address(mapped).packed.ljust(16, b"\0")),
        "mapped_port": 40000,
        "at_ns": 10**12,
        "event": event,
        "packets": [3, 2],
        "bytes": [300, 2000],
    }
    return ffi.new("struct ips_natlog_rec *", values | fields)[0]


# ---- what is recorded ----------------------------------------------------------


@FAMILIES
def test_a_mapping_is_told_once_for_all_its_sessions(family: int) -> None:
    nat = Nat()
    log = Log(nat, MAPPINGS)
    address, port = REMOTE[family]
    public = through(nat, UDP, INSIDE[family], (address, port))
    through(nat, UDP, INSIDE[family], (address[:-1] + "7", 9))
    assert log.events() == [(BIND, INSIDE[family], public)]
    nat.close(Flow(UDP, INSIDE[family], (address, port)))
    assert log.events() == []
    nat.close(Flow(UDP, INSIDE[family], (address[:-1] + "7", 9)))
    assert log.events() == [(UNBIND, INSIDE[family], public)]


def test_a_mapping_record_says_nothing_of_the_destination() -> None:
    """RFC 6888 REQ-12: destinations are not logged unless an operator wants them."""
    nat = Nat()
    log = Log(nat, MAPPINGS)
    through(nat, UDP, A, WEB)
    (r,) = log.take()
    assert not any(bytes(r.flow.dst)) and r.flow.dst_port == 0


@FAMILIES
def test_each_session_is_told_half_open_ones_too(family: int) -> None:
    """A flow of one packet had its public port as well."""
    nat = Nat()
    log = Log(nat, SESSIONS)
    f = Flow(TCP, INSIDE[family], REMOTE[family])
    public = through(nat, TCP, *f[1:])
    assert log.events() == [(CREATE, INSIDE[family], public)]
    nat.now += 100_000
    assert nat.expire() == 1
    (r,) = log.take()
    assert (r.event, r.mapped_port, list(r.packets)) == (DELETE, public[1], [1, 0])
    assert r.at_ns == nat.ns, "when it ended, not when its last packet was"


def test_a_session_that_begins_anew_ends_first() -> None:
    nat = Nat()
    log = Log(nat, SESSIONS)
    public = through(nat, TCP, A, WEB)
    nat.back(Flow(TCP, WEB, public))
    nat.out(Flow(TCP, A, WEB), ACK)
    nat.out(Flow(TCP, A, WEB), RST)
    log.take()
    nat.out(Flow(TCP, A, WEB), SYN)
    assert [e[0] for e in log.events()] == [DELETE, CREATE]


def test_who_began_is_told() -> None:
    nat = Nat(filtering=INDEPENDENT)
    log = Log(nat, SESSIONS)
    public = through(nat, UDP, A, WEB)
    assert nat.back(Flow(UDP, ("198.51.100.77", 5), public))[0] == "OK"
    assert [r.from_outside for r in log.take()] == [0, 1]


def test_what_is_not_wanted_is_not_recorded() -> None:
    nat = Nat(ports=(2000, 2000), addresses=1)
    log = Log(nat, 0)
    through(nat, UDP, A, WEB)
    assert nat.out(Flow(UDP, B, WEB))[0] == "PORTS_EXHAUSTED"
    assert log.events() == []


def test_a_refused_opening_leaves_no_mapping_in_the_log() -> None:
    nat = Nat(half_open=1)
    log = Log(nat, MAPPINGS)
    through(nat, UDP, A, WEB)
    assert nat.out(Flow(UDP, B, WEB))[0] == "HALF_OPEN_FULL"
    assert [e[0] for e in log.events()] == [BIND]


def test_a_standby_logs_nothing_and_a_promoted_one_the_ends() -> None:
    active, standby = Nat(), Nat(standby=1)
    log = Log(standby, SESSIONS | MAPPINGS)
    through(active, UDP, A, WEB)
    active.out(Flow(UDP, A, WEB))
    (op, r) = active.events[-1]
    assert standby.apply(op, r)[0] == 0 and log.events() == []
    lib.ips_sessions_promote(standby.s, standby.ns)
    standby.close(r.flow)
    assert log.events() == [(DELETE, A, r.mapped), (UNBIND, A, r.mapped)]


@pytest.mark.parametrize(
    ("config", "quota", "limit"),
    [
        ({"ports": (2000, 2000), "addresses": 1}, 0, 0),
        ({"sessions": 9, "half_open": 1}, 1, 1),
        ({"mappings": 1}, 2, 1),
        ({"half_open_per_source": 1, "source_bits4": 8}, 3, 1),
    ],
    ids=("ports", "sessions", "mappings", "source"),
)
def test_limits_are_told_once_a_second(config: dict[str, Any], quota: int, limit: int) -> None:
    nat = Nat(**config)
    log = Log(nat, LIMITS, workers=1)
    through(nat, UDP, A, WEB)
    for _ in range(5):
        assert nat.out(Flow(UDP, B, WEB))[0] != "OK"
    (r,) = log.take()
    assert (r.event, r.quota, r.limit) == (QUOTA if quota else EXHAUSTED, quota, limit)
    assert unpacked(r.flow.src, 4) == B[0]
    nat.now += S // TICK + 1
    nat.out(Flow(UDP, B, WEB))
    assert len(log.take()) == 1


def test_a_full_ring_loses_and_counts() -> None:
    log = Log(None, SESSIONS, workers=1, records=8)
    r = ffi.new("struct ips_natlog_rec *", record())
    assert [lib.ips_natlog_put(log.l, 0, r) for _ in range(11)] == [True] * 8 + [False] * 3
    assert log.lost == 3 and len(log.take()) == 8
    assert lib.ips_natlog_put(log.l, 0, r) and log.lost == 3


@pytest.mark.parametrize(("workers", "records"), [(0, 8), (1, 0), (1, 6), (1, 1), (1, 1 << 21), (2000, 8)])
def test_numbers_out_of_range_make_no_log(workers: int, records: int) -> None:
    assert not lib.ips_natlog_new(workers, records)


# ---- IPFIX ---------------------------------------------------------------------


@FAMILIES
def test_a_session_in_ipfix(family: int) -> None:
    log, c = Log(None, 0), Collector()
    (message,) = log.messages([record(DELETE, family)])
    (r,) = map(plain, c.read(message))
    src, nat, dst, nat_dst = {4: (8, 225, 12, 226), 6: (27, 281, 28, 282)}[family]
    assert c.domain == 77 and c.export_time == UNIX // S
    assert {k: r[k] for k in (323, 230, 297, 463, 4, 229)} == {
        323: UNIX // 10**6,
        230: 5,
        297: {4: 1, 6: 5}[family],
        463: REALM,
        4: 6,
        229: 1,
    }
    assert (r[src], r[7], r[227], r[11], r[228]) == (INSIDE[family][0], 1000, 40000, 443, 443)
    assert (r[nat], r[dst]) == ({4: "203.0.113.9", 6: "2001:db8:ff::9"}[family], REMOTE[family][0])
    assert r[nat_dst] == r[dst]
    assert (r[298], r[231], r[299], r[232]) == (3, 300, 2, 2000)


KINDS = [
    *((event, 0, family) for event in (4, 5, 8, 9, 12) for family in (4, 6)),
    *((13, quota, family) for quota in (1, 2, 3) for family in (4, 6)),
]


@pytest.mark.parametrize(("event", "quota", "family"), KINDS)
def test_scapy_reads_the_same(event: int, quota: int, family: int) -> None:
    """Templates in a message of their own: scapy takes what follows an options template for padding."""
    log, c, scapy = Log(None, 0), Collector(), NetflowSession()
    (templates,) = log.messages([])
    (message,) = log.messages([record(event, family, quota=quota, limit=1234)])
    c.read(templates)
    (mine,) = c.read(message)
    assert plain(mine)[230] == event
    if quota:
        assert (plain(mine)[466], plain(mine)[470 + quota]) == (quota, 1234)
    scapy.process(NetflowHeader(templates))
    read = layers(scapy.process(NetflowHeader(message)))
    (data,) = [layer for layer in read if isinstance(layer, NetflowDataflowsetV9)]
    (theirs,) = data.records
    assert data.templateID.to_bytes(2, "big") == mine.pop(-1)
    assert len(theirs.fields) == len(mine) and bytes(theirs) == b"".join(mine.values())


def layers(packet: Any) -> list[Any]:
    """Of a packet, or of the packets that scapy's session made of it."""
    found = []
    for one in packet if isinstance(packet, list) else [packet]:
        while one and one.__class__.__name__ != "NoPayload":
            found.append(one)
            one = one.payload
    return found


def test_golden_bytes() -> None:
    log = Log(None, 0)
    first, second = log.messages([]), log.messages([record(BIND)])
    assert len(first) == 1 and len(second) == 1
    assert second[0].hex() == (
        "000a002f" "6ab13b80" "00000000" "0000004d"  # version, length, export time, sequence, domain
        "0104001f"  # set 260: one mapping
        "000001a0c4506c7b" "08" "01" "00000007" "06" "0a000001" "cb007109" "03e8" "9c40"
    )


def test_records_in_a_row_share_a_set_and_messages_keep_to_the_room() -> None:
    log, c = Log(None, 0), Collector()
    records = [record(CREATE, 4, mapped_port=i + 1) for i in range(100)]
    messages = log.messages(records)
    got = [r for message in messages for r in c.read(message)]
    assert [plain(r)[227] for r in got] == [*range(1, 101)] and c.missed == 0
    assert all(len(m) > 1400 - 60 for m in messages[:-1])
    assert [message[16:18] for message in messages[1:]] == [b"\x01\x00"] * (len(messages) - 1)


def test_templates_come_again_in_time_and_count_for_nothing() -> None:
    """RFC 7011 8.1, 10.3.6; 3.1: only data records raise the sequence number."""
    log = Log(None, 0)
    (first,) = log.messages([record()], now=10**12)
    (second,) = log.messages([record()], now=10**12 + 599 * S)
    (third,) = log.messages([], now=10**12 + 600 * S)
    assert [struct.unpack_from("!I", m, 8)[0] for m in (first, second, third)] == [0, 1, 2]
    late = Collector()
    assert late.read(second) == [] and late.unknown == 1
    late.read(third)
    assert len(late.templates) == 13 and log.messages([]) == []


def test_a_lost_message_shows_in_the_sequence() -> None:
    log, c = Log(None, 0), Collector()
    sent = [log.messages([record()])[0] for _ in range(4)]
    for message in (sent[0], sent[3]):
        c.read(message)
    assert c.missed == 2


def test_the_sequence_goes_round() -> None:
    log, c = Log(None, 0), Collector()
    log.x.sequence = 2**32 - 1
    for _ in range(3):
        c.read(log.messages([record()])[0])
    assert c.missed == 0 and c.next_sequence == 2


def test_losses_are_told_when_they_grow() -> None:
    log, c = Log(None, 0), Collector()
    (message,) = log.messages([record()], lost=5)
    losses, data = c.read(message)
    assert {k: plain(losses)[k] for k in (144, 166)} == {144: 77, 166: 5} and c.scopes == {268: 1}
    assert plain(data)[230] == CREATE
    assert [len(c.read(m)) for m in log.messages([record()], lost=5)] == [1]
    (message,) = log.messages([], lost=9)
    assert plain(c.read(message)[0])[166] == 9 and c.missed == 0


def test_too_little_room_says_nothing_and_loses_nothing() -> None:
    log, used = Log(None, 0), ffi.new("size_t *")
    r, out = ffi.new("struct ips_natlog_rec[]", 1), ffi.new("uint8_t[]", 1231)
    r[0] = record()
    assert lib.ips_ipfix_message(log.x, r, 1, used, 0, 5, UNIX, out, 1231) == 0
    assert used[0] == 0 and log.x.sequence == 0


def test_what_is_no_event_is_passed_over() -> None:
    log, c = Log(None, 0), Collector()
    log.messages([])
    assert log.messages([record(99)]) == []
    (message,) = log.messages([record(99), record(), record(0)])
    assert len(c.read(message)) == 0 and c.unknown == 1 and log.x.sequence == 1


# ---- syslog --------------------------------------------------------------------

LINE = re.compile(
    r"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) - (.+)"
)


def test_a_line_is_rfc_5424() -> None:
    log = Log(None, 0)
    line = log.line(record(DELETE), 10**12 + 2 * S)
    match = LINE.fullmatch(line)
    assert match and match[1] == str(16 * 8 + 6)
    assert match.groups()[1:6] == ("2026-09-21T14:13:18.123Z", "gw-1", "ipshare", "4711", "SESSION-DELETE")
    assert match[7] == (
        "realm=7 proto=6 inside=10.0.0.1:1000 public=203.0.113.9:40000 remote=198.51.100.1:443 "
        "begun=inside packets=3/2 bytes=300/2000"
    )


@pytest.mark.parametrize(("event", "quota", "family"), KINDS)
def test_every_kind_has_a_line(event: int, quota: int, family: int) -> None:
    log = Log(None, 0)
    match = LINE.fullmatch(log.line(record(event, family, quota=quota, limit=8), 10**12))
    assert match and ("[fd00::1]:1000" if family == 6 else "10.0.0.1:1000") in match[7]
    assert match[1] == str(16 * 8 + (4 if event >= EXHAUSTED else 6))
    assert ("limit=8" in match[7]) == bool(quota)
    assert ("remote=" in match[7]) == (event in (CREATE, DELETE))


def test_a_line_that_does_not_fit_is_none() -> None:
    log = Log(None, 0)
    whole = log.line(record(DELETE, 6), 10**12)
    assert 0 < len(whole) < 400
    for room in range(1, len(whole) + 1):
        assert log.line(record(DELETE, 6), 10**12, room) == ""
    assert log.line(record(DELETE, 6), 10**12, len(whole) + 1) == whole


def test_losses_and_a_host_without_a_name_in_syslog() -> None:
    s, out = ffi.new("struct ips_syslog *", {"facility": 3, "pid": 1}), ffi.new("char[]", 512)
    n = lib.ips_syslog_lost(s, 12, UNIX, out, 512)
    match = LINE.fullmatch(bytes(ffi.buffer(out, n)).decode())
    assert match and (match[1], match[3], match[6], match[7]) == ("28", "-", "RECORDS-LOST", "lost=12")
