"""`[remote]`: who may talk to this node's agent over the network: its director (SYSTEMS.md S1.9)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ipshare.config.values import PathEnd, Table


class Remote(Table):
    """The agent listens for a director, or operators: TLS 1.3 with certificates at both ends. With this
    table, what a director assigned (state_dir/director.toml) is part of the configuration."""

    listen: PathEnd = Field(description="Address and TCP port where the agent listens.")
    ca: str = Field(min_length=1, description="Certificate of the authority, relative to this file.")
    certificate: str = Field(
        min_length=1,
        description="Private key and certificate of this node, as `ipshare cert issue node` makes it; mode "
        "0600.",
    )
    revoked: str | None = Field(
        default=None,
        min_length=1,
        description="The authority's list of revoked certificates. Default: none counts as revoked.",
    )
    roles: list[Literal["director", "operator"]] = Field(
        default=["director"],
        description="Roles of certificates that get in. A director may change the node, an operator look.",
    )
