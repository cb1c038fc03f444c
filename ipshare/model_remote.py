"""The nouns of a node that others may talk to over the network. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ipshare.model_place import Place


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the agent listens, by which files it knows others, and which roles get in."""

    listen: tuple[IPv4Address | IPv6Address, int]
    ca: Path
    certificate: Path
    revoked: Path | None
    roles: tuple[str, ...]
    place: Place = field(compare=False)
