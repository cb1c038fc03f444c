"""What the C core calls roles of a remap and what it counts (native/ips_remap_api.h).

Read from the compiled module; nothing is listed here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipshare.core._native import ffi, lib
from ipshare.core.pair import enum_names

REMAP_ROLES: dict[int, str] = enum_names("enum ips_remap_role", "IPS_REMAP_")


@dataclass(frozen=True, slots=True)
class RemapCounter:
    """Something that a remap counts, in packets."""

    name: str
    text: str


REMAP_COUNTERS: tuple[RemapCounter, ...] = tuple(
    RemapCounter(
        ffi.string(lib.ips_remap_counter_name(number)).decode().lower(),
        ffi.string(lib.ips_remap_counter_text(number)).decode(),
    )
    for number in range(lib.ips_remap_counters())
)
