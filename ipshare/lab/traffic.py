"""Real traffic in the lab, checked byte by byte: what to ask for, what is reported, and how it is started.

    with serve(lab, "a1", "b1"):
        running = [start(lab, client, Tcp("203.0.113.10", connections=200)) for client in ("c1", "c2", "c3")]
        reports = [each.result() for each in running]

The servers are lab/serve.py, the clients lab/load.py, each a process in its node's namespace. In all reports
`corrupted` means that bytes differ; `misdelivered`: the wrong server answered, or it had seen another
destination than was addressed, or another client than the one that asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ipshare.errors import IpshareError

if TYPE_CHECKING:
    from ipshare.lab.lab import Lab

PORT = 7007
CHUNK = 65536
UDP_MAX = 65536
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Tcp:
    """`connections` to one address, begun within spread_s; each sends `bytes` in `chunks`, pause_s apart, and
    wants them back if `echo`. expect: names of the servers that may answer; empty: any. sources: own
    addresses that they come from, in turn; empty: the kernel's choice."""

    address: str
    connections: int = 1
    bytes: int = 10_000
    echo: bool = True
    chunks: int = 1
    pause_s: float = 0.0
    spread_s: float = 0.0
    timeout_s: float = 30.0  # of one connection, from connect to the last byte
    expect: tuple[str, ...] = ()
    seed: int = 1
    port: int = PORT
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Udp:
    """`flows` sockets that send `datagrams` each, payload sizes (bytes) going round; larger than the path
    MTU: fragments. timeout_s: how long the last answers are waited for; then what has none is sent again,
    `attempts` times in all (IPv6 loses the first datagrams by which it learns a path MTU)."""

    address: str
    flows: int = 1
    datagrams: int = 10
    sizes: tuple[int, ...] = (64, 512, 1200)
    pause_s: float = 0.0
    timeout_s: float = 3.0
    attempts: int = 1
    expect: tuple[str, ...] = ()
    seed: int = 1
    port: int = PORT


@dataclass(frozen=True, slots=True)
class Ping:
    """`count` echo requests, one after the other, with `bytes` of payload."""

    address: str
    count: int = 3
    bytes: int = 56
    timeout_s: float = 3.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One connection: monotonic seconds (the same clock in every node), who answered ("": nobody)."""

    started: float
    ended: float
    server: str
    good: bool


@dataclass(frozen=True, slots=True)
class TcpReport:
    """connections = completed + failed + corrupted + misdelivered. bytes: payload, both ways, checked."""

    connections: int
    completed: int
    failed: int
    corrupted: int
    misdelivered: int
    bytes: int
    seconds: float
    servers: dict[str, int]
    errors: dict[str, int]
    records: tuple[Record, ...]

    @property
    def is_clean(self) -> bool:
        """Everything arrived, where it should, as it was sent."""
        return self.completed == self.connections


@dataclass(frozen=True, slots=True)
class UdpReport:
    """sent = received + lost + corrupted + misdelivered; duplicated: answers beyond the first; resent: beyond
    the first attempt."""

    sent: int
    received: int
    lost: int
    corrupted: int
    misdelivered: int
    duplicated: int
    resent: int
    seconds: float
    servers: dict[str, int]
    errors: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Everything arrived, where it should, as it was sent."""
        return self.received == self.sent


@dataclass(frozen=True, slots=True)
class PingReport:
    """sent = received + lost + corrupted + misdelivered (answered by another address)."""

    sent: int
    received: int
    lost: int
    corrupted: int
    misdelivered: int
    min_ms: float
    max_ms: float

    @property
    def is_clean(self) -> bool:
        """Everything arrived, where it should, as it was sent."""
        return self.received == self.sent


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload: number, what the server says of it (empty in a request), and the bytes in question."""

    number: int
    facts: dict[str, Any]
    payload: bytes


def sealed(datagram: Datagram) -> bytes:
    """The datagram with a digest in front, as it travels."""
    facts = json.dumps(datagram.facts).encode()
    body = datagram.number.to_bytes(4) + len(facts).to_bytes(2) + facts + datagram.payload
    return hashlib.sha256(body).digest()[:_DIGEST_BYTES] + body


def open_datagram(data: bytes) -> Datagram | None:
    """The reverse; None where the digest is wrong."""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest()[:_DIGEST_BYTES] != digest or len(body) < 6:
        return None
    end = 6 + int.from_bytes(body[4:6])
    return Datagram(int.from_bytes(body[:4]), json.loads(body[6:end]), body[end:])


Report = TypeVar("Report", bound=TcpReport | UdpReport | PingReport)


_REPORTS: dict[type, type] = {Tcp: TcpReport, Udp: UdpReport, Ping: PingReport}


class Running(Generic[Report]):
    """A client at work."""

    def __init__(self, process: subprocess.Popen[str], kind: type[Report], begun: int) -> None:
        self._process, self._kind, self._begun = process, kind, begun

    def wait_begun(self) -> None:
        """Returns when the client sends its first packet, one of each flow of UDP, or has failed."""
        if self._begun >= 0:
            os.read(self._begun, 1)
            os.close(self._begun)
            self._begun = -1

    def result(self, timeout_s: float = 300) -> Report:
        """Waits for the end. Raises IpshareError where the client itself failed."""
        self.wait_begun()
        out, error = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            last = error.strip().splitlines()[-1] if error.strip() else f"status {self._process.returncode}"
            raise IpshareError(
                f"a traffic client failed: {last}", hint="is the address of a family the lab has?"
            )
        fields = json.loads(out)
        if "records" in fields:
            fields["records"] = tuple(Record(**record) for record in fields["records"])
        return self._kind(**fields)


@contextlib.contextmanager
def serve(lab: Lab, *nodes: str, port: int = PORT) -> Iterator[None]:
    """Servers on these nodes, named after them, while the block runs."""
    started = []
    try:
        for node in nodes:
            command = [sys.executable, "-m", "ipshare.lab.serve", "--name", node, "--port", str(port)]
            started.append(lab.popen(node, command, stdout=subprocess.PIPE))
        for process in started:
            if process.stdout is None or not process.stdout.readline():
                raise IpshareError("a server of the lab did not start", hint="is its port taken?")
        yield
    finally:
        for process in started:
            lab.end(process)


@overload
def start(lab: Lab, node: str, request: Tcp) -> Running[TcpReport]: ...
@overload
def start(lab: Lab, node: str, request: Udp) -> Running[UdpReport]: ...
@overload
def start(lab: Lab, node: str, request: Ping) -> Running[PingReport]: ...
def start(lab: Lab, node: str, request: Tcp | Udp | Ping) -> Running[Any]:
    """Starts a client on a node; several run side by side."""
    begun, begin = os.pipe()
    words = [type(request).__name__, json.dumps(asdict(request)), str(begin)]
    command = [sys.executable, "-m", "ipshare.lab.load", *words]
    pipe = subprocess.PIPE
    process = lab.popen(node, command, stdout=pipe, stderr=pipe, text=True, pass_fds=(begin,))
    os.close(begin)
    kind: Any = _REPORTS[type(request)]
    return Running(process, kind, begun)
