"""client: a caller of an agent, blocking: by its control socket, or over TLS. The protocol is at the head of
ipshare.agent.server."""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipshare.certs.contexts import Contexts, why_refused
from ipshare.certs.identity import Identity, Role, of_peer
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


class _Caller:
    """One connection that was made, to ``who``."""

    _gone = "ask again: what was asked may have been done"

    def __init__(self, connected: socket.socket, who: str) -> None:
        self._socket, self._who = connected, who
        self._file = connected.makefile("rb")

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """The result of a verb. Raises the agent's error as what it was there."""
        try:
            self._socket.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            line = self._file.readline()
        except TimeoutError:
            raise AgentSilent(
                f"the {self._who} did not answer in time", hint="it is stopped, or at work: see its log"
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""  # as an end without an answer: which of them it is, is the other end's haste
        except OSError as error:
            why = why_refused(error) if isinstance(error, ssl.SSLError) else error.strerror
            raise NotRunning(f"the {self._who} went away: {why}", hint="ask again") from None
        if not line.endswith(b"\n"):
            raise NotRunning(
                f"the {self._who} went away before it answered",
                hint=self._gone,
            )
        reply = json.loads(line)
        if not reply["ok"]:
            raise error_of(reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AgentClient(_Caller):
    """By a socket of this machine. Raises NotRunning where no agent answers at ``runtime_dir``. ``path``:
    another socket that speaks so; ``who`` then is who serves it, and how he is started."""

    def __init__(
        self,
        runtime_dir: Path,
        *,
        timeout_s: float = TIMEOUT_S,
        path: Path | None = None,
        who: tuple[str, str] = ("agent", "ipshare agent FILE"),
    ) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(timeout_s)
        path = path or socket_path(runtime_dir)
        try:
            made.connect(str(path))
        except PermissionError:
            made.close()
            raise NoPrivilege(
                f"may not talk to the {who[0]} at {path}", hint="run as root, or join its group"
            ) from None
        except OSError:
            made.close()
            raise NotRunning(f"no {who[0]} runs at {path}", hint=f"start it: {who[1]}") from None
        super().__init__(made, who[0])

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


class RemoteClient(_Caller):
    """Node ``name`` at ``address`` ("10.0.0.1:7443", "[2001:db8::1]:7443"), over TLS. Raises NotRunning where
    it does not answer, or somebody else does; IpshareError for our own files. A certificate of ours that it
    does not take shows at the first ``call``."""

    _gone = "its log says whether it takes our certificate; else ask again: what was asked may have been done"

    def __init__(self, name: str, address: str, contexts: Contexts, *, timeout_s: float = TIMEOUT_S) -> None:
        host, _, port = address.rpartition(":")
        context, who = contexts.current(), f"agent of node {name} at {address}"
        plain = None
        try:
            plain = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
            made = context.wrap_socket(plain)
        except OSError as error:
            if plain is not None:
                plain.close()
            is_tls = isinstance(error, ssl.SSLError)
            why = why_refused(error) if is_tls else (error.strerror or "no answer in time").lower()
            raise NotRunning(f"no {who}: {why}", hint="[remote] in its site file says where it is") from None
        found = of_peer(made.getpeercert())
        if found != Identity(Role.NODE, name):
            made.close()
            raise NotRunning(f"no {who}: {found} answers there", hint="mend the name or the address")
        super().__init__(made, who)


def error_of(record: dict[str, Any]) -> IpshareError:
    code = record["exit_code"]
    if code == 2 and record["problems"]:
        return ConfigError([Problem(**problem) for problem in record["problems"]])
    if code in KINDS:
        return KINDS[code](record["message"], hint=record["hint"])
    return AgentError(record["message"], hint=record["hint"], exit_code=code)
