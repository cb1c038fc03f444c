"""programming: how long tables take into the data path: from arrays, from a file, and by changes.

Wall-clock seconds in this process, best of a few runs. What a packet notices of it is the commit: one store.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ipshare.bench import sites
from ipshare.bench.result import Progress, Result
from ipshare.config.bulk import import_bindings
from ipshare.core import LoadError, Worker, ffi, lib
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables, pack

MILLION = 1_000_000
_SEED = 9


class _Tables(Worker):
    """Prepare and commit apart, which ``load`` does together."""

    def prepare(self, image: bytearray) -> int:
        status = ffi.new("struct ips_load_status *")
        generation = int(lib.ips_tables_prepare(self._tables, ffi.from_buffer(image), len(image), status))
        if not generation:
            raise LoadError(status.error, status.section, status.index)
        return generation

    def commit(self, generation: int) -> None:
        lib.ips_tables_commit(self._tables, generation)

    def reclaim(self) -> None:
        lib.ips_tables_reclaim(self._tables)


def _best(work: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _build(family: int, n: int, repeats: int) -> Iterator[Result]:
    tables = sites.site(family, n)
    arrays = _best(lambda: sites.bindings(family, n), repeats)
    image = pack(tables)
    packed = _best(lambda: pack(tables), repeats)
    prepared, committed = [], []
    for _ in range(repeats):
        with _Tables() as worker:
            begin = time.perf_counter()
            generation = worker.prepare(image)
            middle = time.perf_counter()
            worker.commit(generation)
            prepared.append(middle - begin)
            committed.append(time.perf_counter() - middle)
    at = f"tables.v{family}.{_short(n)}"
    yield Result(f"{at}.arrays", arrays, "s")
    yield Result(f"{at}.pack", packed, "s")
    yield Result(f"{at}.prepare", min(prepared), "s")
    yield Result(f"{at}.commit", min(committed), "s")
    yield Result(f"{at}.build", arrays + packed + min(prepared) + min(committed), "s")


def _short(n: int) -> str:
    return f"{n // 1_000_000}m" if n >= 1_000_000 else f"{n // 1000}k" if n >= 1000 else str(n)


def _moved(tables: Tables, count: int) -> Tables:
    """The same with ``count`` bindings, spread over all, at another end point."""
    bindings = tables.bindings.copy()
    rows = np.random.default_rng(_SEED).choice(len(bindings), count, replace=False)
    bindings["local"][rows, 1] |= 0x08  # another offset, in no one's way
    bindings["target"][rows] = (bindings["target"][rows] + 1) % sites.ENDPOINTS
    return replace(tables, bindings=bindings)


def _changes(n: int, repeats: int) -> Iterator[Result]:
    tables = sites.site(4, n)
    evacuated = replace(tables, endpoints=tables.endpoints.copy())
    evacuated.endpoints["local"][:, 0] = 11
    at = f"tables.v4.{_short(n)}"
    with _Tables() as worker:
        worker.load(pack(tables))
        live = worker.info()["generation"]
        for name, count in (("1", 1), ("1k", 1000)):
            moved, diffs, applies = _moved(tables, count), [], []
            for _ in range(repeats):
                for actual, desired in ((tables, moved), (moved, tables)):
                    begin = time.perf_counter()
                    plan = diff(actual, desired)
                    middle = time.perf_counter()
                    live = worker.load(plan.image(live))
                    diffs.append(middle - begin)
                    applies.append(time.perf_counter() - middle)
            yield Result(f"{at}.diff.{name}", min(diffs), "s")
            yield Result(f"{at}.delta.{name}", min(applies), "s")
        evacuations = []
        for i in range(repeats):
            image = pack(
                evacuated if i % 2 == 0 else tables, changes=tables.bindings[:0], base_generation=live
            )
            begin = time.perf_counter()
            live = worker.load(image)
            evacuations.append(time.perf_counter() - begin)
        yield Result(f"{at}.evacuation", min(evacuations), "s")


def _import(n: int) -> Iterator[Result]:
    """A bindings file with ``n`` rows."""
    with tempfile.TemporaryDirectory(prefix="ipshare-") as scratch:
        file = Path(scratch) / "bindings.csv"
        rows = (
            f"100.{64 + (i >> 16)}.{i >> 8 & 255}.{i & 255}/32,A,10.{i >> 16}.{i >> 8 & 255}.{i & 255}"
            for i in range(n)
        )
        file.write_text("global,to,local\n" + "\n".join(rows) + "\n")
        begin = time.perf_counter()
        import_bindings(file)
        yield Result(f"tables.v4.{_short(n)}.import", time.perf_counter() - begin, "s")


def figures(progress: Progress, *, million: int = MILLION, repeats: int = 3) -> Iterator[Result]:
    """Building, changing and importing tables of ``million`` bindings."""
    for family in (4, 6):
        progress(f"tables.v{family}: build")
        yield from _build(family, million, repeats)
    progress("tables: changes")
    yield from _changes(million, repeats)
    progress("tables: import")
    yield from _import(million)
