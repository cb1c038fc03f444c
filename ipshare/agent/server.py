"""server: the agent's control socket: one JSON object a line, in and out, over a Unix stream socket.

    {"verb": "apply", ...}  ->  {"ok": true, "result": {...}}
                            or  {"ok": false, "error": {"message", "hint", "exit_code", "problems"}}

The file's mode says who may connect (0600, or 0660 with a group); the kernel says who did (SO_PEERCRED).
What a verb does is the daemon's business; here are lines, limits, and the answer to whatever a caller gets
wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ipshare.errors import IpshareError, NoPrivilege

log = logging.getLogger(__name__)
MAX_LINE = 1 << 16
MAX_CLIENTS = 32
IDLE_S = 3600.0
DRAIN_S = 1.0


class Asker(Protocol):
    """Who is at the other end: ``str`` of it goes into the audit trail."""

    @property
    def is_owner(self) -> bool:
        """Whether he may do whatever this process may."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int

    @property
    def is_owner(self) -> bool:
        """root, or the user that the agent runs as."""
        return self.uid in (0, os.geteuid())

    def __str__(self) -> str:
        return f"uid={self.uid} gid={self.gid} pid={self.pid}"


Handler = Callable[[Asker, dict[str, Any]], Awaitable[dict[str, Any]]]


class Server:
    """Serves ``handle`` at ``path`` from ``start`` to ``stop``."""

    def __init__(self, path: Path, handle: Handler, group: str | None = None) -> None:
        self.path, self.handle, self.group = path, handle, group
        self._server: asyncio.Server | None = None
        self._made = (0, 0)  # the socket file, as (device, inode)
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises NoPrivilege or IpshareError. A socket file left by a dead agent is replaced."""
        self.path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # nobody gets in before the mode is what it should be
        try:
            self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE)
        except OSError as error:
            raise IpshareError(f"cannot make the socket {self.path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        if self.group is not None:
            self._give_to(self.group)
        self._made = _identity(self.path)

    def is_there(self) -> bool:
        """Whether callers that open the path come here: nobody removed or replaced it."""
        return _identity(self.path) == self._made

    async def again(self) -> None:
        """Makes the socket anew where it was. Conversations go on. Raises as ``start``."""
        if self._server is not None:
            self._server.close()
        await self.start()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _give_to(self, group: str) -> None:
        try:
            os.chown(self.path, -1, grp.getgrnam(group).gr_gid)
        except KeyError:
            raise IpshareError(f"there is no group {group}", hint=f"groupadd --system {group}") from None
        except PermissionError:
            raise NoPrivilege(f"may not give the socket to group {group}", hint="run as root") from None
        self.path.chmod(0o660)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task"
        self._clients.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _caller(writer.get_extra_info("socket"))
        if len(self._clients) > MAX_CLIENTS:
            writer.write(_line(_failure(IpshareError("too many callers", hint="try again"))))
            return await writer.drain()
        await converse(reader, writer, caller, self.handle)
        return None


async def converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    caller: Asker,
    handle: Handler,
    *,
    max_line: int = MAX_LINE,
    idle_s: float = IDLE_S,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Answers requests until the other end goes away, is silent too long, or ``goes_on`` says no after an
    answer. ``max_line``: the limit that ``reader`` was made with."""
    while goes_on():
        try:
            async with asyncio.timeout(idle_s):  # wait_for would lose a cancellation that comes with a line
                line = await reader.readline()
        except ValueError:
            writer.write(_line(_failure(IpshareError(f"a request is at most {max_line} bytes long"))))
            return await _end(reader, writer)
        if not line.endswith(b"\n"):
            return None
        writer.write(_line(await _answer(caller, line, handle)))
        await writer.drain()
    return None


async def _answer(caller: Asker, line: bytes, handle: Handler) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
            raise ValueError("no verb")
    except (ValueError, RecursionError):
        return _failure(IpshareError("a request is one JSON object with a verb on one line"))
    try:
        return {"ok": True, "result": await handle(caller, request)}
    except IpshareError as error:
        return _failure(error)
    except Exception:
        log.exception("%s failed", request["verb"])
        return _failure(IpshareError(f"{request['verb']} failed unexpectedly", hint="see the agent's log"))


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hears the caller out, a second at most: closed earlier, what is unread would take the answer along."""
    if writer.can_write_eof():  # TLS cannot
        writer.write_eof()
    async with asyncio.timeout(DRAIN_S):
        while await reader.read(MAX_LINE):
            pass


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.lstat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _caller(connection: socket.socket) -> Caller:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Caller(*struct.unpack("3i", raw))


def refusal(error: IpshareError) -> bytes:
    """The line that tells a caller of an error."""
    return _line(_failure(error))


def _failure(error: IpshareError) -> dict[str, Any]:
    problems = [asdict(problem) for problem in getattr(error, "problems", ())]
    record = {
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
        "problems": problems,
    }
    return {"ok": False, "error": record}


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode() + b"\n"
