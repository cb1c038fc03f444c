"""What the C core calls the states of a pair, the reasons of their changes, and the notes of a host.

Read from the compiled module: enum names and the core's own texts; nothing is listed here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipshare.core._native import ffi, lib


def enum_names(name: str, prefix: str) -> dict[int, str]:
    """Number -> name of each member of a C enum, without ``prefix`` and in lower case."""
    members: dict[int, str] = ffi.typeof(name).elements
    return {number: member.removeprefix(prefix).lower() for number, member in members.items()}


@dataclass(frozen=True, slots=True)
class PairReason:
    """Why a node changed its state."""

    number: int
    name: str
    text: str


PAIR_STATES: dict[int, str] = {
    number: ffi.string(lib.ips_pair_state_name(number)).decode()
    for number in ffi.typeof("enum ips_pair_state").elements
}
PAIR_REASONS: tuple[PairReason, ...] = tuple(
    PairReason(
        number,
        ffi.string(lib.ips_pair_reason_name(number)).decode(),
        ffi.string(lib.ips_pair_reason(number)).decode(),
    )
    for number in range(lib.ips_pair_reasons())
)
PAIR_NOTES: dict[int, str] = enum_names("enum ips_ctl_pair_note", "IPS_CTL_PAIR_")
"""Bit -> name."""
PAIR_LATE: dict[int, str] = dict(sorted(enum_names("enum ips_ctl_pair_late", "IPS_CTL_PAIR_LATE_").items()))
"""Number -> name, in the order of ``late`` in ``struct ips_ctl_pair_state``."""
