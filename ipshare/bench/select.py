"""select: runs the parts of the benchmark that were asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ipshare.bench import SELECTIONS
from ipshare.bench.result import Progress, Result
from ipshare.errors import IpshareError


def run(selection: Sequence[str] | None, progress: Progress, *, quick: bool) -> list[Result]:
    """See ``ipshare.bench.run``."""
    unknown = [name for name in selection or () if name not in SELECTIONS]
    if unknown:
        raise IpshareError(f"no benchmark is called {unknown[0]}", hint=f"one of {', '.join(SELECTIONS)}")
    results: list[Result] = []
    for name in selection or SELECTIONS:
        try:
            results += _part(name, progress, quick=quick)
        except IpshareError as error:
            if selection:
                raise
            progress(f"{name}: not measured: {error.message}")
    return results


def _part(name: str, progress: Progress, *, quick: bool) -> list[Result]:
    # Imported here: each part needs other things, and the command has to start quickly.
    if name == "core":
        from ipshare.bench import core, sessions

        million, repeats = (100_000, 7) if quick else (core.MILLION, core.REPEATS)
        tracked = sessions.figures(progress, million=million, repeats=repeats)
        return [*core.figures(progress, million=million, repeats=repeats), *tracked]
    if name == "tables":
        from ipshare.bench import programming

        million, repeats = (100_000, 2) if quick else (programming.MILLION, 3)
        return list(programming.figures(progress, million=million, repeats=repeats))
    if name == "mirror":
        from ipshare.bench import mirror

        million, repeats = (100_000, 2) if quick else (mirror.MILLION, mirror.REPEATS)
        return list(mirror.figures(progress, million=million, repeats=repeats))
    if name == "remap":
        from ipshare.bench import remap

        million, repeats = (100_000, 3) if quick else (remap.MILLION, remap.REPEATS)
        return list(remap.figures(progress, million=million, repeats=repeats))
    from ipshare.bench import forwarding

    if os.geteuid() != 0:
        raise IpshareError("network namespaces need root", hint="run it as root")
    rounds, seconds = (3, 0.2) if quick else (forwarding.ROUNDS, 0.5)
    return list(forwarding.figures(progress, rounds=rounds, seconds=seconds))
