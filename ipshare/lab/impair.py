"""What a bad link does to frames: delay, jitter, loss, duplication, reordering, corruption. Sans-I/O.

A Channel is one direction. Frames go in by push(now, frame), come out by pop(now); next_due() tells when.
What happens to the n-th frame depends on the settings, the direction and n alone: each frame draws the same
number of variates, whatever the settings, so that a run can be repeated. RFC 5236 and 5560 have the words.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass

_ETHERNET_HEADER = 14
MAX_QUEUE = 20_000  # frames in flight per direction; more are lost, and counted


@dataclass(frozen=True, slots=True)
class Impairment:
    """Shares are 0..1 of all frames. Times in seconds. A reordered frame is overtaken by `reorder_by`
    later ones (but waits no longer than reorder_s); a corrupted one has one bit of its packet flipped."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0  # uniform, added to delay_s; never changes the order
    reorder_by: int = 3
    reorder_s: float = 0.05
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} = {getattr(self, name)}: a share is between 0 and 1")
        if min(self.delay_s, self.jitter_s, self.reorder_s, self.reorder_by) < 0:
            raise ValueError("times and distances are not negative")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one frame."""

    lost: bool
    copies: int
    reordered: bool
    flip: int | None  # which bit behind the Ethernet header
    delay_s: float


class Channel:
    """One direction of a bad link. See the module."""

    def __init__(self, settings: Impairment, direction: int) -> None:
        self.settings, self.direction = settings, direction
        self.counts: Counter[str] = Counter()
        self._random = random.Random(settings.seed * 2 + direction)
        self._due: list[tuple[float, int, bytes]] = []
        self._held: list[tuple[int, float, bytes]] = []  # (frame number that lets it go, deadline, frame)
        self._number = 0
        self._last_due = 0.0

    def configure(self, settings: Impairment) -> None:
        """From the next frame on; another seed begins its sequence anew."""
        if settings.seed != self.settings.seed:
            self._random = random.Random(settings.seed * 2 + self.direction)
        self.settings = settings

    def fate(self, length: int) -> Fate:
        """Decides the next frame's fate. length: bytes of the frame."""
        draw, now = self._random.random, self.settings
        lost, twice, late, broken, where, jitter = draw(), draw(), draw(), draw(), draw(), draw()
        bits = max(length - _ETHERNET_HEADER, 0) * 8
        return Fate(
            lost < now.loss,
            2 if twice < now.duplicate else 1,
            late < now.reorder,
            int(where * bits) if broken < now.corrupt and bits else None,
            now.delay_s + jitter * now.jitter_s,
        )

    def push(self, now: float, frame: bytes) -> None:
        """A frame came in at this time (monotonic seconds)."""
        self._number += 1
        fate = self.fate(len(frame))
        self.counts["frames"] += 1
        if fate.lost or len(self._due) + len(self._held) >= MAX_QUEUE:
            self.counts["lost" if fate.lost else "overflow"] += 1
        else:
            if fate.flip is not None:
                frame = _flipped(frame, fate.flip)
                self.counts["corrupted"] += 1
            self.counts["duplicated"] += fate.copies - 1
            if fate.reordered:
                self.counts["reordered"] += 1
                self._held.append(
                    (self._number + self.settings.reorder_by, now + self.settings.reorder_s, frame)
                )
                fate = Fate(False, fate.copies - 1, True, None, fate.delay_s)
            for _ in range(fate.copies):
                self._schedule(now + fate.delay_s, frame)
        self._let_go(now)

    def pop(self, now: float) -> list[bytes]:
        """Frames that leave by now, in order."""
        self._let_go(now)
        out = []
        while self._due and self._due[0][0] <= now:
            out.append(heapq.heappop(self._due)[2])
        self.counts["sent"] += len(out)
        return out

    def next_due(self) -> float | None:
        """When pop() will have something, if nothing comes in before; None: nothing waits."""
        times = [self._due[0][0]] if self._due else []
        return min(times + [deadline for _, deadline, _ in self._held], default=None)

    def _schedule(self, when: float, frame: bytes) -> None:
        self._last_due = max(self._last_due, when)  # jitter does not reorder
        heapq.heappush(self._due, (self._last_due, self.counts["scheduled"], frame))
        self.counts["scheduled"] += 1

    def _let_go(self, now: float) -> None:
        if not self._held:
            return
        ready = [h for h in self._held if h[0] <= self._number or h[1] <= now]
        if ready:
            self._held = [h for h in self._held if h not in ready]
            for _, _, frame in ready:
                self._schedule(now + self.settings.delay_s, frame)


def _flipped(frame: bytes, bit: int) -> bytes:
    changed = bytearray(frame)
    changed[_ETHERNET_HEADER + bit // 8] ^= 1 << bit % 8
    return bytes(changed)
