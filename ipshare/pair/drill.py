"""A drill: faults made on purpose at the active node, how long the takeover took as its network saw it, and
what was forwarded without the highest epoch.

The takeover is the peer's first announcement of a VIP, heard on its interface: no clock of another machine
is compared, and neither engine is asked. Faults are undone in every case, also when the drill is
interrupted: `with` one of them, and it ends with the block.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from ipshare.errors import NoPrivilege, NotRunning, Refused
from ipshare.model import PairPath, Vip

ETH_P_ALL, FRAME, TABLE = 3, 2048, "ipshare_drill"
TRIES, TURN_S = 100, 0.0005
"""Of a pause to begin between two packets; and how long packets are passed in between."""


class Ear:
    """Hears who else announces a VIP. Usable as a context manager. Raises NoPrivilege, Refused.

    ``device``: where, on Linux; as the VIP's interface is called unless VPP has it."""

    def __init__(self, vips: Sequence[Vip], device: str = "") -> None:
        self._vip = vips[0]
        device = device or self._vip.interface
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        except PermissionError:
            raise NoPrivilege(f"may not listen on {device}", hint="run as root") from None
        try:
            self._socket.bind((device, 0))
        except OSError as error:
            self._socket.close()
            raise Refused(
                f"cannot hear who announces {self._vip.address} on {device}: {error.strerror}",
                hint="a drill hears Linux interfaces, and those that VPP has through `host`",
            ) from None

    def wait(self, until: float) -> float | None:
        """When the peer announced it, as ``time.monotonic``; None: not until then."""
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(FRAME)
            except TimeoutError:
                return None
            if kind != socket.PACKET_OUTGOING and announces(frame, self._vip):
                return time.monotonic()
        return None

    def forget(self) -> None:
        """What came until now."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(FRAME)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def announces(frame: bytes, vip: Vip) -> bool:
    """Gratuitous ARP, or an unsolicited neighbour advertisement, for it? Pure."""
    packed = vip.address.packed
    if isinstance(vip.address, IPv6Address):
        return frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88" and frame[62:78] == packed
    return frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42] == packed


@contextlib.contextmanager
def killed(pid: int) -> Iterator[None]:
    """The agent, or whoever supervises it, starts another engine."""
    _signal(pid, signal.SIGKILL)
    yield


@contextlib.contextmanager
def paused(pid: int, is_idle: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """SIGSTOP; goes on at the end. ``is_idle``: asked of what is stopped, whether it has no packet in hand,
    which would leave at the end; where it has, it goes on, and is stopped again, up to ``TRIES`` times."""
    try:
        _signal(pid, signal.SIGSTOP)  # within: an interrupt may come as soon as it is done
        for _ in range(TRIES):
            if is_idle():
                break
            _signal(pid, signal.SIGCONT)
            time.sleep(TURN_S)
            _signal(pid, signal.SIGSTOP)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def cut(paths: Sequence[PairPath]) -> Iterator[None]:
    """Datagrams of these paths are dropped in this network namespace, both ways."""
    rules = [f"add table inet {TABLE}"]
    for hook in ("input", "output"):
        rules.append(f"add chain inet {TABLE} {hook} {{ type filter hook {hook} priority -400 ; }}")
    for path in paths:
        ip, here, there = "ip6" if path.local.version == 6 else "ip", path.local, path.remote
        rules += [
            f"add rule inet {TABLE} input {ip} saddr {there} udp dport {path.local_port} drop",
            f"add rule inet {TABLE} output {ip} saddr {here} {ip} daddr {there} "
            f"udp dport {path.remote_port} drop",
        ]
    try:
        _nft("\n".join(rules))
        yield
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["nft", "delete", "table", "inet", TABLE], capture_output=True, check=False)


def _nft(rules: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused("a path is cut by nftables, and there is no nft", hint="apt install nftables") from None
    if done.returncode:
        raise Refused(f"nftables took no rules: {done.stderr.strip()}", hint="run as root")


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise NotRunning(f"the engine, process {pid}, has just ended", hint="see its log") from None
    except PermissionError:
        raise NoPrivilege(f"may not send a signal to the engine, process {pid}", hint="run as root") from None


@dataclass
class Tally:
    """What a node forwards while it does not have the highest epoch, from one look at it to the next.

    ``late``: in a time without a change of its state, in which it was not active; ``both``: active, but the
    other one had begun a reign after it and was heard to announce the VIP, as without a witness while every
    path is cut."""

    late: int = 0
    both: int = 0
    reigns: int = 0
    _run: str = ""
    _was_active: bool = False
    _is_contested: bool = False
    _forwarded: int = 0
    _since_ns: int = 0

    def look(
        self, run: str, is_active: bool, forwarded: int, other_announced: bool, since_ns: int = 0
    ) -> None:
        """``run``: of the engine, whose counters begin anew with it; ``since_ns``: when its state changed
        last: it may have been active between two looks. Pure."""
        if self._run:
            more = forwarded - (self._forwarded if run == self._run else 0)
            was_active = self._was_active and run == self._run
            same = since_ns == self._since_ns or run != self._run
            self.late += more if same and not was_active and not is_active else 0
            self.both += more if was_active and self._is_contested else 0
            self.reigns += is_active and not was_active
            self._is_contested = is_active and was_active and (self._is_contested or other_announced)
        self._run, self._was_active, self._forwarded, self._since_ns = run, is_active, forwarded, since_ns


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that so many per cent are not above (nearest rank). Pure."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]
