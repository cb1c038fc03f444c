"""audit: one line for every change of a node: when, who, what, which generation, how it ended.

Goes to the log and to state_dir/audit.log (JSON lines; at 1 MiB it becomes audit.log.1, and the one before
is dropped). Nothing here may stop a change: what cannot be written is logged and forgotten.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger("ipshare.audit")
MAX_BYTES = 1 << 20


def append(path: Path, entry: dict[str, Any], *, sync: bool = False) -> None:
    """A line more, by one write: all of it, or nothing. ``sync``: it is on the disk when this returns. Raises
    OSError."""
    line = json.dumps(entry).encode() + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        before = os.fstat(fd).st_size
        if os.write(fd, line) != len(line):  # the next line would be a part of this one
            os.ftruncate(fd, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


class Audit:
    """The audit trail of one node."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "audit.log"

    def record(self, *, who: str, verb: str, what: str, generation: int, outcome: str) -> None:
        """``who``: a caller's uid, gid and pid, or which event of the agent's own; ``outcome``: ok, or why
        not."""
        log.info("%s %s by %s: %s (generation %d)", verb, what, who, outcome, generation)
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {
            "time": time,
            "who": who,
            "verb": verb,
            "what": what,
            "generation": generation,
            "outcome": outcome,
        }
        try:
            if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
                self.path.replace(self.path.with_suffix(".log.1"))
            append(self.path, entry)
        except OSError as error:
            log.warning("cannot write %s: %s", self.path, error.strerror)
