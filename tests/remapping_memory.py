"""Remaps without packets: all that an engine can be asked about them, both halves joined by a wire.

Rules are those of the control socket (native/ips_control_remap.h): the same again is nothing, a role
changes within its side, anything else is refused. Engines that share a ``RemapWire`` are each other's
peers: a remap is ready as soon as both halves are set and the wire is whole, and its fence is applied then.
``remap_rows`` is the test's hand on a giver's flows, ``remap_counts`` on its counters, ``RemapWire.cut`` on
what lies between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ipshare.core.remap import REMAP_COUNTERS
from ipshare.engine.flows import SESSION, SessionDump
from ipshare.engine.remapping import MOST_REMAPS, RemapRole, RemapSettings, RemapState, encode_remap
from ipshare.engine.tables import Records
from ipshare.errors import Refused

NOW_NS = 10**12
STEP_NS = 10**6
"""Each question takes a millisecond."""


@dataclass
class RemapWire:
    """Between engines. ``cut``: ids of remaps whose mirror does not get through; ``late``: whose fence is not
    applied yet."""

    engines: list[RemappingMemory] = field(default_factory=list)
    cut: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)

    def other(self, engine: RemappingMemory, remap: int) -> RemapSettings | None:
        """The half that another engine has, if it fits to this one's."""
        mine = engine.remap_halves[remap]
        for peer in self.engines:
            half = peer.remap_halves.get(remap) if peer is not engine and not peer.is_remap_gone else None
            if half is not None and half.role.gives != mine.role.gives and half.key == mine.key:
                return half
        return None


class RemappingMemory:
    """What ``ipshare.engine.remapping.Remapping`` asks for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.remap_wire = RemapWire([self])
        self.remap_halves: dict[int, RemapSettings] = {}
        self.remap_times: dict[int, tuple[int, int]] = {}  # since, tracked
        self.remap_rows: dict[int, Records] = {}
        self.remap_counts: dict[int, dict[str, int]] = {}
        self.remap_one_sided: set[int] = set()
        self.remap_sets = 0
        self.is_remap_gone = False  # the engine is dead: its peer hears nothing
        self.remap_now_ns = NOW_NS

    # the test's hands
    def remap_join(self, wire: RemapWire) -> None:
        """From now on others on the wire are peers."""
        self.remap_wire = wire
        wire.engines.append(self)

    def remap_restart(self) -> None:
        """A new engine process: it knows no remap."""
        for kept in (self.remap_halves, self.remap_times, self.remap_rows, self.remap_counts):
            kept.clear()
        self.is_remap_gone = False

    # what an engine answers
    def set_remap(self, settings: RemapSettings) -> None:
        wanted = encode_remap(settings)
        before = self.remap_halves.get(settings.id)
        if getattr(self, "flows", True) is None:
            raise Refused(
                "no connections are tracked on this node", hint="see [sessions] in the configuration"
            )
        if before is not None:
            if encode_remap(before) == wanted:
                return
            same_side = before.role.gives == settings.role.gives
            if not same_side or encode_remap(replace(before, role=settings.role)) != wanted:
                raise Refused("only the role of a remap can change", hint="clear it first")
        elif len(self.remap_halves) == MOST_REMAPS:
            raise Refused(f"there are {MOST_REMAPS} remaps", hint="clear one first")
        now = self._tick()
        tracked = self.remap_times[settings.id][1] if before is not None else now
        self.remap_halves[settings.id] = settings
        self.remap_times[settings.id] = (now, tracked)
        self.remap_sets += 1

    def clear_remap(self, remap: int) -> RemapState | None:
        state = self.remap_state(remap)
        self.remap_halves.pop(remap, None)
        return state

    def remaps(self) -> tuple[RemapState, ...]:
        return tuple(self._state(remap) for remap in sorted(self.remap_halves))

    def remap_state(self, remap: int) -> RemapState | None:
        return self._state(remap) if remap in self.remap_halves else None

    def remap_flows(self, remap: int, limit: int = 0) -> SessionDump:
        if remap not in self.remap_halves:
            raise Refused(f"there is no remap {remap}")
        rows = self._rows(remap)
        return SessionDump(rows[: limit or None], self._tick(), len(rows), len(rows))

    def _tick(self) -> int:
        self.remap_now_ns += STEP_NS
        return self.remap_now_ns

    def _rows(self, remap: int) -> Records:
        """The giver's, at both nodes, as far as the wire is whole."""
        none: Records = np.zeros(0, SESSION)
        if self.remap_halves[remap].role.gives:
            return self.remap_rows.get(remap, none)
        for peer in self.remap_wire.engines:
            half = peer.remap_halves.get(remap)
            if peer is not self and half is not None and half.role.gives and remap not in self.remap_wire.cut:
                return peer.remap_rows.get(remap, none)
        return none

    def _state(self, remap: int) -> RemapState:
        half, now = self.remap_halves[remap], self._tick()
        since, tracked = self.remap_times[remap]
        heard = self.remap_wire.other(self, remap) is not None and remap not in self.remap_wire.cut
        leaves, flows = half.role is RemapRole.LEAVING, len(self._rows(remap))
        return RemapState(
            id=remap, prefix=half.prefix, peer=half.peer, role=half.role, now_ns=now, since_ns=since,
            tracked_ns=tracked, fence_ns=since if leaves else 0,
            fence_applied=leaves and heard and remap not in self.remap_wire.late, is_ready=heard, flows=flows,
            active=flows, is_exact=remap not in self.remap_one_sided, counted_ns=now,
            heard_ns=now if heard else 0,
            phase="live" if heard and half.role.gives else "off", refusal="not", lag_events=0, lag_ns=0,
            round_trip_ns=0, resyncs=0,
            counters={**{c.name: 0 for c in REMAP_COUNTERS}, **self.remap_counts.get(remap, {})},
            notes=("heard",) if heard else (),
        )  # fmt: skip
