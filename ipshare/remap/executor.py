"""executor: does what the machine says, writes down every step before it is done, and waits in between.

Whatever dies, the same remap goes on from its journal: each action may be done twice. Blocking; one thread,
but that all distribution points flip at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ipshare.agent.confirm import Clock, SystemClock
from ipshare.engine.remap_text import state_of
from ipshare.engine.remapping import RemapRole, RemapState
from ipshare.errors import IpshareError, NotRunning, Refused
from ipshare.remap.journal import Entry, Writer
from ipshare.remap.machine import (
    Action,
    Cut,
    Did,
    No,
    Outcome,
    Part,
    Plan,
    Progress,
    Silent,
    Step,
    What,
    abort,
    advance,
    todo,
)
from ipshare.remap.nodes import RemapNode

LISTED = 10_000
QUICK_S, SLOW_S = 0.02, 0.5
"""Pauses between two looks: of steps that last milliseconds, and of those that last as long as they do."""


@dataclass
class View:
    """What an onlooker wants to know beside the progress; as far as it was heard."""

    states: dict[str, RemapState] = field(default_factory=dict)  # by node
    silent: dict[str, str] = field(default_factory=dict)  # node -> why it was not asked with success
    now_s: float = 0.0
    most: int = 0  # connections that the giver had at once


OnChange = Callable[[Progress, View], None]


class Executor:
    """One remap. ``writer``: its journal, held; ``pause(s)``: waits, and may return early."""

    def __init__(
        self,
        nodes: Mapping[str, RemapNode],
        writer: Writer,
        *,
        clock: Clock | None = None,
        on_change: OnChange = lambda progress, view: None,
        pause: Callable[[float], Any] | None = None,
        undo_patience_s: float = 60.0,
    ) -> None:
        self.nodes, self.writer, self.on_change = nodes, writer, on_change
        self.clock = clock or SystemClock()
        self.pause = pause or threading.Event().wait
        self.undo_patience_s = undo_patience_s
        self.view = View()

    def begun(self, plan: Plan) -> Progress:
        """A new remap, written down, for ``run``."""
        return self._write(Progress(plan, since_s=self._now_s()))

    def resume(self, entry: Entry) -> Progress:
        """What another process began, to its end. Times of another boot begin anew."""
        progress = entry.progress
        if entry.boot_id != self.clock.boot_id():
            took = self._now_s() if progress.took_s is not None else None
            progress = replace(progress, since_s=self._now_s(), took_s=took)
        elif progress.step.can_be_undone or progress.step is Step.UNDOING:
            progress = replace(progress, since_s=self._now_s())  # nobody worked on it meanwhile
        return self.run(progress)

    def run(self, progress: Progress) -> Progress:
        """Until it is done or undone. Raises NotRunning where undoing needs a node that stays silent."""
        while not progress.step.is_over:
            self._tell(progress)
            after = self._round(progress)
            if self.writer.is_abort_wanted():
                after = self._write(abort(after, self._now_s()), after)
            if after == progress:
                self._check_patience(progress)
                self.pause(SLOW_S if progress.step in (Step.DRAINING, Step.FLIPPING) else QUICK_S)
            progress = after
        self._tell(progress)
        return progress

    def _round(self, progress: Progress) -> Progress:
        step, actions = progress.step, todo(progress)
        for action, outcome in zip(actions, self._outcomes(progress.plan, actions), strict=False):
            before, progress = progress, advance(progress, action, outcome, self._now_s())
            self._write(progress, before)
            if progress.step is not step:
                break
        if step is Step.DRAINING:
            with contextlib.suppress(IpshareError):  # for the onlooker alone
                self._perform(progress.plan, Action(What.LOOK, progress.plan.taker, part=progress.plan.id))
        return progress

    def _outcomes(self, plan: Plan, actions: tuple[Action, ...]) -> Any:
        """One after the other as they are asked for; flips all at once: one that is late keeps no other."""
        if len(actions) > 1 and actions[0].what is What.BIND:
            with ThreadPoolExecutor(len(actions)) as pool:
                return list(pool.map(lambda action: self._outcome(plan, action), actions))
        return (self._outcome(plan, action) for action in actions)

    def _outcome(self, plan: Plan, action: Action) -> Outcome:
        try:
            done = self._perform(plan, action)
        except Refused as error:
            self.view.silent[action.node] = error.message
            return No(error.message)
        except IpshareError as error:
            self.view.silent[action.node] = error.message
            return Silent(error.message)
        self.view.silent.pop(action.node, None)
        return done

    def _perform(self, plan: Plan, action: Action) -> Did:
        node, prefix, part = self.nodes[action.node], str(plan.prefix), plan.part(action.part or plan.id)
        match action.what:
            case What.BIND:
                node.ask("remap_bind", id=plan.id, prefix=prefix, to=plan.to)
                return Did()
            case What.UNBIND:
                node.ask("remap_bind", id=plan.id, prefix=prefix, to=plan.taker_had, or_leave=True)
                return Did()
            case What.RELEASE:
                node.ask("remap_bind", id=part.id, prefix=str(part.prefix), to=plan.to, or_leave=True)
                return Did()
            case What.ROLE:
                assert action.role is not None, "a role"
                answer = node.ask("remap_set", **_half(plan, part, action.role))
            case What.NAME:
                return Did(cut=self._cut(part, node))
            case What.CLEAR:
                answer = node.ask("remap_clear", id=part.id)
            case _:
                answer = node.ask("remap_state", id=part.id)
        state = state_of(answer["state"]) if answer["state"] is not None else None
        if state is not None:
            self.view.states[action.node] = state
            if state.role.gives and part.id == plan.id:
                self.view.most = max(self.view.most, state.flows)
        return Did(state)

    def _cut(self, part: Part, node: RemapNode) -> Cut:
        found = node.ask("remap_flows", id=part.id, limit=LISTED)
        flows = tuple(_flow_words(flow) for flow in found["flows"])
        exact = not any(flow["one_sided"] for flow in found["flows"])
        return Cut(found["matched"], exact, flows)

    def _check_patience(self, progress: Progress) -> None:
        since_s = self._now_s() - progress.since_s
        if progress.step is Step.UNDOING and since_s > self.undo_patience_s and self.view.silent:
            node, why = next(iter(self.view.silent.items()))
            raise NotRunning(
                f"remap {progress.plan.id} is undone ({progress.reason}), but node {node} does not answer: "
                f"{why}",
                hint=f"`ipshare remap resume {progress.plan.id}` once it does",
            )

    def _tell(self, progress: Progress) -> None:
        self.view.now_s = self._now_s()
        self.on_change(progress, self.view)

    def _write(self, progress: Progress, before: Progress | None = None) -> Progress:
        if progress != before:
            self.writer.write(progress, self.clock.boot_id(), time.time())
        return progress

    def _now_s(self) -> float:
        return self.clock.boottime_ns() / 1e9


def _half(plan: Plan, part: Part, role: RemapRole) -> dict[str, Any]:
    return {
        "id": part.id,
        "prefix": str(part.prefix),
        "role": role.value,
        "channel": part.channel,
        "slot": part.slot,
        "together": [each.id for each in plan.parts],
        "replies_by_channel": plan.replies_by_channel,
        "quic": plan.quic and not role.gives,
        "unknown_here": plan.unknown_here and not role.gives,
    }


def _flow_words(flow: Mapping[str, Any]) -> str:
    from ipshare.engine.session_text import end

    ends = f"{end(flow['src'], flow['src_port'])} > {end(flow['dst'], flow['dst_port'])}"
    return f"{flow['proto']} {ends} {flow['state']}"
