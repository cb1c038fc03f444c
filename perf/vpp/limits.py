"""What a ratio may be on VPP. ``target``: where the project wants to be (docs/performance-vpp.md says where
it is not); ``limit``: where the suite fails, with the noise of a shared machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """The ratio of figure `of` is at most `limit`."""

    of: str
    target: float
    limit: float

    def __str__(self) -> str:
        return f"{self.of} <= {self.limit}"


ADDED = (
    Limit("added.v4.ipshare.stacked.mixed", 0.5, 2.0),
    Limit("added.v6.ipshare.stacked.mixed", 0.4, 1.5),
)
GROWTH = (
    Limit("growth.v4.ipshare.stacked.1m.few", 1.1, 2.0),
    Limit("growth.v6.ipshare.stacked.1m.few", 1.1, 2.0),
    Limit("growth.v4.ipshare.stacked.1m.all", 2.5, 6),
    Limit("growth.v6.ipshare.stacked.1m.all", 2.5, 10),
)
