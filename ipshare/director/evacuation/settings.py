"""settings: [hazards] and [evacuation] of a director's file, judged with the rest of it.

[hazards] is the table of `ipshare hazards`, read by the same code; where there is none, nothing is watched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ipshare.config import some
from ipshare.config.read import Document
from ipshare.config.some import Finding
from ipshare.config.values import Duration, Table
from ipshare.errors import ConfigError
from ipshare.hazards import settings as hazards


class Evacuation(Table):
    """How a site or a node is left."""

    at_once: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=4, description="Groups that move at the same time; the next ones wait for all of them."
    )
    patience: Duration = Field(
        default=120.0,
        json_schema_extra={"default": "2m"},
        description="A group that has not arrived after so long is taken back. A live migration takes its "
        "own time; this is how long it may wait for nodes that are silent.",
    )
    not_live: Literal["stay", "cold"] = Field(
        default="stay",
        description="What becomes of a workload with [[migration]] that cannot be moved alive, or was not. "
        "stay: it stays where it runs, and has failed. cold: it goes as one without [[migration]] does.",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """``hazards``: None: no feed is asked."""

    at_once: int = 4
    patience_s: float = 120.0
    not_live: Literal["stay", "cold"] = "stay"
    hazards: hazards.Settings | None = None


def read(document: Document, node_patience_s: float) -> Settings:
    """Mistakes are added to the document's. ``node_patience_s``: [director] patience."""
    table = some.one(document, "evacuation", Evacuation) or Evacuation()
    some.note(document, _findings(table, node_patience_s))
    watched = None
    if "hazards" in document.data:
        with contextlib.suppress(ConfigError):  # its mistakes are the document's now
            watched = hazards.settings(document)
    if table._broken:
        return Settings(hazards=watched)
    return Settings(table.at_once, table.patience, table.not_live, watched)


def _findings(table: Evacuation, node_patience_s: float) -> Iterator[Finding]:
    if table.patience <= node_patience_s:
        text = f"a node may take {node_patience_s:g} s for what it is sent: groups would be taken back before"
        yield ("evacuation", "patience"), text, "make it several times [director] patience"
