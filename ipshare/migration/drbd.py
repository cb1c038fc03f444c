"""drbd: whether a DRBD resource is in sync with the target, from `drbdsetup status NAME --json`.

In sync: every volume UpToDate here, the connection Connected, every volume of the peer UpToDate and its
replication Established. Of several connections the one that is called like the target counts; where none is,
all of them. What cannot be read, or is not spoken of, is not in sync.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ipshare.errors import Refused
from ipshare.migration.commands import run

PROGRAM = "drbdsetup"


async def must_be_in_sync(resource: str, node: str, timeout_s: float) -> None:
    """Raises Refused with what is not; MigrationError where nobody can say."""
    ended = await run([PROGRAM, "status", resource, "--json"], timeout_s)
    if ended.status:
        raise Refused(f"DRBD resource {resource}: {ended.said or 'unknown'}", hint="drbdadm status")
    if found := list(troubles(ended.output, resource, node)):
        raise Refused(
            f"DRBD resource {resource} is not in sync: {'; '.join(found)}",
            hint="wait until it is, or mend it",
        )


def troubles(text: str, resource: str, node: str) -> Iterator[str]:
    """What keeps it from being in sync. Pure."""
    try:
        found = [one for one in json.loads(text) if one["name"] == resource]
        if not found:
            yield "it is not configured here"
            return
        volumes = found[0]["devices"]
        if not volumes:
            yield "it has no volume"
        for volume in volumes:
            yield from _differs(f"volume {volume['volume']} here", volume["disk-state"], "UpToDate")
        links = found[0]["connections"]
        named = [link for link in links if link["name"] == node]
        if not links:
            yield "it has no peer"
        for link in named or links:
            yield from _link(link, [volume["volume"] for volume in volumes])
    except (ValueError, KeyError, TypeError, AttributeError):
        yield "its state cannot be read"


def _link(link: dict[str, Any], volumes: list[int]) -> Iterator[str]:
    """``volumes``: their numbers here."""
    name = link["name"]
    if link["connection-state"] != "Connected":
        yield f"{name} is {link['connection-state']}"
        return
    there = {volume["volume"]: volume for volume in link["peer_devices"]}
    for number in volumes:
        if number not in there:
            yield f"volume {number} is not at {name}"
    for volume in there.values():
        at = f"volume {volume['volume']} at {name}"
        yield from _differs(at, volume["peer-disk-state"], "UpToDate")
        yield from _differs(at, volume["replication-state"], "Established")


def _differs(what: str, state: Any, wanted: str) -> Iterator[str]:
    if state != wanted:
        yield f"{what} is {state}"
