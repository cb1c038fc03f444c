"""All bindings of a site as rows of one array: those of its bindings files, and the [[binding]] tables.

The latter are there to be compared with the former; they are known by `source` TOML, and `line` is their
index. What a row means is not looked at here (bulk_check).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.config import schema
from ipshare.config.bulk import Parsed, parse, prefix_of, unreadable
from ipshare.config.bulk_read import read_columns
from ipshare.config.resolve import readable
from ipshare.config.site import Site
from ipshare.errors import Problem
from ipshare.model import BINDING_ROW, NO_NAME, TRACKINGS, BindingKind, BindingSet, Place, packed, unpacked

Rows = npt.NDArray[Any]
TOML = 0xFFFFFFFF


class Merged:
    """The rows, the lengths of their local prefixes (0: none), the names that they refer to by number."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.rows: Rows = np.zeros(0, BINDING_ROW)
        self.local_len: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.files: list[Path] = []
        self.targets: list[str] = []
        self.copies: list[str] = []
        self.problems: list[Problem] = []
        self._add_toml()  # first: of two equal prefixes the first one counts
        for table in readable(site.bindings_file, "path"):
            self._add_file(table)

    def place(self, index: int) -> Place:
        """Where a row was written."""
        row = self.rows[index]
        if row["source"] == TOML:
            return self.site.document.place(("binding", int(row["line"])))
        return Place(self.files[row["source"]], int(row["line"]))

    def problem(self, index: int, key: str, message: str, hint: str) -> Problem:
        """A mistake in one row."""
        row = self.rows[index]
        if row["source"] == TOML:
            return self.site.document.problem(("binding", int(row["line"]), key), message, hint)
        return Problem(str(self.files[row["source"]]), int(row["line"]), 0, key, message, hint)

    def in_order(self, one: int, other: int) -> tuple[int, int]:
        """Two rows: first what is in the TOML, then by file and line."""

        def rank(index: int) -> tuple[int, int]:
            source = int(self.rows["source"][index])
            return (-1 if source == TOML else source), int(self.rows["line"][index])

        return (one, other) if rank(one) <= rank(other) else (other, one)

    def table(self, index: int) -> schema.Binding:
        """A row as the [[binding]] that it would be in TOML."""
        row, local_len = self.rows[index], int(self.local_len[index])
        kind = int(row["kind"])
        data: dict[str, Any] = {"global": prefix_of(row)}
        if kind == BindingKind.ENDPOINT:
            data["to"] = self.targets[row["target"]]
            if local_len:
                data["local"] = f"{unpacked(row['local'].tobytes(), int(row['local_family']))}/{local_len}"
        elif kind == BindingKind.POLICY:
            data["policy"] = self.targets[row["target"]]
        else:
            data["here" if kind == BindingKind.HERE else "down"] = True
        if row["copy"] != NO_NAME:
            data["copy"] = self.copies[row["copy"]]
        if row["tracking"]:
            data["track"], data["observe"] = "always", TRACKINGS[row["tracking"]].value
        binding = schema.Binding.model_validate(data)
        binding._path = ("row",)
        return binding

    def _add_file(self, table: schema.BindingsFile) -> None:
        key = (*table._path, "path")
        path = self.site.document.place(key).file.parent / table.path
        try:
            columns = read_columns(path)
        except OSError as error:
            found = unreadable(path, error)
            self.problems.append(self.site.document.problem(key, found.message, found.hint))
            return
        parsed = parse(columns)
        self.problems += parsed.problems
        self._add(parsed, len(self.files))
        self.files.append(path)
        self.site.document.files.append(path)

    def _add_toml(self) -> None:
        rows, lengths = [np.zeros(0, BINDING_ROW)], []
        names: dict[str, int] = {}
        for index, binding in enumerate(self.site.binding):
            if binding._broken or not (binding.to or binding.policy or binding.here or binding.down):
                continue
            target = binding.to or binding.policy
            number = names.setdefault(target, len(names)) if target is not None else NO_NAME
            rows.append(_toml_row(binding, index, number))
            lengths.append(binding.local.prefixlen if binding.local is not None else 0)
        found = BindingSet(np.concatenate(rows), tuple(names), (), ())
        self._add(Parsed(found, np.array(lengths, np.uint8), []), TOML)

    def _add(self, parsed: Parsed, source: int) -> None:
        rows = parsed.bindings.rows
        rows["source"] = source
        for column, ours, theirs in (
            ("target", self.targets, parsed.bindings.targets),
            ("copy", self.copies, parsed.bindings.copies),
        ):
            ours += [name for name in theirs if name not in ours]
            table = np.array([ours.index(name) for name in theirs] + [NO_NAME], np.uint32)
            rows[column] = table[np.where(rows[column] == NO_NAME, len(theirs), rows[column])]
        self.rows = np.concatenate([self.rows, rows]) if len(self.rows) else rows
        self.local_len = np.concatenate([self.local_len, parsed.local_len])


def _toml_row(binding: schema.Binding, index: int, target: int) -> Rows:
    row = np.zeros(1, BINDING_ROW)
    row["global"] = np.frombuffer(packed(binding.prefix.network_address), np.uint8)
    row["family"], row["prefix_len"] = binding.prefix.version, binding.prefix.prefixlen
    row["kind"] = (
        BindingKind.HERE if binding.here else BindingKind.DOWN if binding.down else BindingKind.POLICY
    )
    if binding.to:
        row["kind"] = BindingKind.ENDPOINT
        if binding.local is not None:
            row["local"] = np.frombuffer(packed(binding.local.network_address), np.uint8)
            row["local_family"] = binding.local.version
    row["target"], row["copy"], row["line"] = target, NO_NAME, index
    return row
