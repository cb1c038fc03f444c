"""drains_desk: what a director answers about drains on its control socket: drain, undrain: {"node": ...}.

`force`: also the last one that announces, with the reason in `why`. The answer comes when the revision is
written; that the node has withdrawn shows in status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ipshare.agent.server import Asker
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk, Verb
from ipshare.director.drains import Drains, is_drained
from ipshare.errors import IpshareError

Request = dict[str, Any]


@asynccontextmanager
async def draining(director: Director, desk: Desk) -> AsyncIterator[Drains]:
    """Beside a director that has begun, until it ends."""
    drains = Drains(director)
    await drains.start()
    verbs = {"drain": _verb(director, drains, True), "undrain": _verb(director, drains, False)}
    desk.add(verbs, drains.troubles)
    try:
        yield drains
    finally:
        await drains.close()


def _verb(director: Director, drains: Drains, on: bool) -> Verb:
    async def verb(caller: Asker, request: Request) -> Request:
        node, why, force = request.get("node"), request.get("why", ""), request.get("force", False)
        expect = request.get("expect")
        if not isinstance(node, str) or not isinstance(why, str) or not isinstance(force, bool):
            raise IpshareError("node is a name, why is text, force is true or false")
        if not (expect is None or type(expect) is int):
            raise IpshareError("expect is the number of a revision")
        who = request.get("who", "") or str(caller)
        changed = await drains.change(node, on, str(who), why, force=force, expect=expect)
        return {
            "node": node,
            "drained": is_drained(director.topology, node),
            "changed": changed,
            "revision": director.number,
        }

    return verb
