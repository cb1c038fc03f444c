"""An exclusive workload on a model whose every state is visited: it never runs at two nodes; and without any
one of the protocol's rules it does."""

from __future__ import annotations

import pytest

from tests.models.exclusive import LEASE, STOP, Broken, Rules, Troubles, explore

RATES = [(10, 10, 10), (11, 9, 11), (9, 11, 9), (11, 9, 9)]
"""Of the director, of A, of B: 11 is a clock that is a tenth too fast."""


@pytest.mark.parametrize("rates", RATES)
def test_it_never_runs_twice_and_gets_there_by_each_way(rates: tuple[int, int, int]) -> None:
    worlds = explore(rates, Troubles())
    assert {world.kept.how for world in worlds if world.nodes[1].runs} == {"stopped", "expired"}


@pytest.mark.parametrize("trouble", ["director", "keeper", "machine"])
def test_whoever_is_replaced_killed_or_booted(trouble: str) -> None:
    worlds = explore((11, 9, 11), Troubles(**{trouble: True}))
    assert any(world.nodes[1].runs and not getattr(world.left, trouble) for world in worlds)


@pytest.mark.parametrize(
    ("rules", "troubles"),
    [
        (Rules(asks_store=False), Troubles(director=True)),
        (Rules(echoes=False), Troubles()),
        (Rules(wait=STOP), Troubles()),
        (Rules(wait=LEASE, stops_early=False), Troubles()),
        (Rules(remembers=False), Troubles()),
        (Rules(begins_quiet=False), Troubles(director=True)),
    ],
    ids=["who counts", "echo", "no lease is waited for", "late stops, no time for them", "memory", "begin"],
)
def test_every_rule_is_needed(rules: Rules, troubles: Troubles) -> None:
    with pytest.raises(Broken) as found:
        explore((11, 9, 11), troubles, rules)
    print(found.value)  # the shortest way there, for whoever runs this with -rP
