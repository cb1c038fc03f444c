"""The undo journal: what was there before each of our changes, written before the change is made.

One JSON line for each event, appended by one write(2): {"do": action, "before": ...} and
{"undone": key}. Killed at any point, the file tells all that may have been changed. A line cut off at
the end belongs to a change that was never begun. The first line names the boot and the network
namespace; a journal of another one describes a kernel state that is not here: it is void for whoever
applies, and left alone by whoever undoes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipshare.net.actions import Action, Key, NetError, from_json, to_json


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that we changed: how it shall be now, and what was there before our first change."""

    action: Action
    before: Any


def _here() -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"ipshare_undo": 1, "boot": boot, "netns": Path("/proc/thread-self/ns/net").stat().st_ino}


def is_elsewhere(path: Path) -> bool:
    """Whether the journal at `path` tells of another network namespace of this boot, which may live."""
    try:
        with path.open("rb") as file:
            record = json.loads(file.readline())
        return bool(record["boot"] == _here()["boot"] and record["netns"] != _here()["netns"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _unwritable(path: Path, error: OSError) -> NetError:
    return NetError(
        f"cannot write {path}: {error.strerror}; no change was begun that is not in it",
        hint="make room there, or set runtime_dir in [node]",
    )


class Journal:
    """Open journal, locked against other processes. `entries`: in the order of the first change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[Key, Entry] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise NetError(
                f"{path} is in use", hint="another ipshare process is changing routes: wait for it"
            ) from None
        try:
            self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.entries:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def record(self, action: Action, before: Any) -> None:
        """To be called before the change. A thing changed earlier keeps its first `before`."""
        known = self.entries.get(action.key)
        entry = Entry(action, known.before if known else before)
        self._append({"do": to_json(action), "before": entry.before})
        self.entries[action.key] = entry

    def forget(self, key: Key) -> None:
        """To be called after the change was undone."""
        self._append({"undone": list(key)})
        self.entries.pop(key, None)

    def _append(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) < len(line):  # a full disk takes a part first
                os.ftruncate(self._fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _read(self) -> None:
        data = self.path.read_bytes()
        complete = data[: data.rfind(b"\n") + 1]
        os.ftruncate(self._fd, len(complete))
        try:
            records = [json.loads(line) for line in complete.splitlines()]
            if not records or records[0] != _here():
                os.ftruncate(self._fd, 0)
                self._append(_here())
                return
            for record in records[1:]:
                self._replay(record)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NetError(
                f"{self.path} is damaged: what has to be put back is not known",
                hint="move it away: routes and rules are found again by their number; sysctls stay set",
            ) from error

    def _replay(self, record: dict[str, Any]) -> None:
        if "undone" in record:
            self.entries.pop(tuple(record["undone"]), None)
            return
        action = from_json(record["do"])
        self.entries[action.key] = Entry(action, record["before"])
