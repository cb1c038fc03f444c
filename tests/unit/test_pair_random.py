"""The pair under random schedules of faults, longer than the model goes; and the model itself with more
faults.

An example that fails prints its seed and events. native/tests/pair_model.c has every order to a small depth.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.core import lib
from tests import sanitized
from tests.models.pair import DEAD, HOLD, INTERVAL, MS, TTL, Node, World


def toggle(world: World, sender: int, path: int) -> None:
    world.cut ^= {(sender, path)}


def crash(node: Node, keep_file: bool = True) -> None:
    if node.up:
        node.crash()
        node.disk = node.disk if keep_file else None
    else:
        node.paused = False
        node.start()


def one_event(world: World, rng: random.Random) -> str:
    node = rng.choice(world.nodes)
    what = rng.choice(
        ("cut", "cut", "pause", "crash", "disk", "fact", "stall", "order", "witness", "heal", "none")
    )
    if what == "cut":
        toggle(world, node.number, rng.randrange(2))
    elif what == "pause":
        node.paused = not node.paused
    elif what == "crash":
        crash(node)
    elif what == "disk":
        node.disk_works = not node.disk_works
    elif what == "fact" and node.runs:
        name = rng.choice(("link_up", "criteria_ok", "mirror_ready"))
        node.set_facts(**{name: 1 - node.facts[name]})
    elif what == "stall":
        node.stalled_at = node.clock() if node.stalled_at is None else None
    elif what == "order" and node.runs:
        node.order(rng.choice((lib.IPS_PAIR_SWITCHOVER, lib.IPS_PAIR_MAINTENANCE, lib.IPS_PAIR_SERVICE)))
    elif what == "witness":
        world.witness_cut ^= {node.number}
    elif what == "heal":
        heal(world)
    return f"{what} {node.number}"


def heal(world: World) -> None:
    world.cut.clear()
    world.witness_cut.clear()
    world.witness.up = True
    for node in world.nodes:
        node.paused, node.disk_works, node.stalled_at = False, True, None
        node.facts |= {"link_up": 1, "criteria_ok": 1, "mirror_ready": 1}
        if not node.up:
            node.start()
        node.set_facts()
        node.order(lib.IPS_PAIR_SERVICE)


def noisy(rng: random.Random) -> object:
    def deliver(sender: int, path: int) -> int | None:
        if rng.random() < 0.1:
            return None
        return rng.choice((MS // 4, MS // 4, MS, 3 * MS, 12 * MS))

    return deliver


@given(st.integers(0, 2**32), st.booleans(), st.integers(0, 1), st.integers(0, 1))
def test_random_schedules(seed: int, witness: bool, mode: int, preempt: int) -> None:
    """With a witness never two, whatever happens; a heal always leaves one that stays."""
    rng = random.Random(seed)
    world = World(start=False, witness=int(witness), mode=mode, preempt=preempt)
    world.a.rate_ppm, world.b.rate_ppm = rng.choice(((0, 0), (200, -200), (-200, 200)))
    world.a.changes["priority"] = rng.randrange(3)
    world.deliver = noisy(rng)  # type: ignore[assignment]
    world.a.start()
    world.b.start()
    events = []
    for _ in range(12):
        world.run(rng.choice((1, 3, 10, 25, 40, 120)))
        events.append(one_event(world, rng))
    if witness:
        assert world.both_at == [], (seed, events)
    world.deliver = lambda sender, path: MS // 4
    heal(world)
    since = len(world.both_at)
    healed = world.now
    world.run((2 * HOLD + 2 * TTL + 6 * DEAD) / MS + 100)
    late = [at for at in world.both_at[since:] if at > healed + 2 * INTERVAL + 15 * MS]
    assert not late and world.active is not None, (seed, events, [n.states[-4:] for n in world.nodes])
    settled = world.active
    changes = [len(node.states) for node in world.nodes]
    world.run(300)
    assert world.active is settled and changes == [len(node.states) for node in world.nodes], (seed, events)


@pytest.mark.parametrize("depth_and_faults", (os.environ.get("IPSHARE_PAIR_MODEL", "7 2"),))
def test_every_order_of_two_events(depth_and_faults: str) -> None:
    """Not sanitized, so it goes deeper than test_native.py; IPSHARE_PAIR_MODEL="10 2" or "7 3" takes
    minutes."""
    program = sanitized.build("build/tests/pair_model") / "tests" / "pair_model"
    done = sanitized.run(program, *depth_and_faults.split(), timeout_s=3600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("faults, ")[1].split()[0]) > 1000, done.stdout
