"""vm: the commands of [[migration]] for a guest of QEMU, by QMP: start, state, cancel (docs/migration.md).

It is what an operator's program would be, and needs nothing of ipshare. start ends when the source says that
the migration is completed: then the target runs. SOCKET is a QMP socket of the guest's QEMU at this node,
SOCKET-ask another one: each has one conversation, and that of start lasts.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any


class Qmp:
    """One conversation. Events that come meanwhile are kept."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rw")
        self._lines.readline()  # its greeting
        self.events: list[dict[str, Any]] = []
        self.do("qmp_capabilities")

    def do(self, command: str, **arguments: Any) -> Any:
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                raise SystemExit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def event(self, name: str) -> dict[str, Any]:
        """The next of that name."""
        while True:
            event = self.events.pop(0) if self.events else self._read()
            if event.get("event") == name:
                data: dict[str, Any] = event["data"]
                return data

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise SystemExit("QEMU ended the conversation")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(qmp: Qmp, target: str) -> int:
    events = {"capability": "events", "state": True}
    qmp.do("migrate-set-capabilities", capabilities=[events])
    qmp.do("migrate", uri=f"tcp:{target}")
    while (status := qmp.event("MIGRATION")["status"]) not in ("completed", "failed", "cancelled"):
        pass
    if status != "completed":
        print(f"the migration {status}")
        return 1
    print(f"downtime {qmp.do('query-migrate')['downtime']} ms")
    return 0


def state(qmp: Qmp) -> str:
    migration = qmp.do("query-migrate").get("status", "none")
    if migration in ("none", "failed", "cancelled"):
        return "here"
    return "there" if migration == "completed" else "moving"


def main(verb: str, path: str, target: str) -> int:
    qmp = Qmp(path if verb == "start" else f"{path}-ask")
    if verb == "start":
        return start(qmp, target)
    if verb == "cancel":
        qmp.do("migrate_cancel")
    if verb == "state":
        print(state(qmp))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
