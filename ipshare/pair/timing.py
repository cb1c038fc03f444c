"""Do a pair's times fit together? The claims are ``native/ips_pair_rule.def``; the hints are here. Pure.

A dead time that is shorter than the machine's scheduling gaps makes two nodes active; a lease that is longer
than the dead time does too. Durations in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ipshare.core import ffi, lib


@dataclass(frozen=True, slots=True)
class Timing:
    """Numbers of one node's pair configuration. ``jitter_s`` is measured, the others are chosen.

    ``clock_ppm`` bounds each clock's rate error; ``witness_*`` count only with ``witness``.
    """

    interval_s: float = 0.010
    dead_s: float = 0.030
    lease_s: float = 0.020
    tick_s: float = 0.001
    jitter_s: float = 0.002
    floor_s: float = 0.010
    late_s: float = 0.005
    stall_s: float = 0.010
    hold_s: float = 3.0
    preempt_hold_s: float = 5.0
    losses: int = 3
    jitter_times: int = 3
    paths: int = 2
    clock_ppm: int = 200
    witness: bool = False
    witness_ttl_s: float = 1.0
    witness_ask_s: float = 0.2


HINTS = {
    "RANGE": "give every duration as a number of seconds between 0 and 3600",
    "NODES": "give the two nodes different ids",
    "PATHS": "one path at least; two, over different cables and switches, are the least that makes sense",
    "SWITCHES": "mode is heartbeats or queries; witness and preempt are true or false",
    "CLOCK": "a clock that is wrong by more than 10 % is broken",
    "INTERVAL": "choose an interval between 0.0001 and 2 s",
    "TICK": "let the pair thread tick at least once an interval",
    "LOSSES": "raise the dead time, or shorten the interval",
    "FLOOR": "raise the dead time: shorter gaps are normal on this kind of machine",
    "JITTER": "raise the dead time, or find out why this machine is late so often",
    "LEASE": "shorten the lease, or raise the dead time",
    "LEASE_LIVES": "raise the lease (and with it the dead time), or shorten the interval",
    "LATE": "set late between the tick and the lease",
    "STALL": "set stall between the tick and the lease",
    "HOLD": "let a starting node wait for its peer at least for the dead time",
    "WITNESS_ASK": "ask the witness more often, or let its grant last longer",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A claim that does not hold: its name, the claim as a sentence, and what to do."""

    rule: str
    claim: str
    hint: str

    def __str__(self) -> str:
        return f"does not hold: {self.claim} (hint: {self.hint})"


def problems(timing: Timing) -> tuple[Broken, ...]:
    """Every claim that does not hold, in the order of the list; () if all do."""
    failed = lib.ips_pair_check(_config(timing))
    return tuple(_broken(rule) for rule in range(lib.ips_pair_rules()) if failed >> rule & 1)


def suggest(interval_s: float, jitter_s: float, *, losses: int = 3, floor_s: float = 0.010) -> Timing:
    """The shortest times that fit an interval and a measured jitter; ``problems`` of it is empty for
    intervals of 100 us to 2 s and jitters up to 10 s."""
    tick = min(0.001, interval_s / 2)
    lease = 1.5 * (interval_s + jitter_s + tick)
    dead = max(losses * interval_s, floor_s, 3 * jitter_s, 1.01 * lease + 2 * jitter_s)
    return Timing(
        interval_s=interval_s, jitter_s=jitter_s, losses=losses, floor_s=floor_s, tick_s=tick,
        lease_s=lease, dead_s=dead * 1.01, late_s=max(2 * tick, lease / 2), stall_s=max(2 * tick, lease / 2),
        hold_s=max(3.0, 2 * dead),
    )  # fmt: skip


def _broken(rule: int) -> Broken:
    name, claim = (
        ffi.string(text).decode() for text in (lib.ips_pair_rule_name(rule), lib.ips_pair_rule(rule))
    )
    return Broken(name, claim, HINTS[name])


def _config(timing: Timing) -> Any:
    """As the core takes it; the ids do not matter here."""
    config = ffi.new("struct ips_pair_config *")
    config.node, config.peer, config.witness = 1, 2, timing.witness
    for name in ("losses", "jitter_times"):
        setattr(config, name, max(0, min(getattr(timing, name), 255)))
    config.n_paths, config.clock_ppm = max(0, min(timing.paths, 255)), max(0, min(timing.clock_ppm, 1 << 31))
    for name in (*TIMES, "witness_ttl", "witness_ask"):
        setattr(config, f"{name}_ns", _ns(getattr(timing, f"{name}_s")))
    return config


TIMES = ("tick", "interval", "dead", "lease", "floor", "jitter", "late", "stall", "hold", "preempt_hold")


def _ns(seconds: float) -> int:
    """Out of range, or no number: a value that RANGE refuses."""
    return round(seconds * 1e9) if 0 <= seconds <= 3601 else 1 << 63
