"""remap_text: one half of a remap as a JSON value and back, and its count in words. Pure.

The count is never a bare number (DESIGN.md section 7): exact, or "at most", with how many are active.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_network
from typing import Any

from ipshare.engine.remapping import RemapRole, RemapState


def state_json(state: RemapState) -> dict[str, Any]:
    """Every field; times in ns of CLOCK_BOOTTIME, as ``now_ns`` is."""
    record = {field.name: getattr(state, field.name) for field in fields(state)}
    return record | {
        "prefix": str(state.prefix),
        "role": state.role.value,
        "counters": dict(state.counters),
        "notes": list(state.notes),
    }


def state_of(record: Mapping[str, Any]) -> RemapState:
    """The reverse. Raises KeyError, ValueError or TypeError where it is none."""
    names = {field.name for field in fields(RemapState)}
    return RemapState(
        **{name: record[name] for name in names - {"prefix", "role", "notes"}},
        prefix=ip_network(record["prefix"]),
        role=RemapRole(record["role"]),
        notes=tuple(record["notes"]),
    )


def count_words(state: RemapState) -> str:
    """How many of the giver's connections are left, as far as this half knows."""
    if state.role.gives and not state.counted_ns:
        return "not counted yet"
    total = f"{state.flows:,} connection{'' if state.flows == 1 else 's'}"
    if not state.role.gives:
        return f"{total} of the giver known"
    if state.is_exact:
        return f"{total} ({state.active:,} active in 60 s)"
    return f"at most {total} ({state.active:,} active in 60 s)"


def lines(state: RemapState) -> list[str]:
    """A half, for people."""
    role = {
        RemapRole.PREPARING: f"prepares to leave for {state.peer}",
        RemapRole.LEAVING: f"leaves for {state.peer}: opens no connection any more",
        RemapRole.READY: f"is ready to take over from {state.peer}",
        RemapRole.TAKING: f"takes over from {state.peer}",
    }[state.role]
    heard = "heard" in state.notes
    words = [f"remap {state.id}  {state.prefix}  {role}", f"  connections  {count_words(state)}"]
    if state.role.gives:
        words.append(f"  mirror       {state.phase}, {state.lag_events:,} changes behind")
    if not heard:
        words.append(f"  note         {state.peer} is not heard")
    if "wrong_key" in state.notes:
        words.append(f"  note         {state.peer} has another key, or somebody else sends")
    moved = {name: value for name, value in state.counters.items() if value}
    if moved:
        words.append("  packets      " + ", ".join(f"{name} {value:,}" for name, value in moved.items()))
    return words
