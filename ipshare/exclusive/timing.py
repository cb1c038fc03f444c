"""timing: how long one has to wait for what others do by their own clocks, and which settings cannot work.

Clocks are CLOCK_BOOTTIME of each machine; their rates differ from true time by at most ``drift`` (0.01: one
per cent), and nothing is assumed of what they show. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

LOOKS = 3
"""A lease outlasts so many looks that fail in a row."""
SLACK = 20
"""A node begins to stop this part of the lease earlier than it has to: timers may be late."""


def wait_s(lease_s: float, stop_s: float, drift: float) -> float:
    """By the director's clock, from when it received the node's reading that a lease counts from: then that
    lease is over by the node's, and the time of a stop has passed once more."""
    return (lease_s + stop_s) * (1 + drift) / (1 - drift)


def last_start_ns(until_ns: int, lease_ns: int, stop_ns: int) -> int:
    """By the node's clock: from then on a workload whose lease ends at ``until_ns`` is stopped."""
    return until_ns - stop_ns - lease_ns // SLACK


def troubles(
    *, lease_s: float, stop_s: float, drift: float, interval_s: float, stale_s: float, after_s: float,
    probe_interval_s: float, probe_timeout_s: float,
) -> Iterator[tuple[str, str, str]]:  # fmt: skip
    """(key, what is wrong, hint) of settings that do not go together. ``interval_s``: between two looks at a
    node; ``stale_s``: after it an observation says nothing; ``after_s``: from down to the failover."""
    least = stop_s + lease_s / SLACK + LOOKS * interval_s
    if lease_s < least:
        yield (
            "lease",
            f"a lease of {lease_s:g} s is lost by a look or two that fail: stopping takes up to {stop_s:g} s "
            f"of it, {LOOKS} looks {LOOKS * interval_s:g} s",
            f"at least {1.06 * (stop_s + LOOKS * interval_s):.1f} s; or a shorter stop_time or interval",
        )
    if not 0 < drift <= 0.1:
        yield "drift", f"{drift:g} is no bound for clocks", "from just above 0 to 0.1; 0.01 is one per cent"
    if stale_s < 2 * (probe_interval_s + probe_timeout_s):
        yield (
            "stale",
            f"a probe and its time-out take {probe_interval_s + probe_timeout_s:g} s: after {stale_s:g} s "
            "an observation would be stale before the next one comes",
            f"at least {2 * (probe_interval_s + probe_timeout_s):g} s",
        )
    if after_s < probe_interval_s + probe_timeout_s:
        yield (
            "after",
            f"{after_s:g} s is less than one probe takes ({probe_interval_s + probe_timeout_s:g} s): a lost "
            "answer would be a failure",
            f"at least {probe_interval_s + probe_timeout_s:g} s",
        )
