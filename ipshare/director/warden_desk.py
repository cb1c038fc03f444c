"""warden_desk: what a director answers operators about health and failovers: verbs of its control socket.

health             what is looked after: up, down or unknown, in whose words
failover           exclusive workloads with who has them, and failovers that are proposed, or under way
failover_approve   {"unit": ...}: a proposal is done
failover_fenced    {"workload": ...}: the operator's word that who has to give it up does not run it; `epoch`:
                   only if that is the one that has to
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ipshare.agent.server import Asker
from ipshare.director.attended import Request, boottime_s
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk, Verb
from ipshare.director.evacuation.mover import Runs
from ipshare.director.evacuation.ways import Has
from ipshare.director.migrations import Migrations
from ipshare.director.schema_health import Watch
from ipshare.director.warden import Warden
from ipshare.errors import IpshareError


@asynccontextmanager
async def looking_after(
    director: Director, watch: Watch | None, desk: Desk, migrations: Migrations
) -> AsyncIterator[Warden | None]:
    """Beside a director that has begun, until it ends; None: its file has neither [health] nor [failover].
    What ``migrations`` move is left alone, and they leave alone what is failed over."""
    if watch is None:
        yield None
        return
    warden = Warden(director, watch, migrations.holds)
    migrations.busy.append(warden.busy)
    await warden.start()
    desk.add(verbs(warden), warden.troubles)
    try:
        yield warden
    finally:
        await warden.close()


def keeping(warden: Warden | None) -> tuple[Runs | None, Has | None]:
    """Whether a workload runs at a node, whether a node could run it; None: nobody gives leases."""
    if warden is None or warden.watch.failover is None:
        return None, None
    return warden.runs, warden.has


def verbs(warden: Warden) -> Mapping[str, Verb]:
    """For the desk."""

    async def health(_caller: Asker, _request: Request) -> Request:
        return health_of(warden)

    async def failover(_caller: Asker, _request: Request) -> Request:
        return failover_of(warden)

    async def approve(_caller: Asker, request: Request) -> Request:
        unit = request.get("unit")
        if not isinstance(unit, str):
            raise IpshareError("unit is the name of a workload or of a group")
        return (await warden.approve(unit)).to_json()

    async def fenced(_caller: Asker, request: Request) -> Request:
        name = request.get("workload")
        epoch = request.get("epoch")
        if not isinstance(name, str) or not (epoch is None or type(epoch) is int):
            raise IpshareError("workload is a name, epoch a number")
        grant = await warden.fenced(name, epoch)
        return {"workload": name, "node": grant.node, "epoch": grant.epoch}

    return {
        "health": health,
        "failover": failover,
        "failover_approve": approve,
        "failover_fenced": fenced,
    }


def health_of(warden: Warden) -> Request:
    now_s = boottime_s()
    return {
        "targets": [
            {
                "name": name,
                "state": one.verdict.word,
                "why": one.verdict.why,
                "for_s": round(now_s - one.since_s, 1),
                "flaps": round(one.penalty, 1),
                "suppressed": one.is_suppressed,
            }
            for name, one in warden.tracks.items()
        ],
        "nodes": [
            {
                "name": node.name,
                "state": "alive" if warden.is_heard(node.name, now_s) else "unknown",
                "why": node.trouble,
                "paths": node.said["paths"] if node.said is not None else [],
            }
            for node in warden.nodes.values()
        ],
    }


def failover_of(warden: Warden) -> Request:
    settings = warden.watch.failover
    return {
        "mode": settings.mode if settings is not None else None,
        "wait_s": round(warden.watch.wait_s, 3) if settings is not None else None,
        "workloads": [_workload(warden, name) for name in sorted(warden.grants)],
        "cases": [case.to_json() for case in warden.cases.values()],
    }


def _workload(warden: Warden, name: str) -> dict[str, Any]:
    grant = warden.grants[name]
    row = warden.nodes[grant.node].row(name) if grant.node in warden.nodes else None
    heard = warden.is_heard(grant.node, boottime_s())
    return {
        "name": name,
        "node": grant.node,
        "epoch": grant.epoch,
        "leaving": grant.leaving,
        "freed": grant.how,
        "state": row["state"] if row is not None and heard else "unknown",
        "why": row["why"] if row is not None and heard else "",
    }
