"""pair_hooks: the user's script of a pair, beside the agent's loop (S2.2): which one, and how its runs ended.

ipshare.pair.hooks runs it, one at a time, in a thread of its own; here it follows the configuration, and each
run's end comes back into the event loop. Nothing waits for a script but the end of the agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ipshare.agent.pair_watch import PairChange
from ipshare.model import Pair
from ipshare.pair import Change, Hooks
from ipshare.pair.hooks import Run

log = logging.getLogger(__name__)
HOOK_S = 10.0
"""A run that takes longer is killed, with all that it started."""


class PairHooks:
    """``ended`` is called in the event loop after each run, with what was wrong with it, or ""."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._hooks: Hooks | None = None
        self._program: tuple[Path, int] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def changed(self, pair: Pair, change: PairChange) -> None:
        """Has the configured script told. Returns at once."""
        program = (pair.hook, pair.node_id) if pair.hook is not None else None
        if program != self._program:
            self._let_end()
            self._program = program
            if program is not None:
                loop = asyncio.get_running_loop()
                self._hooks = Hooks(
                    [str(program[0])],
                    node=program[1],
                    timeout_s=HOOK_S,
                    done=lambda run: self._done(loop, program[0], run),
                    told=change.old,
                )
        if self._hooks is not None:
            self._hooks.changed(Change(change.old, change.new, change.reason, change.epoch))

    async def close(self) -> None:
        """Lets the present run and the latest change end."""
        self._let_end()
        await asyncio.gather(*self._closing)

    def _let_end(self) -> None:
        if self._hooks is not None:
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._hooks.close))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._hooks, self._program = None, None

    def _done(self, loop: asyncio.AbstractEventLoop, program: Path, run: Run) -> None:
        """In the hooks' thread."""
        trouble = trouble_of(program, run)
        log.log(
            logging.ERROR if trouble else logging.INFO,
            "pair: %s",
            trouble or f"{program} was told {run.change.old} -> {run.change.new}",
        )
        with suppress(RuntimeError):  # the loop is closed: the agent is ending
            loop.call_soon_threadsafe(self._ended, trouble)


def trouble_of(program: Path, run: Run) -> str:
    """What was wrong with a run of the script, in a sentence; "" for nothing. Pure."""
    about = f"the pair's hook {program}, told {run.change.old} -> {run.change.new},"
    if run.error:
        return f"{about} could not be started: {run.error}"
    if run.timed_out:
        return f"{about} took longer than {HOOK_S:g} s and was killed"
    if run.status is not None and run.status < 0:
        return f"{about} was killed by signal {-run.status}"
    return f"{about} ended with {run.status}" if run.status else ""
