"""`[[workload]]`: how this node starts and stops what a director gives it leases for (SYSTEMS.md S1.10).

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_workload.
"""

from __future__ import annotations

from pydantic import Field

from ipshare.config.values import Duration, Name, Table


class SiteWorkload(Table):
    """An exclusive workload that can run at this node: it is started and stopped here, on a lease of the
    director (docs/health.md). Commands are a program and its arguments, without a shell; they find
    IPSHARE_WORKLOAD and IPSHARE_NODE in their environment."""

    name: Name = Field(description="Its name, as the director's [[workload]] has it.")
    start: list[str] = Field(
        min_length=1, description="Starts it: 0 when it was started. Harmless where it runs already."
    )
    stop: list[str] = Field(
        min_length=1,
        description="Stops it: 0 when it has ended. Harmless where it does not run; also run after a start "
        "that was cut short.",
    )
    status: list[str] = Field(min_length=1, description="0: it runs. Asked every 2 s, at most 10 s long.")
    fence: list[str] = Field(
        default=[],
        description="Makes sure that the node named in IPSHARE_NODE does not run it (power off, storage "
        "taken away): 0 when that is so. Run here when this node is to take it over.",
    )
    stop_time: Duration = Field(
        default=10.0,
        json_schema_extra={"default": "10s"},
        description="A stop that takes longer has failed: it is killed, and tried again.",
    )
    start_time: Duration = Field(
        default=600.0,
        json_schema_extra={"default": "10m"},
        description="A start that takes longer has failed: it is killed, stopped, and tried again.",
    )
