"""Frames of a device, captured by a thread on an AF_PACKET socket and kept in memory; pcapng on demand.

Made in the namespace of the device (Lab.capture does that). pcapng: draft-ietf-opsawg-pcapng, the
three blocks that every reader knows.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from pathlib import Path

_ETH_P_ALL = 0x0003
_FRAME_BYTES = 65536 + 32


class Capture:
    """Starts at once; `frames` is (unix time in ns, frame) for both directions, in order."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.frames: list[tuple[int, bytes]] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self._socket.bind((device, 0))
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name=f"capture {device}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._wake], [], [])
            if self._socket in ready:  # first: what came before stop() is kept
                self.frames.append((time.time_ns(), self._socket.recv(_FRAME_BYTES)))
            elif self._wake in ready:
                return

    def stop(self) -> None:
        """Ends the capture after what has arrived so far."""
        self._waker.send(b".")
        self._thread.join()
        for each in (self._socket, self._wake, self._waker):
            each.close()

    def packets(self, family: int) -> list[bytes]:
        """The IPv4 or IPv6 packets so far, without Ethernet header."""
        kind = b"\x08\x00" if family == 4 else b"\x86\xdd"
        return [frame[14:] for _, frame in list(self.frames) if frame[12:14] == kind]

    def save(self, file: Path) -> None:
        """Writes pcapng."""
        name = self.device.encode()
        option = struct.pack("<HH", 2, len(name)) + name + bytes(-len(name) % 4)
        resolution = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)  # timestamps in ns; end of options
        with open(file, "wb") as out:
            out.write(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
            out.write(_block(1, struct.pack("<HHI", 1, 0, 0) + option + resolution))
            for when, frame in self.frames:
                head = struct.pack("<IIIII", 0, when >> 32, when & 0xFFFFFFFF, len(frame), len(frame))
                out.write(_block(6, head + frame + bytes(-len(frame) % 4)))


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
