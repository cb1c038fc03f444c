"""A remap on a model whose every state is visited, with the C function in it; and rows of its table, each
one.

The scripts are the control plane's orders: there, there and back, A -> B -> C. Weakened, a flow has to break.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipshare.core import lib
from tests.models.remap import (
    ASK,
    CLOSED,
    FINAL,
    HERE,
    LEAVING,
    NETWORK,
    NOWHERE,
    OPEN,
    OPENS,
    PREPARING,
    READY,
    TAKING,
    TO_ASK,
    TO_FINAL,
    UNKNOWN,
    Broken,
    Flow,
    Remap,
    Rules,
    World,
    ask_core,
    begin,
)

THERE = (
    ("ready", 0),
    ("preparing", 0),
    ("leaving", 0),
    ("taking", 0),
    ("flip", 0),
    ("flip", 1),
    ("clear", 0),
)
BACK = (
    *THERE[:5],  # one distribution point has flipped
    ("ready", 1),
    ("preparing", 1),
    ("leaving", 1),
    ("taking", 1),
    ("flip", 0),
    ("flip", 1),
)
CHAIN = (
    *THERE[:5],
    ("ready", 1),  # c learns a's flows, and b's
    ("ready", 2),
    ("preparing", 1),
    ("preparing", 2),
    ("leaving", 2),  # b asks c from now on,
    ("fenced", 2),
    ("leaving", 1),  # and so does a, once c knows b's flows
    ("fenced", 1),
    ("taking", 1),
    ("taking", 2),
    ("flip", 0),
    ("flip", 1),
)
IDLE_TCP = Flow("a")  # from before: nobody has seen a packet of it
SEEN_TCP, SEEN_UDP, NEW_TCP, NEW_UDP = Flow("a"), Flow("a", tcp=False), Flow(), Flow(tcp=False)
FLOWS = {
    "idle and new": ((IDLE_TCP, NEW_TCP), (False, False)),
    "seen and new UDP": ((SEEN_UDP, NEW_UDP), (True, False)),
    "seen and new TCP": ((SEEN_TCP, NEW_TCP), (True, False)),
}


@pytest.mark.parametrize("which", FLOWS)
def test_there_no_flow_breaks(which: str) -> None:
    world = World((Remap("a", "b"),), THERE)
    assert world.explore(begin(world, *FLOWS[which])) > 100


ONE = {
    "idle": ((IDLE_TCP,), (False,)),
    "seen": ((SEEN_TCP,), (True,)),
    "new": ((NEW_TCP,), (False,)),
    "seen UDP": ((SEEN_UDP,), (True,)),
    "new UDP": ((NEW_UDP,), (False,)),
}


@pytest.mark.parametrize("which", ONE)
def test_back_while_draining_no_flow_breaks(which: str) -> None:
    world = World((Remap("a", "b"), Remap("b", "a", lib.IPS_REMAP_UNKNOWN_HERE)), BACK)
    assert world.explore(begin(world, *ONE[which])) > 30


@pytest.mark.parametrize("which", ONE)
def test_a_to_b_to_c_without_a_relay(which: str) -> None:
    world = World(
        (Remap("a", "b"), Remap("a", "c"), Remap("b", "c")), CHAIN, may_drop=True, ends_at_once=True
    )
    assert world.explore(begin(world, *ONE[which])) > 30


@pytest.mark.parametrize(
    ("script", "rules", "which"),
    [
        (THERE, Rules(fence_before_taking=False), "seen and new UDP"),
        (THERE, Rules(channels_until_drained=False), "seen and new TCP"),
        (
            ("ready", "preparing", "taking", "flip", "leaving"),
            Rules(fence_before_taking=False),
            "seen and new UDP",
        ),
        (("ready", "preparing", "leaving", "flip", "taking"), Rules(), "seen and new TCP"),
        (CHAIN, Rules(fence_before_taking=False), "seen and new UDP"),
    ],
    ids=["no fence", "cleared too early", "never left", "flipped before taking", "c is asked too early"],
)
def test_every_rule_of_the_order_is_needed(script: tuple[object, ...], rules: Rules, which: str) -> None:
    steps = tuple(step if isinstance(step, tuple) else (str(step), 0) for step in script)
    remaps = (Remap("a", "b"), Remap("a", "c"), Remap("b", "c")) if script is CHAIN else (Remap("a", "b"),)
    world = World(remaps, steps, rules, may_drop=script is CHAIN)  # type: ignore[arg-type]
    with pytest.raises(Broken) as found:
        world.explore(begin(world, *FLOWS[which]))
    print(found.value)  # the shortest way there, for whoever runs this with -rP


def test_back_without_unknown_here_breaks_what_was_idle() -> None:
    world = World(
        (Remap("a", "b"), Remap("b", "a")), (*BACK, ("clear", 0)), Rules(channels_until_drained=False)
    )
    with pytest.raises(Broken, match="its owner is a"):
        world.explore(begin(world, *ONE["idle"]))


A, B = 0, 1
TO_B, TO_A = (LEAVING, 0, B, UNKNOWN), (TAKING, 0, A, UNKNOWN)


@pytest.mark.parametrize(
    ("came", "opens", "own", "relation", "what"),
    [
        # B, from the network
        (NETWORK, False, OPEN, TO_A, HERE),
        (NETWORK, True, OPEN, TO_A, HERE),
        (NETWORK, False, UNKNOWN, (TAKING, 0, A, OPEN), TO_FINAL),
        (NETWORK, True, UNKNOWN, (TAKING, 0, A, OPEN), TO_FINAL),
        (NETWORK, True, UNKNOWN, (TAKING, 0, A, CLOSED), OPENS),
        (NETWORK, True, UNKNOWN, TO_A, OPENS),
        (NETWORK, False, UNKNOWN, TO_A, TO_FINAL),
        (NETWORK, False, UNKNOWN, (TAKING, lib.IPS_REMAP_UNKNOWN_HERE, A, UNKNOWN), HERE),
        # A, from the network
        (NETWORK, False, OPEN, TO_B, HERE),
        (NETWORK, True, OPEN, TO_B, HERE),
        (NETWORK, True, CLOSED, TO_B, TO_ASK),
        (NETWORK, False, UNKNOWN, TO_B, TO_ASK),
        (NETWORK, True, UNKNOWN, TO_B, TO_ASK),
        (NETWORK, True, UNKNOWN, (PREPARING, 0, B, UNKNOWN), OPENS),
        (NETWORK, False, UNKNOWN, (PREPARING, 0, B, UNKNOWN), HERE),
        # B, ASK
        (ASK, False, OPEN, TO_A, HERE),
        (ASK, True, UNKNOWN, TO_A, OPENS),
        (ASK, True, UNKNOWN, (TAKING, 0, A, OPEN), OPENS),
        (ASK, True, UNKNOWN, (READY, 0, A, UNKNOWN), OPENS),
        (ASK, False, UNKNOWN, TO_A, TO_FINAL),
        (ASK, False, UNKNOWN, (READY, 0, A, UNKNOWN), TO_FINAL),
        # B ready: nothing from the network goes otherwise
        (NETWORK, False, UNKNOWN, (READY, 0, A, OPEN), HERE),
        (NETWORK, True, UNKNOWN, (READY, 0, A, OPEN), OPENS),
        # A, FINAL: anything
        (FINAL, False, UNKNOWN, TO_B, HERE),
        (FINAL, True, UNKNOWN, TO_B, HERE),
        (FINAL, True, CLOSED, TO_B, HERE),
    ],
)
def test_rows_of_the_table(came: int, opens: bool, own: int, relation: tuple[int, ...], what: int) -> None:
    assert ask_core(came, A if came == ASK else 255, opens, own, (relation,))[0] == what  # type: ignore[arg-type]


def test_an_opening_that_neither_node_opens_is_dropped() -> None:
    """B leaves to C and is asked by A, which was not told of C."""
    taken, left = (TAKING, 0, A, UNKNOWN), (LEAVING, 0, 2, UNKNOWN)
    assert ask_core(ASK, A, True, UNKNOWN, (taken, left))[0] == NOWHERE
    assert ask_core(ASK, 2, True, UNKNOWN, (taken, left)) == (TO_FINAL, 1)  # C itself opens
    assert ask_core(ASK, A, False, UNKNOWN, (taken, left))[0] == NOWHERE  # c's, perhaps: it comes again
    assert ask_core(ASK, 2, False, UNKNOWN, (taken, left)) == (TO_FINAL, 0)


def test_whoever_has_it_open_comes_before_whoever_had_it() -> None:
    relations = ((TAKING, 0, A, CLOSED), (TAKING, 0, B, OPEN))
    assert ask_core(NETWORK, 255, False, CLOSED, relations) == (TO_FINAL, 1)
    assert ask_core(NETWORK, 255, False, UNKNOWN, (replace_known(relations[0]), relations[1])) == (
        TO_FINAL,
        1,
    )


def replace_known(relation: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return (*relation[:3], UNKNOWN)


def test_the_model_itself_sees_a_loop() -> None:
    """Two nodes that both leave to each other: still no loop."""
    world = World((Remap("a", "b"), Remap("b", "a")), ())
    s = replace(begin(world, (NEW_TCP,), (False,)), roles=((LEAVING, TAKING), (LEAVING, READY)))
    at, _, crossings = world.way(s, "a", 0, True)
    assert at and crossings <= 2
