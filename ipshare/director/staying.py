"""staying: which distribution points may withdraw by themselves when they do not hear the director
(withdraw_after in [bgp]): all but one, which has said that it stays. Pure.

One stays: the first by name of those that are heard and announce. Another one may withdraw only after that
one has said that it stays (who is cut off takes no such word: ipshare.agent.heard), and was told nothing else
since. So at least one that was
alive when it was heard last believes that it stays, whichever messages are lost: who is cut off, or outlives
the director, never withdraws as the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SLACK_S = 5.0
"""From the end of withdraw_after to the withdrawal at the neighbours: a look of the agent, and BIRD."""


@dataclass(frozen=True, slots=True)
class Point:
    """``announces``: it was heard lately, and said so; ``stays``: it said that it stays, and was told nothing
    else since."""

    announces: bool = False
    stays: bool = False


def may_withdraw(name: str, points: Mapping[str, Point]) -> bool:
    """What ``name`` is to be told now."""
    stayer = min((other for other, point in points.items() if point.announces), default=name)
    return stayer != name and points[stayer].stays


def gone_s(withdraw_after_s: float, drift: float) -> float:
    """By the director's clock, from the reading that the node counts from: then it has withdrawn."""
    return (withdraw_after_s + SLACK_S) * (1 + drift) / (1 - drift)
