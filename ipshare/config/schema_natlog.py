"""The tables `[nat_log]` and `[[lease]]` (DESIGN.md 11, SYSTEMS.md S3.5).

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_natlog.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ipshare.config.values import Address, Collector, Device, Duration, Mac, Name, Table

Facility = Literal[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
]  # fmt: skip


class NatCollector(Table):
    """Who gets the log, by UDP."""

    address: Collector = Field(description="Address and UDP port. IPFIX: usually 4739, syslog: 514.")
    format: Literal["ipfix", "syslog"] = Field(
        default="ipfix", description="IPFIX (RFC 7011, RFC 8158), or one syslog message per event (RFC 5424)."
    )
    facility: Facility = Field(default="local0", description="Of syslog messages.")


class NatLog(Table):
    """What the NATs of this node do, for who must be able to say later who had a public port."""

    events: list[Literal["sessions", "mappings", "limits"]] = Field(
        default=["mappings", "limits"],
        description="What is told: every connection with its remote end; or every mapping of an inside "
        "endpoint, without one (RFC 6888 REQ-12); and when ports or quotas are exhausted.",
    )
    domain: int = Field(default=1, ge=0, le=0xFFFFFFFF, description="Observation domain of IPFIX messages.")
    templates: Duration = Field(
        default=600.0,
        json_schema_extra={"default": "10m"},
        description="IPFIX templates are sent again after so long. Whole seconds.",
    )
    collector: list[NatCollector] = Field(description="Collectors, 1 to 8.")


class Lease(Table):
    """A workload whose Global IP is leased by DHCP, and bound to its private address."""

    name: Name = Field(description="Name of the workload.")
    mac: Mac = Field(description="Its MAC: the key of the lease, the same at both nodes of a pair.")
    local: Address = Field(description="Its private address, in a local network of an end point.")
    interface: Device = Field(
        description="Linux device by which the DHCP server is reached. This node needs an IPv4 address of "
        "its own there, in the network of the public addresses: servers answer to it."
    )
    server: Address | None = Field(
        default=None, description="The DHCP server, where it is not on the link. Default: broadcast."
    )
