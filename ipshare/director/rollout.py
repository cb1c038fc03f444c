"""rollout: who shall have what of a revision now, and what is waited for: facts in, answers out. Pure.

    1. end points get `make`: what is new, and what distribution points may still send them
    2. distribution points get `final`, when each end point that takes something over has a node that is
       ready, none of its nodes refused, and those that answer are done
    3. end points get `final`, when every distribution point has it, or is known to be withdrawn

A node that is both gets `make`, then `final` after all that are distribution points alone. A silent
distribution point keeps step 3 back for as long as it is silent, unless it has withdrawn by itself by then:
nobody knows that it sends nothing.
Nothing here is remembered but the revisions that distribution points may still have (``Facts.may``): the same
facts give the same answers after a restart, or at another director.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ipshare.agent.assignment import digest_of
from ipshare.director import render
from ipshare.director.topology import NodeRow, Topology, gaining, gaps

MAKE, FINAL = 0, 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a node. ``has``: (revision, step) in force there; ``may``: revisions by which it may
    send packets, if it is a distribution point; ``refused``: why it does not take what it was sent last;
    ``announces``: as it says itself; ``withdrew``: it withdraws without a director, and had time to
    (ipshare.director.staying)."""

    has: tuple[int, int] = (0, FINAL)
    may: frozenset[int] = frozenset()
    alive: bool = False
    refused: str = ""
    announces: bool | None = None
    withdrew: bool = False

    @property
    def is_withdrawn(self) -> bool:
        """It sends nothing: it says so now, or it is silent, and so long that it has withdrawn by itself."""
        return self.announces is False if self.alive else self.withdrew


@dataclass(frozen=True)
class Rollout:
    """Of ``revision``. ``bases``: what distribution points may have had when it came, the newest first."""

    revision: int
    new: Topology
    bases: Sequence[Topology] = ()
    numbers: tuple[int, ...] = ()
    """Of the bases."""
    unsafe: frozenset[str] = field(default_factory=frozenset)
    """Nodes that cannot have `make`: two bindings exclude each other there."""

    @cached_property
    def texts(self) -> dict[str, tuple[str, str]]:
        """Node -> (make, final)."""
        known: dict[tuple[str | None, str | None], tuple[str, str]] = {}
        rows: render.Rows = {}
        found = {}
        for name, node in self.new.nodes.items():
            key = (node.endpoint, node.distribution)
            if key not in known:
                final = render.text(render.final(self.new, node), rows)
                make = final
                if node.endpoint is not None:
                    make = render.text(render.make(self.bases, self.new, node), rows)
                known[key] = (make, final)
            found[name] = known[key]
        return found

    @cached_property
    def digests(self) -> dict[str, tuple[str, str]]:
        """Of the texts."""
        return {name: (digest_of(make), digest_of(final)) for name, (make, final) in self.texts.items()}

    @cached_property
    def gains(self) -> dict[str, bool]:
        return gaining(self.bases, self.new)

    def text(self, node: str, step: int) -> str:
        return self.texts[node][step]

    def digest(self, node: str, step: int) -> str:
        return self.digests[node][step]

    @cached_property
    def one_step(self) -> frozenset[str]:
        """Nodes that get the revision at once."""
        same = {name for name, (make, final) in self.texts.items() if make == final}
        return frozenset(same | self.unsafe)

    @cached_property
    def _points(self) -> list[str]:
        return [name for name, node in self.new.nodes.items() if node.distribution]

    @cached_property
    def _nodes_of(self) -> dict[str, list[str]]:
        """End point -> its nodes."""
        found: dict[str, list[str]] = {}
        for name, node in self.new.nodes.items():
            if node.endpoint is not None:
                found.setdefault(node.endpoint, []).append(name)
        return found

    def is_one_step(self, node: str) -> bool:
        return node in self.one_step

    def notes(self) -> list[str]:
        """What cannot be done without a moment in which packets are lost."""
        both = [
            f"node {name}: what it has now and what it gets exclude each other there" for name in self.unsafe
        ]
        return [*gaps(self.bases, self.new), *sorted(both)]

    def wanted(self, facts: Mapping[str, Facts]) -> dict[str, tuple[int, str]]:
        """Node -> (step, ""), or (-1, what it waits for)."""
        nodes, nothing = self.new.nodes, Facts()
        at = {name: facts.get(name, nothing) for name in nodes}
        late = self._late(at)
        closed = self._closed(at)
        behind = [name for name in late if nodes[name].endpoint is None]
        for_all = "; ".join(closed.values())
        found = {}
        for name, node in nodes.items():
            if self.is_one_step(name) and not node.distribution:
                found[name] = (FINAL, "")
            elif node.distribution is None:
                found[name] = (FINAL, "") if not late else self._make(at[name], f"waits for {_list(late)}")
            elif (why := _others(closed, node.endpoint) if node.endpoint else for_all) != "":
                found[name] = self._make(at[name], why) if node.endpoint else (-1, why)
            elif node.endpoint and behind and not self.is_one_step(name):
                found[name] = self._make(at[name], f"waits for {_list(behind)}")
            else:
                found[name] = (FINAL, "")
        return found

    def _make(self, facts: Facts, why: str) -> tuple[int, str]:
        """`make` where it is not there yet; a `final` that is there is never taken back."""
        if facts.has[0] == self.revision:
            return (-1, why) if facts.has[1] == MAKE else (FINAL, "")
        return (MAKE, "")

    def _late(self, at: Mapping[str, Facts]) -> list[str]:
        """Distribution points that may still send by an earlier revision."""
        final = (self.revision, FINAL)
        return sorted(n for n in self._points if at[n].has != final and not at[n].is_withdrawn)

    def _closed(self, at: Mapping[str, Facts]) -> dict[str, str]:
        """End points that hold distribution points back -> why."""
        found: dict[str, str] = {}
        for endpoint, takes_over in self.gains.items():
            nodes = self._nodes_of.get(endpoint, [])
            ready = [name for name in nodes if at[name].has[0] == self.revision]
            refusing = sorted(name for name in nodes if at[name].refused and name not in ready)
            working = sorted(n for n in nodes if at[n].alive and not at[n].refused and n not in ready)
            if takes_over and refusing:
                found[endpoint] = f"{_list(refusing)} refused"
            elif working:
                found[endpoint] = f"waits for {_list(working)}"
            elif takes_over and nodes and not ready:
                found[endpoint] = f"waits for {_list(nodes)}, silent"
        return found


def bases_of(facts: Mapping[str, Facts], nodes: Mapping[str, NodeRow], revision: int) -> tuple[int, ...]:
    """Revisions before ``revision`` that a distribution point may have, the newest first."""
    found: set[int] = set()
    for name, node in nodes.items():
        if node.distribution and name in facts:
            found |= facts[name].may
    return tuple(sorted((number for number in found if 0 < number < revision), reverse=True))


def outcome(facts: Facts, wanted: tuple[int, str], revision: int) -> str:
    """acked, refused, silent; or working, waiting."""
    step, _ = wanted
    if not facts.alive:
        return "silent"
    if facts.has == (revision, FINAL):
        return "acked"
    if facts.refused:
        return "refused"
    return "waiting" if step < 0 or facts.has >= (revision, step) else "working"


def _others(closed: Mapping[str, str], own: str | None) -> str:
    return "; ".join(why for endpoint, why in closed.items() if endpoint != own)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
