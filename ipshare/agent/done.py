"""done: what a pass of the reconciler did, as the agent answers, and what may not be undone."""

from __future__ import annotations

from typing import Any

from ipshare.agent.assignment import Assignment
from ipshare.agent.confirm import State
from ipshare.agent.reconcile import Done
from ipshare.errors import Refused


def result(done: Done) -> dict[str, Any]:
    return {
        "generation": done.generation,
        "changes": done.changes,
        "copies": done.copies,
        "routes": list(done.routes),
        "engine_started": done.engine_started,
        "changed": not done.is_empty,
    }


def check_rollback(state: State, assignment: Assignment) -> None:
    """Raises Refused where the configuration before may hold an older assignment: a trial never does."""
    if assignment.is_there and state.trial is None:
        raise Refused(
            "a director assigns what this node does: a rollback here would undo that",
            hint="apply the file that you want, or change what the director has",
        )
