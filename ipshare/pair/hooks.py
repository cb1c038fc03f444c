"""The user's script at each change of state (S2.2): one at a time, in order, bounded, and never in the way.

``changed`` notes a change and returns at once; a thread of its own runs the script. While one run lasts,
further changes are coalesced: the next run goes from the state that the script was last told to the present
one, and does not take place if these are the same. A run that takes longer than ``timeout_s`` is killed
with everything that it started in its session.

Environment of the script, beside PATH, HOME, LANG as they are here:

    IPSHARE_OLD_STATE, IPSHARE_NEW_STATE  initial, active, standby or inop; old: what the last run was told
    as new IPSHARE_REASON                        why, by name (ips_pair_reason.def): PEER_SILENT, LINK_DOWN,
    ... IPSHARE_NODE, IPSHARE_EPOCH           id of this node; counter of the highest epoch it knows
    IPSHARE_COALESCED                     how many changes lay between, that no run was told of
    IPSHARE_SEQUENCE                      1, 2, 3 ... of this process
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PASSED_ON = ("PATH", "HOME", "LANG")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state, as the machine's STATE action tells it; states and reason by name."""

    old: str
    new: str
    reason: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Run:
    """How a run of the script ended. ``status``: exit status, -N for signal N; ``error``: it could not be
    started."""

    change: Change
    coalesced: int
    status: int | None
    timed_out: bool = False
    error: str = ""


def merge(told: str, waiting: Sequence[Change]) -> tuple[Change | None, int]:
    """Of the waiting changes the one to tell, and how many are left out. None: the script knows the state.
    Pure."""
    if not waiting or waiting[-1].new == told:
        return None, len(waiting)
    last = waiting[-1]
    return Change(told, last.new, last.reason, last.epoch), len(waiting) - 1


def environment(change: Change, *, node: int, coalesced: int, sequence: int) -> dict[str, str]:
    """What the script finds in its environment. Pure."""
    return {
        "IPSHARE_OLD_STATE": change.old,
        "IPSHARE_NEW_STATE": change.new,
        "IPSHARE_REASON": change.reason,
        "IPSHARE_NODE": str(node),
        "IPSHARE_EPOCH": str(change.epoch),
        "IPSHARE_COALESCED": str(coalesced),
        "IPSHARE_SEQUENCE": str(sequence),
    }


class Hooks:
    """Runs ``command`` (a program and its arguments; no shell) at each change. ``done`` is called after
    each run, in the hooks' thread. ``close`` lets the present run and the latest change end, each within
    its time."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        node: int,
        timeout_s: float = 10.0,
        done: Callable[[Run], None] | None = None,
        told: str = "initial",
    ) -> None:
        self._command, self._node, self._timeout_s, self._done = list(command), node, timeout_s, done
        self._told, self._sequence = told, 0
        self._waiting: list[Change] = []
        self._closing = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="pair-hooks", daemon=True)
        self._thread.start()

    def changed(self, change: Change) -> None:
        """Never waits for a script."""
        with self._news:
            self._waiting.append(change)
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closing)
                change, left_out = merge(self._told, self._waiting)
                self._waiting.clear()
                if change is None and self._closing:
                    return
            if change is not None:
                self._told = change.new
                run = self._run(change, left_out)
                if self._done:
                    self._done(run)

    def _run(self, change: Change, left_out: int) -> Run:
        self._sequence += 1
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        told = environment(change, node=self._node, coalesced=left_out, sequence=self._sequence)
        try:
            script = subprocess.Popen(
                self._command, env=passed_on | told, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            return Run(change, left_out, None, error=str(error))
        try:
            return Run(change, left_out, script.wait(self._timeout_s))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
            return Run(change, left_out, script.wait(), timed_out=True)
