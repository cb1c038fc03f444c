"""bench: how fast this machine translates: the core, its tables, the mirror, and the embedded engine
beside nftables.

``run`` returns figures, ``main`` is ``ipshare bench``. Absolute figures belong to one machine; ratios to a
peer measured in the same run are what ``perf/`` asserts and what two machines can compare.
docs/performance.md says what each figure means.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipshare.bench.result import Progress, Result

__all__ = ["Progress", "Result", "main", "run"]

SELECTIONS = ("core", "tables", "mirror", "remap", "forwarding")


def run(
    selection: Sequence[str] | None = None, *, progress: Progress | None = None, quick: bool = False
) -> list[Result]:
    """The figures of ``selection`` (of SELECTIONS; None: all that can be measured here).

    ``quick``: a tenth of the bindings and fewer repetitions, under half a minute. Without root, nft or a
    compiler "forwarding" is left out, with a word to ``progress``; if it was asked for: IpshareError.
    """
    from ipshare.bench import select

    return select.run(selection, progress or (lambda _line: None), quick=quick)


def main(arguments: Sequence[str] = ()) -> int:
    """``ipshare bench [core|tables|mirror|forwarding ...] [--quick] [--json]``; an exit code."""
    from ipshare.bench import command

    return command.main(list(arguments))
