"""The mirror's order on a model whose every state is visited; without any one of its rules it breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.models.mirror import Broken, Rules, explore


def test_no_committed_session_is_lost_and_there_is_no_ghost() -> None:
    assert explore(3) > 50_000


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("remembered_in_the_next_set", "ghost"),
        ("first_set_without_upserts", "ghost"),
        ("fence_before_scan", "lost"),
        ("sweep", "ghost"),
        ("last_set_before_ready", "fence"),
    ],
)
def test_every_rule_is_needed(rule: str, what: str) -> None:
    with pytest.raises(Broken, match=what) as found:
        explore(3, replace(Rules(), **{rule: False}))
    print(found.value)  # the shortest way there, for whoever runs this with -rP
