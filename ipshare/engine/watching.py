"""watching: the counters of a node looked at again and again, whatever becomes of tables and engine.

``look`` compares with the look before. Where that cannot be done honestly (other tables, another engine
process) the look only becomes what the next one is compared with. An engine that is away is waited for as
long as somebody is there to start another.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.engine.totals import Totals, count
from ipshare.errors import NotRunning

PATIENCE_S = 120.0
"""How long an engine may be away: more than its agent's longest pause between two attempts to start it."""


class Watch:
    """``engine`` and ``tables`` ask for those that run now, and raise NotRunning where none does;
    ``is_kept`` tells whether an agent is there to start another. ``clock``: seconds, monotonic."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        tables: Callable[[], Tables],
        is_kept: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._tables, self._is_kept, self._clock = engine, tables, is_kept, clock
        self._before: Totals | None = None
        self._seen_s = clock()

    def look(self) -> Totals | None:
        """What was counted since the last look; None at the first one, after a change of tables or engine,
        and while the engine is away. Raises NotRunning if it is not there at first, or stays away."""
        before = self._before
        try:
            now = self._now(before)
        except NotRunning:
            waited_s = self._clock() - self._seen_s
            if before is None or waited_s > PATIENCE_S or not self._is_kept():
                raise
            return None
        self._before, self._seen_s = now, self._clock()
        return now.since(before) if before is not None and now.of == before.of else None

    def _now(self, before: Totals | None) -> Totals:
        """The counters, with the tables under which they were counted."""
        while True:
            info = self._engine().info()
            live = (info.boot_id, info.generation)
            tables = before.tables if before is not None and before.of == live else self._tables()
            now = count(self._engine(), tables)
            if now.of == live:
                return now
