"""The plan from what VPP has to what it shall have. Pure: values in, ordered steps out.

Only what we made (``made``, from the journal and from tags) is removed. What has to go for something else to
change (addresses, before an interface can change its table) goes first and comes back after; new parts come
before unwanted routes are taken away. A plan interrupted anywhere is simply made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from ipshare.engine.vpp.ports import (
    RANK,
    SEVERAL,
    Admin,
    FoundPort,
    InTable,
    Mac,
    Mtu,
    Part,
    Quiet,
    RxMode,
    Slot,
    StaticRoute,
    describe,
)
from ipshare.errors import Refused


@dataclass(frozen=True, slots=True)
class Step:
    """One change. ``before``: the part that had its slot, which comes back when this one is removed."""

    verb: Literal["add", "remove"]
    part: Part
    before: Part | None = None

    def __str__(self) -> str:
        return describe(self.part) if self.verb == "add" else f"undone: {describe(self.part)}"


def plan(actual: Set[Part], made: Mapping[Part, Part | None], wanted: Sequence[Part]) -> list[Step]:
    """``actual``: all parts that VPP has, as far as they concern ``made`` and ``wanted``. ``made``: what we
    made, and what was there before. ``wanted``: all that shall be there.

    Raises Refused where VPP lacks an interface that is not ours to make, or where a slot is somebody else's.
    """
    by_slot = {part.slot: part for part in actual}
    slots = {part.slot for part in wanted}
    missing = [part for part in wanted if part not in actual and not _is_so_anyway(part, by_slot)]
    for part in missing:
        _check(part, by_slot.get(part.slot), made)
    unwanted = {part for part in made if part in actual and part.slot not in slots}
    replaced = {by_slot[part.slot] for part in missing if part.slot in by_slot and not part.can_change} - {
        *wanted
    }
    disturbed = {part.slot for part in missing if part.can_change and part.slot in by_slot}
    fallen = _fallen(actual, {part.slot for part in unwanted | replaced} | disturbed, {*made, *wanted})
    gone = unwanted | replaced | fallen
    late = {part for part in unwanted - fallen if isinstance(part, StaticRoute)}
    adds = sorted({*missing, *(gone & {*wanted})}, key=_order(wanted))
    return [
        *(_remove(part, made) for part in _backwards(gone - late) if not _goes_with_its_port(part, gone)),
        *(Step("add", part, _before(part, by_slot, made)) for part in adds),
        *(_remove(part, made) for part in _backwards(late)),
    ]


def undo(actual: Set[Part], made: Mapping[Part, Part | None]) -> list[Step]:
    """Everything that we made goes."""
    return plan(actual, made, [])


def _is_so_anyway(part: Part, by_slot: Mapping[Slot, Part]) -> bool:
    """However VPP came by an interface that shall just be there; and a new one is in table 0."""
    if isinstance(part, InTable) and part.table == 0:
        return ("port", part.port) not in by_slot
    return isinstance(part, FoundPort) and part.slot in by_slot


def _check(part: Part, there: Part | None, made: Mapping[Part, Part | None]) -> None:
    if isinstance(part, FoundPort) and there is None:
        raise Refused(
            f"VPP has no interface {part.port}",
            hint="correct its name, give it a `host`, or make it in VPP's startup.conf",
        )
    if there is not None and there not in made and (not part.can_change or _is_complex(there)):
        raise Refused(
            f"VPP has something else in the place of {describe(part)}: {describe(there)}",
            hint="remove it, or choose another name or number",
        )


def _is_complex(part: Part) -> bool:
    """A route that could not be put back."""
    return isinstance(part, StaticRoute) and part.via == SEVERAL


def _fallen(actual: Set[Part], slots: set[Slot], concerned: Set[Part]) -> set[Part]:
    """The parts that cannot stay while ``slots`` are emptied or changed: each names all that it hangs on."""
    return {part for part in actual if part in concerned and slots.intersection(part.needs)}


def _goes_with_its_port(part: Part, gone: set[Part]) -> bool:
    """Such a property needs no undoing where its interface is removed."""
    if isinstance(part, Admin | Mac | Mtu | RxMode | Quiet | InTable):
        return getattr(part, "table", 0) == 0 and any(other.slot == ("port", part.port) for other in gone)
    return False


def _before(part: Part, by_slot: Mapping[Slot, Part], made: Mapping[Part, Part | None]) -> Part | None:
    """What stands there now; if we put it there, what stood there before us."""
    there = by_slot.get(part.slot)
    if there is None or there == part or not part.can_change:
        return None
    return made.get(there, there)


def _remove(part: Part, made: Mapping[Part, Part | None]) -> Step:
    return Step("remove", part, made.get(part))


def _order(wanted: Sequence[Part]) -> Callable[[Part], tuple[int, int]]:
    return {part: (RANK[type(part)], index) for index, part in enumerate(wanted)}.__getitem__


def _backwards(parts: Set[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: (-RANK[type(part)], describe(part)))
