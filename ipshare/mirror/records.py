"""Changes of sessions: arrays here, self-delimiting octets in a database (native/ips_mirror_wire.c).

A session's key is its flow in the same form: equal flows are equal octets on every kind of machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ipshare.core import dtype, ffi, lib
from ipshare.errors import IpshareError

CHANGE = dtype("struct ips_relay_change")
RECORD = dtype("struct ips_session_rec")
FED = dtype("struct ips_ctl_fed")
UPSERT, DELETE = int(lib.IPS_SESSION_UPSERT), int(lib.IPS_SESSION_DELETE)
Records = np.ndarray[Any, np.dtype[Any]]
_ROOM = int(lib.IPS_MIRROR_RECORD)
_RECORD_P = "struct ips_session_rec *"


class Garbled(IpshareError):
    """Octets that are no records of sessions."""


class Encoder:
    """Octets of records and keys. Keeps its buffers; of one thread."""

    def __init__(self) -> None:
        self._out = ffi.new("uint8_t[]", _ROOM)
        self._key = ffi.new(_RECORD_P)

    def encode(self, what: int, record: Any) -> bytes:
        """``record``: a cffi pointer to a ``struct ips_session_rec``."""
        return bytes(ffi.buffer(self._out, lib.ips_mirror_put(self._out, what, record)))

    def key(self, record: Any) -> bytes:
        """Of the record's flow."""
        self._key.flow, self._key.version = record.flow, 1
        return self.encode(DELETE, self._key)


def decode(blobs: Iterable[bytes]) -> Records:
    """The ``struct ips_ctl_fed`` of all blobs, in order. Raises ``Garbled``."""
    text = b"".join(blobs)
    least = 24  # octets of the shortest record
    out = np.zeros(len(text) // least + 1, FED)
    base = ffi.cast("struct ips_ctl_fed *", ffi.from_buffer(out))
    raw, what = ffi.from_buffer(text), ffi.new("int *")
    at = count = 0
    while at < len(text):
        taken = lib.ips_mirror_get(raw + at, len(text) - at, what, ffi.addressof(base[count].rec))
        if taken == 0:
            raise Garbled(f"no record of a session at octet {at} of {len(text)}")
        base[count].what = what[0]
        at, count = at + taken, count + 1
    return out[:count]
