"""An exclusive workload on a model whose every state is visited: it never runs at two nodes; and without any
one of the protocol's rules it does."""

from __future__ import annotations

import pytest

from tests.models.exclusive import (
    LEASE,
    STOP,
    Broken,
    Rules,
    Troubles,
    World,
    begin,
    explore,
    replaced,
    stuck,
)

RATES = [(10, 10, 10), (11, 9, 11), (9, 11, 9), (11, 9, 9)]
"""Of the director, of A, of B: 11 is a clock that is a tenth too fast."""


@pytest.mark.parametrize("rates", RATES)
def test_it_never_runs_twice_and_gets_there_by_each_way(rates: tuple[int, int, int]) -> None:
    worlds = explore(rates, begin(Troubles()))
    assert {world.kept.how for world in worlds if world.nodes[1].runs} == {"stopped", "expired"}


@pytest.mark.parametrize("trouble", ["director", "keeper", "machine"])
def test_whoever_is_replaced_killed_or_booted(trouble: str) -> None:
    worlds = explore((11, 9, 11), begin(Troubles(**{trouble: True})))
    assert any(world.nodes[1].runs and not getattr(world.left, trouble) for world in worlds)


def test_what_could_not_be_stopped_is_not_waited_for_however_often_it_is_tried() -> None:
    """Trying again is no news: only that it was stopped is."""
    worlds = explore((11, 9, 11), stuck())
    assert {world.kept.how for world in worlds if world.nodes[1].runs} == {"stopped"}
    assert any(
        world.nodes[0].held.word == "stopping" and world.directors[0].quiet >= LEASE for world in worlds
    )


@pytest.mark.parametrize(
    ("rules", "first"),
    [
        (Rules(asks_store=False), replaced()),
        (Rules(echoes=False), begin(Troubles())),
        (Rules(wait=STOP), begin(Troubles())),
        (Rules(wait=LEASE, stops_early=False), begin(Troubles())),
        (Rules(remembers=False), begin(Troubles())),
        (Rules(begins_quiet=False), begin(Troubles(director=True))),
    ],
    ids=["who counts", "echo", "no lease is waited for", "late stops, no time for them", "memory", "begin"],
)
def test_every_rule_is_needed(rules: Rules, first: World) -> None:
    with pytest.raises(Broken) as found:
        explore((11, 9, 11), first, rules)
    print(found.value)  # the shortest way there, for whoever runs this with -rP
