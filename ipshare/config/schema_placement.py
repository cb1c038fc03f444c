"""`[[workload]]` and what placement needs of `[[node]]` (SYSTEMS.md S1.12); `[[site]]` is in schema_hazards.

As in schema: one model per table, judged alone; what ties them together is in ipshare.placement.settings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from ipshare.config.schema_hazards import Positive
from ipshare.config.values import Name, Prefix, Table


class PlaceNode(Table):
    """A node of a site, where workloads can run. Keys that placement does not know belong to others."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    name: Name = Field(description="Its name.")
    site: Name = Field(description="Its site.")
    capacity: Positive | None = Field(
        default=None, description="How much fits, in the unit of the workloads' sizes. Default: nothing does."
    )


class Workload(Table):
    """What runs somewhere and can run elsewhere."""

    name: Name = Field(description="Its name.")
    size: Positive = Field(
        default=1.0, description="How much of a capacity it takes: any unit, the same in the whole file."
    )
    site: Name | None = Field(
        default=None, description="The site where it runs, if that has no nodes of its own in this file."
    )
    node: Name | None = Field(default=None, description="The node where it runs.")
    group: Name | None = Field(
        default=None, description="It runs on one node with the others of this group; all move, or none."
    )
    allowed: list[Name] = Field(default=[], description="The sites where it may run. Empty: all.")
    apart: list[Name] = Field(
        default=[], description="Labels: two workloads with one in common are never placed at one site."
    )
    kind: Literal["exclusive", "shared"] = Field(
        default="exclusive",
        description="exclusive: it never runs at two nodes at once. shared: it may. For a director.",
    )
    addresses: list[Prefix] = Field(
        default=[],
        description="Its Global IPs: each the `global` of a binding to its node's end point, which moves "
        "with it. For a director.",
    )
