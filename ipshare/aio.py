"""aio: ipshare.api for asyncio: the same calls, each in a thread, because an engine answers in microseconds
to seconds.

Cancelling a call stops waiting for it; what was asked of the engine is done all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from ipshare import api
from ipshare.api import Applied
from ipshare.api_pair import ORDER_S
from ipshare.engine.asking import Answer
from ipshare.engine.flows import FlowsState, SessionDump
from ipshare.engine.natlog import Block
from ipshare.engine.pairing import PairState
from ipshare.engine.plan import Plan
from ipshare.engine.plan_text import MAX_ITEMS, Summary
from ipshare.engine.protocol import EngineInfo, Side
from ipshare.engine.remapping import RemapState
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.tables import Records, Tables
from ipshare.engine.totals import Totals
from ipshare.errors import Problem
from ipshare.model import Config

P = ParamSpec("P")
T = TypeVar("T")


async def _run(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.to_thread(call, *args, **kwargs)


class Node:
    """Like ipshare.api.Node: same names, arguments, results and exceptions."""

    def __init__(self, source: Config | Path | str | api.Node) -> None:
        self.sync = source if isinstance(source, api.Node) else api.Node(source)

    @property
    def config(self) -> Config:
        return self.sync.config

    async def check(self) -> Sequence[Problem]:
        return await _run(self.sync.check)

    async def plan(self) -> Plan:
        return await _run(self.sync.plan)

    async def diff(self, *, max_items: int = MAX_ITEMS) -> Summary:
        return await _run(self.sync.diff, max_items=max_items)

    async def info(self) -> EngineInfo:
        return await _run(self.sync.info)

    async def tables(self) -> Tables:
        return await _run(self.sync.tables)

    async def counters(self) -> Totals:
        return await _run(self.sync.counters)

    async def why(self, packet: str | bytes, *, side: Side | None = None, offline: bool = False) -> Answer:
        return await _run(self.sync.why, packet, side=side, offline=offline)

    async def apply(self, *, confirm_within_s: float | None = None, start_engine: bool = False) -> Applied:
        return await _run(self.sync.apply, confirm_within_s=confirm_within_s, start_engine=start_engine)

    async def confirm(self) -> None:
        await _run(self.sync.confirm)

    async def rollback(self) -> Applied:
        return await _run(self.sync.rollback)

    async def clusters(self) -> list[dict[str, Any]]:
        return await _run(self.sync.clusters)

    async def address_plan(self) -> list[dict[str, Any]]:
        return await _run(self.sync.address_plan)

    async def down(self) -> list[str]:
        return await _run(self.sync.down)

    async def status(self, *, timeout_s: float = api.STATUS_S) -> dict[str, Any]:
        return await _run(self.sync.status, timeout_s=timeout_s)

    async def bgp(self) -> dict[str, Any]:
        return await _run(self.sync.bgp)

    async def drain(self, on: bool) -> dict[str, Any]:
        return await _run(self.sync.drain, on)

    async def watch(self, interval_s: float = 1.0) -> AsyncIterator[Totals]:
        """Increments of the counters, one for each interval; cancel or break to end."""
        watch = self.sync.watching()
        await _run(watch.look)
        while True:
            await asyncio.sleep(interval_s)
            if (delta := await _run(watch.look)) is not None:
                yield delta

    async def pair(self) -> PairState:
        return await _run(self.sync.pair)

    async def watch_pair(self) -> AsyncIterator[PairState]:
        """The state, and each further one; cancel or break to end."""
        following = self.sync.following_pair()
        try:
            while True:
                yield await _run(following.next)
        finally:
            following.interrupt()

    async def pair_ready(self, *, wait_s: float = 0.0) -> PairState:
        return await _run(self.sync.pair_ready, wait_s=wait_s)

    async def pair_switchover(self, *, timeout_s: float = ORDER_S) -> PairState:
        return await _run(self.sync.pair_switchover, timeout_s=timeout_s)

    async def pair_force(self, *, timeout_s: float = ORDER_S) -> PairState:
        return await _run(self.sync.pair_force, timeout_s=timeout_s)

    async def pair_maintenance(self, on: bool, *, timeout_s: float = ORDER_S) -> PairState:
        return await _run(self.sync.pair_maintenance, on, timeout_s=timeout_s)

    async def sessions(self, **wanted: Any) -> Records:
        return await _run(self.sync.sessions, **wanted)

    async def session_dump(self, wanted: SessionFilter) -> SessionDump:
        return await _run(self.sync.session_dump, wanted)

    async def close_sessions(self, wanted: SessionFilter) -> int:
        return await _run(self.sync.close_sessions, wanted)

    async def flows(self) -> FlowsState:
        return await _run(self.sync.flows)

    async def nat_whois(self, address: str, port: int | None = None) -> list[Block]:
        return await _run(self.sync.nat_whois, address, port)

    async def nat_log(self) -> dict[str, Any]:
        return await _run(self.sync.nat_log)

    async def leases(self) -> list[dict[str, Any]]:
        return await _run(self.sync.leases)

    async def nat(self, *, limit: int = 0) -> dict[str, Any]:
        return await _run(self.sync.nat, limit=limit)

    async def mirror_status(self) -> dict[str, Any]:
        return await _run(self.sync.mirror_status)

    async def mirror_state(self) -> FlowsState:
        return await _run(self.sync.mirror_state)

    async def remaps(self) -> dict[str, Any]:
        return await _run(self.sync.remaps)

    async def remap_state(self, remap: int) -> RemapState | None:
        return await _run(self.sync.remap_state, remap)

    async def remap_flows(self, remap: int, *, limit: int = 10_000) -> list[dict[str, Any]]:
        return await _run(self.sync.remap_flows, remap, limit=limit)

    async def remap_prepare(
        self, remap: int, prefix: str, *, side: Literal["giver", "taker"], channel: str, slot: int = 0,
        replies: Literal["direct", "channel"] = "direct", quic: bool = False, unknown_here: bool = False,
    ) -> RemapState:  # fmt: skip
        return await _run(
            self.sync.remap_prepare, remap, prefix, side=side, channel=channel, slot=slot,
            replies=replies, quic=quic, unknown_here=unknown_here,
        )  # fmt: skip

    async def remap_leave(self, remap: int) -> RemapState:
        return await _run(self.sync.remap_leave, remap)

    async def remap_take(self, remap: int) -> RemapState:
        return await _run(self.sync.remap_take, remap)

    async def remap_bind(self, remap: int, prefix: str, to: str | None) -> bool:
        return await _run(self.sync.remap_bind, remap, prefix, to)

    async def remap_clear(self, remap: int) -> RemapState | None:
        return await _run(self.sync.remap_clear, remap)

    async def close(self) -> None:
        await _run(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
