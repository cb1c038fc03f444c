"""pair_text: the state of a pair as JSON values and as words, and what is wrong with it, each with a remedy.

Numbers of paths and VIPs get their names from the configuration. Pure.
"""

from __future__ import annotations

from typing import Any

from ipshare.core.pair import PAIR_LATE
from ipshare.engine.pairing import PairState
from ipshare.model import Pair


def report(state: PairState, pair: Pair) -> dict[str, Any]:
    """JSON values; durations are counted to the moment of the answer."""
    return {
        "node": pair.node,
        "peer": pair.peer,
        "preferred": pair.is_preferred,
        "state": state.state,
        "old_state": state.old_state,
        "reason": state.reason,
        "text": state.reason_text,
        "changes": state.changes,
        "since_s": _age_s(state, state.since_ns),
        "forwards": state.forwards,
        "ready": state.is_ready,
        "epoch": state.epoch,
        "epoch_node": {pair.node_id: pair.node, pair.peer_id: pair.peer}.get(state.epoch_node),
        "peer_state": state.peer_state,
        "differs": list(state.differs),
        "peer_silent_s": _age_s(state, state.peer_heard_ns) if state.peer_heard_ns else None,
        "paths": [
            {"path": str(path), "up": number in state.paths_up} for number, path in enumerate(pair.paths)
        ],
        "vips": [
            {"address": str(vip.address), "interface": vip.interface, "link": number not in state.links_down}
            for number, vip in enumerate(pair.vips)
        ],
        "criteria": [
            {"criterion": str(criterion), "met": number not in state.criteria_failed}
            for number, criterion in enumerate(pair.criteria)
        ],
        "interfaces": [
            {"name": port.name, "ok": number not in state.ports_wrong}
            for number, port in enumerate(pair.ports)
        ],
        "public": [
            {"prefix": str(one.prefix), "interface": one.interface, "link": number not in state.publics_down}
            for number, one in enumerate(pair.publics)
        ],
        "witness": None
        if pair.witness is None
        else {
            "address": str(pair.witness),
            "up": "no_witness" not in state.notes,
            "grants_s": max(0, state.granted_until_ns - state.now_ns) / 1e9,
        },
        "realtime": "realtime" in state.notes,
        "troubles": troubles(state, pair),
        **{name: getattr(state, name) for name in COUNTS},
        "jitter_us": state.jitter_ns / 1e3,
        "late": {
            name: {"times": times, "longest_us": longest / 1e3}
            for name, times, longest in zip(
                PAIR_LATE.values(), state.late, state.longest_late_ns, strict=False
            )
        },
        "last_late": None
        if not state.last_late
        else {
            "why": state.last_late,
            "us": state.last_late_ns / 1e3,
            "ago_s": _age_s(state, state.last_late_at_ns),
        },
    }


COUNTS = ("sent", "received", "refused", "vip_answers", "vip_refused", "announcements", "pauses")
_WHY_LATE = {
    "machine": "the machine stood still",
    "processor": "got no processor",
    "work": "its own work",
    "lock": "waited in its work",
    "worker": "a worker stood still",
}


def troubles(state: PairState, pair: Pair) -> list[str]:
    """What is wrong now, a sentence each. A peer that is not heard is one thing, not also all its paths."""
    which = ", ".join(state.differs)
    found = [
        text.format(peer=pair.peer, node=pair.node, which=f": {which}" if which else "")
        for note, text in _NOTES.items()
        if note in state.notes
    ]
    down = [str(path) for number, path in enumerate(pair.paths) if number not in state.paths_up]
    if len(down) == len(pair.paths):
        if not {"wrong_key", "other_version"} & set(state.notes):
            found.append(f"{pair.peer} is not heard on any path")
    else:
        bad_end = "one more failure, and both are active"
        if pair.witness is not None:
            bad_end = "one more failure, and the witness decides"
        found += [f"{pair.peer} is not heard on path {path}: {bad_end}" for path in down]
    for number in state.ports_wrong:
        found.append(f"sub-interface {pair.ports[number].name} is gone, or cannot be set up or down")
    for number in state.publics_down:
        public = pair.publics[number]
        found.append(f"{public.interface}, the interface of {public.prefix}, is down or gone")
    found += [f"not met: {pair.criteria[number]}" for number in state.criteria_failed]
    if "no_witness" in state.notes:
        found.append(_witness_trouble(pair))
    for number, vip in enumerate(pair.vips):
        if number in state.links_down:
            found.append(f"{vip.interface}, the interface of VIP {vip.address}, is down or gone")
    return found


def _witness_trouble(pair: Pair) -> str:
    return (
        f"the witness {pair.witness} is not heard (not reached, not running, or with another key): "
        "a node that loses its peer as well stops"
    )


_NOTES = {
    "wrong_key": "what comes from {peer} is sealed with another key: both nodes need the same key file",
    "other_version": "{peer} speaks no version of the pair's protocol that is known here: "
    "install versions next to each other",
    "mismatch": "{peer} has another [pair]{which}; apply the same file at both nodes",
    "same_node": "what comes from {peer} says that it is {node}, this node: correct [node].name there",
    "no_epoch_file": "pair.epoch in state_dir cannot be read or written: this node does not become active",
}


def lines(state: PairState, pair: Pair) -> list[str]:
    """For people: a name and a value each, then what is wrong."""
    heard = f"heard {_span(_age_s(state, state.peer_heard_ns))} ago" if state.peer_heard_ns else "never heard"
    up = f"{len(state.paths_up)} of {len(pair.paths)} up"
    text = [
        f"{'state':12} {state.state} for {_span(_age_s(state, state.since_ns))}: {state.reason_text}",
        f"{'forwards':12} {'yes' if state.forwards else 'no'}, epoch {state.epoch}",
        f"{'peer':12} {pair.peer} is {state.peer_state}, {heard}, paths {up}",
    ]
    if pair.witness is not None:
        up = "not heard" if "no_witness" in state.notes else "heard"
        grants = ", supports this node" if state.granted_until_ns > state.now_ns else ""
        text.append(f"{'witness':12} {pair.witness}, {up}{grants}")
    if pair.vips:
        text.append(f"{'VIPs':12} {', '.join(f'{vip.address} on {vip.interface}' for vip in pair.vips)}")
    if any(state.late):
        text.append(f"{'late':12} {_lateness(state)}")
    return text


def ready_lines(state: PairState, pair: Pair, mirror_troubles: list[str]) -> list[str]:
    """Whether a switchover would be taken, and what is in its way."""
    here = f"this node is {state.state}, {pair.peer} {state.peer_state}"
    if state.is_ready:
        return [f"ready: {here}"]
    return [f"not ready: {here}", *troubles(state, pair), *mirror_troubles]


def _lateness(state: PairState) -> str:
    """How often the engine's thread was late, by how much at worst, what kept it; when that was last so."""
    causes = [
        f"{times} x {_WHY_LATE.get(name, name)}, {longest / 1e6:.1f} ms at worst"
        for name, times, longest in zip(PAIR_LATE.values(), state.late, state.longest_late_ns, strict=False)
        if times
    ]
    ago = _span(_age_s(state, state.last_late_at_ns))
    return f"{'; '.join(causes)}; {state.pauses} pauses; last {ago} ago"


def change_line(state: PairState) -> str:
    """One change, for ``pair status --watch``."""
    if state.reason == "NONE":
        return f"{state.state}: the engine began anew"
    return f"{state.old_state} -> {state.state}: {state.reason_text} (epoch {state.epoch})"


def _age_s(state: PairState, then_ns: int) -> float:
    return max(0, state.now_ns - then_ns) / 1e9


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
