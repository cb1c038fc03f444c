"""assigned: what a director assigned to a node, as a part of the node's configuration.

An assignment is TOML text with tables of a site file, those that belong to the whole installation (KINDS) and
no others: a director cannot reach a node's engine, interfaces, files or hooks. With [remote] in the main
file, the text in state_dir/director.toml is read as if it were included, by everybody who reads the main
file: agent, `check`, `diff`, Python. One place, one rule; its mistakes have file and line as all have.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from ipshare.config.read import Document, add, text_of
from ipshare.errors import Problem
from ipshare.model import Place

FILE = "director.toml"
KINDS = ("network", "endpoint", "distribution", "policy", "binding")


def include(document: Document, text: str | None = None) -> None:
    """Adds the assignment to a main file that was read. ``text``: one that is not in the file yet."""
    if "remote" not in document.data:
        return
    path = _path(document)
    if text is None:
        if path is None or not path.exists():
            return
        text = text_of(document, path, Place(document.main), "")
    if text is None:
        return
    path = path or document.main.with_name(FILE)
    strange = _strange(text)
    for key in strange:
        message = f"a director may not assign {key!r}"
        document.problems.append(Problem(str(path), 0, 0, key, message, f"it assigns {', '.join(KINDS)}"))
    if not strange:
        add(document, path, text)


def _path(document: Document) -> Path | None:
    node = document.data.get("node")
    folder = node.get("state_dir") if isinstance(node, dict) else None
    name = node.get("name") if isinstance(node, dict) else None
    if isinstance(folder, str) and folder:
        return Path(folder) / FILE
    return Path("/var/lib/ipshare") / name / FILE if isinstance(name, str) and "/" not in name else None


def _strange(text: str) -> list[str]:
    try:
        return [key for key in tomllib.loads(text) if key not in KINDS]
    except (ValueError, RecursionError):
        return []  # the reader says it, with its place
