"""copies: the IDS copies of a configuration (S1.16) as taps of an engine, and those brought in line.

A tap that was started carries no name, so which copy it serves is kept in runtime_dir/copies.json, valid
for one run of the engine. One copy alone takes every marked packet; of several, each takes the counter
cells of its bindings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ipshare.engine.capture import Capturing, TapRule, ToCollector, ToFile, ToInterface
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import BINDING, Records
from ipshare.errors import IpshareError, NoPrivilege, Refused
from ipshare.model import Config, Copy, Prefix, packed

MAX_TAPS = 8


class CopyEngine(Engine, Capturing, Protocol):
    """What copies need of an engine."""


ANY = (0, 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One tap. cells: (first, count) of counter cells, ANY for every marked packet."""

    copy: Copy
    cells: tuple[int, int]

    @property
    def key(self) -> str:
        copy = self.copy
        target = copy.interface or copy.file or copy.collector
        return f"{copy.name} {target} 1/{copy.sample_every} {copy.snaplen} {self.cells}"


def wanted(config: Config, engine: CopyEngine) -> list[Wanted]:
    """The taps that the configuration asks for. Raises Refused where the engine cannot have so many."""
    if len(config.copies) <= 1:
        return [Wanted(copy, ANY) for copy in config.copies]
    taps = [
        Wanted(copy, cells) for copy in config.copies for cells in _ranges(engine, _records(config, copy))
    ]
    if len(taps) > MAX_TAPS:
        raise Refused(
            f"the copies need {len(taps)} captures, and the engine runs {MAX_TAPS}",
            hint="use one copy for all, or give copies to prefixes that lie side by side",
        )
    return taps


def align(engine: CopyEngine, config: Config, memory: Path) -> int:
    """Starts and ends taps until they are as wanted; returns how many it started or ended."""
    want = {tap.key: tap for tap in wanted(config, engine)}
    boot_id = engine.info().boot_id
    alive = {tap.id for tap in engine.taps() if tap.is_active}
    have = {key: number for key, number in known(memory, boot_id).items() if number in alive}
    changed = 0
    for key in have.keys() - want.keys():
        engine.stop_tap(have.pop(key))
        _remember(memory, boot_id, have)
        changed += 1
    for key in want.keys() - have.keys():
        have[key] = _start(engine, want[key])
        _remember(memory, boot_id, have)
        changed += 1
    return changed


def copy_status(engine: CopyEngine, config: Config) -> list[dict[str, Any]]:
    """The configured copies as JSON values: name, target, runs, packets, bytes, lost (of all its taps)."""
    have = known(config.node.runtime_dir / "copies.json", engine.info().boot_id)
    states = {tap.id: tap for tap in engine.taps()}
    rows: dict[str, dict[str, Any]] = {}
    for tap in wanted(config, engine):
        copy, state = tap.copy, states.get(have.get(tap.key, 0))
        target = copy.interface or (
            str(copy.file) if copy.file else "{} port {}".format(*copy.collector or ())
        )
        empty = {"name": copy.name, "target": target, "runs": True, "packets": 0, "bytes": 0, "lost": 0}
        row = rows.setdefault(copy.name, empty)
        row["runs"] = row["runs"] and state is not None and state.is_active
        if state is not None:
            row["packets"] += state.packets
            row["bytes"] += state.bytes
            row["lost"] += state.lost
    return list(rows.values())


def known(memory: Path, boot_id: str) -> dict[str, int]:
    """Taps by key, as they were started by an agent in this run of the engine."""
    try:
        record: dict[str, Any] = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    taps: dict[str, int] = record["taps"] if record.get("boot_id") == boot_id else {}
    return taps


def _remember(memory: Path, boot_id: str, taps: dict[str, int]) -> None:
    aside = memory.with_suffix(".new")
    aside.write_text(json.dumps({"boot_id": boot_id, "taps": taps}))
    aside.replace(memory)


def _start(engine: CopyEngine, tap: Wanted) -> int:
    copy, fd = tap.copy, -1
    target: ToFile | ToInterface | ToCollector
    if copy.file is not None:
        fd = _open(copy.file)
        target = ToFile(fd)
    elif copy.collector is not None:
        target = ToCollector(*copy.collector)
    else:
        target = ToInterface(copy.interface or "")
    rule = TapRule(
        target,
        what="marked",
        sample=copy.sample_every,
        snaplen=copy.snaplen,
        cells=None if tap.cells == ANY else tap.cells,
        owned=False,
    )
    try:
        return engine.start_tap(rule).id
    finally:
        if fd >= 0:
            os.close(fd)


def _open(path: Path) -> int:
    """Appending: sections of pcapng may follow each other in one file."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError:
        raise NoPrivilege(f"may not write the copy file {path}", hint="run as root") from None
    except OSError as error:
        raise IpshareError(f"cannot write the copy file {path}: {error.strerror}") from error


def _records(config: Config, copy: Copy) -> Records:
    """Binding records (prefix alone) that name the copy."""
    records = [np.zeros(0, BINDING), *(_record(b.prefix) for b in config.bindings if b.copy == copy.name)]
    if config.bulk is not None and copy.name in config.bulk.copies:
        rows = config.bulk.rows[config.bulk.rows["copy"] == config.bulk.copies.index(copy.name)]
        many = np.zeros(len(rows), BINDING)
        for name in ("global", "family", "prefix_len"):
            many[name] = rows[name]
        records.append(many)
    return np.concatenate(records)


def _record(prefix: Prefix) -> Records:
    record = np.zeros(1, BINDING)
    record["global"] = np.frombuffer(packed(prefix.network_address), np.uint8)
    record["family"], record["prefix_len"] = prefix.version, prefix.prefixlen
    return record


def _ranges(engine: CopyEngine, records: Records) -> Iterator[tuple[int, int]]:
    """Counter cells of the records, neighbours joined."""
    first, span = engine.counter_cells(records)
    has_cell = first != 0xFFFFFFFF
    pairs: Iterable[tuple[int, int]] = sorted(
        zip(first[has_cell].tolist(), span[has_cell].tolist(), strict=True)
    )
    start = end = -1
    for cell, count in pairs:
        if cell > end:
            if end > start:
                yield start, end - start
            start, end = cell, cell + count
        else:
            end = max(end, cell + count)
    if end > start:
        yield start, end - start
