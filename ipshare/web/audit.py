"""audit: a line for each change that somebody asked for over HTTP, carried out or refused: JSON, fsync.

state_dir/http-audit.log. Before the director is asked a line says so (outcome `begun`); another one of the
same id says what came of it. Where the first cannot be written nothing is changed. Lines are never changed
or removed; a file of 16 MiB is put aside under the time of that moment, and stays. Blocking: in a thread.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ipshare.agent.audit import append

log = logging.getLogger("ipshare.audit")
MAX_BYTES = 16 << 20
MOST_READ = 4 << 20
"""Bytes of the file's end that are looked at for the newest lines."""
BEGUN = "begun"


class Trail:
    """The audit trail in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "http-audit.log"
        self.failures = 0
        self._lock = threading.Lock()

    def record(self, entry: dict[str, Any]) -> None:
        """Raises OSError: it is not on the disk."""
        with self._lock:
            try:
                if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
                    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
                    self.path.rename(self.path.with_name(f"http-audit.{now}.log"))
                append(self.path, entry, sync=True)
            except OSError as error:
                self.failures += 1
                log.error("cannot write %s: %s", self.path, error.strerror)
                raise
        log.info("%(verb)s by %(who)s: %(outcome)s %(detail)s", entry)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The newest first, of each id its last line. Raises OSError."""
        found: dict[str, dict[str, Any]] = {}
        for line in reversed(self._tail()):
            try:
                entry = json.loads(line)
                found.setdefault(entry["id"], entry)
            except (ValueError, KeyError, TypeError):
                continue  # half a line, of a machine that lost power
            if len(found) > limit:
                break
        return list(found.values())[:limit]

    def _tail(self) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - MOST_READ))
                lines = file.read(MOST_READ).splitlines()
        except FileNotFoundError:
            return []
        return lines[1:] if size > MOST_READ else lines


def entry(
    identifier: str, who: str, verb: str, what: str, revision: int, outcome: str, detail: str
) -> dict[str, Any]:
    """``revision``: that counted then, or that came of it."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {
        "time": time, "id": identifier, "who": who, "verb": verb, "what": what, "revision": revision,
        "outcome": outcome, "detail": detail,
    }  # fmt: skip
