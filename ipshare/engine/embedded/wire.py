"""wire: one connection to the control socket: a request out, its reply in.

Layouts and numbers are those of ``native/ips_control.h``, read off the compiled
module. Knows nothing of what an operation means; turns refusals into exceptions.
A connection that timed out or broke is closed, because a late reply would be
taken for the next one's.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import mmap
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipshare.core import dtype, lib
from ipshare.engine import failures
from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.errors import EngineError

REQUEST = dtype("struct ips_ctl_request")
REPLY = dtype("struct ips_ctl_reply")
ERROR = dtype("struct ips_ctl_error")
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class ControlError(EngineError):
    """The engine refused a request. ``status`` is an ``IPS_CTL_*`` number, ``system_errno`` 0 or an errno."""

    def __init__(self, message: str, *, status: int, system_errno: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.system_errno = system_errno


class ImageRefused(ControlError, failures.ImageRefused):
    """A table image did not pass; see ``ipshare.engine.failures.ImageRefused``."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Payload of a reply and the descriptor that came with it, which the receiver closes; -1: none."""

    payload: bytes
    fd: int = -1

    def one(self, layout: np.dtype[Any]) -> Any:
        """The payload as one record. Raises ``EngineError`` if it has another length."""
        if len(self.payload) != layout.itemsize:
            raise EngineError(f"reply of {len(self.payload)} bytes where {layout.itemsize} were expected")
        return np.frombuffer(self.payload, layout)[0]


def _refusal(status: int, payload: bytes) -> ControlError:
    error = np.frombuffer(payload.ljust(ERROR.itemsize, b"\0")[: ERROR.itemsize], ERROR)[0]
    text = error["text"].tobytes().split(b"\0")[0].decode(errors="replace")
    if status != lib.IPS_CTL_IMAGE_REFUSED:
        hint = "use one version of ipshare for agent and engine" if _is_foreign(status) else ""
        return ControlError(text, status=status, system_errno=int(error["system_errno"]), hint=hint)
    refused = ImageRefused(text, status=status, hint="the live generation goes on unchanged")
    refused.load_error, refused.section, refused.index = (
        int(error[name]) for name in ("load_error", "section", "index")
    )
    return refused


def _is_foreign(status: int) -> bool:
    return status in (lib.IPS_CTL_FOREIGN_VERSION, lib.IPS_CTL_UNKNOWN_OP, lib.IPS_CTL_BAD_LENGTH)


class Connection:
    """A connected control socket. Not thread-safe: ``Control`` holds the lock."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Raises ``EngineGone`` if nobody listens there."""
        self._seq = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self.close()
            hint = (
                "run as the user who started it" if isinstance(error, PermissionError) else "start it first"
            )
            raise EngineGone(f"no engine answers on {path}: {error.strerror}", hint=hint) from error

    def close(self) -> None:
        self._socket.close()

    def interrupt(self) -> None:
        """From any thread: who waits in ``call`` gets ``EngineGone``, and so does everybody after him."""
        with contextlib.suppress(OSError):  # closed, or never connected
            self._socket.shutdown(socket.SHUT_RDWR)

    def call(self, op: int, payload: bytes = b"", *, fd: int = -1, timeout_s: float | None = None) -> Reply:
        """One request and its reply; ``fd`` is lent, not given away; ``timeout_s`` None: wait for ever.

        Raises ``ControlError`` (refused), ``EngineGone``, ``EngineSilent``; after the last two the
        connection is closed.
        """
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        head = np.zeros(1, REQUEST)
        head[0] = (lib.IPS_CTL_MAGIC, lib.IPS_CTL_VERSION, op, self._seq, len(payload))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        try:
            self._socket.settimeout(timeout_s)
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # a refusal may lie there to be read
                self._socket.sendmsg([head.tobytes(), payload], rights)
            return self._receive()
        except TimeoutError as error:
            self.close()
            raise EngineSilent(
                "the engine did not answer in time", hint="is it stopped or overloaded?"
            ) from error
        except OSError as error:
            self.close()
            raise EngineGone(f"the engine went away: {error.strerror}", hint="see its log") from error

    def _receive(self) -> Reply:
        space = socket.CMSG_SPACE(array.array("i").itemsize)
        receive = functools.partial(
            self._socket.recvmsg, lib.IPS_CTL_MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC
        )
        try:
            message, ancillary, _, _ = receive()
        except ConnectionResetError:  # said once; what the engine wrote before it hung up comes after
            message, ancillary, _, _ = receive()
        fd = -1
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fd = array.array("i", data[:4])[0]
        if len(message) < REPLY.itemsize:
            self.close()
            raise EngineGone("the engine closed the connection", hint="see its log")
        head = np.frombuffer(message, REPLY, count=1)[0]
        payload = message[REPLY.itemsize :]
        is_ours = head["magic"] == lib.IPS_CTL_MAGIC
        if is_ours and head["status"] == lib.IPS_CTL_OK and head["seq"] == self._seq:
            return Reply(payload, fd)
        if fd >= 0:
            os.close(fd)
        if not is_ours or head["status"] == lib.IPS_CTL_OK:
            self.close()
            raise EngineGone("whoever listens on the socket is no ipshare-engine of this version")
        raise _refusal(int(head["status"]), payload)


def sealed_memfd(content: bytes | bytearray | memoryview) -> int:
    """A memfd with ``content`` that nobody can change any more. The caller closes it."""
    fd = os.memfd_create("ipshare", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content).cast("B")
        at = 0
        while at < len(view):
            at += os.write(fd, view[at:])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def map_fd(fd: int) -> mmap.mmap | bytes:
    """The content behind ``fd``, read-only, without copying; closes ``fd``. Empty: ``b""``."""
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        size = os.fstat(fd).st_size
        return mmap.mmap(fd, size, prot=mmap.PROT_READ) if size else b""


def constant_name(prefix: str, value: int) -> str:
    """The name of constant ``value`` among those of ``lib`` that begin with ``prefix``; else the number."""
    for name in dir(lib):
        if name.startswith(prefix) and getattr(lib, name) == value:
            return name
    return f"{prefix}{value}"


__all__ = [
    "Connection", "ControlError", "EngineGone", "EngineSilent", "ImageRefused", "Reply",
    "constant_name", "map_fd", "sealed_memfd",
]  # fmt: skip
