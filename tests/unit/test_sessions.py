"""The session table: states, time-outs, half-open flows, limits, what a peer says, scans (DESIGN.md 7, 8).

Four workers at one table: native/tests/sessions_threads.c. With translation: test_napt.py.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ipshare.core import dtype, ffi, lib
from tests.napt_door import ACK, ESP, FIN, ICMP, RST, SYN, TCP, UDP, Flow, Rec, Sessions, c_rec, packet, ticks
from tests.packet_doors import Packet, name

OTHER, ONE_SIDED, MIDSTREAM, ONLY = 1, 2, 4, 8
OPENING, OPEN, CLIENT, SERVER, CLOSED, RESET = 1, 2, 3, 4, 5, 6
UPSERT, DELETE = 1, 2
APPLIED, STALE, CONFLICT, FULL, BAD = range(5)
TRACK, NAPT, DISPATCH = 1, 2, 3
WEB = Flow(TCP, ("198.51.100.7", 40000), ("203.0.113.5", 443))
DNS = Flow(UDP, ("2001:db8::7", 5000), ("2001:db8:1::5", 53))


def numbered(i: int, proto: int = UDP) -> Flow:
    return Flow(proto, (f"10.0.{i >> 8}.{i & 255}", 1000), ("203.0.113.5", 53))


def opened(t: Sessions, f: Flow) -> Sessions:
    """Past half-open, both sides."""
    assert t.see(f, SYN) == "OK"
    assert t.see(f, SYN | ACK, OTHER) == "OK"
    return t


def record(f: Flow = WEB, **fields: object) -> Rec:
    plain = Rec(f, ("0.0.0.0" if ":" not in f.src[0] else "::", 0), TRACK, OPEN, 0, 1, 0, 0, (1, 1), (60, 60))
    return plain._replace(**fields)  # type: ignore[arg-type]


def all_sums(t: Sessions) -> list[int]:
    out = ffi.new("uint64_t[256]")
    lib.ips_sessions_sums(t.s, out)
    return list(out)


def test_sums_that_are_counted_in_parts_are_those_of_the_beginning() -> None:
    """Whatever is applied meanwhile, before and behind the count: changed, ended, new, ended and new."""
    t = Sessions(standby=1)
    for i in range(300):
        assert t.apply(UPSERT, record(numbered(i)))[0] == APPLIED
    assert t.apply(DELETE, record(numbered(299), version=2))[0] == APPLIED, "a node that is free"
    wanted, out, version = all_sums(t), ffi.new("uint64_t[256]"), itertools.count(10)
    assert lib.ips_sessions_begin_sums(t.s)
    while not lib.ips_sessions_more_sums(t.s, 16, out):
        at = next(version)
        for i in (at % 7, 140 + at % 9, 280 + at % 11):
            t.apply(UPSERT, record(numbered(i), version=at, state=CLIENT))
            t.apply(DELETE if at % 2 else UPSERT, record(numbered(i + 3), version=at, state=SERVER))
        t.apply(UPSERT, record(numbered(400 + at), version=at))
    assert list(out) == wanted and all_sums(t) != wanted
    assert lib.ips_sessions_begin_sums(t.s) and lib.ips_sessions_more_sums(t.s, 1 << 20, out)
    assert list(out) == all_sums(t)


def test_what_is_swept_while_sums_are_counted_is_in_them() -> None:
    t = Sessions(standby=1)
    for i in range(100):
        t.apply(UPSERT, record(numbered(i)))
    wanted, out = all_sums(t), ffi.new("uint64_t[256]")
    assert lib.ips_sessions_begin_sums(t.s) and not lib.ips_sessions_more_sums(t.s, 50, out)
    lib.ips_sessions_begin_snapshot(t.s, -1, False)
    lib.ips_sessions_end_snapshot(t.s, -1, True)
    assert not lib.ips_sessions_sweep(t.s, 0, 1000) and t.stat("sessions") == 0
    assert lib.ips_sessions_more_sums(t.s, 50, out) and list(out) == wanted


def test_no_sums_begin_while_sessions_are_being_swept() -> None:
    t = Sessions(standby=1)
    for i in range(10):
        t.apply(UPSERT, record(numbered(i)))
    lib.ips_sessions_begin_snapshot(t.s, -1, False)
    lib.ips_sessions_end_snapshot(t.s, -1, True)
    assert lib.ips_sessions_sweep(t.s, 0, 5) and not lib.ips_sessions_begin_sums(t.s)
    assert not lib.ips_sessions_sweep(t.s, 0, 5) and lib.ips_sessions_begin_sums(t.s)


# ---- states -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "state"),
    [
        ([(SYN, 0)], OPENING),
        ([(SYN, 0), (SYN, 0)], OPENING),
        ([(SYN, 0), (ACK, 0)], OPENING),  # both sides are seen: the server has not spoken
        ([(SYN, 0), (SYN | ACK, 1)], OPEN),
        ([(SYN, 0), (SYN, 1)], OPEN),  # RFC 5382 REQ-2: simultaneous open
        ([(SYN, 0), (SYN | ACK, 1), (FIN | ACK, 0)], CLIENT),
        ([(SYN, 0), (SYN | ACK, 1), (FIN | ACK, 1)], SERVER),
        ([(SYN, 0), (SYN | ACK, 1), (FIN | ACK, 1), (FIN | ACK, 0), (ACK, 1)], CLOSED),
        ([(SYN, 0), (SYN | ACK, 1), (FIN | ACK, 0), (FIN | ACK, 0)], CLIENT),
        ([(SYN, 0), (SYN | ACK, 1), (RST, 1), (ACK, 0)], RESET),
        ([(SYN, 0), (SYN | ACK, 1), (RST, 1), (SYN, 0)], OPENING),  # a SYN on a closed flow opens anew
        ([(SYN, 0), (SYN | ACK, 1), (SYN, 0)], OPEN),
    ],
)
def test_tcp_with_both_sides_seen(segments: list[tuple[int, int]], state: int) -> None:
    t = Sessions()
    assert {t.see(WEB, flags, side) for flags, side in segments} == {"OK"}
    r = t.get(WEB)
    assert r is not None and r.state == state


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ([SYN], OPENING),
        ([SYN, SYN], OPENING),
        ([SYN, ACK], OPEN),
        ([SYN, ACK, FIN | ACK], CLIENT),
        ([SYN, FIN | ACK], CLIENT),
        ([SYN, ACK, RST], RESET),
        ([SYN, ACK, FIN | ACK, SYN], OPENING),
    ],
)
def test_tcp_with_the_client_alone_seen(flags: list[int], state: int) -> None:
    t = Sessions()
    assert {t.see(WEB, f, ONE_SIDED) for f in flags} == {"OK"}
    r = t.get(WEB)
    assert r is not None and (r.state, r.flags) == (state, 2)


@pytest.mark.parametrize(
    ("proto", "seconds"), [(UDP, 300), (ICMP, 60), (ESP, 600)], ids=["udp", "icmp", "other"]
)
def test_other_protocols_open_when_both_spoke_and_last_as_long_as_they_should(
    proto: int, seconds: int
) -> None:
    """RFC 4787 REQ-5 (UDP: not under two minutes), RFC 5508 REQ-2 (ICMP: not under 60 s)."""
    t, f = Sessions(), numbered(1, proto)
    assert t.see(f) == "OK"
    assert t.see(f, see=OTHER) == "OK"
    r = t.get(f)
    assert r is not None and r.state == OPEN
    t.now += ticks(seconds)
    assert t.expire() == 0
    t.now += 1
    assert (t.expire(), t.get(f)) == (1, None)


@pytest.mark.parametrize(
    ("segments", "seconds"),
    [
        ([(SYN, 0)], 240),
        ([(SYN, 0), (SYN | ACK, 1)], 7440),
        ([(SYN, 0), (SYN | ACK, 1), (FIN | ACK, 0)], 7440),
        ([(SYN, 0), (SYN | ACK, 1), (FIN | ACK, 0), (FIN | ACK, 1)], 240),
        ([(SYN, 0), (SYN | ACK, 1), (RST, 1)], 240),
        ([(SYN, ONE_SIDED), (ACK, ONE_SIDED), (FIN | ACK, ONE_SIDED)], 240),
    ],
)
def test_tcp_time_outs(segments: list[tuple[int, int]], seconds: int) -> None:
    """RFC 5382 REQ-5: established at least 2 h 4 min, transitory at least 4 min; never early."""
    t = Sessions()
    for flags, see in segments:
        t.see(WEB, flags, see)
    t.now += ticks(seconds)
    assert t.expire() == 0
    t.now += 1
    assert t.expire() == 1


def test_what_may_open_a_session() -> None:
    t = Sessions()
    assert {t.see(WEB, f) for f in (ACK, RST, FIN | ACK, SYN | ACK)} == {"NO_SESSION"}
    assert t.see(WEB, SYN, OTHER) == t.see(WEB, SYN, ONLY) == "NO_SESSION"
    assert {t.see(WEB, f, MIDSTREAM) for f in (RST, FIN | ACK)} == {"NO_SESSION"}
    assert t.see(WEB, ACK, MIDSTREAM) == "OK"


def test_packets_of_both_families_are_seen_before_translation() -> None:
    t = Sessions()

    def see(f: Flow, see: int = 0, **fields: int) -> str:
        p = Packet(packet(f, **fields))
        return name(lib.ips_session_see_packet(t.s, 0, p.c, 7, see, ffi.NULL, t.ns))

    for f in (WEB, DNS):
        assert see(f) == "OK"
        assert see(Flow(f.proto, f.dst, f.src), OTHER, flags=SYN | ACK) == "OK"
        r = t.get(f)
        assert r is not None and (r.state, r.packets) == (OPEN, (1, 1))
    ping = Flow(ICMP, ("10.0.0.1", 77), ("203.0.113.5", 0))
    assert see(ping, kind=8) == "OK"
    assert t.get(ping) is not None
    assert see(ping, kind=3) == see(ping, kind=13) == "NO_SESSION"


# ---- half-open flows, limits --------------------------------------------------


def test_half_open_flows_are_neither_told_nor_scanned_until_they_prove_themselves() -> None:
    t = Sessions()
    t.see(WEB, SYN)
    assert (t.events, t.scan(), t.stat("half_open")) == ([], [], 1)
    t.see(WEB, SYN | ACK, OTHER)
    assert [op for op, _ in t.events] == [UPSERT]
    assert (t.scan(), t.stat("half_open"), t.stat("sessions")) == ([t.events[0][1]], 0, 1)


def test_a_flood_of_syns_takes_no_session_s_place() -> None:
    t = opened(Sessions(sessions=100, half_open=50), WEB)
    verdicts = [t.see(numbered(i, TCP), SYN) for i in range(1000)]
    assert verdicts.count("OK") == 50 and verdicts.count("HALF_OPEN_FULL") == 950
    assert (t.stat("half_open_full"), t.stat("sessions")) == (950, 1)
    assert t.see(WEB, ACK) == "OK"
    t.now += ticks(240) + 1
    assert t.expire() == 50
    assert t.see(numbered(7, TCP), SYN) == "OK"


@pytest.mark.parametrize("family", [4, 6])
def test_a_source_has_a_limit_of_its_own(family: int) -> None:
    t = Sessions(half_open_per_source=10, source_bits4=24, source_bits6=48)
    base = "10.0.{}.{}" if family == 4 else "2001:db8:{}:{}::1"
    dst = ("203.0.113.5", 80) if family == 4 else ("2001:db8:ff::1", 80)
    first = [t.see(Flow(TCP, (base.format(1, i), 9), dst), SYN) for i in range(20)]
    assert first == ["OK"] * 10 + ["SOURCE_LIMIT"] * 10
    assert t.see(Flow(TCP, (base.format(2, 1), 9), dst), SYN) == "OK"
    t.see(Flow(TCP, (base.format(1, 0), 9), dst), SYN | ACK, OTHER)  # proves itself: room for one more
    again = [t.see(Flow(TCP, (base.format(1, i), 9), dst), SYN) for i in (20, 21)]
    assert again == ["OK", "SOURCE_LIMIT"]


def test_full_refuses_the_new_and_keeps_the_old() -> None:
    t = Sessions(sessions=20, half_open=30)
    for i in range(20):
        opened(t, numbered(i, TCP))
    assert t.see(numbered(99, TCP), SYN) == "SESSIONS_FULL"
    assert t.stat("full") == 1
    assert {t.see(numbered(i, TCP), ACK) for i in range(20)} == {"OK"}
    assert t.close(numbered(3, TCP)) == 1
    assert t.see(numbered(99, TCP), SYN) == "OK"


def test_a_half_open_flow_that_finds_the_table_full_stays_half_open() -> None:
    t = Sessions(sessions=1, half_open=5)
    t.see(numbered(1, TCP), SYN)
    opened(t, WEB)
    assert t.see(numbered(1, TCP), SYN | ACK, OTHER) == "SESSIONS_FULL"
    t.close(WEB)
    assert t.see(numbered(1, TCP), SYN | ACK, OTHER) == "OK"


def test_a_session_is_at_most_161_bytes_with_everything() -> None:
    """10 M sessions in 1.5 GiB, every one with a mapping of its own: the layout at a tenth of that."""
    t = Sessions(sessions=1 << 20, half_open=1 << 15)
    assert t.stat("bytes") / (1 << 20) <= 1.5 * 2**30 / 10e6


def test_numbers_out_of_range_are_refused() -> None:
    for fields in ({"sessions": 0}, {"half_open": 0}, {"sessions": 1 << 29}, {"source_bits4": 33}):
        c = ffi.new("struct ips_sessions_config *", {"sessions": 10, "half_open": 10} | fields)
        assert lib.ips_sessions_new(c) == ffi.NULL


# ---- events, versions, refresh ------------------------------------------------


def test_every_change_that_matters_is_told_with_a_rising_version() -> None:
    t = opened(Sessions(), WEB)
    for flags, side in ((ACK, 0), (FIN | ACK, 0), (ACK, 1), (FIN | ACK, 1)):
        t.see(WEB, flags, side)
    t.close(WEB)
    assert [(op, r.state) for op, r in t.events] == [
        (UPSERT, OPEN),
        (UPSERT, CLIENT),
        (UPSERT, CLOSED),
        (DELETE, CLOSED),
    ]
    versions = [r.version for _, r in t.events]
    assert versions == sorted(set(versions))
    opened(t, WEB)
    assert t.events[-1][1].version > versions[-1]  # a later session of the same flow: later versions


def test_an_active_session_reports_itself_now_and_then() -> None:
    t = opened(Sessions(timeouts={"refresh": 30}), WEB)
    t.events.clear()
    for _ in range(100):
        t.now += ticks(30) // 10
        t.see(WEB, ACK)
    assert 9 <= len(t.events) <= 11
    assert {r.idle_ms for _, r in t.events} == {0}
    assert t.events[-1][1].packets[0] > 80


def test_a_promotion_restarts_every_time_out_and_a_standby_expires_nothing() -> None:
    t = Sessions(standby=1)
    assert t.apply(UPSERT, record(state=OPEN))[0] == APPLIED
    t.now += ticks(100_000)
    assert (t.expire(), t.stat("standby")) == (0, 1)
    lib.ips_sessions_promote(t.s, t.ns)
    assert (t.expire(), t.stat("standby")) == (0, 0)
    t.now += ticks(7440)
    assert t.expire() == 0
    t.now += 1
    assert t.expire() == 1


# ---- what a peer says -----------------------------------------------------------


def test_a_stream_of_events_makes_the_same_table() -> None:
    a, b = Sessions(), Sessions(standby=1, seed=99)
    for i in range(50):
        opened(a, numbered(i, TCP))
    for i in range(0, 50, 3):
        a.see(numbered(i, TCP), FIN | ACK)
    for i in range(0, 50, 7):
        a.close(numbered(i, TCP))
    for op, r in a.events:
        assert b.apply(op, r) == (APPLIED, b.apply(op, r)[1])
    assert sorted(b.scan()) == sorted(a.scan())


def test_any_order_and_any_repetition_makes_the_same_table() -> None:
    """A late refresh never resurrects, a reordered deletion leaves no ghost (LESSONS.md 14)."""
    life = [
        (UPSERT, record(version=3)),
        (UPSERT, record(version=5, state=CLIENT)),
        (DELETE, record(version=6, state=CLIENT)),
        (UPSERT, record(version=8, packets=(9, 9))),
    ]
    for upto in range(1, 5):
        for order in itertools.permutations(life[:upto]):
            t = Sessions()
            for op, r in (*order, *order):
                t.apply(op, r)
            last = max(r.version for _, r in order)
            found = t.get(WEB)
            assert (found.version if found else None) == (None if last == 6 else last)
            assert t.events == []


def test_a_deletion_as_it_comes_over_the_wire_is_applied() -> None:
    """It names a flow and a version, and nothing else (ips_mirror_wire.c)."""
    t, put = Sessions(standby=1), ffi.new("uint8_t[512]")
    for rec in (record(version=3), record(DNS, version=3), record(numbered(1), version=3)):
        assert t.apply(UPSERT, rec)[0] == APPLIED
        op, wire = ffi.new("int *"), ffi.new("struct ips_session_rec *")
        n = lib.ips_mirror_put(put, DELETE, c_rec(rec._replace(version=4)))
        assert lib.ips_mirror_get(put, n, op, wire) == n and (op[0], wire.kind, wire.state) == (DELETE, 0, 0)
        assert lib.ips_sessions_apply(t.s, 0, op[0], wire, t.ns, ffi.NULL) == APPLIED
        assert t.get(rec.flow) is None


def test_tombstones_are_bounded_in_time_and_number() -> None:
    t = Sessions(tombstones=16, tombstone_s=10)
    assert t.apply(DELETE, record(version=6))[0] == APPLIED
    assert t.apply(UPSERT, record(version=5))[0] == STALE
    t.now += ticks(10) + 1
    assert t.apply(UPSERT, record(version=5))[0] == APPLIED
    for i in range(100):
        t.apply(DELETE, record(numbered(i), version=9))
    assert t.stat("tombstones") <= 16 < 100 <= t.stat("tombstones") + t.stat("tombstones_lost")


def test_versions_of_a_flow_go_on_after_a_takeover() -> None:
    t = Sessions(standby=1)
    t.apply(UPSERT, record(version=1000))
    lib.ips_sessions_promote(t.s, t.ns)
    t.see(WEB, FIN | ACK)
    assert t.events[-1][1].version > 1000


def test_a_peer_s_ages_counters_and_flags_are_taken_over() -> None:
    t = Sessions()
    r = record(age_s=5000, idle_ms=60_000, packets=(7, 8), bytes=(900, 1 << 40), flags=2, version=4)
    assert t.apply(UPSERT, r)[0] == APPLIED
    got = t.get(WEB)
    assert got is not None
    assert got._replace(age_s=0, idle_ms=0) == r._replace(age_s=0, idle_ms=0)
    assert abs(got.age_s - 5000) <= 1 and abs(got.idle_ms - 60_000) < 100


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 0},
        {"kind": 0},
        {"kind": 4},
        {"state": 0},
        {"state": 7},
        {"mapped_to": ("10.0.0.1", 0)},
        {"mapped_to": ("0.0.0.0", 9)},
        {"kind": NAPT, "mapped_to": ("203.0.113.0", 4000)},  # no pool here
    ],
)
def test_records_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    t, mapped = Sessions(), fields.pop("mapped_to", None)
    r = record(**fields) if mapped is None else record(mapped=mapped, **fields)
    assert t.apply(UPSERT, r)[0] == BAD
    assert (t.scan(), t.stat("apply_bad")) == ([], 1)
    assert t.apply(3, record())[0] == BAD


def test_a_full_table_takes_no_more_from_a_peer_but_what_it_has() -> None:
    t = Sessions(sessions=5)
    assert [t.apply(UPSERT, record(numbered(i)))[0] for i in range(6)] == [APPLIED] * 5 + [FULL]
    assert t.apply(UPSERT, record(numbered(2), version=2))[0] == APPLIED


def test_a_server_is_kept_with_a_dispatched_session() -> None:
    t = Sessions(addresses=4)
    assert t.see(WEB, SYN, ONE_SIDED, mapped="10.0.0.9") == t.see(WEB, ACK, ONE_SIDED) == "OK"
    (r,) = t.scan()
    assert (r.kind, r.mapped) == (DISPATCH, ("10.0.0.9", 0))
    other = Sessions(addresses=4)
    assert other.apply(UPSERT, r)[0] == APPLIED
    assert other.get(WEB) == r
    servers = [t.see(numbered(i), mapped=f"10.0.1.{i}") for i in range(5)]
    assert servers == ["OK"] * 3 + ["SESSIONS_FULL"] * 2


# ---- scans --------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 3, 1000])
def test_a_scan_meets_each_session_once(room: int) -> None:
    t = Sessions()
    for i in range(200):
        opened(t, numbered(i, TCP))
    for i in range(0, 200, 2):
        t.close(numbered(i, TCP))
    assert sorted(r.flow for r in t.scan(room)) == sorted(numbered(i, TCP) for i in range(1, 200, 2))


def test_records_are_rows_of_an_array() -> None:
    """A dump is one array: plain records, no padding that differs."""
    t = opened(opened(Sessions(), WEB), DNS)
    rows = np.zeros(4, dtype("struct ips_session_rec"))
    n = lib.ips_sessions_scan(
        t.s, ffi.new("uint64_t *"), t.ns, ffi.from_buffer("struct ips_session_rec[]", rows), 4
    )
    assert n == 2
    assert sorted(rows["flow"]["dst_port"][:n]) == [53, 443]
    assert set(rows["state"][:n]) == {OPEN}


def test_a_long_time_passes() -> None:
    """Years between two packets: nothing wraps."""
    t = opened(Sessions(), WEB)
    t.now += ticks(5 * 365 * 86400)
    r = t.get(WEB)
    assert r is not None and abs(r.age_s - 5 * 365 * 86400) <= 1 and r.idle_ms == 2**32 - 1
    assert t.expire() == 1
    opened(t, WEB)
    t.now += ticks(7440)
    assert t.expire() == 0
