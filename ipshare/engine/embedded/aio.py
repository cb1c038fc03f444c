"""aio: the control client for asyncio: every method of ``Control``, each in a worker thread.

The calls are short and rare; threads keep one implementation. Cancelling a call stops waiting for it,
not the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ipshare.engine.capture import TapRule, TapState
from ipshare.engine.embedded.control import DEFAULT_TIMEOUT_S, Control, Hello, Why
from ipshare.engine.embedded.counters import Region
from ipshare.engine.embedded.pair import PairWait
from ipshare.engine.embedded.wire import Reply
from ipshare.engine.pairing import Order, PairSettings, PairState

P = ParamSpec("P")
T = TypeVar("T")


def _run(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
    return asyncio.to_thread(call, *args, **kwargs)


class AsyncControl:
    """Like ``Control``: same names, arguments and exceptions."""

    def __init__(self, socket: Path | str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.sync = Control(socket, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await _run(self.sync.close)

    async def hello(self) -> Hello:
        return await _run(self.sync.hello)

    async def info(self) -> dict[str, int]:
        return await _run(self.sync.info)

    async def prepare(self, image: bytes | bytearray | memoryview) -> int:
        return await _run(self.sync.prepare, image)

    async def commit(self, generation: int) -> int:
        return await _run(self.sync.commit, generation)

    async def abort(self) -> None:
        await _run(self.sync.abort)

    async def rollback(self) -> int:
        return await _run(self.sync.rollback)

    async def dump(self) -> tuple[int, memoryview]:
        return await _run(self.sync.dump)

    async def set_path_mtu(self, endpoint: int, mtu: int, seconds: int) -> None:
        await _run(self.sync.set_path_mtu, endpoint, mtu, seconds)

    async def counters(self) -> Region:
        return await _run(self.sync.counters)

    async def cells(
        self, bindings: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        return await _run(self.sync.cells, bindings)

    async def why(
        self, packet: bytes, side: Literal["outer", "inner"], *, gso_size: int = 0, gso_type: int = 0
    ) -> Why:
        return await _run(self.sync.why, packet, side, gso_size=gso_size, gso_type=gso_type)

    async def start_tap(self, rule: TapRule) -> TapState:
        return await _run(self.sync.start_tap, rule)

    async def stop_tap(self, tap_id: int) -> TapState:
        return await _run(self.sync.stop_tap, tap_id)

    async def wait_tap(self, tap_id: int, timeout_s: float | None = None) -> TapState:
        return await _run(self.sync.wait_tap, tap_id, timeout_s)

    async def taps(self) -> list[TapState]:
        return await _run(self.sync.taps)

    async def set_pair(self, settings: PairSettings) -> None:
        await _run(self.sync.set_pair, settings)

    async def clear_pair(self) -> None:
        await _run(self.sync.clear_pair)

    async def pair_state(self) -> PairState:
        return await _run(self.sync.pair_state)

    async def wait_pair(self, seen: int, timeout_s: float | None = None) -> PairState:
        """Cancelled, it hangs up: no thread is left waiting."""
        waiting = await _run(self.sync.watch_pair)
        try:
            return await _run(waiting.wait, seen, timeout_s)
        finally:
            waiting.interrupt()

    async def watch_pair(self) -> PairWait:
        return await _run(self.sync.watch_pair)

    async def pair_command(self, order: Order) -> None:
        await _run(self.sync.pair_command, order)

    async def call(
        self, op: int, payload: bytes = b"", *, fd: int = -1, timeout_s: float | None = None
    ) -> Reply:
        return await _run(self.sync.call, op, payload, fd=fd, timeout_s=timeout_s)

    async def shutdown(self) -> None:
        await _run(self.sync.shutdown)
