"""prober: what the paths to the other nodes really carry, measured both ways with DF (RFC 1191, 8201,
8899's search).

An ICMP echo of the configured path MTU goes to the far node's tunnel address; the far core answers with a
packet of the same size. If it comes back, both directions carry it. If it does not, but a small one does,
the largest that does is searched for. Where nothing comes back the path is reported as down and no size is
concluded.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ipshare.engine.packet_words import checksum
from ipshare.errors import IpshareError, NoPrivilege
from ipshare.model import Address, Config, Distribution, Endpoint

FLOOR = {4: 576, 6: 1280}
"""Sizes below which no path is searched: RFC 791's least reassembly size, RFC 8200's least MTU."""
SIZES_A_ROUND = 15
PATHS_AT_ONCE = 16
# linux/in.h and in6.h; Python's socket module has no names for them.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 10, 23, 62, 3


@dataclass(frozen=True, slots=True)
class Path:
    """One path to a node, by the family of the packets that travel on it."""

    name: str
    family: int
    address: Address
    configured: int


@dataclass(frozen=True, slots=True)
class Finding:
    """``measured``: bytes of the largest packet that came back; None: nothing did."""

    path: Path
    measured: int | None
    at: float

    @property
    def state(self) -> str:
        if self.measured is None:
            return "down"
        return "ok" if self.measured >= self.path.configured else "narrow"


def paths(config: Config) -> list[Path]:
    """The paths that this node sends on and can probe: those to a node with a tunnel address."""
    return list(_paths(config))


def _paths(config: Config) -> Iterator[Path]:
    far: list[Endpoint | Distribution] = [
        *(config.endpoints if config.self_distribution is not None else ()),
        *(config.distributions if config.self_endpoint is not None else ()),
    ]
    for place in far:
        for family, address in ((4, place.tunnel4), (6, place.tunnel6)):
            if address is not None and not place.is_self:
                yield Path(place.name, family, address, place.path_mtu.of(family))


def search(which: Callable[[Sequence[int]], set[int]], floor: int, ceiling: int) -> int | None:
    """The largest size from ``floor`` to ``ceiling`` that passes; None if not even the floor does.

    ``which(sizes)`` says which of several sizes pass. Lost packets cost a time-out each round, so a
    round asks for many sizes: three or four are enough for 1,500.
    """
    passed = which(sorted({floor, ceiling}))
    if ceiling in passed:
        return ceiling
    if floor not in passed:
        return None
    good, bad = floor, ceiling
    while bad - good > 1:
        step = max(1, (bad - good) // (SIZES_A_ROUND + 1))
        sizes = list(range(good + step, bad, step))
        passed = which(sizes)
        good, bad = max(passed, default=good), min((s for s in sizes if s not in passed), default=bad)
        if bad <= good:
            bad = good + 1  # a smaller one was lost by chance: what came back is proof
    return good


class Prober:
    """Findings of the latest round, by (name, family)."""

    def __init__(self) -> None:
        self.findings: dict[tuple[str, int], Finding] = {}

    def run(self, config: Config) -> None:
        """One round over all paths: blocking, a few seconds where packets are lost."""
        todo = paths(config)
        timeout_s, attempts = config.probe.timeout_s, config.probe.attempts
        with ThreadPoolExecutor(max_workers=PATHS_AT_ONCE) as pool:
            sizes = pool.map(lambda path: measure(path, timeout_s=timeout_s, attempts=attempts), todo)
            found = [Finding(path, size, time.monotonic()) for path, size in zip(todo, sizes, strict=True)]
        self.findings = {(finding.path.name, finding.path.family): finding for finding in found}

    def measured(self) -> dict[tuple[str, int], int]:
        """Paths that are narrower than configured."""
        return {
            key: f.measured
            for key, f in self.findings.items()
            if f.measured is not None and f.state == "narrow"
        }

    def silent(self) -> bool:
        """Whether some path does not answer at all."""
        return any(f.measured is None for f in self.findings.values())

    def alarms(self) -> list[str]:
        """A sentence for each path that is not as configured."""
        return [sentence(f) for f in self.findings.values() if f.state != "ok"]

    def report(self) -> list[dict[str, Any]]:
        return [to_json(finding) for finding in self.findings.values()]


def sentence(finding: Finding) -> str:
    path = finding.path
    where = f"path to {path.name} (IPv{path.family}, {path.address})"
    if finding.measured is None:
        return f"{where} does not answer"
    verb = "carries" if finding.state == "ok" else "carries only"
    return f"{where} {verb} {finding.measured} bytes, configured are {path.configured}"


def to_json(finding: Finding) -> dict[str, Any]:
    path = finding.path
    return {
        "name": path.name,
        "family": path.family,
        "address": str(path.address),
        "configured": path.configured,
        "measured": finding.measured,
        "state": finding.state,
        "age_s": round(time.monotonic() - finding.at, 3),
    }


def measure(path: Path, *, timeout_s: float, attempts: int) -> int | None:
    """Bytes of the largest packet that goes there and comes back. Raises NoPrivilege without raw sockets."""
    with _Echo(path) as echo:
        return search(
            lambda sizes: echo.which(sizes, timeout_s, attempts), FLOOR[path.family], path.configured
        )


class _Echo:
    """Echo requests with DF, past whatever path MTU the kernel remembers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = 20 if path.family == 4 else 40
        v4 = path.family == 4
        try:
            self.socket = socket.socket(
                socket.AF_INET if v4 else socket.AF_INET6,
                socket.SOCK_RAW,
                socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6,
            )
        except PermissionError:
            raise NoPrivilege(
                "probing needs raw sockets", hint="run as root, or let the agent do it"
            ) from None
        if v4:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            self.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)

    def __enter__(self) -> _Echo:
        try:
            self.socket.connect((str(self.path.address), 0))
        except OSError as error:
            self.socket.close()
            raise IpshareError(f"no route to {self.path.address}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def which(self, sizes: Sequence[int], timeout_s: float, attempts: int) -> set[int]:
        """Which sizes come back, of ``attempts`` requests of each, within one time-out."""
        waiting = {payload: size for size in sizes for payload in self._ask(size, attempts)}
        passed: set[int] = set()
        until = time.monotonic() + timeout_s
        while passed != set(waiting.values()) and (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                break
            except OSError:
                continue  # an ICMP error about an earlier packet
            icmp = data[20:] if self.path.family == 4 else data
            if icmp[0] == (0 if self.path.family == 4 else 129) and icmp[8:] in waiting:
                passed.add(waiting[icmp[8:]])
        return passed

    def _ask(self, size: int, attempts: int) -> Iterator[bytes]:
        """Sends requests of ``size`` bytes; yields the payloads of those that left."""
        for _ in range(attempts):
            nonce = os.urandom(8)
            payload = (nonce * (size // 8 + 1))[: size - self.header - 8]
            kind = 8 if self.path.family == 4 else 128
            head = struct.pack("!BBHHH", kind, 0, 0, int.from_bytes(nonce[:2]), 1)
            if self.path.family == 4:  # the kernel fills in ICMPv6's
                head = head[:2] + checksum(head + payload).to_bytes(2) + head[4:]
            try:
                self.socket.send(head + payload)
            except OSError as error:
                if error.errno in (errno.EMSGSIZE, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM):
                    continue  # longer than our own interface, nobody takes it, or an earlier packet's error
                raise
            yield payload
