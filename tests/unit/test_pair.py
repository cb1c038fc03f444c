"""Who is active: the pair machine in scenes with a hand-driven clock. Lessons that became tests are named.

Every order of events to a bounded depth: native/tests/pair_model.c. Random schedules: test_pair_random.py.
"""

from __future__ import annotations

import pytest

from ipshare.core import ffi, lib
from tests.models.pair import DEAD, HOLD, INTERVAL, LEASE, MS, Node, World

MODES = pytest.mark.parametrize("mode", (lib.IPS_PAIR_HEARTBEATS, lib.IPS_PAIR_QUERIES))
SLACK = 3  # ms: a tick, a delivery, a tick


def settled(**changes: int) -> World:
    """Both started; node 1 is active."""
    w = World(**changes)
    w.run(200)
    assert (w.a.state, w.b.state) == ("active", "standby") and w.a.forwards
    return w


def reasons(node: Node) -> list[str]:
    return [f"{state} {reason}" for state, reason in node.states]


# ---- start -----------------------------------------------------------------------------------------


@MODES
def test_two_start_and_one_becomes_active_by_the_others_vote(mode: int) -> None:
    """S2.2; a booting backup is never active for a moment (LESSONS 26)."""
    w = World(mode=mode)
    w.run(500)
    assert reasons(w.a) == ["standby PEER_HEARD", "active PEER_VOTED"]
    assert reasons(w.b) == ["standby PEER_HEARD"]
    assert w.both_at == [] and w.active is w.a


def test_initial_holds_until_the_link_is_up_and_the_peer_heard_or_absent() -> None:
    """LESSONS 26."""
    w = World(start=False)
    w.a.facts["link_up"] = 0
    w.a.start()
    w.run(HOLD / MS * 3)
    assert w.a.state == "initial"
    w.a.set_facts(link_up=1)
    assert w.run(300, lambda: w.a.forwards) >= HOLD / MS
    assert reasons(w.a) == ["standby PEER_ABSENT", "active PEER_SILENT"]


def test_a_backup_that_boots_beside_an_active_node_stays_standby() -> None:
    w = settled()
    w.b.crash()
    w.run(100)
    w.b.states.clear()
    w.b.start()
    w.run(500)
    assert reasons(w.b) == ["standby PEER_HEARD"] and w.active is w.a and not w.both_at


@pytest.mark.parametrize("witness", (0, 1))
def test_without_an_epoch_file_nothing_is_claimed_before_a_word(witness: int) -> None:
    """DESIGN 9: peer, witness or operator must have spoken."""
    w = World(start=False, disks=(None, None), witness=witness)
    w.witness.counter, w.witness.holder = 41, 2
    w.witness.up = False
    w.a.start()
    w.run(10 * HOLD / MS)
    assert w.a.state == "initial" and w.a.disk is None
    if witness:
        w.witness.up = True
    else:
        assert w.a.order(lib.IPS_PAIR_FORCE) == ""
    w.run(300)
    assert w.a.forwards and w.a.epochs == [42 if witness else 1]


def test_without_an_epoch_file_the_peers_word_is_enough() -> None:
    w = settled()
    epoch = w.a.epochs[-1]
    w.b.crash()
    w.b.disk = None
    w.b.start()
    w.run(50)
    w.a.crash()
    w.run(DEAD / MS + SLACK)
    assert w.b.forwards and w.b.epochs[-1] > epoch


def test_an_epoch_counts_only_when_it_is_on_disk() -> None:
    w = World(start=False)
    for node in w.nodes:
        node.disk_works = False
        node.start()
    w.run(500)
    assert [n.state for n in w.nodes] == ["standby", "standby"] and w.active is None
    w.b.disk_works = True
    w.run(100)
    assert w.active is w.b, "the one whose disk works"


# ---- failover ----------------------------------------------------------------------------------------


@MODES
def test_the_standby_takes_over_after_the_dead_time(mode: int) -> None:
    """S3.3; no sooner than the lease of the dead node would have run."""
    w = settled(mode=mode)
    lease = w.a.lease
    w.a.crash()
    waited = w.run(100, lambda: w.b.forwards)
    assert DEAD / MS - INTERVAL / MS - 1 <= waited <= DEAD / MS + SLACK
    assert w.b.clock() > lease and reasons(w.b)[-1] == "active PEER_SILENT"


@MODES
@pytest.mark.parametrize("path", (0, 1))
def test_one_path_of_two_is_enough(mode: int, path: int) -> None:
    w = settled(mode=mode)
    w.cut = {(1, path), (2, path)}
    w.run(500)
    assert w.active is w.a and not w.both_at and len(w.b.states) == 1


@MODES
def test_each_direction_may_use_another_path(mode: int) -> None:
    w = settled(mode=mode)
    w.cut = {(1, 0), (2, 1)}
    w.run(500)
    assert w.active is w.a and len(w.b.states) == 1


def test_losses_below_the_threshold_change_nothing() -> None:
    w = settled()
    count = iter(range(10**6))
    w.deliver = lambda sender, path: MS // 4 if next(count) % 3 == 0 else None
    w.run(2000)
    assert w.active is w.a and len(w.b.states) == 1


def test_refused_sends_of_the_standby_are_not_the_peers_death() -> None:
    """LESSONS 29: a firewall that refuses sendto; the active one is still heard."""
    w = settled()
    w.cut_all(2)
    w.run(500)
    assert w.active is w.a and w.b.state == "standby" and not w.both_at


@MODES
def test_a_heal_leaves_one_within_an_interval(mode: int) -> None:
    """Promises (b) and (c); LESSONS 29."""
    w = settled(mode=mode)
    w.cut_all()
    w.run(100)
    assert w.a.forwards and w.b.forwards, "without a witness, both: every path is cut"
    w.cut.clear()
    before = w.b.announced[:]
    assert w.run(100, lambda: w.active is w.b) <= INTERVAL / MS + SLACK
    assert reasons(w.a)[-1] == "standby HIGHER_EPOCH"
    w.run(1200)
    assert w.active is w.b and w.b.m.contests == 1
    assert len(w.b.announced) - len(before) >= 4, "whoever keeps the address announces it again (LESSONS 22)"


def test_whoever_keeps_the_role_after_a_contest_announces_again() -> None:
    """LESSONS 22: the other one's gratuitous ARP stays in the router."""
    w = settled()
    w.run(1500)
    w.cut_all(1)
    w.run(60)
    assert w.active is w.b, "it was not heard: the other one took over and told it"
    count = len(w.b.announced)
    w.cut_all()
    w.a.order(lib.IPS_PAIR_FORCE)
    w.run(100)
    assert w.a.forwards and w.b.forwards
    w.cut.clear()
    w.run(1200)
    keeper = w.active
    assert keeper is w.a and [round((t - keeper.announced[-4]) / MS) for t in keeper.announced[-4:]] == [
        0,
        10,
        100,
        1000,
    ]
    assert count >= 1


def test_announcements_follow_the_schedule() -> None:
    """S2.3; DESIGN 9: 0, 10, 100 ms, 1 s, then every 30 s."""
    w = settled()
    w.step = MS
    w.run(1200)
    first = w.a.announced[0]
    assert [(t - first) // MS for t in w.a.announced] == [0, 10, 100, 1000]
    w.run(31_000)
    assert [(t - first) // MS for t in w.a.announced] == [0, 10, 100, 1000, 31_000]
    assert w.b.announced == []


# ---- pauses and clocks -------------------------------------------------------------------------------


def test_a_paused_node_forwards_nothing_before_it_heard_its_peer() -> None:
    """Promise (a); LESSONS 23: the lease ends by itself, and after the pause the epoch is asked for."""
    w = settled()
    w.a.paused = True
    w.run(LEASE / MS + 1)
    assert not w.a.forwards, "its workers stop at the lease's end"
    w.run(200)
    assert w.active is w.b
    w.a.paused = False
    w.a.inbox.clear()
    w.run(100)
    assert reasons(w.a)[-1] == "standby HIGHER_EPOCH" and w.active is w.b and not w.both_at


def test_a_pause_within_the_lease_ends_nothing() -> None:
    """Decision 0038: the peer takes over no sooner than the lease ends."""
    w = settled()
    begun = w.a.m.sent_ns
    assert w.run(50, lambda: w.a.m.sent_ns > begun) <= INTERVAL / MS + 1
    w.a.paused = True
    w.run(12)
    w.a.paused = False
    w.once()
    assert w.a.forwards and w.a.m.pauses == 1
    w.run(100)
    assert len(w.a.states) == 2 and w.active is w.a and not w.both_at


def test_a_short_pause_is_over_after_one_question() -> None:
    w = settled()
    w.a.paused = True
    w.run(LEASE / MS + 1)
    w.a.paused = False
    w.once()
    assert not w.a.forwards and w.a.state == "active"
    assert w.run(50, lambda: w.a.forwards) <= SLACK
    assert w.a.m.pauses == 1 and len(w.a.states) == 2


def test_a_paused_node_without_a_peer_waits_one_dead_time() -> None:
    """Promise (a)."""
    w = settled()
    w.b.crash()
    w.run(100)
    w.a.paused = True
    w.run(1000)
    w.a.paused = False
    w.once()
    assert DEAD / MS - 1 <= w.run(100, lambda: w.a.forwards) <= DEAD / MS + 1


def alone(*, silent_ms: float) -> World:
    w = settled()
    w.b.crash()
    w.run(silent_ms)
    assert w.active is w.a
    return w


def test_a_node_that_was_alone_already_goes_on_after_a_short_pause() -> None:
    """Decision 0038: nobody can have become active meanwhile. It announces again; so for a second one."""
    w = alone(silent_ms=100)
    announced = len(w.a.announced)
    for pauses in (1, 2):
        w.a.paused = True
        w.run(HOLD / MS / 2 - 3)
        assert not w.a.forwards, "its workers stop at the lease's end"
        w.a.paused = False
        w.once()
        assert w.a.forwards and w.a.m.pauses == pauses
        w.run(INTERVAL / MS)
    assert len(w.a.announced) > announced and len(w.a.states) == 2


def test_a_node_that_heard_its_peer_lately_is_not_alone() -> None:
    w = alone(silent_ms=DEAD / MS / 2)
    w.a.paused = True
    w.run(HOLD / MS / 2 - 3)
    w.a.paused = False
    w.once()
    assert not w.a.forwards
    assert DEAD / MS - 1 <= w.run(100, lambda: w.a.forwards) <= DEAD / MS + 1


def test_who_is_heard_after_the_pause_is_asked_first() -> None:
    """Its peer was started while it was away: that word is read before the tick that would go on."""
    w = alone(silent_ms=100)
    w.a.paused = True
    w.run(30)
    w.b.start()
    w.run(8)
    assert w.a.inbox, "the peer has spoken"
    w.a.paused = False
    w.once()
    assert not w.a.forwards
    assert w.run(50, lambda: w.a.forwards) <= SLACK and not w.both_at


@pytest.mark.parametrize("pause_ms", (HOLD / MS / 2, 3 * HOLD / MS))
def test_a_long_pause_is_a_doubt_even_for_who_was_alone(pause_ms: float) -> None:
    w = alone(silent_ms=100)
    w.a.paused = True
    w.run(pause_ms)
    w.a.paused = False
    w.once()
    assert not w.a.forwards


def test_a_paused_standby_judges_its_own_lateness_first() -> None:
    """LESSONS 23: it has heard nothing because it was not there."""
    w = settled()
    w.b.paused = True
    w.run(500)
    w.b.inbox.clear()
    w.b.paused = False
    w.run(300)
    assert len(w.b.states) == 1 and w.active is w.a


@pytest.mark.parametrize("witness", (0, 1))
def test_a_guest_whose_clock_stood_still_learns_it_from_its_peers_clock(witness: int) -> None:
    """DESIGN 9: the progress of the peer's ticks. It cannot know before it hears its peer."""
    w = settled(witness=witness)
    w.a.is_frozen = True
    w.run(1000)
    assert w.active is w.b
    w.a.is_frozen = False
    w.a.inbox.clear()
    w.run(100)
    assert w.active is w.b and w.a.state == "standby"
    assert len(w.both_at) <= INTERVAL / MS + SLACK, "a clock that stands still is no bounded rate error"


def test_a_frozen_active_that_resumes_stops_until_it_has_asked() -> None:
    w = settled()
    w.a.is_frozen = True
    w.run(14)
    w.a.is_frozen = False
    w.run(INTERVAL / MS + SLACK)
    assert w.a.m.pauses == 1 and w.active is w.a


def test_a_clock_that_goes_back_is_a_new_start() -> None:
    """LESSONS 24: no remembered time is true any more."""
    w = settled()
    w.a.frozen = 500 * MS
    w.once()
    assert w.a.lease == 0 and reasons(w.a)[-1] == "initial CLOCK_STEPPED"
    w.run(300)
    assert w.active is not None and not w.both_at
    assert w.a.m.boot == 1002


def test_a_clock_that_jumps_ahead_is_a_pause() -> None:
    """LESSONS 24."""
    w = settled()
    w.a.frozen = -3600_000 * MS
    w.once()
    assert not w.a.forwards
    w.run(100)
    assert w.active is w.a and w.a.m.pauses == 1


def test_far_times_do_not_wrap() -> None:
    """LESSONS 24: 70 years of uptime are as good as a second."""
    w = World(start=False)
    w.now = (1 << 61) - 3600_000 * MS
    w.a.start()
    w.b.start()
    w.run(200)
    w.a.crash()
    w.run(DEAD / MS + SLACK)
    assert w.b.forwards


def test_a_worker_that_stands_still_stops_the_heartbeats_and_then_the_role() -> None:
    w = settled()
    w.a.stalled_at = w.a.clock()
    sent_before = w.run(9) and w.a.sent
    w.run(LEASE / MS - 10)
    assert w.a.sent == sent_before
    w.run(DEAD / MS)
    assert not w.a.forwards and reasons(w.a)[2] == "inop WORKER_STALLED" and w.active is w.b
    w.a.stalled_at = None
    w.run(20)
    assert w.a.state == "standby" and not w.both_at


def test_a_worker_that_stands_still_for_a_moment_costs_no_sessions() -> None:
    """The peer was restarted just then and has none: it is not invited, and leaves time."""
    w = settled()
    w.b.facts["mirror_ready"] = 0
    w.b.crash()
    w.run(20)
    w.b.start()
    w.run(50)
    w.a.stalled_at = w.a.clock()
    w.run((LEASE + 4 * DEAD) / MS)
    assert not w.a.forwards and w.a.state == "active" and w.b.state == "standby"
    w.a.stalled_at = None
    w.run(30)
    assert w.a.forwards and w.active is w.a and not w.both_at


def test_a_worker_that_stands_still_for_good_leaves_to_whoever_there_is() -> None:
    w = settled()
    w.b.facts["mirror_ready"] = 0
    w.b.crash()
    w.run(20)
    w.b.start()
    w.run(50)
    w.a.stalled_at = w.a.clock()
    assert 500 <= w.run(3000, lambda: w.b.forwards) <= 500 + (LEASE + 3 * DEAD) / MS
    assert not w.a.forwards and not w.both_at


def test_a_standby_without_the_sessions_waits_longer_than_the_dead_time() -> None:
    w = settled()
    w.b.set_facts(mirror_ready=0)
    w.run(50)
    w.a.crash()
    assert 500 <= w.run(3000, lambda: w.b.forwards) <= 500 + 3 * DEAD / MS


# ---- facts, orders, preemption -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "reason"), (("link_up", "LINK_DOWN"), ("criteria_ok", "CRITERIA"), ("loaded", "NOT_LOADED"))
)
def test_inop_is_a_function_of_present_facts(fact: str, reason: str) -> None:
    """S2.6; LESSONS 27: nothing is counted, so nothing can leak."""
    w = settled()
    for _ in range(5):
        w.a.set_facts(**{fact: 0})
        assert w.a.state == "inop" and w.a.reason == reason and not w.a.forwards
        assert w.run(50, lambda: w.b.forwards) <= SLACK, "it resigned: nobody waits for the dead time"
        w.a.set_facts(**{fact: 1})
        assert w.a.state == "standby"
        w.run(30)
        w.b.set_facts(**{fact: 0})
        w.run(30)
        w.b.set_facts(**{fact: 1})
        w.run(30)
        assert w.active is w.a
    assert not w.both_at


@pytest.mark.parametrize("asked", ("a", "b"))
@pytest.mark.parametrize("witness", (0, 1))
def test_a_switchover_takes_a_round_trip(asked: str, witness: int) -> None:
    w = settled(witness=witness)
    w.run(100)
    assert getattr(w, asked).order(lib.IPS_PAIR_SWITCHOVER) == ""
    assert w.run(50, lambda: w.b.forwards) <= SLACK
    assert reasons(w.a)[-1] == "standby HANDED_OVER" and reasons(w.b)[-1] == "active PEER_RESIGNED"
    w.run(500)
    assert w.active is w.b and not w.both_at


def test_a_resignation_that_is_lost_is_said_again() -> None:
    w = settled()
    lost = iter([None] * 2)
    w.deliver = lambda sender, path: next(lost, MS // 4) if sender == 1 else MS // 4
    w.a.order(lib.IPS_PAIR_SWITCHOVER)
    assert w.run(50, lambda: w.b.forwards) <= INTERVAL / MS + SLACK
    assert not w.both_at


def test_if_nobody_takes_the_role_it_comes_back() -> None:
    w = settled()
    w.cut_all(1)
    w.a.order(lib.IPS_PAIR_SWITCHOVER)
    w.cut.clear()
    w.b.crash()
    w.run(100)
    assert w.active is w.a and not w.both_at


def refuse_peer(w: World) -> Node:
    w.b.set_facts(link_up=0)
    return w.a


def refuse_mirror(w: World) -> Node:
    w.b.set_facts(mirror_ready=0)
    return w.a


def refuse_own_mirror(w: World) -> Node:
    w.b.set_facts(mirror_ready=0)
    return w.b


def refuse_silent(w: World) -> Node:
    w.b.crash()
    w.run(60)
    return w.a


REFUSALS = {
    "the peer is not ready to be active": refuse_peer,
    "the peer's mirror is not up to date": refuse_mirror,
    "this node's mirror is not up to date": refuse_own_mirror,
    "the peer is not heard": refuse_silent,
}


@pytest.mark.parametrize("why", REFUSALS)
def test_an_order_that_is_refused_says_why_and_changes_nothing(why: str) -> None:
    w = settled()
    node = REFUSALS[why](w)
    w.run(20)
    assert node.order(lib.IPS_PAIR_SWITCHOVER) == why
    w.run(100)
    assert w.active is w.a


def test_force_is_refused_beside_an_active_peer_and_on_the_active_node() -> None:
    w = settled()
    assert "is active" in w.b.order(lib.IPS_PAIR_FORCE)
    assert w.a.order(lib.IPS_PAIR_FORCE) and w.a.order(99) == "unknown command"
    w.run(100)
    assert w.active is w.a


def test_maintenance_is_inop_until_it_ends() -> None:
    w = settled()
    w.a.order(lib.IPS_PAIR_MAINTENANCE)
    w.run(SLACK)
    assert w.a.state == "inop" and w.active is w.b
    w.run(200)
    w.a.order(lib.IPS_PAIR_SERVICE)
    assert w.a.state == "standby"


@pytest.mark.parametrize("preempt", (0, 1))
def test_a_recovered_node_is_active_again_only_when_it_is_up_to_date(preempt: int) -> None:
    """S3.7."""
    w = World(start=False)
    w.a.changes = {"preempt": preempt, "priority": 100}
    w.a.start()
    w.b.start()
    w.run(100)
    w.a.crash()
    w.run(100)
    w.a.facts["mirror_ready"] = 0
    w.a.start()
    w.run(500)
    assert w.active is w.b, "not up to date"
    w.a.set_facts(mirror_ready=1)
    w.run(100)
    assert w.active is (w.a if preempt else w.b) and not w.both_at


def test_preemption_does_not_undo_the_operators_switchover() -> None:
    """LESSONS 29: flaps."""
    w = World(start=False)
    w.a.changes = {"preempt": 1, "priority": 100}
    w.a.start()
    w.b.start()
    w.run(100)
    assert w.a.order(lib.IPS_PAIR_SWITCHOVER) == ""
    w.run(1000)
    assert w.active is w.b and len(w.b.states) == 2


# ---- witness -----------------------------------------------------------------------------------------


def test_with_a_witness_a_partition_leaves_one() -> None:
    w = settled(witness=1)
    w.run(100)
    w.cut_all()
    w.run(1000)
    assert w.active is w.a and not w.both_at and w.b.state == "standby"


def test_with_a_witness_the_standby_takes_over_when_the_grant_has_run_out() -> None:
    w = settled(witness=1)
    w.run(100)
    w.a.crash()
    assert w.run(1000, lambda: w.b.forwards) <= 300 + 20 + DEAD / MS
    assert not w.both_at


def test_neither_peer_nor_witness_stops_a_node() -> None:
    w = settled(witness=1)
    w.run(100)
    w.witness.up = False
    w.run(1000)
    assert w.active is w.a, "the peer's word is enough"
    w.witness.up = True
    w.run(100)
    w.b.crash()
    w.run(1000)
    assert w.active is w.a, "the witness's word is enough"
    w.witness.up = False
    w.run(400)
    assert not w.a.forwards and reasons(w.a)[-1] == "standby NO_QUORUM"
    w.witness.up = True
    w.run(100)
    assert w.active is w.a and w.a.epochs[-1] > w.a.epochs[-2]


def test_who_comes_to_the_witness_second_waits() -> None:
    """The active one is cut off from both: it stops before the other one starts."""
    w = settled(witness=1)
    w.run(100)
    w.cut_all()
    w.witness_cut = {1}
    stopped = w.run(1000, lambda: not w.a.forwards)
    started = stopped + w.run(1000, lambda: w.b.forwards)
    assert stopped < started <= 400 and not w.both_at


# ---- what comes in -----------------------------------------------------------------------------------


def message(w: World) -> ffi.CData:
    return ffi.new(
        "struct ips_pair_msg *",
        {
            "kind": 1,
            "state": 3,
            "node": 2,
            "boot": w.b.m.boot,
            "to_boot": w.a.m.boot,
            "sent_ns": w.b.clock() + MS,
        },
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    (
        ({"node": 7}, "not from the peer of this pair"),
        ({"sent_ns": 1}, "older than what is known: nothing but its epoch was taken"),
        ({"echo_ns": 1 << 60}, "echoes what was never sent"),
    ),
)
def test_a_message_that_is_not_for_this_run_is_refused(changes: dict[str, int], text: str) -> None:
    w = settled()
    before = bytes(ffi.buffer(ffi.addressof(w.a.m, "peer")))
    msg = message(w)
    for name, value in changes.items():
        setattr(msg, name, value)
    number = lib.ips_pair_message(w.a.m, msg, w.a.clock(), w.a.out)
    assert ffi.string(lib.ips_pair_refusal(number)).decode() == text
    assert bytes(ffi.buffer(ffi.addressof(w.a.m, "peer"))) == before


def test_an_earlier_run_of_the_peer_is_not_believed() -> None:
    w = settled()
    old = w.b.m.boot
    w.b.crash()
    w.b.start()
    w.run(50)
    msg = message(w)
    msg.boot = old
    number = lib.ips_pair_message(w.a.m, msg, w.a.clock(), w.a.out)
    assert "earlier run of the peer" in ffi.string(lib.ips_pair_refusal(number)).decode()


def test_a_late_resignation_does_not_start_a_second_reign() -> None:
    """Duplicates and delays: a resignation counts for its own reign only, and not for long."""
    w = settled()
    resigned: list[bytes] = []
    send = w.send

    def noted(sender: int, data: bytes) -> None:
        if data[1] == lib.IPS_PAIR_RESIGN:
            resigned.append(data)
        send(sender, data)

    w.send = noted  # type: ignore[method-assign]
    w.a.order(lib.IPS_PAIR_SWITCHOVER)
    w.run(30)
    w.b.order(lib.IPS_PAIR_SWITCHOVER)
    w.run(30)
    assert w.active is w.a and resigned
    for data in resigned:
        w.b.receive(data)
        w.a.receive(data)
    w.run(100)
    assert w.active is w.a and not w.both_at


def test_the_taken_address_leaves_the_peer_audible() -> None:
    """LESSONS 28: after a takeover it shows at once if the peer is no longer heard."""
    w = settled()
    w.a.order(lib.IPS_PAIR_SWITCHOVER)
    w.run(100)
    assert w.b.m.peer.heard_ns >= w.b.clock() - INTERVAL - 2 * MS
    w.cut_all(1)
    w.run(100)
    assert w.b.clock() - w.b.m.peer.heard_ns > DEAD
