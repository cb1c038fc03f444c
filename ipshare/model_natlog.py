"""The nouns of NAT logs, deterministic ports and leases (DESIGN.md 11, SYSTEMS.md S3.5). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", *(f"local{number}" for number in range(8)),
)  # fmt: skip
"""Names of syslog facilities by number (RFC 5424 table 1)."""
EVENTS = ("sessions", "mappings", "limits")
MOST_SUBSCRIBER_BITS = 24


@dataclass(frozen=True, slots=True)
class NatCollector:
    """Who gets a NAT's log by UDP. ``format``: ipfix or syslog; ``facility``: a number, for syslog."""

    address: IPv4Address | IPv6Address
    port: int
    format: str
    facility: int


@dataclass(frozen=True, slots=True)
class NatLog:
    """``events``: some of EVENTS. ``template_s``: IPFIX templates are sent again after so long."""

    events: tuple[str, ...]
    domain: int
    template_s: int
    collectors: tuple[NatCollector, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A workload that gets a public address by DHCP. ``mac``: as aa:bb:cc:dd:ee:ff."""

    name: str
    mac: str
    local: IPv4Address
    endpoint: str
    interface: str
    server: IPv4Address | None


def subscriber_bits(inside: IPv4Network | IPv6Network) -> int:
    """Leading bits of an address that make one subscriber: an IPv4 address, an IPv6 /64."""
    return 32 if inside.version == 4 else 64 if inside.prefixlen <= 64 else 128


def block_size(inside: IPv4Network | IPv6Network, addresses: int, ports: int) -> int:
    """Ports of each subscriber, as many as there are for everyone; 0: too few, or too many subscribers."""
    bits = subscriber_bits(inside) - inside.prefixlen
    if bits > MOST_SUBSCRIBER_BITS:
        return 0
    return ports // -(-(1 << bits) // addresses)
