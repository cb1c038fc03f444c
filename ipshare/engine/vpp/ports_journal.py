"""The journal of parts (ports) that we made in a VPP: JSON lines, written before the change is made.

    {"vpp": boot id}                          the first line: the journal of another VPP is void, as its parts
    {"made": part, "before": part or null}    about to be made
    {"gone": part}                            was removed

Killed at any point, the file tells all that may have been made. A line cut off at the end belongs to a change
that was never begun; damage elsewhere is an error, for what would be undone is not known then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipshare.engine.vpp.ports import Part, from_json, to_json
from ipshare.errors import EngineError, IpshareError, NoPrivilege


class Journal:
    """``made``: part -> what was in its place before, in the order in which they were made."""

    def __init__(self, path: Path, vpp: str) -> None:
        self.path, self.vpp = path, vpp
        self.made: dict[Part, Part | None] = {}
        self._read()

    def will_make(self, part: Part, before: Part | None) -> None:
        """To be called before. Whoever had the slot is forgotten; what was there before him is kept."""
        first = not self.made
        for other in [other for other in self.made if other.slot == part.slot]:
            del self.made[other]
        self.made[part] = before
        if first:
            self._append({"vpp": self.vpp}, fresh=True)
        self._append({"made": to_json(part), "before": to_json(before) if before is not None else None})

    def is_gone(self, part: Part) -> None:
        """To be called after it was removed."""
        if part in self.made:
            del self.made[part]
            self._append({"gone": to_json(part)})
        if not self.made:
            self.path.unlink(missing_ok=True)

    def adopt(self, part: Part) -> None:
        """Ours by its tag, though nothing is written of it."""
        if part not in self.made:
            self.will_make(part, None)

    def rewrite(self) -> None:
        """The file again, should somebody have removed it."""
        if self.made and not self.path.exists():
            made, self.made = self.made, {}
            for part, before in made.items():
                self.will_make(part, before)

    def _append(self, record: Mapping[str, Any], *, fresh: bool = False) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        line = (json.dumps(record) + "\n").encode()
        try:
            fd = os.open(self.path, flags | (os.O_TRUNC if fresh else 0), 0o600)
            try:
                size = os.fstat(fd).st_size
                if os.write(fd, line) < len(line):
                    os.ftruncate(fd, size)
                    raise OSError(28, "no space left")
            finally:
                os.close(fd)
        except PermissionError:
            raise NoPrivilege(f"may not write {self.path}", hint="run as root") from None
        except OSError as error:
            raise IpshareError(
                f"cannot write {self.path}: {error.strerror}; no change was begun that is not in it",
                hint="make room there, or set runtime_dir in [node]",
            ) from error

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        try:
            records = [json.loads(line) for line in lines]
            if not records or records[0]["vpp"] != self.vpp:
                self.path.unlink(missing_ok=True)
                return
            for record in records[1:]:
                self._replay(record)
        except (ValueError, LookupError, TypeError) as error:
            raise EngineError(
                f"{self.path} is damaged: what was made in VPP is not known",
                hint="move it away; interfaces are known by their tag, the rest is taken over as it is",
            ) from error
        if len(data) > sum(len(line) + 1 for line in lines):
            os.truncate(self.path, sum(len(line) + 1 for line in lines))

    def _replay(self, record: dict[str, Any]) -> None:
        if "gone" in record:
            self.made.pop(from_json(record["gone"]), None)
            return
        part = from_json(record["made"])
        for other in [other for other in self.made if other.slot == part.slot]:
            del self.made[other]
        self.made[part] = from_json(record["before"]) if record["before"] is not None else None
