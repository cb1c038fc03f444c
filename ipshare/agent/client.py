"""client: a caller of the agent's control socket, blocking. The protocol is at the head of
ipshare.agent.server."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipshare.errors import ConfigError, IpshareError, NoPrivilege, NotRunning, Problem, Refused

TIMEOUT_S = 120.0
KINDS: dict[int, type[IpshareError]] = {3: Refused, 4: NotRunning, 5: NoPrivilege}


def socket_path(runtime_dir: Path) -> Path:
    return runtime_dir / "agent.sock"


class AgentSilent(IpshareError):
    """The agent is there and does not answer: it is stopped, or at work that takes long."""


class AgentError(IpshareError):
    """What the agent answered, with the exit code that it wants."""

    def __init__(self, message: str, *, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class AgentClient:
    """One connection. Raises NotRunning where no agent answers at ``runtime_dir``. ``path``: another
    socket that speaks so; ``who`` then is who serves it, and how he is started."""

    def __init__(
        self,
        runtime_dir: Path,
        *,
        timeout_s: float = TIMEOUT_S,
        path: Path | None = None,
        who: tuple[str, str] = ("agent", "ipshare agent FILE"),
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        path = path or socket_path(runtime_dir)
        self._who = who[0]
        try:
            self._socket.connect(str(path))
        except PermissionError:
            self._socket.close()
            raise NoPrivilege(
                f"may not talk to the {who[0]} at {path}", hint="run as root, or join its group"
            ) from None
        except OSError:
            self._socket.close()
            raise NotRunning(f"no {who[0]} runs at {path}", hint=f"start it: {who[1]}") from None
        self._file = self._socket.makefile("rb")

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """The result of a verb. Raises the agent's error as what it was there."""
        try:
            self._socket.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            line = self._file.readline()
        except TimeoutError:
            raise AgentSilent(
                f"the {self._who} did not answer in time", hint="it is stopped, or at work: see its log"
            ) from None
        except OSError as error:
            raise NotRunning(f"the {self._who} went away: {error.strerror}", hint="ask again") from None
        if not line.endswith(b"\n"):
            raise NotRunning(
                f"the {self._who} went away before it answered",
                hint="ask again: what was asked may have been done",
            )
        reply = json.loads(line)
        if not reply["ok"]:
            raise error_of(reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def wait_gone(self, timeout_s: float = 10.0) -> bool:
        """Until the agent's process has ended; False if it has not by then."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        try:
            pidfd = os.pidfd_open(struct.unpack("3i", raw)[0])
        except OSError:
            return True  # gone already, or in another PID namespace
        try:
            return bool(select.select([pidfd], [], [], timeout_s)[0])
        finally:
            os.close(pidfd)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def error_of(record: dict[str, Any]) -> IpshareError:
    code = record["exit_code"]
    if code == 2 and record["problems"]:
        return ConfigError([Problem(**problem) for problem in record["problems"]])
    if code in KINDS:
        return KINDS[code](record["message"], hint=record["hint"])
    return AgentError(record["message"], hint=record["hint"], exit_code=code)
