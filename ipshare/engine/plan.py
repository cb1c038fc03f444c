"""plan: what has to change to get from one set of tables to another.

``diff(actual, desired)`` is pure and total: every pair of tables has a plan, the
plan of equal tables is empty, and a plan interrupted anywhere is simply made
again. A plan's actions are for people and for checks; an engine applies the
plan as a whole, as one new generation, because a packet must never see half of it.

Order of the actions: what is added before what is removed (make before break).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ipshare.engine.tables import BINDING, Records, Tables, binding_keys, pack, peer_keys

DELTA_AT_MOST = 0.25
"""A change of more than this share of the bindings is sent as a full image: cheaper than a merge."""


@dataclass(frozen=True, eq=False, slots=True)
class Change:
    """One action: ``verb`` (add, change, remove) of ``count`` records of ``section``.

    ``before`` and ``after`` are record arrays of equal length for ``change``,
    else one of them is empty. For options: section "option", ``name`` set.
    """

    verb: str
    section: str
    before: Records
    after: Records
    name: str = ""

    @property
    def count(self) -> int:
        return max(len(self.before), len(self.after))


@dataclass(frozen=True, eq=False)
class Plan:
    """The ordered changes from ``actual`` to ``desired``; falsy if there is nothing to do."""

    actual: Tables
    desired: Tables
    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    @cached_property
    def binding_changes(self) -> Records:
        """The delta's records, sorted: new content, or kind 0 for a removal."""
        parts = [np.zeros(0, BINDING)]
        for change in self.changes:
            if change.section != "binding":
                continue
            if change.verb == "remove":
                gone = change.before.copy()
                gone["kind"] = 0
                parts.append(gone)
            else:
                parts.append(change.after)
        delta = np.concatenate(parts)
        return delta[np.argsort(binding_keys(delta), kind="stable")]

    def image(self, live_generation: int) -> bytearray:
        """The image that carries this plan out: a delta where few bindings change, else all."""
        changed = sum(change.count for change in self.changes if change.section == "binding")
        if live_generation and changed <= DELTA_AT_MOST * len(self.desired.bindings):
            return pack(self.desired, changes=self.binding_changes, base_generation=live_generation)
        return pack(self.desired)


def diff(actual: Tables, desired: Tables) -> Plan:
    """The plan from ``actual`` to ``desired``. Pure; (term, revision) are not compared."""
    changes: list[Change] = []
    for name, wanted in desired.options.items():
        have = actual.options[name]
        if have != wanted:
            changes.append(Change("change", "option", np.array([have]), np.array([wanted]), name))
    for section in ("network", "endpoint", "policy", "member"):
        changes += _by_position(section, actual.section(section), desired.section(section))
    changes += _by_key("peer", peer_keys, actual.peers, desired.peers)
    if _same_keys(actual.bindings, desired.bindings):
        changes += _changed("binding", actual.bindings, desired.bindings)
    else:
        changes += _by_key("binding", binding_keys, actual.bindings, desired.bindings)
    order = {"add": 0, "change": 1, "remove": 2}
    return Plan(actual, desired, tuple(sorted(changes, key=lambda change: order[change.verb])))


def _by_position(section: str, have: Records, want: Records) -> Iterator[Change]:
    """Sections that bindings refer to by index are compared index by index."""
    common = min(len(have), len(want))
    differs = have[:common] != want[:common]
    if differs.any():
        yield Change("change", section, have[:common][differs], want[:common][differs])
    if len(want) > common:
        yield Change("add", section, have[:0], want[common:])
    if len(have) > common:
        yield Change("remove", section, have[common:], want[:0])


def _by_key(
    section: str, keys: Callable[[Records], np.ndarray], have: Records, want: Records
) -> Iterator[Change]:
    """Arrays sorted by ``keys``, joined on them."""
    if not len(have) or not len(want):
        if len(have) or len(want):
            yield Change("remove" if len(have) else "add", section, have, want)
        return
    have_keys, want_keys = keys(have), keys(want)
    in_both_want = _present(want_keys, have_keys)
    in_both_have = _present(have_keys, want_keys)
    yield from _changed(section, have[in_both_have], want[in_both_want])
    if not in_both_want.all():
        yield Change("add", section, have[:0], want[~in_both_want])
    if not in_both_have.all():
        yield Change("remove", section, have[~in_both_have], want[:0])


def _changed(section: str, old: Records, new: Records) -> Iterator[Change]:
    differs = (_words(old) != _words(new)).any(axis=1)
    if differs.any():
        yield Change("change", section, old[differs], new[differs])


def _same_keys(have: Records, want: Records) -> bool:
    return len(have) == len(want) and all(
        np.array_equal(have[name], want[name]) for name in ("family", "prefix_len", "global")
    )


def _words(records: Records) -> np.ndarray:
    """Records of whole 64-bit words as such, shape (n, words): far faster to compare than field by field."""
    return np.ascontiguousarray(records).view(np.uint64).reshape(len(records), records.itemsize // 8)


def _present(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which of ``keys`` are in the sorted ``among``; shape and order of ``keys``."""
    if len(among) == 0:
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    found: np.ndarray = among[at] == keys
    return found
