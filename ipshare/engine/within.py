"""within: the binding records that have to do with a prefix, found in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipshare.engine.tables import Records
from ipshare.model import Prefix, packed


def within(bindings: Records, prefix: Prefix) -> Records:
    """Bindings inside ``prefix``, and those that cover it; order kept."""
    wanted = np.unpackbits(np.frombuffer(packed(prefix.network_address), np.uint8))
    same_family = bindings["family"] == prefix.version
    common = np.minimum(bindings["prefix_len"], prefix.prefixlen)
    found: Records = bindings[same_family & (_common_bits(bindings["global"], wanted) >= common)]
    return found


def _common_bits(addresses: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Leading bits that each address shares with ``wanted`` (128 bits), shape (n,)."""
    target = np.packbits(wanted)
    differs = addresses ^ target
    first = np.argmax(differs != 0, axis=1)
    has_difference = (differs != 0).any(axis=1)
    byte = differs[np.arange(len(addresses)), first]
    leading = 7 - np.floor(np.log2(np.maximum(byte, 1))).astype(np.intp)
    return np.where(has_difference, first * 8 + leading, 128)
