"""control: BIRD's control socket: a line goes out, numbered lines come back.

A reply is `NNNN-text` lines, each of which may go on in lines that begin with a space, and ends with one
`NNNN text`. 0xxx: done; 1xxx: data; 8xxx and 9xxx: refused. Only fields by position of 1002 (a protocol) and
1020 (a BFD session), and `key: value` lines of 1006 (its details) are read.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ipshare.errors import EngineError, IpshareError

TIMEOUT_S = 2.0
WELCOME, SUMMARY, DETAILS, BFD_SESSION = 1, 1002, 1006, 1020
_FIRST_ERROR = 8000


class BirdGone(IpshareError):
    """Nobody listens at the control socket."""


@dataclass(frozen=True, slots=True)
class Line:
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Session:
    """A BGP session as BIRD sees it. ``state``: idle, connect, active, opensent, openconfirm, established,
    down. ``since``: Unix time of its last change. ``error``: the last one; "": none. ``announced``: routes
    that were sent and stand."""

    name: str
    state: str
    since: int
    error: str
    announced: int


class Control:
    """One connection, to be closed. Raises BirdGone; EngineError: BIRD refused, or did not answer in time."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        self._timeout_s, self._buffer = timeout_s, b""
        try:
            self._socket.connect(str(path))
            welcome = self._reply()[-1]
        except (FileNotFoundError, ConnectionError):
            self._socket.close()
            raise BirdGone(f"no BIRD listens at {path}") from None
        except OSError as error:
            self._socket.close()
            raise EngineError(f"BIRD at {path} does not answer: {error}") from None
        except IpshareError:
            self._socket.close()
            raise
        found = re.search(r"BIRD v?([0-9.]+)", welcome.text)
        self.version = found[1] if found else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, line: str) -> list[Line]:
        """The reply to a command."""
        try:
            self._socket.sendall(line.encode() + b"\n")
            reply = self._reply()
        except OSError as error:
            raise EngineError(f"BIRD does not answer {line.split()[0]!r}: {error}") from None
        if reply[-1].code >= _FIRST_ERROR:
            raise EngineError(f"BIRD refused {line.split()[0]!r}: {'; '.join(one.text for one in reply)}")
        return reply

    def sessions(self) -> dict[str, Session]:
        """The BGP sessions, by name of the protocol."""
        return parse_sessions(self.call("show protocols all"))

    def bfd(self) -> dict[str, str]:
        """By address of the neighbour: up, down, init, admindown."""
        try:
            return parse_bfd(self.call("show bfd sessions"))
        except EngineError:  # there is no protocol bfd
            return {}

    def _reply(self) -> list[Line]:
        lines: list[Line] = []
        end = time.monotonic() + self._timeout_s
        while True:
            text = self._line(end)
            if text[:1] in (" ", "+"):
                lines.append(Line(lines[-1].code if lines else 0, text[1:]))
            elif re.match(r"[0-9]{4}[ -]", text):
                lines.append(Line(int(text[:4]), text[5:]))
                if text[4] == " ":
                    return lines
            else:
                raise EngineError(f"BIRD said {text[:60]!r}: no reply of BIRD 2")

    def _line(self, end: float) -> str:
        while b"\n" not in self._buffer:
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("it ended the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")


def parse_sessions(lines: list[Line]) -> dict[str, Session]:
    """Of `show protocols all`: those of protocol BGP. Pure."""
    found: dict[str, Session] = {}
    name = ""
    for line in lines:
        if line.code == SUMMARY:
            words = line.text.split(maxsplit=5)  # name, protocol, table, state, since, info
            name = words[0] if len(words) > 4 and words[1] == "BGP" else ""
            if name:
                since = int(words[4]) if words[4].isdigit() else 0
                found[name] = Session(name, "down", since, "", 0)
        elif line.code == DETAILS and name:
            found[name] = _with_detail(found[name], line.text.strip())
    return found


def _with_detail(session: Session, text: str) -> Session:
    key, _, value = text.partition(":")
    value = value.strip()
    state, error, announced = session.state, session.error, session.announced
    if key == "BGP state":
        state = value.lower()
    elif key == "Last error":
        error = value
    elif key == "Routes" and (count := re.search(r"([0-9]+) exported", value)):
        announced += int(count[1])
    return Session(session.name, state, session.since, error, announced)


def parse_bfd(lines: list[Line]) -> dict[str, str]:
    """Of `show bfd sessions`: address, interface, state, ... Pure."""
    rows = (line.text.split() for line in lines if line.code == BFD_SESSION)
    return {row[0]: row[2].lower() for row in rows if len(row) > 3 and row[0][0].isalnum() and row[0] != "IP"}
