"""A policy's change on a model whose every state is visited, with the C function in it; weakened, a flow has
to break."""

from __future__ import annotations

import pytest

from tests.models.policy import AB, BA, Change, Names
from tests.models.remap import Broken, Flow, begin

THERE = (("flip", 0), ("flip", 1), ("drop", 0))
BACK = (("flip", 0), ("flip", 1), ("flip", 0), ("flip", 1))
OLD, NEW = Flow("a"), Flow()
FLOWS = {"old": (OLD, OLD), "new": (NEW, NEW), "old and new": (OLD, NEW), "new and old": (NEW, OLD)}


@pytest.mark.parametrize("which", FLOWS)
def test_no_connection_breaks_however_distribution_points_follow_one_another(which: str) -> None:
    world = Change((AB,), THERE)
    assert world.explore(begin(world, FLOWS[which], (False, False))) > 30


@pytest.mark.parametrize("which", FLOWS)
def test_back_again_breaks_nothing_that_was_followed_before(which: str) -> None:
    """What said nothing in between is the exception (docs/policies.md): here everything was seen."""
    world = Change((AB, BA), BACK)
    assert world.explore(begin(world, FLOWS[which], (True, True))) > 30


@pytest.mark.parametrize(
    ("how", "which"),
    [(Names(names=False), "old"), (Names(tracks=False), "new"), (Names(drains=False), "old")],
    ids=["not named", "not followed", "dropped too early"],
)
def test_each_part_is_needed(how: Names, which: str) -> None:
    world = Change((AB,), THERE, how=how)
    with pytest.raises(Broken):
        world.explore(begin(world, FLOWS[which], (False, False)))


def test_back_again_breaks_what_nobody_had_seen() -> None:
    world = Change((AB, BA), BACK)
    with pytest.raises(Broken, match="its owner is a"):
        world.explore(begin(world, FLOWS["old"], (False, False)))
