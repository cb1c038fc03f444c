"""Packets to a cluster's address through the core, without an engine: shares, stickiness, what leaves a
server (S2.4, S2.5). Packets are made by Scapy, an implementation of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from ipshare.core import lib
from ipshare.core.dispatch import DispatchWorker
from ipshare.engine.flows import SESSION
from ipshare.engine.tables import pack
from tests.engine_lab import OUTER

UP, DRAINING, FAILED = lib.IPS_SERVER_UP, lib.IPS_SERVER_DRAINING, lib.IPS_SERVER_FAILED
CLUSTER = {4: "198.51.100.10", 6: "2001:db8:c::10"}
CLIENT = {4: "192.0.2.7", 6: "2001:db8:d::7"}
A, B, C = "10.0.0.11", "10.0.0.12", "10.0.0.13"
A6, B6 = "fd00::11", "fd00::12"


@pytest.fixture
def worker() -> Iterator[DispatchWorker]:
    with DispatchWorker(sessions=60_000) as made:
        made.load(pack(OUTER))
        yield made


def ip(family: int = 4, **other: object) -> object:
    return (IP if family == 4 else IPv6)(src=CLIENT[family], dst=CLUSTER[family], **other)


def tcp(flags: str, sport: int = 1000, family: int = 4) -> bytes:
    return bytes(ip(family) / TCP(sport=sport, dport=80, flags=flags))


def udp(sport: int = 1000, family: int = 4) -> bytes:
    return bytes(ip(family) / UDP(sport=sport, dport=53) / Raw(b"question"))


def two(worker: DispatchWorker, a: int = UP, b: int = UP, weights: tuple[int, int] = (1, 1)) -> None:
    worker.set_clusters({CLUSTER[4]: [(A, weights[0], a), (B, weights[1], b)]})


def sport_of(worker: DispatchWorker, server: str, first: int = 1000) -> int:
    """A port whose connection goes to that server."""
    return next(
        p for p in range(first, first + 1000) if worker.dispatch(tcp("S", p)) == ("DISPATCHED", server)
    )


@pytest.mark.parametrize("weights", [(1, 1), (3, 2, 1), (10, 1), (7, 0, 5, 2), tuple(range(1, 21))])
def test_s2_5_shares_are_the_weights_within_one_percent(
    worker: DispatchWorker, weights: tuple[int, ...]
) -> None:
    servers = [(f"10.0.0.{i}", weight, UP) for i, weight in enumerate(weights, 1)]
    worker.set_clusters({CLUSTER[4]: servers})
    slots = worker.shares()
    for got, weight in zip(slots, weights, strict=True):
        due = weight / sum(weights) * slots.sum()
        assert abs(got - due) <= due * 0.01


def test_s2_5_fifty_thousand_flows_within_two_percent(worker: DispatchWorker) -> None:
    weights = {A: 3, B: 2, C: 1}
    worker.set_clusters({CLUSTER[4]: [(server, weight, UP) for server, weight in weights.items()]})
    rng, base = np.random.default_rng(1), bytearray(tcp("S"))
    seen: Counter[str | None] = Counter()
    for _ in range(50_000):
        base[12:16], base[20:22] = rng.bytes(3).rjust(4, b"\x0c"), rng.bytes(2)
        base[10:12] = b"\0\0"
        total = sum(int.from_bytes(base[i : i + 2]) for i in range(0, 20, 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        base[10:12] = (total ^ 0xFFFF).to_bytes(2)
        seen[worker.dispatch(bytes(base))[1]] += 1
    for server, weight in weights.items():
        assert abs(seen[server] - 50_000 * weight / 6) <= 0.02 * 50_000


@pytest.mark.parametrize("family", [4, 6])
def test_s2_5_a_connection_stays_whatever_the_weights_become(worker: DispatchWorker, family: int) -> None:
    a, b = (A, B) if family == 4 else (A6, B6)
    worker.set_clusters({CLUSTER[family]: [(a, 1, UP), (b, 1, UP)]})
    went = {port: worker.dispatch(tcp("S", port, family))[1] for port in range(2000, 2040)}
    assert set(went.values()) == {a, b}
    worker.set_clusters({CLUSTER[family]: [(b, 1000, UP), (a, 1, DRAINING)]})
    for port, server in went.items():
        assert worker.dispatch(tcp("A", port, family)) == ("DISPATCHED", server)
    new = {worker.dispatch(tcp("S", port, family))[1] for port in range(3000, 3040)}
    assert new == {b}, "a draining server takes nothing new"
    assert worker.use(a)[0] == sum(server == a for server in went.values()), "and what it has is counted"


def test_s2_5_a_failed_server_keeps_what_it_has_and_a_syn_leaves_it(worker: DispatchWorker) -> None:
    two(worker)
    established, opening = sport_of(worker, A), sport_of(worker, A, 5000)
    worker.dispatch(tcp("A", established))
    two(worker, a=FAILED)
    assert worker.dispatch(tcp("A", established)) == ("DISPATCHED", A), "a false alarm costs no connection"
    assert worker.dispatch(tcp("S", opening)) == ("DISPATCHED", B), "repeated, as nobody answered"
    assert worker.dispatch(tcp("A", opening)) == ("DISPATCHED", B)


def test_a_datagram_leaves_a_failed_server_and_stays_with_a_drained_one(worker: DispatchWorker) -> None:
    two(worker)
    port = next(p for p in range(1000, 2000) if worker.dispatch(udp(p))[1] == A)
    two(worker, a=DRAINING)
    assert worker.dispatch(udp(port))[1] == A
    two(worker, a=FAILED)
    assert worker.dispatch(udp(port))[1] == B


def test_a_new_connection_of_the_same_ports_leaves_a_drained_server(worker: DispatchWorker) -> None:
    two(worker)
    port = sport_of(worker, A)
    worker.dispatch(tcp("A", port))
    worker.dispatch(tcp("FA", port))
    assert worker.use(A)[1] == worker.use(A)[0] - 1, "closed by its client, not over"
    assert worker.dispatch(tcp("A", port))[1] == A, "the rest of it"
    two(worker, a=DRAINING)
    assert worker.dispatch(tcp("S", port))[1] == B


def test_nobody_left_is_said(worker: DispatchWorker) -> None:
    two(worker, a=FAILED, b=DRAINING)
    assert worker.dispatch(tcp("S")) == ("NO_SERVER", None)
    two(worker, weights=(0, 0))
    assert worker.dispatch(tcp("S")) == ("NO_SERVER", None)


def test_a_standby_dispatches_nothing(worker: DispatchWorker) -> None:
    two(worker)
    worker.stand_by()
    assert worker.dispatch(tcp("S")) == ("PAIR_NOT_ACTIVE", None)


def test_what_the_table_has_no_room_for_goes_by_the_hash(worker: DispatchWorker) -> None:
    with DispatchWorker(sessions=8) as small:
        small.load(pack(OUTER))
        for made in (small, worker):
            two(made)
        ports = range(1000, 1400)
        assert [small.dispatch(tcp("S", p)) for p in ports] == [worker.dispatch(tcp("S", p)) for p in ports]
        assert small.count(A)["untracked"] + small.count(B)["untracked"] > 0


def test_both_nodes_choose_the_same_whatever_their_order(worker: DispatchWorker) -> None:
    with DispatchWorker() as other:
        other.load(pack(OUTER))
        other.set_clusters({"192.0.2.99": [(C, 1, UP)], CLUSTER[4]: [(B, 2, UP), (A, 1, UP)]})
        two(worker, weights=(1, 2))
        for port in range(1000, 1100):
            assert other.dispatch(tcp("A", port)) == worker.dispatch(tcp("A", port))


def test_fragments_follow_their_first_one_in_any_order(worker: DispatchWorker) -> None:
    two(worker)
    for port in range(1000, 1020):
        whole = ip(id=port) / UDP(sport=port, dport=53) / Raw(b"x" * 3000)
        first, *rest = [bytes(part) for part in fragment(whole, 1000)]
        assert worker.dispatch(rest[0]) == ("HELD", None)
        verdict, server = worker.dispatch(first)
        assert verdict == "DISPATCHED" and worker.emitted == [server], "what waited goes the same way"
        assert {worker.dispatch(part)[1] for part in rest[1:]} == {server}


@pytest.mark.parametrize("family", [4, 6])
def test_an_icmp_error_goes_where_its_connection_is(worker: DispatchWorker, family: int) -> None:
    a, b = (A, B) if family == 4 else (A6, B6)
    worker.set_clusters({CLUSTER[family]: [(a, 1, UP), (b, 1, UP)]})
    for port in range(1000, 1020):
        server = worker.dispatch(tcp("S", port, family))[1]
        quoted = (IP if family == 4 else IPv6)(src=CLUSTER[family], dst=CLIENT[family])
        quoted = quoted / TCP(sport=80, dport=port, flags="A")
        router = (
            IP(src="192.0.2.1", dst=CLUSTER[4]) if family == 4 else IPv6(src="2001:db8::1", dst=CLUSTER[6])
        )
        kind = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig(mtu=1280)
        assert worker.dispatch(bytes(router / kind / quoted)) == ("DISPATCHED", server)


def test_what_is_no_connection_is_refused(worker: DispatchWorker) -> None:
    two(worker)
    assert worker.dispatch(bytes(ip() / ICMP(type=13)))[0] == "NO_SESSION"
    assert (
        worker.dispatch(bytes(IP(src="127.0.0.1", dst=CLUSTER[4]) / TCP(sport=1, dport=80)))[0]
        == "SOURCE_SCOPE"
    )
    assert worker.dispatch(bytes(IP(src=CLIENT[4], dst="192.0.2.200") / TCP()))[0] == "NO_BINDING"


def test_counts_and_uses(worker: DispatchWorker) -> None:
    two(worker, weights=(1, 0))
    for flags in ("S", "S", "A", "PA"):
        worker.dispatch(tcp(flags))
    found = worker.count(A)
    assert (found["opened"], found["packets"], found["untracked"]) == (1, 4, 0)
    assert worker.use(A) == (1, 1) and worker.use(B) == (0, 0)
    worker.dispatch(tcp("RA"))
    assert worker.use(A) == (1, 0)


def test_uses_follow_what_a_peer_says(worker: DispatchWorker) -> None:
    """On a standby too: records applied, changed, moved to another server, deleted."""
    from ipshare.core import ffi

    two(worker)
    row = np.zeros(1, SESSION)
    row["kind"], row["state"], row["version"] = lib.IPS_SESSION_DISPATCH, lib.IPS_STATE_OPEN, 1
    row["flow"]["family"], row["flow"]["proto"] = 4, 6
    row["flow"]["dst"][0][:4], row["flow"]["src_port"] = [198, 51, 100, 10], 77

    def apply(op: int, server: int, state: int, version: int) -> None:
        row["mapped"][0][:4], row["state"], row["version"] = [10, 0, 0, server], state, version
        rec = ffi.from_buffer("struct ips_session_rec *", row)
        assert lib.ips_sessions_apply(worker.sessions, 0, op, rec, worker.now_ns, ffi.NULL) == 0

    apply(lib.IPS_SESSION_UPSERT, 11, lib.IPS_STATE_OPEN, 1)
    assert worker.use(A) == (1, 1)
    apply(lib.IPS_SESSION_UPSERT, 11, lib.IPS_STATE_CLIENT_CLOSED, 2)
    assert worker.use(A) == (1, 0)
    apply(lib.IPS_SESSION_UPSERT, 12, lib.IPS_STATE_OPEN, 3)
    assert (worker.use(A), worker.use(B)) == ((0, 0), (1, 1))
    apply(lib.IPS_SESSION_DELETE, 12, lib.IPS_STATE_OPEN, 4)
    assert worker.use(B) == (0, 0)


@pytest.mark.parametrize(
    ("clusters", "words"),
    [
        ({CLUSTER[4]: [(A, 1, UP), (A, 1, UP)]}, "twice"),
        ({CLUSTER[4]: [(CLUSTER[4], 1, UP)]}, "of its own"),
        ({CLUSTER[4]: [(A6, 1, UP)]}, "family"),
        ({CLUSTER[4]: [(A, 1, 9)]}, "state"),
        ({CLUSTER[4]: []}, "servers"),
    ],
)
def test_a_set_that_cannot_be_is_refused(
    worker: DispatchWorker, clusters: dict[str, list[tuple[str, int, int]]], words: str
) -> None:
    two(worker)
    with pytest.raises(ValueError, match=words):
        worker.set_clusters(clusters)
    assert worker.dispatch(tcp("S"))[0] == "DISPATCHED", "the one before is in force"


def test_a_table_without_room_for_another_address_refuses() -> None:
    with DispatchWorker(addresses=2) as worker, pytest.raises(ValueError, match="room"):
        worker.set_clusters({CLUSTER[4]: [(A, 1, UP), (B, 1, UP), (C, 1, UP)]})
