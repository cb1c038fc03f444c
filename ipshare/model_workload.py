"""The noun of what a node runs on a director's lease (SYSTEMS.md S1.10). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ipshare.model_place import Place


@dataclass(frozen=True, slots=True)
class Workload:
    """How one exclusive workload is started, stopped and looked at here: programs and their arguments.
    ``fence``: makes sure that another node does not run it; empty: that cannot be done from here."""

    name: str
    start: tuple[str, ...]
    stop: tuple[str, ...]
    status: tuple[str, ...]
    fence: tuple[str, ...]
    stop_s: float  # a stop that takes longer has failed
    place: Place = field(compare=False)
    start_s: float = 600.0  # a start that takes longer has failed
