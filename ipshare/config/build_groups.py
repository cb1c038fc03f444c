"""Site without mistakes -> groups (SYSTEMS.md S5). Pure."""

from __future__ import annotations

from ipshare import model
from ipshare.config.site import Site


def groups(site: Site) -> tuple[model.Group, ...]:
    return tuple(
        model.Group(
            name=group.name,
            members=tuple(
                model.GroupMember(
                    name=member.name,
                    addresses=tuple(member.address),
                    now=tuple(member.now),
                    also=tuple(member.also),
                    at=member.at,
                    place=site.document.place((*group._path, "member", index)),
                )
                for index, member in enumerate(group.member)
            ),
            place=site.document.place(group._path),
        )
        for group in site.group
    )
