"""wish: what is asked for, held against what the nodes say: a plan, or every reason why not. Pure.

What is refused here is refused before anything has changed. ``looks``: each node's answer to ``remap_look``,
or why there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from ipshare.core import lib
from ipshare.errors import Refused
from ipshare.model import Prefix, contains
from ipshare.remap.machine import Part, Plan, Progress, Step

Look = dict[str, Any]
LEAST = {4: 576, 6: 1280}
"""Bytes that every network carries (RFC 791, RFC 8200)."""
DEPTH: int = lib.IPS_REMAP_DEPTH


@dataclass(frozen=True, slots=True)
class Wish:
    """``ipshare remap PREFIX --from ORIGIN --to TO``. Times in seconds."""

    prefix: Prefix
    origin: str
    to: str
    deadline_s: float | None = None
    replies_by_channel: bool = False
    quic: bool = False
    channel: str | None = None
    silence_s: float = 300.0
    patience_s: float = 30.0

    def is_that_of(self, plan: Plan) -> bool:
        return (self.prefix, self.origin, self.to) == (plan.prefix, plan.origin, plan.to)


class NotPossible(Refused):
    """Every reason, in ``reasons``."""

    def __init__(self, wish: Wish, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        text = "; ".join(self.reasons)
        super().__init__(
            f"{wish.prefix} is not remapped from {wish.origin} to {wish.to}: {text}",
            hint="nothing was changed",
        )


def plan_of(wish: Wish, looks: Mapping[str, Look | str], running: Sequence[Progress], least_id: int) -> Plan:
    """The plan. ``running``: what the journal has of others; ``least_id``: of the new remap. Raises
    NotPossible with everything that is against it."""
    if reasons := [*_itself(wish), *_unheard(looks), *_in_the_way(wish, running)]:
        raise NotPossible(wish, reasons)
    seen = {name: look for name, look in looks.items() if not isinstance(look, str)}
    if reasons := [*_places(wish, seen)]:
        raise NotPossible(wish, reasons)
    giver, taker = _at(seen, wish.origin)[0], _at(seen, wish.to)[0]
    points = tuple(sorted(name for name, look in seen.items() if look["distribution"]))
    reasons = [
        *_not_ready(seen),
        *_bound(wish, seen, giver, points),
        *_fits(wish, seen, (taker, *points)),
        *_halves(wish, seen, giver, taker),
        *_replies(wish, seen[giver]),
    ]
    used = {(part.channel, part.slot) for other in running for part in other.plan.parts}
    channel, slot, against = _channel(wish, seen[giver], seen[taker], used)
    earlier, more = _earlier(wish, seen, giver, taker, {*used, (channel, slot)})
    if reasons := [*reasons, *against, *more]:
        raise NotPossible(wish, reasons)
    had = [half["id"] for look in seen.values() for half in look["halves"]]
    had += [look["latest"] for look in seen.values()]
    first = max([least_id, *(one + 1 for one in had)])
    return Plan(
        id=first + len(earlier),
        prefix=wish.prefix,
        origin=wish.origin,
        to=wish.to,
        giver=giver,
        taker=taker,
        points=points,
        channel=channel,
        slot=slot,
        earlier=tuple(replace(part, id=first + number) for number, part in enumerate(earlier)),
        replies_by_channel=wish.replies_by_channel,
        quic=wish.quic,
        unknown_here=any(_gives(half) for half in _over(wish, seen[taker])),
        taker_had=seen[taker]["bound_to"],
        deadline_s=wish.deadline_s,
        silence_s=wish.silence_s,
        patience_s=wish.patience_s,
    )


def _itself(wish: Wish) -> Iterator[str]:
    if wish.origin == wish.to:
        yield f"it is at {wish.to} already: an address goes to another end point"


def _unheard(looks: Mapping[str, Look | str]) -> Iterator[str]:
    for name, look in looks.items():
        if isinstance(look, str):
            yield f"node {name} does not answer: {look}"
        elif look["node"] != name:
            yield f"the node that was named {name} is {look['node']}"


def _in_the_way(wish: Wish, running: Sequence[Progress]) -> Iterator[str]:
    for other in running:
        if other.step in (Step.DRAINING, Step.NAMING, Step.CLEARING) or other.step.is_over:
            continue
        if contains(other.plan.prefix, wish.prefix) or contains(wish.prefix, other.plan.prefix):
            yield f"remap {other.plan.id} of {other.plan} runs (it is {other.step.value})"


def _at(seen: Mapping[str, Look], endpoint: str) -> list[str]:
    return [name for name, look in seen.items() if look["endpoint"] == endpoint]


def _places(wish: Wish, seen: Mapping[str, Look]) -> Iterator[str]:
    known = sorted(str(look["endpoint"]) for look in seen.values() if look["endpoint"])
    for endpoint in (wish.origin, wish.to):
        nodes = _at(seen, endpoint)
        if len(nodes) != 1:
            what = f"{len(nodes)} nodes are" if nodes else "no node is"
            yield f"{what} end point {endpoint!r} (known: {', '.join(known) or 'none'})"
        elif seen[nodes[0]]["distribution"]:
            yield f"node {nodes[0]} is end point {endpoint} and a distribution point: it would flip at once"
    points = {look["distribution"] for look in seen.values() if look["distribution"]}
    if not points:
        yield "no distribution point is among the nodes"
    named = {name for look in seen.values() for name in look["distributions"]}
    for missing in sorted(named - points):
        yield f"distribution point {missing} is not among the nodes: it would go on sending to {wish.origin}"


def _not_ready(seen: Mapping[str, Look]) -> Iterator[str]:
    yield from (look["not_ready"] for look in seen.values() if look["not_ready"])


def _bound(wish: Wish, seen: Mapping[str, Look], giver: str, points: Sequence[str]) -> Iterator[str]:
    for name in (giver, *points):
        bound = seen[name]["bound_to"]
        if bound != wish.origin:
            yield f"at {name} it is not bound to {wish.origin} but to {bound or 'no end point'}"
        for inner in seen[name]["inside"]:
            yield f"at {name} {inner} in it has a binding of its own to {wish.origin}: remap that first"


def _fits(wish: Wish, seen: Mapping[str, Look], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if wish.to not in seen[name]["unfit"]:
            yield f"node {name} knows no end point {wish.to}"
        elif why := seen[name]["unfit"][wish.to]:
            yield f"at {name}: {why}"


def _over(wish: Wish, look: Look) -> list[dict[str, Any]]:
    """Halves that share an address with it."""
    prefixes = [(ip_network(half["prefix"]), half) for half in look["halves"]]
    return [half for p, half in prefixes if contains(p, wish.prefix) or contains(wish.prefix, p)]


def _gives(half: Mapping[str, Any]) -> bool:
    return half["role"] in ("preparing", "leaving")


def _halves(wish: Wish, seen: Mapping[str, Look], giver: str, taker: str) -> Iterator[str]:
    said = set()
    for name in (giver, taker):
        over = _over(wish, seen[name])
        for half in over:
            if half["role"] in ("preparing", "ready") and half["id"] not in said:
                said.add(half["id"])
                yield f"node {name} is half of remap {half['id']} of {half['prefix']}, which has not flipped"
        if len(over) >= DEPTH:
            yield f"node {name} is half of {len(over)} remaps of it already"


def _earlier(
    wish: Wish, seen: Mapping[str, Look], giver: str, taker: str, used: set[tuple[str, int]]
) -> tuple[list[Part], list[str]]:
    """Who had it before and drains still, the oldest first, without ids; or why it cannot go on from there.
    Nobody relays: each gives to the taker over a channel of its own (DESIGN.md 9)."""
    parts: list[Part] = []
    against: list[str] = []
    drains = [half for half in _over(wish, seen[giver]) if half["role"] == "taking"]
    for half in sorted(drains, key=lambda half: half["id"]):
        owner, prefix = half["peer"], ip_network(half["prefix"])
        prefix = wish.prefix if contains(prefix, wish.prefix) else prefix
        if owner == wish.to or any(p.origin == owner and contains(p.prefix, prefix) for p in parts):
            continue
        here = f"connections of {owner} drain at {giver} (remap {half['id']})"
        if len(nodes := _at(seen, owner)) != 1:
            against.append(f"{here}, and its node is not among the nodes: name it, or wait")
            continue
        asked = replace(wish, origin=owner, prefix=prefix, channel=None)
        channel, slot, why = _channel(asked, seen[nodes[0]], seen[taker], used)
        why += [
            *_halves(asked, seen, nodes[0], nodes[0]),
            *_fits(asked, seen, nodes),
            *_replies(asked, seen[nodes[0]]),
        ]
        against += [f"{here}: {text}" for text in why]
        used = {*used, (channel, slot)}
        parts.append(Part(0, prefix, owner, nodes[0], channel, slot))
    if parts and len(_over(wish, seen[taker])) + len(parts) >= DEPTH:
        against.append(f"node {taker} would be half of more than {DEPTH} remaps of it")
    return parts, against


def _replies(wish: Wish, giver: Look) -> Iterator[str]:
    if wish.replies_by_channel and giver["replies"] == "direct":
        yield f'replies of {wish.origin} pass no engine there (replies = "direct"): they cannot go back'


def _channel(wish: Wish, giver: Look, taker: Look, used: set[tuple[str, int]]) -> tuple[str, int, list[str]]:
    """(name, slot, []) of the first channel that suits, or why none does. ``used``: parts of channels that
    are planned for others."""
    theirs = {channel["name"]: channel for channel in taker["channels"] if channel["peer"] == wish.origin}
    against = []
    for ours in giver["channels"]:
        name = ours["name"]
        if ours["peer"] != wish.to or (wish.channel is not None and name != wish.channel):
            continue
        if name not in theirs:
            against.append(f"channel {name} is not in the file of {taker['node']}")
            continue
        planned = {slot for channel, slot in used if channel == name}
        slot, why = _suits(wish, ours, theirs[name], giver, taker, planned)
        if not why:
            return name, slot, []
        against.append(why)
    wanted = f"channel {wish.channel}" if wish.channel is not None else "channel"
    return "", 0, against or [f"there is no {wanted} from {wish.origin} to {wish.to}"]


def _suits(
    wish: Wish, ours: Look, theirs: Look, giver: Look, taker: Look, planned: set[int]
) -> tuple[int, str]:
    name = ours["name"]
    if ours["kind"] != theirs["kind"] or ours["mtu"] != theirs["mtu"]:
        return 0, f"channel {name} is not the same at both ends"
    if not (ours["carries"] and theirs["carries"]):
        return 0, f"channel {name} has no prefixes for {wish.prefix}"
    if wish.replies_by_channel and ours["kind"] == "rewrite":
        return 0, f"channel {name} re-addresses: replies cannot go back through it"
    for look, channel in ((giver, ours), (taker, theirs)):
        if channel["trouble"]:
            return 0, f"at {look['node']}: {channel['trouble']}"
    if ours["room"] < LEAST[wish.prefix.version]:
        least = LEAST[wish.prefix.version]
        return 0, f"channel {name} carries {ours['room']} bytes: IPv{wish.prefix.version} needs {least}"
    taken = planned | {
        half["slot"] for look in (giver, taker) for half in look["halves"] if half["channel"] == name
    }
    free = next((slot for slot in range(ours["slots"]) if slot not in taken), None)
    return (free, "") if free is not None else (0, f"every part of channel {name} is in use")
