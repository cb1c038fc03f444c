"""The asyncio form of any engine: the same names and arguments, the same answers."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from ipshare.engine.aio import AsyncEngine
from ipshare.engine.memory import MemoryEngine
from ipshare.engine.plan import diff
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.errors import Refused
from tests.engine_lab import INNER, OUTER
from tests.packets_of import udp4

METHODS = sorted(name for name in vars(Engine) if not name.startswith("_"))


@pytest.mark.parametrize("name", METHODS)
def test_it_has_what_an_engine_has(name: str) -> None:
    made = getattr(AsyncEngine, name)
    assert inspect.iscoroutinefunction(made)
    assert inspect.signature(made) == inspect.signature(getattr(Engine, name))


def test_it_answers_like_the_engine() -> None:
    async def run() -> None:
        async with AsyncEngine(MemoryEngine()) as engine:
            with pytest.raises(Refused):
                await engine.rollback()
            first = await engine.apply(diff(await engine.read(), OUTER))
            second = await engine.apply(diff(await engine.read(), INNER))
            assert await engine.rollback() > second > first
            assert await engine.read() == OUTER != Tables()
            packet = udp4("192.0.2.7", "203.0.113.9", b"")
            assert await engine.why(packet, "outer") == engine.sync.why(packet, "outer")
            assert (await engine.counter_cells(OUTER.bindings))[1].tolist() == [256, 1]
            assert (await engine.counters()).verdicts.sum() == 0
            assert await engine.info() == engine.sync.info()

    asyncio.run(run())
