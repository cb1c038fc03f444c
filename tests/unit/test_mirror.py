"""The mirror: what an active node changes is at its standbys, or they are not ready and get a snapshot.

Contract: native/ips_mirror_api.h. Where another system is known to fail at this, the test names it.
The network with faults: test_mirror_faults.py; every order of a few events: test_mirror_orders.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipshare.core import ffi, lib
from tests.mirror_world import (
    COUNTERS,
    KEY,
    MS,
    Faults,
    Settings,
    World,
    counters,
    pair,
    ready,
    record,
    same,
    shard_of,
    view,
)

OFF, WAITING, LIVE = lib.IPS_MIRROR_OFF, lib.IPS_MIRROR_WAITING, lib.IPS_MIRROR_LIVE


def test_everything_arrives_and_is_equal() -> None:
    w, a, b = pair(settings=Settings(ring=256))
    for i in range(200):
        a.open(i, i % 2, 4 if i % 3 else 6, state=1 + i % 6, kind=1 + i % 3, age_s=i, packets=(i, 2**63 + i))
    ready(w, a)
    assert same(a, b)
    for i in range(300):
        a.open(i, i % 2, 4 if i % 3 else 6, bytes=(1 << i % 64, 0), flags=i)
        if i % 5 == 0:
            a.close(i // 2, i % 2)
        w.step()
    w.run(10)
    assert same(a, b) and b.count("APPLIED") > 450
    assert counters(a).keys() == {"EVENTS_SENT", "SNAPSHOT_SENT", "DATAGRAMS_SENT", "STREAMS"}


def test_committed_means_that_the_standby_has_it() -> None:
    w, a, b = pair()
    number = a.open(1)
    assert a.committed(0, number) == "ALONE", (
        "nobody is ready: nothing to wait for, to be counted by the caller"
    )
    ready(w, a)
    number = a.open(2)
    assert a.committed(0, number) == "WAIT" and a.committed(1, 1) == "WAIT"
    w.by_hand = True
    w.run(5)
    assert a.committed(0, number) == "WAIT" and len(b.store.sessions) == 1
    w.by_hand = False
    w.until(lambda: a.committed(0, number) == "DONE")
    assert len(b.store.sessions) == 2
    assert a.committed(0, number + 1) == "WAIT" and a.committed(0, 0) == "WAIT"


def test_what_the_table_refuses_is_not_acknowledged() -> None:
    """nat44-ei acknowledges a failed apply all the same (14)."""
    w, a, b = pair()
    b.store.room = 10
    for i in range(10):
        a.open(i)
    ready(w, a)
    number = a.open(99)
    w.run(100)
    assert a.committed(0, number) == "ALONE" and not a.peer("b").is_ready
    assert b.count("APPLY_FAILED") > 0 and a.peer("b").refusal == lib.IPS_REFUSED_APPLY
    assert len(b.store.sessions) == 10, "and nothing that was there is lost by it"
    streams = a.count("STREAMS")
    w.run(1000)
    assert a.count("STREAMS") - streams < 8, "it is tried again, ever more slowly"
    b.store.room = 100
    ready(w, a)
    assert same(a, b)


def test_a_full_ring_is_counted_and_ends_in_a_resync() -> None:
    """osvbng dropped silently on a full channel, with no counter (17)."""
    w, a, b = pair()
    ready(w, a)
    pushed = [a.open(i) for i in range(100)]
    assert pushed == [*range(1, 65), *[0] * 36], "and never blocks"
    w.run(1)
    assert a.count("RING_FULL") == 36 and a.count("RESYNC_RING") == 1
    assert a.committed(0, 64) == "ALONE", "not ready before the snapshot is there"
    ready(w, a)
    assert same(a, b) and len(b.store.sessions) == 100
    assert a.open(100) == 65


def test_a_full_window_holds_the_ring_and_loses_nothing() -> None:
    w, a, b = pair(settings=Settings(window=2, ring=1024))
    ready(w, a)
    for i in range(700):
        assert a.open(i, 0, 6)
    w.step()
    assert a.peer("b").under_way == 2 and a.peer("b").lag_events > 600
    w.until(lambda: a.peer("b").lag_events == 0)
    assert same(a, b) and a.count("STREAMS") == 1


def test_a_standby_too_slow_for_the_rings_is_resynced() -> None:
    w, a, b = pair(settings=Settings(window=2, ring=256))
    ready(w, a)
    w.cut_links.add(("b", "a"))
    for i in range(250):
        a.open(i, 0, 6)
        w.step(MS // 10)
    w.cut_links.clear()
    assert a.count("RESYNC_LAG") == 1 and a.count("RING_FULL") == 0
    ready(w, a)
    assert same(a, b)


def test_the_slow_one_does_not_hold_the_other() -> None:
    w = World()
    a = w.add("a", ["b", "c"], Settings(window=2, ring=256))
    b, c = w.add("b", ["a"]), w.add("c", ["a"])
    a.role(True, 1)
    ready(w, a, "b")
    ready(w, a, "c")
    w.cut_links.add(("c", "a"))
    number = a.open(0)
    w.run(20)
    assert a.committed(0, number) == "WAIT", "every ready standby has to have it"
    for i in range(400):
        number = a.open(i, 0, 6)
        w.step()
    w.run(20)
    assert a.committed(0, number) == "DONE" and same(a, b) and not a.peer("c").is_ready
    w.cut_links.clear()
    ready(w, a, "c")
    w.run(20)
    assert same(a, b) and same(a, c)


@pytest.mark.parametrize("first", (0, 1))
def test_a_deletion_that_overtakes_leaves_no_ghost(first: int) -> None:
    """The change lies in one worker's ring, the later deletion in the other's, which is read first (14)."""
    w, a, b = pair()
    ready(w, a)
    a.open(1, 1 - first)
    a.close(1, first)
    a.open(2, first)
    a.open(2, 1 - first, state=5)
    w.run(10)
    assert same(a, b) and len(b.store.sessions) == 1
    assert b.count("OBSOLETE") == (0 if first else 1), "if the deleting ring was read first"


def test_deletions_are_not_remembered_for_ever() -> None:
    """A thousand of them, in a table of 256: those of this set and the one before."""
    w, a, b = pair()
    ready(w, a)
    for i in range(1000):
        a.open(i)
        a.close(i)
        w.step()
    w.run(10)
    assert same(a, b) and b.count("TOMBSTONES_FULL") == 0


def test_too_many_deletions_for_the_memory_end_in_a_resync() -> None:
    w = World()
    a = w.add("a", ["b"], Settings(ring=1024))
    b = w.add("b", ["a"], Settings(tombstones=8))
    a.role(True, 1)
    for i in range(300):
        a.open(i)
    ready(w, a)
    for i in range(200):
        a.close(i)
    w.until(lambda: a.peer("b").refusal == lib.IPS_REFUSED_TOMBSTONES)
    assert b.count("TOMBSTONES_FULL") == 1
    ready(w, a)
    assert same(a, b) and len(b.store.sessions) == 100


def test_a_snapshot_under_change() -> None:
    w, a, b = pair(settings=Settings(store={"per_scan": 3}, ring=512))
    for i in range(100):
        a.open(i, i % 2)
    state = {"n": 0}

    def change() -> None:
        n = state["n"] = state["n"] + 1
        a.open(200 + n, n % 2)
        a.close(n, n % 2)
        a.open(n + 50, n % 2, state=4)
        if n > 2:
            a.open(n - 2, n % 2)

    a.store.while_scanning = change
    ready(w, a)
    assert state["n"] > 20
    w.run(10)
    assert same(a, b) and a.count("STREAMS") == 1


def test_ready_is_said_when_the_rings_are_past_the_fence() -> None:
    """Every session that was ever opened before is_ready is at the standby then."""
    w, a, b = pair(settings=Settings(window=2, burst=1, ring=1024, store={"per_scan": 5}))
    for i in range(300):
        a.open(i, i % 2, 6)
    i = 300
    while not a.peer("b").is_ready:
        a.open(i, i % 2, 6)
        i += 1
        before = set(a.store.sessions)
        w.step()
        if a.peer("b").is_ready:
            done = [n for n in range(2) if a.committed(n, 1) == "DONE"]
            assert done == [0, 1]
            missing = before - set(b.store.sessions)
            assert len(missing) <= 3, "only what is still under way, and known to be"
            assert a.committed(0, i) == "WAIT"


def test_a_restarted_standby_gets_everything_again() -> None:
    """conntrackd does not relearn after a reboot (15), HAProxy's tables are empty after a reload (19)."""
    w, a, b = pair()
    for i in range(100):
        a.open(i)
    ready(w, a)
    b = w.add("b", ["a"])
    w.until(lambda: a.peer("b").is_ready and a.count("PEER_RESTARTED") == 1)
    assert same(a, b) and len(b.store.sessions) == 100


def test_a_restarted_active_node_does_not_wipe_its_standby() -> None:
    w, a, b = pair()
    for i in range(50):
        a.open(i)
    ready(w, a)
    kept = dict(b.store.sessions)
    a = w.add("a", ["b"])
    a.role(True, 1)
    w.until(lambda: b.count("BOOT_CHANGED") > 0)
    w.run(200)
    assert b.store.sessions == kept, "the same epoch by another process: refused and counted"
    assert a.peer("b").refusal == lib.IPS_REFUSED_BOOT and not a.peer("b").is_ready
    a.open(7)
    a.role(True, 2)
    ready(w, a)
    assert same(a, b) and len(b.store.sessions) == 1, "a new epoch is a new origin: old versions do not count"


def test_a_lower_epoch_is_refused_and_told() -> None:
    w = World()
    a, b, c = (w.add(n, [p for p in "abc" if p != n]) for n in "abc")
    a.role(True, 5)
    a.open(1)
    ready(w, a, "b")
    assert not c.role(True, 4), "a node that knows better does not become active"
    c = w.add("c", ["a", "b"])
    assert c.role(True, 4)
    c.open(2)
    w.run(100)
    assert c.peer("b").refusal == lib.IPS_REFUSED_EPOCH and c.peer("b").refused_epoch == 5
    assert b.count("LOWER_EPOCH") > 0 and same(a, b)
    c.role(True, 6)
    w.until(lambda: c.peer("b").is_ready)
    assert b.count("STREAM_REPLACED") == 1 and same(c, b)
    assert a.count("ACTIVE_HERE") > 0 and c.peer("a").refusal == lib.IPS_REFUSED_ACTIVE
    a.role(False, 6)
    w.until(lambda: c.peer("a").is_ready)
    assert same(c, a)


def test_two_in_one_epoch_the_higher_id_wins_and_it_has_a_name() -> None:
    w = World()
    a, b, c = (w.add(n, [p for p in "abc" if p != n]) for n in "abc")
    a.role(True, 5)
    c.role(True, 5)
    a.open(1)
    c.open(2)
    w.until(lambda: c.peer("b").is_ready)
    w.run(300)
    assert same(c, b) and b.count("SAME_EPOCH") > 0 and not a.peer("b").is_ready
    assert a.count("SAME_EPOCH") > 0 and c.count("SAME_EPOCH") > 0


def test_a_switch_of_roles_and_back() -> None:
    w, a, b = pair()
    for i in range(50):
        a.open(i, i % 2)
    ready(w, a)
    epoch = 1
    for turn in range(6):
        old, new = (a, b) if turn % 2 == 0 else (b, a)
        epoch += 1
        old.role(False, epoch)
        new.role(True, epoch)
        new.store.versions = 1000 * epoch
        new.open(100 + turn)
        new.close(turn)
        w.until(lambda new=new, old=old: new.peer(old.name).is_ready)
        w.run(5)
        assert same(a, b)
    assert len(a.store.sessions) == 50


def test_a_stream_ended_by_a_change_of_roles_is_not_continued() -> None:
    w, a, b = pair()
    ready(w, a)
    b.role(True, 2)
    b.role(False, 2)
    a.open(1)
    w.run(100)
    assert b.store.sessions == {} and b.count("LOWER_EPOCH") > 0
    assert a.role(True, 3)
    ready(w, a)
    assert same(a, b)


def test_silent_divergence_is_found_and_only_its_shard_resent() -> None:
    w, a, b = pair(settings=Settings(digest_ns=50 * MS, ring=1024))
    for i in range(400):
        a.open(i)
    ready(w, a)
    w.run(200)
    assert b.count("DIGESTS_COMPARED") >= 256 and b.count("SHARDS_DIVERGED") == 0
    key, rec = next(iter(b.store.sessions.items()))
    del b.store.sessions[key]
    ghost = record(9999)
    b.store.sessions[ghost[:40]] = ghost
    sent = a.count("SNAPSHOT_SENT")
    w.until(lambda: same(a, b))
    assert b.count("SHARDS_DIVERGED") == a.count("SHARDS_RESYNCED") == len({shard_of(key), shard_of(ghost)})
    assert a.count("SNAPSHOT_SENT") - sent < 20 and a.count("STREAMS") == 1
    assert b.store.snapshots[0] == (-1, True) and {s for s, _ in b.store.snapshots[1:]} == {
        shard_of(key),
        shard_of(ghost),
    }
    diverged = b.count("SHARDS_DIVERGED")
    w.run(200)
    assert b.count("SHARDS_DIVERGED") == diverged


def test_the_stream_goes_on_while_a_standby_counts_its_digests() -> None:
    """One part at each tick; what is compared is how both were at that point of the stream."""
    calls = 40
    w, a, b = pair(settings=Settings(digest_ns=100 * MS, ring=1024))
    b.store.digest_calls = calls
    for i in range(100):
        a.open(i)
    ready(w, a)
    w.until(lambda: b.count("DIGESTS_COMPARED"))
    compared, applied = b.count("DIGESTS_COMPARED"), len(b.store.applied)
    ticks = 0
    while b.count("DIGESTS_COMPARED") == compared:
        a.open(200 + ticks)
        ticks += 1
        w.step()
    assert ticks >= calls and len(b.store.applied) - applied > calls / 2, "it was served meanwhile"
    w.run(300)
    assert b.count("SHARDS_DIVERGED") == 0
    key, _ = next(iter(b.store.sessions.items()))
    del b.store.sessions[key]
    w.until(lambda: same(a, b))
    assert b.count("SHARDS_DIVERGED") == 1


def test_digests_that_cannot_be_had_now_are_compared_another_time() -> None:
    w, a, b = pair(settings=Settings(digest_ns=50 * MS))
    b.store.digest_calls = 0
    a.open(1)
    ready(w, a)
    w.run(200)
    assert b.count("DIGESTS_COMPARED") == 0
    b.store.digest_calls = 3
    w.until(lambda: b.count("DIGESTS_COMPARED"))
    assert b.count("SHARDS_DIVERGED") == 0


def test_digests_under_change_raise_no_false_alarm() -> None:
    w, a, b = pair(settings=Settings(digest_ns=5 * MS, ring=1024, store={"per_scan": 7, "digest_calls": 3}))
    for i in range(200):
        a.open(i)
    ready(w, a)
    a.store.while_scanning = lambda: (a.open(w.now // MS % 300, 1), a.close(w.now % 300, 0), None)[2]
    for i in range(300):
        a.open(i % 250, i % 2)
        if i % 3 == 0:
            a.close(i % 100, i % 2)
        w.step()
    assert b.count("DIGESTS_COMPARED") > 1000 and b.count("SHARDS_DIVERGED") == 0


def test_a_configuration_that_differs_is_no_stream_but_a_channel() -> None:
    mine = Settings(items=(("realms", 1), ("pools", 2)), must_match=1)
    w = World()
    a = w.add("a", ["b"], mine)
    b = w.add("b", ["a"], replace(mine, items=(("realms", 9), ("pools", 2))))
    a.role(True, 1)
    w.run(200)
    assert a.peer("b").phase == OFF and a.count("CONFIG_DIFFERS") == 1 and a.info("b").mismatch == 1
    assert b.info("a").mismatch == 1 and a.info("b").alive, "heartbeats go on"
    w = World()
    a = w.add("a", ["b"], mine)
    b = w.add("b", ["a"], replace(mine, items=(("realms", 1), ("pools", 9))))
    a.role(True, 1)
    ready(w, a)
    assert a.info("b").mismatch == 2, "an item that need not be equal is told, no more"


def test_a_wrong_key_opens_nothing() -> None:
    w = World()
    a, b = w.add("a", ["b"]), w.add("b", ["a"], Settings(keys=((1, KEY[::-1]),)))
    a.role(True, 1)
    w.run(100)
    assert a.peer("b").phase == OFF and b.sealed("a", "WRONG_KEY") > 0 and a.sealed("b", "WRONG_KEY") > 0


def test_rotation_of_keys_does_not_interrupt_the_stream() -> None:
    w, a, b = pair()
    ready(w, a)
    keys = ffi.new("uint8_t[2][32]")
    for order in ((1, 2), (2, 1), (2,)):
        for i, number in enumerate(order):
            ffi.memmove(keys[i], KEY if number == 1 else KEY[::-1], 32)
        for node in (a, b):
            assert lib.ips_seal_set_keys(node.seals[0], keys, bytes(order), len(order)) == 0
            for i in range(100):
                a.open(i, i % 2)
                w.step()
    w.run(10)
    assert a.info("b").key_number == 2 and same(a, b) and a.count("STREAMS") == 1


def test_the_next_version_talks_to_this_one() -> None:
    w = World()
    a, b = w.add("a", ["b"], Settings(version=2, oldest=1)), w.add("b", ["a"])
    a.role(True, 1)
    a.open(1)
    ready(w, a)
    assert a.info("b").version == b.info("a").version == 1 and same(a, b)


def test_a_recorded_stream_does_nothing_to_a_fresh_receiver() -> None:
    w, a, b = pair()
    for i in range(20):
        a.open(i)
    ready(w, a)
    recorded = [d for source, _, d in w.log if source == "a"]
    fresh = w.add("b", ["a"])
    for _ in range(3):
        for data in recorded:
            assert fresh.input("a", data) != "OK"
    assert fresh.store.sessions == {} and not fresh.peer("a").feeds_us


def test_a_partition_heals_with_a_snapshot() -> None:
    w, a, b = pair()
    a.open(1)
    ready(w, a)
    w.cut_links |= {("a", "b"), ("b", "a")}
    w.run(300)
    assert a.count("PEER_LOST") == 1 and a.committed(0, 1) == "ALONE"
    assert b.store.sessions and b.peer("a").is_complete, "a standby expires nothing"
    for i in range(500):
        a.open(i)
        w.step()
    assert a.count("RING_FULL") == 0, "nobody reads the rings: they are not filled"
    w.cut_links.clear()
    ready(w, a)
    assert same(a, b)


def test_rings_wrap_and_windows_wrap() -> None:
    w, a, b = pair(settings=Settings(ring=4, window=2))
    ready(w, a)
    for i in range(3000):
        assert a.open(i % 7, i % 2) == i // 2 + 1
        w.step()
        if i % 3 == 0:
            w.run(3)
    w.until(lambda: same(a, b))
    assert a.count("DATAGRAMS_SENT") > 1000 and a.count("RING_FULL") == 0


def test_lag_is_a_gauge() -> None:
    w, a, b = pair(faults=Faults(delay_ms=(5, 5)))
    ready(w, a)
    w.run(50)
    assert a.peer("b").lag_events == 0 and a.peer("b").lag_ns == 0
    a.open(1)
    a.open(2, 1)
    w.run(4)
    assert a.peer("b").lag_events == 2 and a.peer("b").lag_ns == 3 * MS
    w.run(10)
    assert a.peer("b").lag_events == 0 and a.peer("b").lag_ns == 0
    assert 10 * MS <= a.peer("b").round_trip_ns <= 12 * MS


def test_worker_counts_may_differ() -> None:
    """nat44-ei requires equal worker counts (14)."""
    w = World()
    a, b = w.add("a", ["b"], Settings(workers=5)), w.add("b", ["a"], Settings(workers=1))
    a.role(True, 1)
    for i in range(100):
        a.open(i, i % 5)
    ready(w, a)
    for i in range(100):
        a.open(50 + i, i % 5)
    w.run(10)
    assert same(a, b)


def test_other_messages_go_to_their_owner() -> None:
    w, a, b = pair()
    ready(w, a)
    heard = []
    door = ffi.callback(
        "void(void *, uint32_t, uint8_t, uint8_t const *, size_t)",
        lambda _a, peer, kind, d, n: heard.append((peer, kind, bytes(ffi.buffer(d, n)))),
    )
    lib.ips_mirror_set_other(b.m, door, ffi.NULL)
    out = ffi.new("uint8_t[1400]")
    n = lib.ips_seal_wrap(a.seals[0], lib.IPS_SEAL_PAIR, b"beat", 4, w.now, out)
    assert b.input("a", bytes(ffi.buffer(out, n))) == "OK"
    assert heard == [(0, lib.IPS_SEAL_PAIR, b"beat")]


def test_sizes_that_are_refused() -> None:
    w, a, _ = pair()
    good = {"workers": 1, "ring": 4, "window": 2, "tombstones": 8, "burst": 1, "scan": 1, "n_peers": 1}
    good |= {"rto_ns": 1, "idle_ns": 1, "backoff_ns": 1}

    def made(**changes: int) -> bool:
        c = ffi.new("struct ips_mirror_config *")
        for key, value in (good | changes).items():
            setattr(c, key, value)
        c.seals[0] = a.seals[0]
        a.store.doors(c)
        m = lib.ips_mirror_new(c)
        lib.ips_mirror_free(m)
        return bool(m != ffi.NULL)

    assert made()
    bad = {
        "workers": (0, 67),
        "ring": (2, 6),
        "window": (1, 3, 32768),
        "tombstones": (4, 9),
        "n_peers": (0, 2, 9),
    }
    for key, values in bad.items():
        assert not any(made(**{key: value}) for value in values), key
    assert not any(made(**{key: 0}) for key in ("burst", "scan", "rto_ns", "idle_ns", "backoff_ns"))


def test_memory_is_what_was_taken_at_the_beginning() -> None:
    _, a, _ = pair(settings=Settings(ring=1024, window=256))
    size = lib.ips_mirror_memory(a.m)
    assert 2 * 256 * 1368 + 2 * 1024 * 120 < size < 2 * 256 * 1368 + 2 * 1024 * 120 + 150_000


def test_every_counter_has_a_text() -> None:
    texts = {ffi.string(lib.ips_mirror_counter_text(i)).decode() for i in range(len(COUNTERS))}
    assert len(texts) == len(COUNTERS) and lib.ips_mirror_counter_name(len(COUNTERS)) == ffi.NULL


def test_shards_are_used_evenly() -> None:
    used = [shard_of(record(i, family=4 if i % 2 else 6)) for i in range(25600)]
    assert min(used.count(s) for s in range(256)) > 50
    assert lib.ips_mirror_digest(view(record(1, 2))) != lib.ips_mirror_digest(view(record(1, 3)))
    assert lib.ips_mirror_digest(view(record(1, age_s=9))) == lib.ips_mirror_digest(view(record(1)))
