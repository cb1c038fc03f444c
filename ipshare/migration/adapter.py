"""adapter: what a node asks of whoever migrates a workload: commands, or libvirt; one protocol for both.

``migrate`` returns when the workload runs at the target, and raises whenever that is not certain; where it
then is says ``where``, and nobody else: a migration whose end nobody saw is neither undone nor flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ipshare.errors import IpshareError
from ipshare.model import Migrating


class Where(StrEnum):
    """Where a workload runs."""

    HERE = "here"
    MOVING = "moving"
    THERE = "there"


class MigrationError(IpshareError):
    """An adapter could not do what it was asked, or nobody knows whether it did."""


class NotInTime(MigrationError):
    """It was not done within its time limit: it may go on."""


@dataclass(frozen=True, slots=True)
class Target:
    """``node``: as the director calls it; ``said``: what [[migration]] says of it."""

    node: str
    said: str


@dataclass(frozen=True, slots=True)
class Moved:
    """``downtime_ms``: how long it stood still, None: the adapter does not know."""

    downtime_ms: float | None = None


class Adapter(Protocol):
    """Of one workload at one node. All raise MigrationError, within the time limits of the configuration."""

    async def check(self, target: Target) -> None:
        """Raises Refused: why it cannot be migrated there now. Changes nothing."""

    async def migrate(self, target: Target) -> Moved:
        """Until it runs at the target."""

    async def where(self, target: Target) -> Where:
        """As things are now."""

    async def cancel(self, target: Target) -> None:
        """Ends what ``migrate`` began; no error where nothing is under way."""


def target_of(wanted: Migrating, node: str) -> Target:
    """Raises MigrationError where the configuration knows no way there."""
    targets = dict(wanted.targets)
    if targets and node not in targets:
        raise MigrationError(
            f"workload {wanted.workload} cannot go to {node} from here",
            hint=f"targets in its [[migration]] are {', '.join(targets)}",
        )
    return Target(node, targets.get(node, node))


def adapter_of(wanted: Migrating) -> Adapter:
    """The one that the configuration names. Imports libvirt only where that is asked for."""
    if wanted.adapter == "libvirt":
        from ipshare.migration.libvirt import LibvirtAdapter

        return LibvirtAdapter(wanted)
    from ipshare.migration.command import CommandAdapter

    return CommandAdapter(wanted)
