"""The command ``ipshare``.

``main`` -> app (which verb, what errors become) -> one small module for each group of verbs, imported when
it is used: ``ipshare --help`` loads neither NumPy nor pydantic nor the C core. Verbs print through output,
never directly; what they do is ipshare.api's business. Reference: docs/cli.md.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; returns its exit code (ipshare.cli.exits)."""
    from ipshare.cli.app import run

    return run(arguments)
