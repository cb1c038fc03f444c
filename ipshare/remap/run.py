"""run: the calls of ipshare.remap: begin a remap, go on with one, abort one, list them. Blocking."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from ipshare.agent.confirm import Clock, SystemClock
from ipshare.engine.remap_text import state_of
from ipshare.errors import IpshareError, NotRunning, Refused
from ipshare.model import Prefix, contains
from ipshare.remap.executor import Executor, OnChange, View
from ipshare.remap.journal import DIRECTORY, Entry, Journal
from ipshare.remap.machine import Progress, Step
from ipshare.remap.nodes import AgentNode, RemapNode
from ipshare.remap.wish import Look, NotPossible, Wish, plan_of

Nodes = Mapping[str, RemapNode | Path | str]


def remap(
    prefix: str | Prefix,
    *,
    origin: str,
    to: str,
    nodes: Nodes,
    deadline_s: float | None = None,
    replies: Literal["direct", "channel"] = "direct",
    quic: bool = False,
    channel: str | None = None,
    silence_s: float = 300.0,
    patience_s: float = 30.0,
    journal: Path = DIRECTORY,
    on_change: OnChange = lambda progress, view: None,
    clock: Clock | None = None,
) -> Progress:
    """Moves ``prefix`` from end point ``origin`` to ``to``, and returns when nothing of it is left at
    ``origin``, or it was undone (``step``, ``reason``).

    ``nodes``: name -> its agent's runtime_dir or socket: both end points' nodes, every distribution point.
    ``deadline_s``: then what is left is cut; None: never. ``silence_s``: no connections left ends it only
    after the address was tracked that long, as one that was silent before is in no number. ``patience_s``:
    for a step that can be undone. ``on_change``: called with every look at it. The same remap again goes on
    with one that was interrupted. Raises NotPossible (nothing was changed), NotRunning, IpshareError.
    """
    net = ip_network(prefix) if isinstance(prefix, str) else prefix
    wish = Wish(net, origin, to, deadline_s, replies == "channel", quic, channel, silence_s, patience_s)
    book, asked = Journal(journal), _asked(nodes)
    if (entry := _interrupted(book, wish)) is not None:
        return _go_on(book, entry, asked, on_change, clock)
    with contextlib.ExitStack() as held:
        with book.planning():
            least_id = max([int(time.time() * 1000), *(entry.id + 1 for entry in book.entries())])
            running = [entry.progress for entry in unfinished(book)]
            plan = plan_of(wish, look(asked, net), running, least_id)
            book.forget_old()
            executor = Executor(asked, held.enter_context(book.writing(plan.id)), clock=clock)
            executor.on_change = on_change
            progress = executor.begun(plan)
        return executor.run(progress)


def resume(
    remap_id: int | None,
    *,
    nodes: Nodes,
    deadline_s: float | None = None,
    journal: Path = DIRECTORY,
    on_change: OnChange = lambda progress, view: None,
    clock: Clock | None = None,
) -> Progress:
    """Goes on with a remap that was interrupted; None: with the only one. ``deadline_s``: another one. Raises
    Refused (there is none, or somebody works on it), NotRunning, IpshareError."""
    book = Journal(journal)
    entry = chosen(book, remap_id)
    if deadline_s is not None:
        plan = replace(entry.progress.plan, deadline_s=deadline_s)
        entry = replace(entry, progress=replace(entry.progress, plan=plan))
    return _go_on(book, entry, _asked(nodes), on_change, clock)


def abort(
    remap_id: int | None,
    *,
    nodes: Nodes,
    journal: Path = DIRECTORY,
    on_change: OnChange = lambda progress, view: None,
    clock: Clock | None = None,
) -> Progress | None:
    """Undoes a remap that has not flipped yet. None: the process that works on it was told to. Raises Refused
    (too late, or there is none)."""
    book = Journal(journal)
    entry = chosen(book, remap_id)
    plan = entry.progress.plan
    if not entry.progress.step.can_be_undone:
        raise Refused(
            f"remap {plan.id} is {entry.progress.step.value}: it can only go on",
            hint=f"when it drains, `ipshare remap {plan.prefix} --from {plan.to} --to {plan.origin}` brings "
            "the address back, or `ipshare remap resume --deadline 0s` ends it",
        )
    book.ask_to_abort(plan.id)
    if book.is_worked_on(plan.id):
        return None
    return _go_on(book, entry, _asked(nodes), on_change, clock)


def listed(journal: Path = DIRECTORY) -> list[Entry]:
    """What is written down, the earliest first."""
    return Journal(journal).entries()


def _interrupted(book: Journal, wish: Wish) -> Entry | None:
    """The remap that is wished for, if it is unfinished and nothing later moved any of its addresses."""
    later = None
    for entry in book.entries():
        plan = entry.progress.plan
        touches = contains(plan.prefix, wish.prefix) or contains(wish.prefix, plan.prefix)
        if touches and entry.progress.step is not Step.UNDONE:
            later = entry
    if later is None or later.progress.step.is_over or not wish.is_that_of(later.progress.plan):
        return None
    return later


def seen(remap_id: int | None, *, nodes: Nodes, journal: Path = DIRECTORY) -> tuple[Progress, View]:
    """A remap as it is written down, and as those of its nodes that were named see it. Raises Refused: there
    is none."""
    book = Journal(journal)
    entry = book.entry(remap_id) if remap_id is not None else chosen(book, None)
    if entry is None:
        raise Refused(f"there is no remap {remap_id}", hint="see `ipshare remap list`")
    plan, view, asked = entry.progress.plan, View(), _asked(nodes)
    view.now_s = SystemClock().boottime_ns() / 1e9
    halves = [(plan.taker, plan.id), *((part.giver, part.id) for part in plan.parts)]
    for name, remap in halves:
        if name not in asked:
            continue
        try:
            state = asked[name].ask("remap_state", id=remap)["state"]
        except IpshareError as error:
            view.silent[name] = error.message
            continue
        if state is not None:
            view.states[name] = state_of(state)
    return entry.progress, view


def unfinished(book: Journal) -> list[Entry]:
    return [entry for entry in book.entries() if not entry.progress.step.is_over]


def chosen(book: Journal, remap_id: int | None) -> Entry:
    """The unfinished remap of that id, or the only one. Raises Refused."""
    open_ = unfinished(book)
    if remap_id is not None:
        open_ = [entry for entry in open_ if entry.id == remap_id]
    if len(open_) == 1:
        return open_[0]
    if open_:
        ids = ", ".join(str(entry.id) for entry in open_)
        raise Refused(f"there are {len(open_)} unfinished remaps", hint=f"say which: {ids}")
    what = "there is no unfinished remap" + (f" {remap_id}" if remap_id is not None else "")
    raise Refused(what, hint="see `ipshare remap list`")


def look(nodes: Mapping[str, RemapNode], prefix: Prefix) -> dict[str, Look | str]:
    """What every node says of it, or why it says nothing."""

    def ask(name: str) -> Look | str:
        try:
            return nodes[name].ask("remap_look", prefix=str(prefix))
        except IpshareError as error:
            return error.message

    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        return dict(zip(nodes, pool.map(ask, nodes), strict=True))


def _asked(nodes: Nodes) -> dict[str, RemapNode]:
    return {
        name: AgentNode(Path(node)) if isinstance(node, str | Path) else node for name, node in nodes.items()
    }


def _go_on(
    book: Journal, entry: Entry, nodes: Mapping[str, RemapNode], on_change: OnChange, clock: Clock | None
) -> Progress:
    plan = entry.progress.plan
    if missing := sorted({*plan.givers, plan.taker, *plan.points} - set(nodes)):
        raise NotRunning(f"remap {plan.id} needs node {missing[0]}, which was not named", hint="use --node")
    with book.writing(plan.id) as writer:
        latest = book.entry(plan.id) or entry
        deadline = entry.progress.plan.deadline_s
        progress = replace(latest.progress, plan=replace(latest.progress.plan, deadline_s=deadline))
        executor = Executor(nodes, writer, on_change=on_change, clock=clock)
        return executor.resume(replace(latest, progress=progress))


__all__ = ["NotPossible", "abort", "listed", "remap", "resume"]
