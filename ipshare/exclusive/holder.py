"""holder: one exclusive workload at one node: may it run, has it to be stopped, what can be confirmed. Pure.

A lease has an epoch, which grows with each change of holder, and ends at a time by this node's own clock. It
counts from a reading of that clock which the director had from this node and echoes: a message that was late,
however late, brings a lease that is late as well. Without a lease nothing is started, and what runs is
stopped so early that it is stopped when the lease ends. What was confirmed as stopped on the director's order
is ``released``: no lease of that epoch, or of an earlier one, is taken any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ipshare.errors import Refused
from ipshare.exclusive.timing import last_start_ns

Word = Literal["unknown", "stopped", "starting", "running", "stopping", "stuck"]
"""unknown: nobody has looked yet; stuck: it was to be stopped, and was not."""


@dataclass(frozen=True, slots=True)
class Held:
    """``until_ns``, ``lease_ns``: end and length of the lease, 0: there is none. ``leaving``: epoch that is
    confirmed once it is stopped."""

    epoch: int = 0
    until_ns: int = 0
    lease_ns: int = 0
    leaving: int = 0
    released: int = 0
    word: Word = "unknown"

    def may_run(self, now_ns: int, stop_ns: int) -> bool:
        """Whether there is a lease with time to stop in."""
        return self.until_ns > 0 and now_ns < last_start_ns(self.until_ns, self.lease_ns, stop_ns)


def granted(held: Held, epoch: int, since_ns: int, lease_ns: int, now_ns: int) -> Held:
    """With a lease of ``lease_ns`` from ``since_ns`` on. Raises Refused: given back before, or an old one."""
    if epoch <= max(held.released, held.leaving):
        raise Refused(f"epoch {epoch} was given back here")
    if epoch < held.epoch:
        raise Refused(f"epoch {epoch} is over: {held.epoch} was heard of")
    if since_ns > now_ns:
        raise Refused("a lease from the future: of another clock")
    until = since_ns + lease_ns
    if epoch == held.epoch and until < held.until_ns:
        return held
    return replace(held, epoch=epoch, until_ns=until, lease_ns=lease_ns)


def ordered_off(held: Held, epoch: int) -> Held:
    """The director wants it stopped, for good as far as ``epoch`` goes. An order of an epoch that is over
    here already changes nothing."""
    if epoch < held.epoch or epoch <= held.released:
        return held
    off = replace(held, epoch=epoch, until_ns=0, lease_ns=0, leaving=epoch)
    return replace(off, released=epoch) if held.word == "stopped" else off


def became(held: Held, word: Word) -> Held:
    """What somebody saw, or did. Stopped: what was ordered off is released."""
    if word == "stopped":
        return replace(held, word=word, released=max(held.released, held.leaving))
    return replace(held, word=word)


def due(held: Held, now_ns: int, stop_ns: int) -> Literal["", "start", "stop", "look"]:
    """What has to be done now. look: see whether it runs."""
    if held.may_run(now_ns, stop_ns):
        return "start" if held.word == "stopped" else "look" if held.word == "unknown" else ""
    return "" if held.word in ("stopped", "stopping") else "stop"


def wake_ns(held: Held, now_ns: int, stop_ns: int) -> int | None:
    """In how many nanoseconds ``due`` says something else by itself; None: never."""
    if not held.may_run(now_ns, stop_ns):
        return None
    return last_start_ns(held.until_ns, held.lease_ns, stop_ns) - now_ns
