"""flows_text: mirror, NAT pools and the session table as JSON values and as words, and what is wrong with
them.

Names come from the configuration. Sessions themselves are in ipshare.engine.session_text. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ipshare.engine.flows import FlowsState, MirrorPeer
from ipshare.engine.tables import Records
from ipshare.model import Config, Nat, unpacked

SEVERAL = {
    "resyncs": ("RESYNC_RING", "RESYNC_LAG", "RESYNC_REFUSED"),
    "digest_mismatches": ("SHARDS_RESYNCED", "SHARDS_DIVERGED"),
}
"""What an operator asks for -> counters of native/ips_mirror.def that say it."""


def mirror_report(
    state: FlowsState, config: Config, database: dict[str, Any] | None = None
) -> dict[str, Any]:
    """JSON values. ``ready``: the standby could take over. ``config`` has a mirror and a pair.
    ``uncommitted``: first packets that did not wait to the end; ``gaps``, ``resyncs``, ``conflicts``,
    ``digest_mismatches``: since the engine began. ``database``: what the agent does with one."""
    assert config.mirror is not None and config.pair is not None, "a node that mirrors"
    counters, peer = state.counters, state.peers[0]
    return {
        "node": config.pair.node,
        "role": "active" if state.is_active else "standby",
        "ready": is_safe(state),
        "epoch": state.epoch,
        "commit": config.mirror.commit.value,
        "sessions": state.sessions["sessions"],
        "peers": [_peer(peer, _peer_name(config), state.now_ns)],
        "committed": state.committed,
        "uncommitted": state.uncommitted,
        "waiting": state.held,
        "waiting_full": state.hold_full,
        "dropped": state.hold_dropped,
        "gaps": counters["GAPS"],
        **{name: sum(counters[part] for part in parts) for name, parts in SEVERAL.items()},
        "conflicts": state.sessions["conflicts"],
        "counters": dict(counters),
        "database": database,
        "troubles": mirror_troubles(state, config),
    }


def _peer_name(config: Config) -> str:
    """Who gets the sessions: the other node, or the database."""
    assert config.mirror is not None and config.pair is not None, "a node that mirrors"
    return config.pair.peer if config.mirror.database is None else "redis"


def is_safe(state: FlowsState) -> bool:
    """Whether a takeover now would break no committed connection. Of the active node's own readiness an
    engine says nothing but that it is active."""
    return state.peers[0].is_ready if state.is_active else state.is_ready


def _peer(peer: MirrorPeer, name: str, now_ns: int) -> dict[str, Any]:
    return {
        "name": name,
        "phase": peer.phase,
        "ready": peer.is_ready,
        "refusal": None if peer.refusal == "not" else peer.refusal,
        "feeds_us": peer.feeds_us,
        "complete": peer.is_complete,
        "lag_events": peer.lag_events,
        "lag_ms": peer.lag_ns / 1e6,
        "under_way": peer.under_way,
        "round_trip_ms": peer.round_trip_ns / 1e6,
        "notes": list(peer.notes),
        "silent_s": max(0, now_ns - peer.heard_ns) / 1e9 if peer.heard_ns else None,
    }


def mirror_troubles(state: FlowsState, config: Config) -> list[str]:
    """What is wrong now, a sentence each."""
    if config.mirror is None or config.pair is None or not state.has_mirror:
        return []
    peer, name = state.peers[0], _peer_name(config)
    if is_safe(state):
        return []
    breaks = ": a takeover now would break connections"
    if "wrong_key" in peer.notes:
        return [f"what comes from {name} is sealed with another key{breaks}"]
    if "mismatch" in peer.notes:
        return [f"{name} has other [[nat]] tables and gets no sessions: apply the same file at both nodes"]
    if "heard" not in peer.notes:
        return [f"{name} is not heard on any path of the mirror{breaks}"]
    if not state.is_active:
        return [f"this node has not all sessions of {name}{breaks}"]
    if peer.phase == "waiting":
        return [f"{name} refused the mirror's stream ({peer.refusal}); it is tried again"]
    if peer.phase == "off":
        return [f"{name} gets no sessions{breaks}"]
    return [f"{name} is being brought up to date{breaks}"]


def mirror_lines(state: FlowsState, config: Config) -> list[str]:
    """For people: a name and a value each."""
    report = mirror_report(state, config)
    peer = report["peers"][0]
    role = f"{report['role']}, {'ready' if report['ready'] else 'not ready'}, epoch {report['epoch']}"
    text = [f"{'role':14} {role}, {report['sessions']:,} sessions"]
    if state.is_active:
        stream = f"{peer['phase']}, {'ready' if peer['ready'] else 'not ready'}"
        lag = f"{peer['lag_events']:,} changes ({peer['lag_ms']:.1f} ms) behind"
        text.append(f"{'to ' + peer['name']:14} {stream}, {lag}, {peer['under_way']} datagrams under way")
        waited = f"{report['committed']:,} committed, {report['uncommitted']:,} not in time"
        text.append(
            f"{'first packets':14} {waited}, {report['waiting']:,} waiting; commit = {report['commit']}"
        )
    else:
        fed = "complete" if report["ready"] else "being filled" if peer["feeds_us"] else "no stream"
        heard = f", heard {peer['silent_s']:.1f} s ago" if peer["silent_s"] is not None else ""
        text.append(f"{'from ' + peer['name']:14} {fed}{heard}")
    counts = (f"{report[name]:,} {name.replace('_', ' ')}" for name in
              ("gaps", "resyncs", "conflicts", "digest_mismatches"))  # fmt: skip
    return [*text, f"{'so far':14} {', '.join(counts)}"]


def mirror_line(state: FlowsState, config: Config) -> str:
    """One moment, for ``mirror status --watch``."""
    peer = state.peers[0]
    role = "active" if state.is_active else "standby"
    ready = "ready" if is_safe(state) else "not ready"
    return (
        f"{role}, {peer.phase if state.is_active else 'fed' if peer.feeds_us else 'not fed'}, {ready}, "
        f"lag {peer.lag_events} changes {peer.lag_ns / 1e6:.1f} ms, "
        f"committed {state.committed}, uncommitted {state.uncommitted}"
    )


def sessions_report(state: FlowsState) -> dict[str, int]:
    """The session table's numbers: now, room, and refusals since the engine began."""
    names = (
        *("sessions", "capacity", "half_open", "half_open_capacity", "mappings", "mapping_capacity", "bytes"),
        *("opened", "ended", "expired", "full", "half_open_full", "source_limit", "ports_exhausted"),
    )
    return {name: state.sessions[name] for name in names}


def sessions_troubles(state: FlowsState) -> list[str]:
    """A table that is full now."""
    have = state.sessions
    found = []
    for name, room in (("sessions", "capacity"), ("mappings", "mapping_capacity")):
        if have[room] and have[name] >= have[room]:
            key = "capacity" if name == "sessions" else "mappings"
            found.append(f"all {have[room]:,} {name} are in use: new connections are refused; raise {key}")
    return found


def nat_report(
    addresses: Records, nats: Sequence[Nat], ports_exhausted: int, *, limit: int = 0
) -> dict[str, Any]:
    """A NAT each, with its addresses; ``limit``: so many of each, the fullest first; 0: all.

    ``ports``: how many of each protocol an address can give out. ``ports_exhausted``: connections refused
    since the engine began because no address of their pool had a port."""
    found = []
    for nat in nats:
        mine = addresses[addresses["realm"] == nat.realm]
        fullest = np.maximum(np.maximum(mine["tcp"], mine["udp"]), mine["icmp"]).astype(np.int64)
        order = np.argsort(-fullest, kind="stable")
        rows = [_address(mine[i], nat) for i in order[: limit or None]]
        used = {name: int(mine[name].sum()) for name in ("tcp", "udp", "icmp", "whole")}
        found.append(
            {
                "name": nat.name,
                "realm": nat.realm,
                "inside": [str(prefix) for prefix in nat.inside],
                "pools": [str(pool) for pool in nat.pools],
                "filtering": nat.filtering.value,
                "ports": nat.last_port - nat.first_port + 1,
                "count": len(mine),
                **used,
                "addresses": rows,
            }
        )
    return {"ports_exhausted": ports_exhausted, "nats": found}


def _address(row: Any, nat: Nat) -> dict[str, Any]:
    used = {name: int(row[name]) for name in ("tcp", "udp", "icmp", "whole")}
    ports = nat.last_port - nat.first_port + 1
    return {
        "address": str(unpacked(row["address"].tobytes(), int(row["family"]))),
        **used,
        "used": max(used["tcp"] / ports, used["udp"] / ports, used["icmp"] / 65535),
    }
