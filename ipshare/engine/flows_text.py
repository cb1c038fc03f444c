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
    assert config.mirror is not None, "a node that mirrors"
    counters, names = state.counters, _peer_names(config)
    return {
        "node": config.mirror.node,
        "role": _role(state, config),
        "ready": is_safe(state),
        "epoch": state.epoch,
        "commit": config.mirror.commit.value,
        "sessions": state.sessions["sessions"],
        "peers": [_peer(peer, name, state.now_ns) for peer, name in zip(state.peers, names, strict=False)],
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


def _peer_names(config: Config) -> list[str]:
    """Who gets the sessions, or has them: other nodes, or the database."""
    assert config.mirror is not None, "a node that mirrors"
    return [peer.name for peer in config.mirror.peers] if config.mirror.database is None else ["redis"]


def _role(state: FlowsState, config: Config) -> str:
    is_observer = config.mirror is not None and config.mirror.is_observer
    return "active" if state.is_active else "observer" if is_observer else "standby"


def _main(state: FlowsState, config: Config) -> tuple[MirrorPeer, str]:
    """The peer that counts, and its name: the pair's other node; at an observer, who feeds it."""
    named = list(zip(state.peers, _peer_names(config), strict=False))
    return next((one for one in named if one[0].feeds_us and not state.is_active), named[0])


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
        "differs": list(peer.differs),
        "refused": peer.refused,
        "silent_s": max(0, now_ns - peer.heard_ns) / 1e9 if peer.heard_ns else None,
    }


def mirror_troubles(state: FlowsState, config: Config) -> list[str]:
    """What is wrong now, a sentence each."""
    if config.mirror is None or not state.has_mirror:
        return []
    found = [] if is_safe(state) else [_not_safe(state, config, *_main(state, config))]
    if state.is_active:
        rest = list(zip(state.peers, _peer_names(config), strict=False))[1:]
        found += [_not_safe(state, config, peer, name) for peer, name in rest if not peer.is_ready]
    for peer, name in zip(state.peers, _peer_names(config), strict=False):
        other = [text for part, text in SETTINGS.items() if part in peer.differs]
        if other and "mismatch" not in peer.notes:
            which = " and ".join(other)
            found.append(f"{name} has other {which} in [sessions]: apply the same file at both nodes")
    return found


SETTINGS = {"timeouts": "timeouts", "sizes": "sizes"}
"""Parts whose difference keeps no session from going over."""


def _not_safe(state: FlowsState, config: Config, peer: MirrorPeer, name: str) -> str:
    is_half = config.pair is not None and name in (config.pair.peer, "redis")
    breaks = ": a takeover now would break connections" if is_half else ""
    if "wrong_key" in peer.notes:
        return f"what comes from {name} is sealed with another key{breaks}"
    if "other_version" in peer.notes:
        return f"{name} speaks no version of the mirror's protocol that is known here{breaks}"
    if "mismatch" in peer.notes:
        which = ", ".join(part for part in peer.differs if part not in SETTINGS)
        tables = f"other [[nat]] tables{f' ({which})' if which else ''}"
        return f"{name} has {tables}, and sessions are not mirrored: apply the same file at both nodes"
    if "heard" not in peer.notes:
        return f"{name} is not heard on any path of the mirror{breaks}"
    if not state.is_active:
        return f"this node has not all sessions of {name}{breaks}"
    if peer.phase == "waiting":
        return f"{name} refused the mirror's stream ({peer.refusal}); it is tried again"
    if peer.phase == "off":
        return f"{name} gets no sessions{breaks}"
    return f"{name} is being brought up to date{breaks}"


def mirror_lines(state: FlowsState, config: Config) -> list[str]:
    """For people: a name and a value each."""
    report = mirror_report(state, config)
    first, name = _main(state, config)
    peer = _peer(first, name, state.now_ns)
    role = f"{report['role']}, {'ready' if report['ready'] else 'not ready'}, epoch {report['epoch']}"
    text = [f"{'role':14} {role}, {report['sessions']:,} sessions"]
    if state.is_active:
        stream = f"{peer['phase']}, {'ready' if peer['ready'] else 'not ready'}"
        lag = f"{peer['lag_events']:,} changes ({peer['lag_ms']:.1f} ms) behind"
        text.append(f"{'to ' + peer['name']:14} {stream}, {lag}, {peer['under_way']} datagrams under way")
        for more in report["peers"][1:]:
            stream = f"{more['phase']}, {'ready' if more['ready'] else 'not ready'}"
            lag = f"{more['lag_events']:,} changes behind; an observer"
            text.append(f"{'to ' + more['name']:14} {stream}, {lag}")
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
    text.append(f"{'so far':14} {', '.join(counts)}")
    if refused := {row["name"]: row["refused"] for row in report["peers"] if row["refused"]}:
        said = ", ".join(f"{n:,} from {name}" for name, n in refused.items())
        text.append(f"{'refused':14} datagrams that were forged, damaged, old or of another key: {said}")
    return text


def mirror_line(state: FlowsState, config: Config) -> str:
    """One moment, for ``mirror status --watch``."""
    (peer, _), role = _main(state, config), _role(state, config)
    ready = "ready" if is_safe(state) else "not ready"
    return (
        f"{role}, {peer.phase if state.is_active else 'fed' if peer.feeds_us else 'not fed'}, {ready}, "
        f"lag {peer.lag_events} changes {peer.lag_ns / 1e6:.1f} ms, "
        f"committed {state.committed}, uncommitted {state.uncommitted}"
    )


def sessions_report(state: FlowsState) -> dict[str, Any]:
    """The session table's numbers: now, room, refusals since the engine began; what is wrong now."""
    names = (
        *("sessions", "capacity", "half_open", "half_open_capacity", "mappings", "mapping_capacity", "bytes"),
        *("opened", "ended", "expired", *REFUSALS),
    )
    return {name: state.sessions[name] for name in names} | {"troubles": sessions_troubles(state)}


REFUSALS = {
    "full": "no room",
    "half_open_full": "half_open is full",
    "source_limit": "a source has half_open_per_source",
    "ports_exhausted": "no port is free",
}
"""Why a new connection was refused, each a counter."""
ROOMS = (
    ("sessions", "capacity", "capacity", "new connections are refused"),
    ("mappings", "mapping_capacity", "mappings", "new connections are refused"),
    ("half_open", "half_open_capacity", "half_open", "new connections are refused; is this a SYN flood?"),
)


def sessions_troubles(state: FlowsState, before: FlowsState | None = None) -> list[str]:
    """What is full now; ``before``: the same some time ago: what was refused since then."""
    have = state.sessions
    found = []
    for name, room, key, what in ROOMS:
        if have[room] and have[name] >= have[room]:
            words = "half-open connections" if name == "half_open" else name
            found.append(f"all {have[room]:,} {words} are in use: {what}; raise {key}")
    if before is None:
        return found
    more = {why: have[name] - before.sessions[name] for name, why in REFUSALS.items()}
    said = ", ".join(f"{n:,}: {why}" for why, n in more.items() if n > 0)
    return [*found, f"new connections refused since the last look: {said}"] if said else found


def mirror_attacks(state: FlowsState, before: FlowsState | None, config: Config) -> list[str]:
    """Who sends what nobody believes, since ``before``; some come whenever a stream begins anew."""
    if before is None or config.mirror is None:
        return []
    return [
        f"{peer.refused - old.refused:,} datagrams as if from {name} were refused since the last look"
        for peer, old, name in zip(state.peers, before.peers, _peer_names(config), strict=False)
        if peer.refused - old.refused >= MANY_REFUSED
    ]


MANY_REFUSED = 200


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
