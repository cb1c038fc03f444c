"""grants: the director's half: which node has an exclusive workload, and when the next one may. Pure.

    had by a node -> leaving it: no renewals, it is told to stop -> freed, by one of:
        stopped   the node confirms that epoch as stopped
        fenced    a fence command said so
        expired   nothing was heard of the node for lease + stop time, by the worst clocks
    -> the next epoch, at the node that is wanted then

Each step is on the director's disk before anything follows from it. What a node says while it is heard counts
more than time: one that says it runs is not expired, nor is one that once said that it cannot stop, until it
says that it has: that it tries again says nothing. A record that is not there is one of an unknown holder: it
expires like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Grant:
    """``node``: who has epoch ``epoch``, "": nobody. ``how`` the one before was freed.
    ``fenced``: epoch that a fence command, or an operator, says nobody runs. ``stuck``: it could not be
    stopped, and nobody said since that it was."""

    epoch: int = 0
    node: str = UNKNOWN
    leaving: bool = True
    how: str = ""
    fenced: int = 0
    stuck: bool = False

    @property
    def is_held(self) -> bool:
        """Its lease may be renewed."""
        return self.node not in ("", UNKNOWN) and not self.leaving


@dataclass(frozen=True, slots=True)
class Seen:
    """What the node that has it says now."""

    epoch: int
    released: int
    word: str


def step(grant: Grant, wanted: str, seen: Seen | None, quiet_s: float, wait_s: float, highest: int) -> Grant:
    """The next record. ``seen``: None where the node was not heard lately; ``quiet_s``: since the newest
    reading of its clock that a lease was counted from, or since this director began; ``highest``: epoch that
    any node has told of."""
    if seen is not None and grant.node:
        grant = replace(grant, stuck=seen.word == "stuck" or (grant.stuck and seen.word != "stopped"))
    if not grant.leaving:
        if grant.node == wanted:
            return grant
        if grant.node:
            return replace(grant, leaving=True)
        how = grant.how
    elif not (how := freed(grant, seen, quiet_s, wait_s)):
        return grant
    if not wanted:
        return replace(grant, node="", leaving=False, how=how, stuck=False)
    return Grant(max(grant.epoch, highest) + 1, wanted, leaving=False, how=how)


def freed(grant: Grant, seen: Seen | None, quiet_s: float, wait_s: float) -> str:
    """Why nobody has it any more; "": somebody may."""
    if grant.epoch and grant.fenced >= grant.epoch:
        return "fenced"
    if seen is not None and seen.released >= grant.epoch > 0:
        return "stopped"
    if quiet_s >= wait_s and (seen.word == "stopped" if seen is not None else not grant.stuck):
        return "expired"
    return ""
