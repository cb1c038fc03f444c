"""aio: any ``Engine`` for asyncio: the same calls, each in a thread: an engine answers in microseconds to
seconds.

Threads keep one implementation of each engine. Cancelling a call stops waiting for it, not the call.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ipshare.engine.plan import Plan
from ipshare.engine.protocol import Counters, Engine, EngineInfo, Explanation, Side
from ipshare.engine.tables import Records, Tables


class AsyncEngine:
    """Like the ``Engine`` that it is given: same names, arguments, results and exceptions."""

    def __init__(self, engine: Engine) -> None:
        self.sync = engine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def info(self) -> EngineInfo:
        return await asyncio.to_thread(self.sync.info)

    async def read(self) -> Tables:
        return await asyncio.to_thread(self.sync.read)

    async def apply(self, plan: Plan) -> int:
        return await asyncio.to_thread(self.sync.apply, plan)

    async def rollback(self) -> int:
        return await asyncio.to_thread(self.sync.rollback)

    async def counters(self) -> Counters:
        return await asyncio.to_thread(self.sync.counters)

    async def counter_cells(self, bindings: Records) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        return await asyncio.to_thread(self.sync.counter_cells, bindings)

    async def why(self, packet: bytes, side: Side) -> Explanation:
        return await asyncio.to_thread(self.sync.why, packet, side)

    async def close(self) -> None:
        await asyncio.to_thread(self.sync.close)
