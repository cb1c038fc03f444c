"""Sessions, NAT pools and mirror without packets: all that an engine can be asked about them, filled by hand.

Rules are those of the control socket (native/ips_control_flows.h): sizes are those of the first FLOWS_SET,
the same again is nothing, sessions of an address that is in no pool any more end, a filter matches where all
that is given holds. ``tracked`` is the test's hand on the table, ``flows_say`` on the numbers.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import numpy as np

from ipshare.core import lib
from ipshare.core.flows import MIRROR_COUNTERS
from ipshare.engine.flows import (
    NAT_ADDRESS,
    SESSION,
    FlowsSettings,
    FlowsState,
    MirrorPeer,
    MirrorSettings,
    SessionDump,
    encode_flows,
    encode_mirror,
)
from ipshare.engine.session_filter import FILTER, KINDS, STATES, SessionFilter
from ipshare.engine.tables import Records
from ipshare.errors import Refused
from ipshare.model import packed

NOW_NS = 10**12
NOBODY = MirrorPeer(
    phase="off", is_ready=False, refusal="not", feeds_us=False, is_complete=False, lag_events=0, lag_ns=0,
    under_way=0, round_trip_ns=0, heard_ns=0, notes=("heard",),
)  # fmt: skip
STATS = [
    "sessions",
    "half_open",
    "mappings",
    "tombstones",
    "capacity",
    "half_open_capacity",
    "mapping_capacity",
    "standby",
    "bytes",
    "opened",
    "promoted",
    "ended",
    "expired",
    "full",
    "half_open_full",
    "source_limit",
    "ports_exhausted",
    "applied",
    "stale",
    "conflicts",
    "apply_full",
    "apply_bad",
    "tombstones_lost",
]
EMPTY = FlowsState(
    now_ns=NOW_NS, has_flows=False, has_mirror=False, is_ready=False, is_active=False, epoch=0, addresses=0,
    sessions=dict.fromkeys(STATS, 0), counters={counter.name: 0 for counter in MIRROR_COUNTERS},
    peers=(NOBODY,) * lib.IPS_MIRROR_PEERS, committed=0, uncommitted=0, held=0, hold_full=0, hold_dropped=0,
)  # fmt: skip


def record(
    src: str, dst: str, mapped: str = "", *, proto: int = 6, kind: str = "napt", state: str = "open",
    bytes_: int = 0, packets: int = 0, flags: int = 0, idle_ms: int = 0, age_s: int = 0, realm: int = 1,
) -> Records:  # fmt: skip
    """One session; ends are "10.0.0.5 1234"."""
    made = np.zeros(1, SESSION)
    row = made[0]
    for name, port, text, target in (
        ("src", "src_port", src, row["flow"]), ("dst", "dst_port", dst, row["flow"]),
        ("mapped", "mapped_port", mapped, row),
    ):  # fmt: skip
        if text:
            address, number = text.split()
            target[name], target[port] = np.frombuffer(packed(ip_address(address)), np.uint8), int(number)
            row["flow"]["family"] = ip_address(address).version
    row["flow"]["proto"], row["flow"]["realm"] = proto, realm
    row["kind"], row["state"], row["flags"] = KINDS[kind], STATES[state], flags
    row["bytes"], row["packets"] = (bytes_, 2 * bytes_), (packets, packets)
    row["age_s"], row["idle_ms"] = age_s, idle_ms
    return made


class FlowingMemory:
    """What ``ipshare.engine.flows.Flowing`` asks for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.flows: FlowsSettings | None = None
        self.mirrored: MirrorSettings | None = None
        self.tracked: Records = np.zeros(0, SESSION)
        self.flows_now = EMPTY
        self.flows_sets = self.mirror_sets = 0

    def flows_say(self, **other: Any) -> None:
        self.flows_now = replace(self.flows_now, **other)

    # what an engine answers
    def set_flows(self, settings: FlowsSettings) -> None:
        if self.flows is not None:
            ours, theirs = self.flows.sessions, settings.sessions
            live = {"timeouts": ours.timeouts, "udp_inbound_refreshes": ours.udp_inbound_refreshes}
            if replace(theirs, **live) != ours:
                raise Refused("another size of the session table than it has", hint="start the engine again")
            if encode_flows(self.flows) == encode_flows(settings):
                return
        self.flows, self.flows_sets = settings, self.flows_sets + 1
        pooled = [self._is_pooled(row) for row in self.tracked]
        self.tracked = self.tracked[np.array(pooled, bool)]

    def flows_state(self) -> FlowsState | None:
        numbers = {"sessions": len(self.tracked)}
        if self.flows is not None:
            numbers["capacity"] = self.flows.sessions.capacity
        return replace(
            self.flows_now, has_flows=self.flows is not None, has_mirror=self.mirrored is not None,
            sessions={**self.flows_now.sessions, **numbers},
        )  # fmt: skip

    def sessions(self, wanted: SessionFilter) -> SessionDump:
        found = self.tracked[self._matching(wanted)]
        return SessionDump(found[: wanted.limit or None], NOW_NS, len(found), len(self.tracked))

    def close_sessions(self, wanted: SessionFilter) -> int:
        matching = self._matching(wanted)
        self.tracked = self.tracked[~matching]
        return int(matching.sum())

    def nat_addresses(self) -> Records:
        self._need()
        assert self.flows is not None
        rows = []
        for nat in self.flows.nats:
            for pool in nat.pools:
                for number in range(pool.count):
                    row = np.zeros(1, NAT_ADDRESS)
                    address = pool.first + number
                    row["address"] = np.frombuffer(packed(address), np.uint8)
                    row["family"], row["realm"] = address.version, nat.realm
                    mine = (self.tracked["mapped"] == row["address"]).all(axis=1)
                    for name, proto in (("tcp", 6), ("udp", 17), ("icmp", 1)):
                        used = mine & (self.tracked["flow"]["proto"] == proto)
                        row[name] = len(np.unique(self.tracked["mapped_port"][used]))
                    rows.append(row)
        return np.concatenate([np.zeros(0, NAT_ADDRESS), *rows])

    def set_mirror(self, settings: MirrorSettings) -> None:
        self._need()
        if self.mirrored is None or encode_mirror(self.mirrored) != encode_mirror(settings):
            self.mirrored, self.mirror_sets = settings, self.mirror_sets + 1

    def clear_mirror(self) -> None:
        self.mirrored = None

    def _need(self) -> None:
        if self.flows is None:
            raise Refused("this engine tracks no connections", hint="see [sessions]")

    def _is_pooled(self, row: Any) -> bool:
        assert self.flows is not None
        if row["kind"] != lib.IPS_SESSION_NAPT:
            return True
        address = row["mapped"].tobytes()
        return any(
            packed(pool.first + n) == address
            for nat in self.flows.nats for pool in nat.pools for n in range(pool.count)
        )  # fmt: skip

    def _matching(self, wanted: SessionFilter) -> Any:
        """By the encoded filter alone, as the engine sees it."""
        self._need()
        asked, rows = np.frombuffer(wanted.encode(), FILTER)[0], self.tracked
        fits = np.ones(len(rows), bool)
        for name, column in (
            ("src", rows["flow"]["src"]), ("dst", rows["flow"]["dst"]), ("mapped", rows["mapped"])
        ):  # fmt: skip
            length = int(asked[f"{name}_len"])
            bits = np.unpackbits(column, axis=1)[:, :length] == np.unpackbits(asked[name])[:length]
            fits &= bits.all(axis=1)
        for name in ("src_port", "dst_port", "proto", "family"):
            if asked[name]:
                fits &= rows["flow"][name] == asked[name]
        for name in ("mapped_port", "kind", "state"):
            if asked[name]:
                fits &= rows[name] == asked[name]
        if asked["realm"]:
            fits &= rows["flow"]["realm"] + 1 == asked["realm"]
        return fits
