"""noted: what a warden keeps in the store under its names, read again at its start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ipshare.director.failover import Case
from ipshare.errors import IpshareError
from ipshare.exclusive.grants import Grant

NOTES = "warden/"
"""How the names of what is in the store begin."""
BEGAN = "failovers"
"""Key of the times at which automatic failovers began lately, in the store."""


@dataclass(slots=True)
class Noted:
    """Who has which workload, what is down and what is done about it, when failovers began (pace)."""

    grants: dict[str, Grant] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)
    began: str = ""


def read(notes: Mapping[str, str]) -> Noted:
    """Of ``notes``, by their whole names. Raises IpshareError where one is damaged: without it a workload
    that somebody has might be given to another one."""
    found = Noted()
    for key, text in notes.items():
        kind, _, name = key.removeprefix(NOTES).partition("/")
        try:
            if kind == "grant":
                found.grants[name] = Grant(**json.loads(text))
            elif kind == "case":
                found.cases[name] = Case.of_json(json.loads(text))
            elif kind == BEGAN:
                found.began = text
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise IpshareError(
                f"the store's note {key!r} is damaged: {error}",
                hint="put back a copy of the store, and start with --least-term "
                "(docs/director.md, Whose word counts)",
            ) from None
    return found
