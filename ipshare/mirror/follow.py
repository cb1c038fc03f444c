"""Store -> the engine of a standby: the thread that reads what an active node wrote into the database.

It begins with the sessions of the last whole snapshot and goes on with the stream behind the entry that was
the last before. Versions make a record harmless that is read twice. A hole in the stream (trimmed, another
run of the publisher) is a resync. The engine refuses what it should not take: of a lower epoch, or while it
is active itself; then nothing is lost, since the database goes on having it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import Any

from ipshare.engine.flows import SessionFeed
from ipshare.errors import EngineError, IpshareError, Refused
from ipshare.mirror.records import Garbled, decode
from ipshare.mirror.store import About, Entry, Store, StoreGone

log = logging.getLogger(__name__)
WAIT_MS = 500
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class FollowerState:
    """What it did since it began. ``lag_ms``: age of the last entry when it was applied, by the database's
    clock. ``error``: why it does not follow now; "": it does."""

    is_complete: bool = False
    entries: int = 0
    records: int = 0
    resyncs: int = 0
    holes: int = 0
    refused: int = 0
    lag_ms: int = 0
    error: str = ""


class _Hole(Exception):
    """Entries are missing, or belong to another snapshot than what is here."""


class Follower:
    """Of what ``node`` writes, for ``feed``. ``config``: as the publisher's. ``run`` until ``stop``."""

    def __init__(self, store: Store, node: str, feed: SessionFeed, config: str = "") -> None:
        self._store, self._node, self._feed, self._config = store, node, feed, config
        self._stopped = threading.Event()
        self._state = FollowerState()
        self._after: str | None = None  # the last entry that was seen; None: everything is to be read
        self._run_id, self._number, self._snapshot = "", 0, 0
        self._origin: tuple[str, int] | None = None  # of the versions that the engine has: run, epoch

    @property
    def state(self) -> FollowerState:
        return self._state

    def stop(self) -> None:
        """From any thread: ``run`` returns within WAIT_MS."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            self.turn()

    def turn(self) -> None:
        """Reads on, or begins; waits a moment where there is nothing."""
        try:
            if self._after is None:
                self._resync()
            else:
                self._read_on(self._after)
        except _Hole:
            self._after = None
            self._note(holes=self._state.holes + 1)
        except StoreGone as error:
            self._fail(str(error), is_lost=True)
        except Refused as error:
            self._note(refused=self._state.refused + 1)
            self._fail(str(error), is_lost=False)
        except (EngineError, Garbled, IpshareError) as error:
            self._fail(str(error), is_lost=False)

    def _read_on(self, after: str) -> None:
        entries = self._store.read(self._node, after, WAIT_MS)
        for entry in entries:
            self._take(entry)
            self._after = entry.id
        if entries:
            lag = self._store.now_ms() - int(entries[-1].id.split("-")[0])
            self._note(lag_ms=max(0, lag), entries=self._state.entries + len(entries))
        self._note(error="")

    def _take(self, entry: Entry) -> None:
        if entry.run == self._run_id and entry.number <= self._number:
            return  # written twice
        follows = entry.run == self._run_id and entry.number == self._number + 1
        if not follows and entry.kind != "begin":
            raise _Hole
        if entry.kind == "begin":
            self._compare(self._store.about(self._node))
            self._begin(entry.epoch, entry.run, is_new_origin=entry.is_new_origin)
            self._snapshot = entry.snapshot
        elif entry.snapshot != self._snapshot:
            raise _Hole
        elif entry.kind == "end":
            self._feed.end(entry.epoch)
            self._note(is_complete=True)
        else:
            self._records(entry.epoch, [entry.blob])
        self._run_id, self._number = entry.run, entry.number

    def _resync(self) -> None:
        """Everything of the last whole snapshot; or, where one is being written, that one from its stream."""
        behind = self._store.last_id(self._node)
        about = self._store.about(self._node)
        if about.opening or not about.complete:
            self._wait_for_a_snapshot(behind, about)
            return
        self._compare(about)
        self._begin(about.epoch, about.run, is_new_origin=False)
        for records in self._store.sessions(self._node, about.complete):
            self._records(about.epoch, records)
        if self._store.about(self._node) != about:
            raise _Hole  # another one was begun meanwhile, and this one may be gone in part
        self._feed.end(about.epoch)
        self._after, self._snapshot = behind, about.complete
        self._run_id, self._number = self._behind(behind, about)
        self._note(is_complete=True, resyncs=self._state.resyncs + 1, error="")

    def _behind(self, behind: str, about: About) -> tuple[str, int]:
        """Run and number of the entry that the next one has to follow."""
        entry = self._store.entry(self._node, behind)
        if entry is None:
            raise _Hole
        if entry.run != about.run:
            raise _Hole
        return entry.run, entry.number

    def _wait_for_a_snapshot(self, behind: str, about: About) -> None:
        """None is whole: until one is, or a new one begins, there is nothing to take."""
        after = behind
        while not self._stopped.is_set():
            entries = self._store.read(self._node, after, WAIT_MS)
            for entry in entries:
                after = entry.id
                if entry.kind == "begin":
                    self._take(entry)
                    self._after = entry.id
                    return
                if entry.kind == "end":
                    return  # it is whole now: read it
            if not entries:
                self._note(error=f"{self._node} has written no whole snapshot yet")
                return

    def _begin(self, epoch: int, run: str, *, is_new_origin: bool) -> None:
        """Also new where the versions here came from elsewhere than those that will come."""
        origin = (run, epoch)
        self._feed.begin(epoch, is_new_origin=is_new_origin or self._origin != origin)
        self._origin = origin
        self._note(is_complete=False)

    def _compare(self, about: About) -> None:
        if about.config != self._config:
            raise IpshareError(f"{self._node} has other [[nat]] tables: apply the same file at both nodes")

    def _records(self, epoch: int, blobs: list[bytes]) -> None:
        records = decode(blobs)
        if len(records):
            self._feed.records(epoch, records)
        self._note(records=self._state.records + len(records))

    def _fail(self, why: str, *, is_lost: bool) -> None:
        if self._state.error != why:
            log.warning("sessions of %s are not followed: %s", self._node, why)
        self._after = None
        was_complete = self._state.is_complete
        self._note(is_complete=False, error=why)
        if is_lost and was_complete:
            try:
                self._feed.lost()
            except IpshareError as error:
                log.warning("the engine was not told: %s", error)
        self._stopped.wait(RETRY_S)

    def _note(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
