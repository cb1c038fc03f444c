"""remap_view: a remap on a terminal, drawn with rich: its steps, what is left at the giver, who is late."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from ipshare.remap.text import DOING, count_line, doing

STEPS = tuple(step for step in Step if step not in (Step.NAMING, Step.DONE, Step.UNDOING, Step.UNDONE))


def panel(progress: Progress, view: View) -> Group:
    """Everything that is to be seen now."""
    plan, step = progress.plan, progress.step
    table = Table.grid(padding=(0, 1))
    at = STEPS.index(step) if step in STEPS else len(STEPS)
    words = {"giver": plan.giver, "taker": plan.taker, "origin": plan.origin}
    for number, each in enumerate(STEPS):
        mark, style = ("*", "bold") if number == at else ("+", "green") if number < at else (" ", "dim")
        table.add_row(Text(mark, style), Text(DOING[each].format(**words), style))
    lines: list[RenderableType] = [Text(f"remap {plan.id}: {plan}", "bold"), table]
    if step not in STEPS:
        lines.append(Text(f"{doing(progress)} {progress.reason}".strip(), "yellow"))
    if text := count_line(progress, view):
        lines.append(Text(text))
    parts = [*lines, *_bar(progress, view)]
    late = [Text(f"{point} has not flipped yet", "yellow") for point in progress.waits_for]
    silent = [Text(f"{node}: {why}", "yellow") for node, why in view.silent.items()]
    return Group(*parts, *(late if step is Step.FLIPPING else []), *silent)


def _bar(progress: Progress, view: View) -> list[ProgressBar]:
    """Connections that the giver has, of those that the taker was told of at the fence."""
    state = view.states.get(progress.plan.giver)
    if progress.step is not Step.DRAINING or state is None:
        return []
    most = max(state.flows, view.most)
    return [ProgressBar(total=max(most, 1), completed=most - state.flows, width=40)]
