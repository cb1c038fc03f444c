"""progress: whether a group that was moved has arrived: facts in, an answer out. Pure.

    done      its new end point is ready and every distribution point that answers sends by the new revision;
              whoever answers has taken what is his. A silent distribution point is not waited for: the
              rollout keeps the old end point serving what it may still send
    failed    a node of the new end point refused, or a distribution point that refused nothing before
    wait      for whom

Nodes that refused already when the move began say nothing about it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from ipshare.director.rollout import FINAL, Facts
from ipshare.director.topology import NodeRow

Verdict = Literal["done", "failed", "wait"]


def progress(
    nodes: Mapping[str, NodeRow],
    facts: Mapping[str, Facts],
    revision: int,
    endpoint: str,
    silent: Collection[str],
    before: Collection[str],
) -> tuple[Verdict, str]:
    """``endpoint``: the new one; ``silent``: nodes that are not waited for any more; ``before``: those that
    refused before."""
    target = sorted(name for name, row in nodes.items() if row.endpoint == endpoint)
    points = sorted(name for name, row in nodes.items() if row.distribution)
    ready = [name for name in target if facts[name].has[0] == revision]
    for name in (*target, *points):
        if facts[name].refused and facts[name].has[0] != revision and name not in before:
            return "failed", f"{name} refused: {facts[name].refused}"
    if not ready:
        return "wait", f"waits for {', '.join(target)}"
    late = [n for n in points if facts[n].has != (revision, FINAL) and not facts[n].is_withdrawn]
    if points and late == points:
        return "wait", f"waits for {', '.join(late)}"
    behind = [name for name in late if name not in silent and name not in before]
    for name, row in nodes.items():
        has, passive = facts[name].has, name in silent or bool(facts[name].refused)
        if row.distribution is None and not passive:
            old = has[0] == revision and bool(late)  # it serves what the late ones may send
            behind += [] if has == (revision, FINAL) or old else [name]
    return ("wait", f"waits for {', '.join(behind)}") if behind else ("done", _unheard(late))


def _unheard(late: Collection[str]) -> str:
    return f"without {', '.join(late)}" if late else ""
