"""operating: what takes long is begun, steered and answered here: the director's desk is asked, as the
command line asks it, with who asks, a line in the audit log before, and what was looked at still so.

What was looked at is the revision for what begins, and for an answer to a proposal the proposal's own tag
(its state and plan). Both are looked at again when the audit line is on the disk, right before the desk is
asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from fastapi import Request

from ipshare.errors import IpshareError
from ipshare.web import changing
from ipshare.web.api import asked, caller
from ipshare.web.hub import Hub
from ipshare.web.problems import Failure, of_error
from ipshare.web.tokens import Role

Found = dict[str, Any]
Check = Callable[[], Awaitable[None]]
ANSWERS = frozenset({"approve", "refuse", "continue"})
"""They go by what was looked at; stop and abort are for when there is no time to look."""


async def ask(hub: Hub, verb: str, **words: Any) -> Found:
    """What the desk answers. Raises Failure: 404 where nothing beside this director does that."""
    if not hub.desk.knows(verb) and not hub.director.bar():
        raise Failure(404, "this director does nothing of that kind", "see its file, and docs/director.md")
    try:
        return await hub.ask(verb, **words)
    except IpshareError as error:
        raise of_error(error) from None


async def _act(hub: Hub, request: Request, what: str, check: Check, verb: str, **words: Any) -> Found:
    """``verb`` is asked of the desk, for an operator. ``check`` raises Failure where it must not be."""
    who = caller(request, Role.operator)
    assert hub.gate is not None, "requests come through it"
    await check()
    await hub.gate.begin(request, verb, what[:1000])
    await check()
    found = await ask(hub, verb, who=who.name, **words)
    asked(request).revision = hub.director.number
    return found


def _fresh(hub: Hub, revisions: Collection[int]) -> Check:
    async def check() -> None:
        if hub.director.number not in revisions:
            changing.stale(hub.director, max(revisions, default=0))

    return check


def tag_of(value: Any) -> str:
    """Names a state of something."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _same(tag: str, tags: Collection[str], look: str) -> None:
    """Raises Failure 412 where ``tag`` is none of ``tags``."""
    if tag not in tags:
        text, headers = "it is not what was looked at any more", {"ETag": f'"{tag}"'}
        raise Failure(412, text, f"look at {look} again, then answer", kind="stale", headers=headers)


# ---- migrations -------------------------------------------------------------------


async def migration_plan(hub: Hub, workload: str, to: str) -> Found:
    _named(hub, "workload", workload)
    _named(hub, "target", to)
    return await ask(hub, "migrate", workload=workload, to=to, plan=True)


async def migrate(
    hub: Hub, request: Request, workload: str, to: str, why: str, revisions: Collection[int]
) -> Found:
    caller(request, Role.operator)
    _named(hub, "workload", workload)
    _named(hub, "target", to)
    what = f"{workload} to {to}" + (f": {why}" if why else "")
    words = {"workload": workload, "to": to, "why": why}
    return await _act(hub, request, what, _fresh(hub, revisions), "migrate", **words)


async def migration(hub: Hub, id_: str) -> Found:
    """Raises Failure 404."""
    for one in (await ask(hub, "migrations"))["migrations"]:
        if one["id"] == id_:
            found: Found = one
            return found
    raise Failure(404, f"there is no migration {id_!r}", "GET /api/v1/migrations lists them")


async def cancel(hub: Hub, request: Request, id_: str) -> Found:
    async def check() -> None:
        await migration(hub, id_)

    return await _act(hub, request, id_, check, "migrate_cancel", which=id_)


# ---- evacuations ------------------------------------------------------------------


async def evacuation_plan(hub: Hub, site: str, node: str, avoid: Collection[str]) -> Found:
    if bool(site) == bool(node):
        raise Failure(422, "what is left?", "name a site or a node, one of them", kind="evacuation")
    for name in (*([site] if site else []), *avoid):
        _named(hub, "site", name)
    if node:
        _named(hub, "node", node)
    number = hub.director.number
    found = await ask(hub, "evacuate", site=site, node=node, avoid=list(avoid))
    return found | {"revision": number}


async def evacuate(
    hub: Hub, request: Request, site: str, node: str, avoid: Collection[str], why: str, *,
    digest: str, propose: bool, revisions: Collection[int],
) -> Found:  # fmt: skip
    """The evacuation that began, or waits for an answer."""
    caller(request, Role.operator)
    await _fresh(hub, revisions)()
    plan = await evacuation_plan(hub, site, node, avoid)
    if plan["digest"] != digest:
        hint = "POST /api/v1/plan/evacuation, look at it, and confirm that one"
        raise Failure(412, "the plan is another one by now", hint, kind="stale-plan")
    what = f"{site or node}" + (f" but not to {', '.join(avoid)}" if avoid else "")
    words = {"site": site, "node": node, "avoid": list(avoid), "digest": digest, "why": why}
    how = {"propose": True} if propose else {"run": True}
    said = f"{what}, plan {digest}" + (f": {why}" if why else "")
    found = await _act(hub, request, said, _fresh(hub, revisions), "evacuate", **words, **how)
    return await evacuation(hub, found["evacuation"])


async def evacuation(hub: Hub, id_: str) -> Found:
    """Raises Failure 404."""
    if all(one["id"] != id_ for one in (await ask(hub, "evacuations"))["evacuations"]):
        raise Failure(404, f"there is no evacuation {id_!r}", "GET /api/v1/evacuations lists them")
    return await ask(hub, "evacuations", id=id_)


def evacuation_tag(one: Found) -> str:
    """Changes with its state and its plan."""
    steps = [(step["unit"], step["source"], step["target"], step["state"]) for step in one["steps"]]
    return tag_of([one["id"], one["state"], steps, [stay["unit"] for stay in one["stays"]]])


async def steer(
    hub: Hub, request: Request, id_: str, verb: str, why: str, tags: Collection[str] | None
) -> Found:
    """``verb``: approve, refuse, stop, continue, abort. ``tags``: what was looked at, for ANSWERS."""

    async def check() -> None:
        tag = evacuation_tag(await evacuation(hub, id_))
        if tags is not None:
            _same(tag, tags, f"GET /api/v1/evacuations/{id_}")

    words = {"why": why} if verb in ("approve", "refuse") else {}
    said = id_ + (f": {why}" if why else "")
    await _act(hub, request, said, check, verb, id=id_, **words)
    return await evacuation(hub, id_)


# ---- failovers --------------------------------------------------------------------


async def failover(hub: Hub) -> Found:
    """Each case with its tag. Raises Failure 404."""
    found = await ask(hub, "failover")
    return found | {"cases": [case | {"etag": f'"{tag_of(case)}"'} for case in found["cases"]]}


async def approve_failover(hub: Hub, request: Request, unit: str, tags: Collection[str]) -> Found:
    async def check() -> None:
        cases = [case for case in (await ask(hub, "failover"))["cases"] if case["unit"] == unit]
        if not cases:
            raise Failure(404, f"nothing is proposed for {unit!r}", "GET /api/v1/failover lists what is")
        _same(tag_of(cases[0]), tags, "GET /api/v1/failover")

    return await _act(hub, request, unit, check, "failover_approve", unit=unit)


async def fenced(hub: Hub, request: Request, workload: str, node: str, epoch: int) -> Found:
    async def check() -> None:
        rows = [one for one in (await ask(hub, "failover"))["workloads"] if one["name"] == workload]
        if not rows:
            text = f"nobody has a lease for {workload!r}"
            raise Failure(404, text, "GET /api/v1/failover lists who has which")
        has = (rows[0]["node"], rows[0]["epoch"])
        if has != (node, epoch):
            text = f"{workload} is at {has[0] or 'nobody'} in epoch {has[1]}, not at {node} in {epoch}"
            raise Failure(412, text, "look at GET /api/v1/failover again", kind="stale")

    what = f"{workload} does not run at {node}, epoch {epoch}"
    return await _act(hub, request, what, check, "failover_fenced", workload=workload, epoch=epoch)


def _named(hub: Hub, kind: str, name: str) -> None:
    """Raises Failure 422 for a name that the topology does not have."""
    rows = hub.director.topology.by_name
    known = {**rows["node"], **rows["site"]} if kind == "target" else rows[kind]
    if name not in known:
        what = "node and no site" if kind == "target" else kind
        hint = f"known: {', '.join(list(known)[:20]) or 'none'}"
        raise Failure(422, f"there is no {what} {name!r}", hint, kind=kind)
