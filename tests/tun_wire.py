"""Packets straight into an engine and out of it, whatever a kernel's routing would say to them.

What an AF_PACKET socket on a TUN device sends is what the engine reads; what the engine writes, the socket
receives, but not what it sent itself (PACKET_IGNORE_OUTGOING). The virtio-net header carries offload fields
both ways. A sentinel behind each packet tells when the engine is through with it: one worker keeps the
order, and the counters then show one verdict more for each of the two.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ipshare.core import VERDICTS
from ipshare.engine.embedded import Control, launch
from ipshare.engine.tables import Tables
from ipshare.lab.netns import inside
from tests.cases.judge import Seen
from tests.engine_lab import empty_namespace, load, run
from tests.oracle.parse import FULL, PARTIAL, PLAIN, Offload

SOL_PACKET, VNET_HDR, QDISC_BYPASS, IGNORE_OUTGOING = 263, 15, 20, 23
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, start, offset
NEEDS_CSUM, GSO_TCP4, GSO_TCP6, GSO_UDP = 1, 1, 4, 5
SIDES = {"outer": 0, "inner": 1}


class NotOnWire(Exception):
    """No device hands over such a packet."""


def can_be_sent(data: bytes, offload: Offload) -> bool:
    """Whether a device can be asked to hand it over; the kernel may still refuse."""
    try:
        return bool(_header(data, offload))
    except NotOnWire:
        return False


class Wire:
    """The device of one side of an engine."""

    def __init__(self, namespace: str, control: Control, side: str, sentinel: bytes) -> None:
        """sentinel: a packet of which the engine makes exactly one, with the same last 8 bytes."""
        self.device = "ips-out" if side == "outer" else "ips-in"
        self.counters, self.side = control.counters(), SIDES[side]
        self.features = control.hello().features
        self.sentinel, self.serial = sentinel[:-8], 0
        self.socket = inside(namespace, self._open)

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        for option in (VNET_HDR, QDISC_BYPASS, IGNORE_OUTGOING):
            made.setsockopt(SOL_PACKET, option, 1)
        made.bind((self.device, ETH_P_ALL))
        made.settimeout(20)
        return made

    def pass_(self, data: bytes, offload: Offload = PLAIN) -> tuple[str, list[Seen]]:
        """The verdict that the engine counted, and what it sent. Raises ``NotOnWire``."""
        before = self._verdicts()
        self._send(data, offload)
        self.serial += 1
        token = struct.pack(">Q", self.serial)
        self._send(self.sentinel + token, PLAIN)
        seen = []
        while not (last := self._receive()).data.endswith(token):
            seen.append(last)
        counted = self._verdicts() - before
        counted[0] -= 1  # the sentinel's
        assert counted.min() == 0 and counted.sum() == 1, dict(enumerate(counted.tolist()))
        return VERDICTS[int(counted.argmax())].name, seen

    def refused(self) -> int:
        """Packets that the kernel would not take from the engine."""
        return sum(int(worker["tx_refused"][self.side]) for worker in self.counters.workers)

    def _verdicts(self) -> np.ndarray:
        return self.counters.verdicts()[self.side].astype(np.int64)

    def _send(self, data: bytes, offload: Offload) -> None:
        header = _header(data, offload)
        protocol = ETH_P_IPV6 if data and data[0] >> 4 == 6 else ETH_P_IP
        try:
            self.socket.sendto(header + data, (self.device, protocol))
        except OSError as error:
            raise NotOnWire(f"the kernel refuses it: {error}") from error

    def _receive(self) -> Seen:
        raw = self.socket.recv(1 << 17)
        flags, gso, _, size, start, offset = HEADER.unpack_from(raw)
        partial = flags & NEEDS_CSUM
        kind = {0: 0, GSO_TCP4: 1, GSO_TCP6: 1, GSO_UDP: 2}[gso]
        fields = (PARTIAL, start, offset) if partial else (FULL, 0, 0)
        return Seen(raw[HEADER.size :], Offload(*fields, kind, size if kind else 0))


def _header(data: bytes, offload: Offload) -> bytes:
    kinds = {0: 0, 1: GSO_TCP4 if data[:1] < b"\x60" else GSO_TCP6, 2: GSO_UDP}
    if not data or offload.gso_type not in kinds or offload.csum not in (FULL, PARTIAL):
        raise NotOnWire("nothing, or fields of another host")
    if offload.gso_type and len(data) - _shortest_headers(data, offload) <= offload.gso_size:
        raise NotOnWire("the kernel makes an ordinary packet of a super-packet of one segment")
    partial = offload.csum == PARTIAL
    return HEADER.pack(
        NEEDS_CSUM if partial else 0,
        kinds[offload.gso_type],
        _headers(data, offload) if offload.gso_type else 0,
        offload.gso_size,
        offload.csum_start if partial else 0,
        offload.csum_offset if partial else 0,
    )


def _shortest_headers(data: bytes, offload: Offload) -> int:
    return (20 if data[0] >> 4 == 4 else 40) + (8 if offload.gso_type == 2 else 20)


def _headers(data: bytes, offload: Offload) -> int:
    l4 = offload.csum_start
    return l4 + 8 if offload.gso_type == 2 or len(data) < l4 + 20 else l4 + (data[l4 + 12] >> 4) * 4


@contextlib.contextmanager
def wire(directory: Path, tables: Tables, side: str, sentinel: bytes) -> Iterator[Wire]:
    """An engine with one worker in a namespace where nobody else sends, and the device of one side."""
    with empty_namespace() as name:
        for scope in ("all", "default"):
            run(name, f"sysctl -qw net.ipv6.conf.{scope}.disable_ipv6=1")
        engine = inside(name, lambda: launch.start(directory / f"{side}.sock", workers=1))
        try:
            device = "ips-out" if side == "outer" else "ips-in"
            run(name, f"ip link set {device} mtu 65535 up")
            with Control(directory / f"{side}.sock") as control:
                load(control, tables)
                made = Wire(name, control, side, sentinel)
                yield made
                made.socket.close()
        finally:
            code = engine.terminate() if engine.is_alive() else engine.process.returncode
        assert code == 0, f"the engine ended with {code}"
