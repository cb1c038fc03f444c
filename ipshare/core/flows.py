"""What the C core calls states and kinds of sessions, phases of the mirror and its counters.

Read from the compiled module: enum names and the core's own texts; nothing is listed here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipshare.core._native import ffi, lib
from ipshare.core.pair import enum_names

SESSION_STATES: dict[int, str] = enum_names("enum ips_session_state", "IPS_STATE_")
SESSION_KINDS: dict[int, str] = enum_names("enum ips_session_kind", "IPS_SESSION_")
MIRROR_PHASES: dict[int, str] = enum_names("enum ips_mirror_phase", "IPS_MIRROR_")
MIRROR_REFUSALS: dict[int, str] = enum_names("enum ips_mirror_refusal", "IPS_REFUSED_")


MIRROR_NOTES: dict[int, str] = enum_names("enum ips_ctl_mirror_note", "IPS_CTL_MIRROR_")
"""Bit -> name."""


@dataclass(frozen=True, slots=True)
class MirrorCounter:
    """Something that the mirror counts."""

    name: str
    text: str


MIRROR_COUNTERS: tuple[MirrorCounter, ...] = tuple(
    MirrorCounter(
        ffi.string(lib.ips_mirror_counter_name(number)).decode(),
        ffi.string(lib.ips_mirror_counter_text(number)).decode(),
    )
    for number in range(lib.ips_mirror_counters())
)
