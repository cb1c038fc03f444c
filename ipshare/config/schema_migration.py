"""The tables `[[migration]]`: how a workload leaves this node for another one, alive (SYSTEMS.md S1.11).

As in schema: one model per table, judged alone; what its keys have to do with each other is in
ipshare.config.check_migration. Commands are lists of words: no shell sees them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipshare.config.values import Duration, Name, Table

Word = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]


class Migration(Table):
    """A workload that a director may migrate from here to another node, while it runs. In commands
    {workload}, {node} (the target) and {target} (what `targets` says of it) are filled in."""

    workload: Name = Field(description="Its name at the director.")
    adapter: Literal["command", "libvirt"] = Field(
        default="command", description="Who migrates it: commands of yours, or libvirt."
    )
    targets: dict[str, Word] = Field(
        default={},
        description="Node -> what {target} is there; for libvirt the connection URI. Empty: any node, by "
        "its name.",
    )
    check: list[Word] = Field(
        default=[], description="Command that ends with 0 if the target can run it; its output says why not."
    )
    start: list[Word] = Field(
        default=[],
        description='Adapter "command": migrates; ends with 0 once it runs at the target, and only then.',
    )
    state: list[Word] = Field(
        default=[],
        description='Adapter "command": prints where it runs: `here`, `moving` or `there`.',
    )
    cancel: list[Word] = Field(
        default=[], description='Adapter "command": ends a migration that is under way; it stays here then.'
    )
    storage: list[Word] = Field(
        default=[],
        description="Command that ends with 0 if the storage at the target is in sync; its output says why "
        "not.",
    )
    drbd: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="DRBD resource that has to be connected and up to date at both ends (`drbdsetup status "
        "--json`).",
    )
    domain: Name | None = Field(
        default=None, description='Adapter "libvirt": name of the domain. Default: as the workload.'
    )
    uri: str = Field(
        default="qemu:///system", min_length=1, description='Adapter "libvirt": the connection here.'
    )
    timeout: Duration = Field(
        default=1800.0,
        json_schema_extra={"default": "30m"},
        description="How long the migration may take before it is cancelled.",
    )
    answer: Duration = Field(
        default=10.0,
        json_schema_extra={"default": "10s"},
        description="How long the other commands may take.",
    )
