"""Relay -> store: the thread that writes an active node's sessions into the database.

What came in one turn is one batch: the sessions in their hashes and one entry of the stream, in one
transaction; then it is acknowledged. While the database is gone the batch is kept, nothing is acknowledged,
and the engine forwards on without a standby. A batch that may have been written and may not is written
again: the hashes are the same twice, and an entry that comes twice is no newer than itself.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from ipshare.core import ffi, lib
from ipshare.mirror.records import DELETE, UPSERT, Encoder
from ipshare.mirror.relay import Relay
from ipshare.mirror.store import Entry, Store, StoreGone

log = logging.getLogger(__name__)
BEGIN, END, BROKEN = int(lib.IPS_RELAY_BEGIN), int(lib.IPS_RELAY_END), int(lib.IPS_RELAY_BROKEN)
TURN_S = 0.02
ASK_S = 0.5
RETRY_S = 0.2
KEEP_OCTETS = 64 << 20


@dataclass(frozen=True, slots=True)
class PublisherState:
    """What it did since it began. ``error``: why the database does not take it now; "": it does."""

    is_fed: bool = False
    is_complete: bool = False
    batches: int = 0
    changes: int = 0
    snapshots: int = 0
    failures: int = 0
    error: str = ""


@dataclass(slots=True)
class _Batch:
    """What is to be written at once: changes, or one mark."""

    kind: str
    epoch: int
    is_new_origin: bool = False
    shards: dict[int, dict[bytes, bytes | None]] = field(default_factory=dict)
    blob: bytearray = field(default_factory=bytearray)
    count: int = 0


class Publisher:
    """Of one node. ``config``: digest of what followers must have, too. ``keep``: octets of changes that stay
    in the stream, about; who is further behind reads all sessions. ``run`` until ``stop``."""

    def __init__(
        self, relay: Relay, store: Store, node: str, config: str = "", keep: int = KEEP_OCTETS
    ) -> None:
        self._relay, self._store, self._node, self._keep = relay, store, node, keep
        self._config = config
        self._kept: deque[int] = deque()  # octets of the entries that are in the stream
        self._kept_octets = 0
        self._encoder = Encoder()
        self._run_id, self._number = secrets.token_hex(8), 0
        self._complete = self._open = 0  # snapshots, by number
        self._is_known = False  # what the store has of this node
        self._waiting: list[_Batch] = []
        self._asked_s = 0.0
        self._stopped = threading.Event()
        self._state = PublisherState()

    @property
    def state(self) -> PublisherState:
        return self._state

    def stop(self) -> None:
        """From any thread: ``run`` returns soon."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            self.turn()

    def turn(self) -> None:
        """What came within a moment, into the store; or once more what did not go."""
        if not self._waiting:
            self._waiting = self._batches(self._relay.turn(TURN_S))
        try:
            self._flush()
        except StoreGone as error:
            if not self._state.error:
                log.warning("sessions are not mirrored: %s", error)
            self._note(failures=self._state.failures + 1, error=str(error))
            self._stopped.wait(RETRY_S)
            return
        if self._state.error:
            log.info("sessions are mirrored again")
        self._relay.acknowledge()
        self._note(error="", is_fed=self._relay.is_fed, is_complete=self._relay.is_complete)

    def _batches(self, changes: list[tuple[int, int, bool, Any]]) -> list[_Batch]:
        batches: list[_Batch] = []
        for what, epoch, is_new_origin, record in changes:
            if what not in (UPSERT, DELETE):
                if what != BROKEN:  # a new one will begin; what was written of it is cleared then
                    batches.append(_Batch("begin" if what == BEGIN else "end", epoch, is_new_origin))
                continue
            if not batches or batches[-1].kind != "changes" or batches[-1].epoch != epoch:
                batches.append(_Batch("changes", epoch))
            batch, octets = batches[-1], self._encoder.encode(what, record)
            shard = int(lib.ips_mirror_shard(ffi.addressof(record, "flow")))
            batch.shards.setdefault(shard, {})[self._encoder.key(record)] = octets if what == UPSERT else None
            batch.blob += octets
            batch.count += 1
        return batches

    def _flush(self) -> None:
        """Also asks, now and then, whether the database is there while nothing is to be written."""
        now = time.monotonic()
        if not self._waiting:
            if now - self._asked_s > ASK_S:
                self._store.about(self._node)
                self._asked_s = now
            return
        self._asked_s = now
        if not self._is_known:
            about = self._store.about(self._node)
            self._complete = about.complete
            self._open = max(about.complete, about.opening)
            self._is_known = True
        while self._waiting:
            self._write(self._waiting[0])
            batch = self._waiting.pop(0)
            self._note(
                batches=self._state.batches + 1,
                changes=self._state.changes + batch.count,
                snapshots=self._state.snapshots + (batch.kind == "end"),
            )

    def _write(self, batch: _Batch) -> None:
        if batch.kind == "begin":
            self._store.begin(self._node, self._entry(batch, self._open + 1), self._left_over(), self._config)
            self._open += 1
        elif batch.kind == "end":
            before = self._complete if self._complete != self._open else 0
            self._store.end(self._node, self._entry(batch, self._open), before)
            self._complete = self._open
        else:
            self._make_room(len(batch.blob))
            entries = len(self._kept)
            self._store.write(self._node, self._entry(batch, self._open), batch.shards, entries)
        self._number += 1

    def _make_room(self, octets: int) -> None:
        self._kept.append(octets)
        self._kept_octets += octets
        while self._kept_octets > self._keep and len(self._kept) > 1:
            self._kept_octets -= self._kept.popleft()

    def _left_over(self) -> int:
        """The snapshot that was being written and never became whole; 0: none."""
        return self._open if self._open != self._complete else 0

    def _entry(self, batch: _Batch, snapshot: int) -> Entry:
        return Entry(
            id="",
            run=self._run_id,
            number=self._number + 1,
            snapshot=snapshot,
            epoch=batch.epoch,
            kind=batch.kind,
            is_new_origin=batch.is_new_origin,
            blob=bytes(batch.blob),
        )

    def _note(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
