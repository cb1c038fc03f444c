"""The mirror on a network that loses, doubles, delays, cuts and damages: in the end tables are equal.

The seed of a run stands in its name and in what a failure prints.
"""

from __future__ import annotations

import random

import pytest

from tests.mirror_world import Faults, Node, Settings, World, counters, pair, same

NETWORKS = {
    "loss": Faults(loss=0.3),
    "reordered": Faults(delay_ms=(0, 25)),
    "doubled": Faults(twice=0.5, delay_ms=(0, 5)),
    "damaged": Faults(flip=0.2, cut=0.1),
    "everything": Faults(loss=0.2, twice=0.2, flip=0.05, cut=0.05, delay_ms=(0, 30)),
}


def churn(
    w: World, a: Node, rng: random.Random, ms: int, rate: int, flows: int = 80, workers: int = 2
) -> None:
    for _ in range(ms):
        for _ in range(rng.randrange(rate)):
            number, worker, family = rng.randrange(flows), rng.randrange(workers), rng.choice((4, 6))
            if rng.random() < 0.6:
                a.open(number, worker, family, state=rng.randrange(1, 7), bytes=(rng.getrandbits(40), 1))
            else:
                a.close(number, worker, family)
        w.step()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("network", NETWORKS)
def test_the_end_state_is_equal(network: str, seed: int) -> None:
    w, a, b = pair(seed, NETWORKS[network], Settings(ring=256))
    churn(w, a, random.Random(seed), 600, 4)
    w.until(lambda: same(a, b) and a.peer("b").lag_events == 0)
    assert b.count("MALFORMED") == 0 and a.count("ACKS_BAD") == 0, "what is damaged does not pass the seal"
    assert b.count("SHARDS_DIVERGED") == 0


@pytest.mark.parametrize("one_way_ms", [11, 40, 45])
def test_a_round_trip_longer_than_the_first_patience_becomes_known(one_way_ms: int) -> None:
    """Nothing is lost, so all but what goes before the first answer is sent once (RFC 6298 5.5 to 5.7), also
    where the round trip is longer than one doubled patience and shorter than all of them together."""
    w, a, b = pair(1, Faults(delay_ms=(one_way_ms, one_way_ms)), Settings(ring=1024, window=64))
    churn(w, a, random.Random(1), 3000, 4)
    w.until(lambda: same(a, b) and a.peer("b").lag_events == 0)
    assert a.peer("b").round_trip_ns >= 2_000_000 * one_way_ms
    assert a.count("DATAGRAMS_RESENT") < a.count("DATAGRAMS_SENT") / 5


@pytest.mark.parametrize("seed", range(3))
def test_what_is_lost_twice_is_found_lost_twice(seed: int) -> None:
    """A snapshot of a thousand datagrams, a third of all lost both ways: a loss costs a round trip (1 ms)
    or, where nothing was sent after it, one patience (20 ms), not one that has doubled with each loss."""
    w = World(seed, Faults(loss=0.3, delay_ms=(0.5, 0.5)))
    settings = Settings(ring=4096, window=64, scan=4096)
    a = w.add("a", ["b"], settings)
    a.role(True, 1)
    for number in range(10_000):
        a.open(number)
    w.add("b", ["a"], settings)
    w.until(lambda: a.peer("b").lag_events == 0 and a.count("DATAGRAMS_SENT") > 0)
    began = w.now
    w.until(lambda: a.peer("b").is_ready)
    assert w.now - began < 400_000_000
    assert a.count("DATAGRAMS_RESENT") < 2 * a.count("DATAGRAMS_SENT")


@pytest.mark.parametrize("seed", range(6))
def test_with_restarts_partitions_and_full_rings(seed: int) -> None:
    """Two standbys; every now and then something dies, is cut off, or bursts."""
    rng = random.Random(1000 + seed)
    w = World(seed, Faults(loss=0.05, twice=0.05, delay_ms=(0, 8)))
    settings = Settings(digest_ns=40_000_000, window=8, store={"per_scan": 9})
    a = w.add("a", ["b", "c"], settings)
    for name in "bc":
        w.add(name, ["a"], settings)
    a.role(True, 1)
    epoch = 1
    for _ in range(25):
        churn(w, a, rng, rng.randrange(5, 60), 4)
        what = rng.choice(("standby", "active", "cut", "heal", "burst", "nothing"))
        if what == "standby":
            w.add(rng.choice("bc"), ["a"], settings)
        elif what == "active":
            epoch += 1
            a = w.add("a", ["b", "c"], settings)
            a.role(True, epoch)
        elif what == "cut":
            w.cut_links.add(rng.choice((("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"))))
        elif what == "heal":
            w.cut_links.clear()
        elif what == "burst":
            for i in range(300):
                a.open(i, i % 2)
    w.cut_links.clear()
    b, c = w.nodes["b"], w.nodes["c"]
    w.until(lambda: a.peer("b").is_ready and a.peer("c").is_ready)
    w.until(lambda: same(a, b) and same(a, c))
    for node in (b, c):
        assert counters(node).get("SHARDS_DIVERGED", 0) == 0, f"seed {seed}: digests found what should not be"


@pytest.mark.parametrize("seed", range(4))
def test_what_was_committed_survives_the_active_node(seed: int) -> None:
    """At any moment: what was called committed is at the standby, or something newer of its session."""
    rng = random.Random(seed)
    w, a, b = pair(seed, Faults(loss=0.1, twice=0.1, delay_ms=(0, 12)), Settings(ring=128, window=8))
    waiting: list[tuple[int, int, int, bool]] = []
    newest: dict[int, tuple[int, bool]] = {}
    done = 0
    for _ in range(1200):
        for _ in range(rng.randrange(4)):
            number, worker = rng.randrange(1000), rng.randrange(2)
            opens = rng.random() < 0.7
            pushed = a.open(number, worker) if opens else a.close(number, worker)
            newest[number] = (a.store.versions, opens)
            if pushed:
                waiting.append((worker, pushed, number, opens))
        w.step()
        still = []
        there = {key[:4]: key for key in b.store.sessions}
        for worker, pushed, number, opens in waiting:
            if a.committed(worker, pushed) != "DONE":
                still.append((worker, pushed, number, opens))
                continue
            done += 1
            if newest[number][1] == opens:
                is_there = (10 << 24 | number).to_bytes(4, "big") in there
                assert is_there == opens or any(n == number for _, _, n, _ in waiting), (seed, number)
        waiting = still
    assert done > 500
