"""timing: how long one has to wait for what others do by their own clocks, and which settings cannot work.

Clocks are CLOCK_BOOTTIME of each machine; their rates differ from true time by at most ``drift`` (0.01: one
per cent), and nothing is assumed of what they show. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

LOOKS = 3
"""A lease outlasts so many looks that fail in a row."""
ECHOES = 3
"""So many in a row have to be lost before anybody acts."""
SOONEST_ECHO_S = 0.05
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
    probe_interval_s: float, probe_timeout_s: float, echo_interval_s: float, echo_timeout_s: float,
    shared_after_s: float,
) -> Iterator[tuple[str, str, str]]:  # fmt: skip
    """(key, what is wrong, hint) of settings that do not go together. ``interval_s``: between two looks at a
    node; ``stale_s``: after it an observation says nothing; ``after_s``: from down to the failover;
    ``shared_after_s``: the same of what is shared, where its end point does not answer echoes."""
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
    longest_s = max(probe_interval_s + probe_timeout_s, echo_interval_s + echo_timeout_s)
    if stale_s < 2 * longest_s:
        yield (
            "stale",
            f"a probe and its time-out take {longest_s:g} s: after {stale_s:g} s "
            "an observation would be stale before the next one comes",
            f"at least {2 * longest_s:g} s",
        )
    if echo_interval_s < SOONEST_ECHO_S:
        yield (
            "echo_interval",
            f"nodes probe every {SOONEST_ECHO_S:g} s at most",
            f"at least {SOONEST_ECHO_S * 1000:g} ms",
        )
    lost_s = (ECHOES - 1) * echo_interval_s + echo_timeout_s
    if shared_after_s < lost_s - 1e-9:
        yield (
            "shared_after",
            f"{shared_after_s:g} s is less than {ECHOES} lost echoes take ({lost_s:g} s): one that is lost "
            "on its way would be a failure",
            f"at least {lost_s * 1000:g} ms",
        )
    if after_s < probe_interval_s + probe_timeout_s:
        yield (
            "after",
            f"{after_s:g} s is less than one probe takes ({probe_interval_s + probe_timeout_s:g} s): a lost "
            "answer would be a failure",
            f"at least {probe_interval_s + probe_timeout_s:g} s",
        )
