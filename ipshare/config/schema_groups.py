"""`[[group]]`: members that keep talking when the address of one of them changes (SYSTEMS.md S5).

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_groups.
"""

from __future__ import annotations

from pydantic import Field

from ipshare.config.values import Address, Name, Table


class GroupMember(Table):
    """A member of a group."""

    name: Name = Field(description="Name, for people.")
    address: list[Address] = Field(
        description="What its peers call it, at most one address of each family. It stays this for ever: "
        "after a second move too."
    )
    now: list[Address] = Field(
        default=[],
        description="Where it is now, for the families whose address changed. Default: none did.",
    )
    also: list[Address] = Field(
        default=[],
        description="Addresses under which it is understood too: the next one, before anybody uses it, and "
        "the last one, until nobody does. So nodes may learn of a move one after the other.",
    )
    at: Name = Field(description="End point that is next to it.")


class Group(Table):
    """Members that talk to each other by address. What was opened to an address that has changed goes on, and
    new connections to it too: the nodes next to the members translate, in both directions. The same table at
    all of them."""

    name: Name = Field(description="Name, for people.")
    member: list[GroupMember] = Field(description="Its members: `[[group.member]]`.")
