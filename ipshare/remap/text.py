"""text: a remap as a JSON value and as words: what it is doing, what is left, what became of it. Pure."""

from __future__ import annotations

from typing import Any

from ipshare.engine.remap_text import count_words, state_json
from ipshare.engine.remapping import RemapState
from ipshare.remap.executor import View
from ipshare.remap.machine import Plan, Progress, Step, left_s

DOING = {
    Step.BINDING: "{taker} learns the address",
    Step.READYING: "{taker} gets ready",
    Step.PREPARING: "{giver} prepares",
    Step.SYNCING: "the connections of {origin} go to {taker}",
    Step.LEAVING: "{giver} opens no connection any more",
    Step.FENCING: "{taker} gets the last of them",
    Step.TAKING: "{taker} takes over",
    Step.FLIPPING: "distribution points flip",
    Step.DRAINING: "{giver} drains",
    Step.NAMING: "the deadline has passed: what is cut",
    Step.CLEARING: "the channel goes",
    Step.DONE: "done",
    Step.UNDOING: "undoing",
    Step.UNDONE: "undone",
}
SHOWN = 10
"""Connections that are named to people; JSON has all."""


def doing(progress: Progress) -> str:
    """What happens now."""
    plan = progress.plan
    return DOING[progress.step].format(giver=plan.giver, taker=plan.taker, origin=plan.origin)


def report(progress: Progress, view: View | None = None) -> dict[str, Any]:
    """JSON values. ``at_giver``, ``at_taker``: the halves as they were seen last, or None."""
    plan, cut = progress.plan, progress.cut
    states = view.states if view is not None else {}

    def seen(node: str) -> dict[str, Any] | None:
        return state_json(states[node]) if node in states else None

    return {
        "id": plan.id,
        "prefix": str(plan.prefix),
        "from": plan.origin,
        "to": plan.to,
        "giver": plan.giver,
        "taker": plan.taker,
        "channel": plan.channel,
        "earlier": [
            {"id": p.id, "from": p.origin, "giver": p.giver, "channel": p.channel, "at_giver": seen(p.giver)}
            for p in plan.earlier
        ],
        "step": progress.step.value,
        "doing": doing(progress),
        "reason": progress.reason or None,
        "flipped": list(progress.flipped),
        "waits_for": list(progress.waits_for),
        "deadline_s": plan.deadline_s,
        "opened_there": progress.opened_there,
        "cut": None if cut is None else {"count": cut.count, "exact": cut.is_exact, "flows": list(cut.flows)},
        "silent": dict(view.silent) if view is not None else {},
        "at_giver": seen(plan.giver),
        "at_taker": seen(plan.taker),
    }


def count_line(progress: Progress, view: View) -> str:
    """How much is left; "": nobody knows yet."""
    plan = progress.plan
    state = view.states.get(plan.giver)
    if state is None:
        return ""
    words = [f"{count_words(state)} left at {plan.origin}"]
    drains = [(part.origin, view.states[part.giver]) for part in plan.earlier if part.giver in view.states]
    words += [f"{count_words(other)} at {origin}" for origin, other in drains]
    if (seconds := left_s(progress, view.now_s)) is not None:
        words.append(f"cut in {seconds:.0f} s")
    if wait := settling_s(plan, state):
        words.append(f"tracked since {(state.now_ns - state.tracked_ns) / 1e9:.0f} s, {wait:.0f} s to go")
    return ", ".join(words)


def settling_s(plan: Plan, state: RemapState) -> float:
    """How long zero does not end it yet."""
    if state.flows or not state.fence_ns:
        return 0.0
    return max(0.0, plan.silence_s - (state.now_ns - state.tracked_ns) / 1e9)


def outcome(progress: Progress) -> list[str]:
    """What became of it."""
    plan, cut = progress.plan, progress.cut
    if progress.step is Step.UNDONE:
        lines = [f"{plan} was undone: {progress.reason}", f"everything is at {plan.origin}, as before"]
        if progress.opened_there:
            count = progress.opened_there
            lines.append(f"{count:,} connection{'s were' if count > 1 else ' was'} opened at {plan.to}: cut")
        return lines
    if progress.step is not Step.DONE:
        return [f"{plan}: {doing(progress)}"]
    lines = [f"{plan}: done"]
    if cut is not None and cut.count:
        bound = "" if cut.is_exact else "at most "
        lines.append(f"the deadline cut {bound}{cut.count:,} connection{'s' if cut.count > 1 else ''}:")
        lines += [f"  {flow}" for flow in cut.flows[:SHOWN]]
        if cut.count > SHOWN:
            lines.append(f"  and {cut.count - SHOWN:,} more (--json has them)")
    elif progress.reason:
        lines.append(progress.reason)
    elif plan.deadline_s is not None and progress.took_s is not None and cut is None:
        lines.append("no connection was cut")
    return lines
