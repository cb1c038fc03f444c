"""ours: two ipshare-engines as NAT gateways; their pair decides who is active, nobody else."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from ipshare.core import lib
from ipshare.core.pair import PAIR_LATE
from ipshare.engine.embedded import ControlError
from perf.load.program import prefer
from tests.flows_lab import NatNode
from tests.mirror_world import COUNTERS
from tests.pair_lab import COMMAND, STATE, until

from .road import VIPS, Road

LATELY_S = 0.1
NICE = -15
SHARDS = 256  # compared in one round
STATES = {lib.IPS_PAIR_ACTIVE: "active", lib.IPS_PAIR_STANDBY: "standby"}


class Ours:
    """``interval_ms``, ``misses``: of the pair; ``commit_us``: how long a first packet waits at most."""

    name = "ipshare"

    def __init__(self, road: Road, *, interval_ms: int = 10, misses: int = 3, commit_us: int = 2000) -> None:
        self.road, self.nodes = road, (road.a, road.b)
        self.times = {"interval_ns": interval_ms * 1_000_000, "misses": misses}
        self.commit_us = commit_us
        self.uncommitted = self.committed = 0  # of reigns that were ended by a kill
        self.handovers: list[float] = []  # ms, from the end of one reign to the beginning of the next
        self.at_risk = 0  # of these, uncommitted in the last LATELY_S before it

    def start(self) -> None:
        for node in self.nodes:
            self._begin(node)
        self.wait()

    def _begin(self, node: NatNode) -> None:
        node.start(workers=2)
        assert node.engine is not None
        prefer(node.engine.pid, NICE)
        node.join(vips=VIPS, mirrored=True, **self.times)
        node.serve(sessions=400_000, half_open=20_000, half_open_per_source=19_000)
        node.mirror(commit_acked=1, commit_us=self.commit_us)

    def roles(self) -> tuple[NatNode, NatNode] | None:
        """(active, standby), or None where there are not both."""
        found = {STATES.get(node.pair_state()): node for node in self.nodes if _is_alive(node)}
        if set(found) != {"active", "standby"}:
            return None
        return found["active"], found["standby"]

    def wait(self) -> tuple[NatNode, NatNode]:
        """Until there are both, and the standby has all sessions."""

        def found() -> tuple[NatNode, NatNode] | None:
            roles = self.roles()
            if roles is None:
                return None
            is_told = roles[0].state()["mirror"]["peers"][0]["is_ready"]
            return roles if roles[1].state()["is_ready"] and is_told else None

        return until(_paced(found))

    def kill(self) -> int:
        """SIGKILL to the active engine; when."""
        active, standby = self.wait()
        before = int(active.state()["uncommitted"])
        time.sleep(LATELY_S)
        state = active.state()
        self.at_risk += int(state["uncommitted"]) - before
        self.committed += int(state["committed"])
        self.uncommitted += int(state["uncommitted"])
        assert active.engine is not None
        at_ns = time.monotonic_ns()
        active.engine.process.kill()
        active.engine.process.wait()
        self._dead, self._survivor = active, standby
        until(_paced(lambda: standby.pair_state() == lib.IPS_PAIR_ACTIVE))
        self._dropped, self._late = self._not_active(), self._lateness()
        return at_ns

    def remark(self) -> str:
        """Of the survivor since it became active: what it dropped for want of a lease, how late it was."""
        now, said = self._not_active() - self._dropped, []
        if now:
            said.append(f"{now} packets dropped without a lease")
        before, after = self._late, self._lateness()
        for name in after:
            if after[name] > before[name]:
                said.append(f"{after[name] - before[name]} x {name}")
        return ", ".join(said)

    def _lateness(self) -> dict[str, int]:
        """Of the survivor: how often, by cause; what its machine counted as a pause; changes of state."""
        state = _state(self._survivor)
        found = {f"late: {name}": int(n) for name, n in zip(PAIR_LATE.values(), state["late"], strict=True)}
        return found | {"pause": int(state["pauses"]), "change of state": int(state["changes"])}

    def _not_active(self) -> int:
        return sum(self._survivor.verdict("PAIR_NOT_ACTIVE", side) for side in (0, 1))

    def restore(self) -> None:
        """Who was killed comes back as the standby."""
        self._begin(self._dead)
        self.wait()

    def switchover(self) -> int:
        """The active one hands over; when it was told to."""
        active, standby = self.wait()
        record = np.zeros(1, COMMAND)
        record[0]["order"] = lib.IPS_CTL_PAIR_SWITCHOVER

        def taken() -> int:
            at_ns = time.monotonic_ns()
            try:
                active.set(lib.IPS_CTL_PAIR_COMMAND, record)
            except ControlError:  # the active one has not heard yet that the other has everything
                return 0
            return at_ns

        self._survivor = standby
        at_ns = until(_paced(taken))
        until(_paced(lambda: standby.pair_state() == lib.IPS_PAIR_ACTIVE))
        ended, begun = (int(_state(node)["since_ns"]) for node in (active, standby))
        self.handovers.append((begun - ended) / 1e6)
        self._dropped, self._late = self._not_active(), self._lateness()
        return at_ns

    def become_equal(self) -> dict[str, Any]:
        """Both tables, record by record, and the digests of all shards.

        Sessions go on to end and to be refreshed: what the active one had before and after the standby was
        read must be there exactly so, and nothing else than what it had before or after."""
        active, standby = self.wait()
        found: dict[str, Any] = {}

        def equal() -> bool:
            before, here, after = _table(active), _table(standby), _table(active)
            firm = before.items() & after.items()
            found.update(compared=len(here), firm=len(firm), missing=len(firm - here.items()),
                         strange=len(here.keys() - before.keys() - after.keys()))  # fmt: skip
            return not found["missing"] and not found["strange"]

        with contextlib.suppress(AssertionError):
            until(_paced(equal))
        counted = self._counter(standby, "DIGESTS_COMPARED")
        until(_paced(lambda: self._counter(standby, "DIGESTS_COMPARED") > counted + SHARDS))
        found["resent"] = self._counter(active, "DATAGRAMS_RESENT")
        found["diverged"] = self._counter(standby, "SHARDS_DIVERGED")
        return found | {"equal": not found["missing"] and not found["strange"] and not found["diverged"]}

    @staticmethod
    def _counter(node: NatNode, name: str) -> int:
        return int(node.state()["mirror"]["counters"][COUNTERS.index(name)])

    def end(self) -> None:
        """The engines end with the lab."""

    def pids(self) -> list[int]:
        return [node.engine.pid for node in self.nodes if node.engine is not None]

    def notes(self) -> dict[str, Any]:
        """What the nodes say of themselves."""
        states = [_state(node) for node in self.nodes]
        return {
            "commit": f"{self.committed:,} / {self.uncommitted} / {self.at_risk}",
            "jitter_us": [int(s["jitter_ns"]) // 1000 for s in states],
            "late": [
                {
                    name: [int(s["late"][i]), int(s["longest_late_ns"][i]) // 1000]
                    for i, name in enumerate(PAIR_LATE.values())
                }
                for s in states
            ],
            "realtime": [bool(s["flags"] & lib.IPS_CTL_PAIR_REALTIME) for s in states],
            "epoch": [int(s["epoch"]) for s in states],
            "sessions": [node.stat("sessions") for node in self.nodes],
        }


def _state(node: NatNode) -> Any:
    return node.control._call(lib.IPS_CTL_PAIR_STATE).one(STATE)


def _table(node: NatNode) -> dict[bytes, tuple[Any, ...]]:
    """All that has to be equal at both nodes."""
    names = ("mapped_port", "kind", "state", "flags", "version")
    return {
        r["flow"].tobytes(): (r["mapped"].tobytes(), *(int(r[name]) for name in names))
        for r in node.sessions()
    }


def _is_alive(node: NatNode) -> bool:
    return node.engine is not None and node.engine.is_alive()


def _paced(question: Any) -> Any:
    """Asked a hundred times a second: asking takes processor time from those who are measured."""

    def ask() -> Any:
        answer = question()
        if not answer:
            time.sleep(0.01)
        return answer

    return ask
