"""Executes actions and takes them back, exactly: idempotent, crash-safe, through one Kernel.

apply() brings the kernel from whatever an earlier apply() left (the journal knows) to the wanted
actions; undo() brings it back to what was there before the first one. Both may be killed at any point
and repeated. Only what the journal names is ever undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipshare.net.actions import Action, LinkSet, NetError, NftTable, RouteAdd, RuleAdd, SysctlSet, describe
from ipshare.net.journal import Journal, is_elsewhere
from ipshare.net.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Diff:
    """Ordered steps from one set of actions to another: undo `first`, do `add`, undo `last`."""

    first: tuple[Action, ...]
    add: tuple[Action, ...]
    last: tuple[Action, ...]

    def __bool__(self) -> bool:
        return bool(self.first or self.add or self.last)


def diff(actual: Iterable[Action], desired: Iterable[Action]) -> Diff:
    """Pure. New things come before old ones go (no packet lost), but for rules whose landing moves:
    an old goto may jump over a new one, and then what the engine sent would come back to it."""
    have, want = list(actual), list(desired)
    kept, wanted = {a.key: a for a in have}, {a.key for a in want}
    stale = [a for a in reversed(have) if a.key not in wanted]
    moved = any(isinstance(a, RuleAdd) and a.goto is not None for a in stale)
    first = tuple(a for a in stale if moved and isinstance(a, RuleAdd))
    return Diff(
        first, tuple(a for a in want if kept.get(a.key) != a), tuple(a for a in stale if a not in first)
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What was changed, and what was left because somebody else changed it meanwhile. Lines for people."""

    done: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def installed(undo_file: Path) -> list[Action]:
    """The actions that an earlier apply() recorded and nothing has undone, in order."""
    if not undo_file.exists() or is_elsewhere(undo_file):
        return []
    with Journal(undo_file) as journal:
        return [entry.action for entry in journal.entries.values()]


def missing(actions: Sequence[Action], *, kernel: Kernel | None = None) -> list[Action]:
    """The actions whose state is not in the kernel now (drift; routes that died with a device)."""
    with kernel or Kernel() as door:
        return [action for action in actions if not _is_present(door, action)]


def apply(actions: Sequence[Action], undo_file: Path, *, kernel: Kernel | None = None) -> Report:
    """Establishes the actions, in order, and undoes what the journal has and they have not.

    A NetError on the way takes back what this call had done before it is raised.
    """
    done: list[Action] = []
    undone: list[str] = []
    left: list[str] = []
    with Journal(undo_file) as journal, kernel or Kernel() as door:
        steps = diff([entry.action for entry in journal.entries.values()], actions)
        try:
            _take_back(door, journal, steps.first, undone, left)
            for action in actions:
                if _establish(door, journal, action):
                    done.append(action)
        except NetError:
            _take_back(door, journal, [a for a in reversed(done) if a in steps.add], [], [])
            raise
        _take_back(door, journal, steps.last, undone, left)
    return Report(tuple(map(describe, done)), tuple(undone), tuple(left))


def undo(undo_file: Path, *, kernel: Kernel | None = None) -> Report:
    """Takes back everything that the journal names, the latest first, and removes the journal. One of another
    network namespace stays as it is: it may be needed there."""
    if not undo_file.exists() or is_elsewhere(undo_file):
        return Report()
    undone: list[str] = []
    left: list[str] = []
    with Journal(undo_file) as journal, kernel or Kernel() as door:
        _take_back(door, journal, [e.action for e in reversed(journal.entries.values())], undone, left)
    return Report((), tuple(undone), tuple(left))


def _is_present(door: Kernel, action: Action) -> bool:
    try:
        return door.is_present(action)
    except NetError:
        return False


def _establish(door: Kernel, journal: Journal, action: Action) -> bool:
    """True: something was changed."""
    known = journal.entries.get(action.key)
    if door.is_present(action):
        # Ours by its number, unknown to the journal: left by a run whose journal was lost.
        if known is None and isinstance(action, RouteAdd | RuleAdd | NftTable):
            journal.record(action, None)
        return False
    journal.record(action, None if known else door.before(action))
    door.do(action)
    return True


def _take_back(
    door: Kernel, journal: Journal, actions: Iterable[Action], undone: list[str], left: list[str]
) -> None:
    for action in actions:
        entry = journal.entries[action.key]
        if entry.before is None and isinstance(action, LinkSet | SysctlSet):
            was_ours = True  # the thing did not exist: nothing to put back
        else:
            was_ours = door.undo(entry.action, entry.before)
        (undone if was_ours else left).append(describe(action))
        journal.forget(action.key)
