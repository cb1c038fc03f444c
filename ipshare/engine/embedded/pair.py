"""pair: waits for the next change of an engine's half of a pair, on a connection of its own.

``Control`` answers one call at a time; a wait without end would keep everybody else out. The connection ends
with its engine: another engine process is another wait.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from ipshare.core import lib
from ipshare.engine import pairing
from ipshare.engine.embedded.wire import Connection


class PairWait:
    """See ``ipshare.engine.pairing.PairWaiter``. One thread waits; any may interrupt."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Raises ``EngineGone`` if nobody listens there."""
        self._connection = Connection(path, timeout_s)

    def wait(self, seen: int, timeout_s: float | None = None) -> pairing.PairState:
        record = np.zeros(1, pairing.PAIR_SEEN)
        record[0]["changes"] = seen
        reply = self._connection.call(lib.IPS_CTL_PAIR_WAIT, record.tobytes(), timeout_s=timeout_s)
        return pairing.decode(reply.one(pairing.PAIR_STATE))

    def interrupt(self) -> None:
        self._connection.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
