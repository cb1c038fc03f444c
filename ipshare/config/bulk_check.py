"""Bindings files among networks, end points and policies: the checks of check_bindings, in NumPy.

The vector operations only find the rows that something is wrong with; what it is, in words, the check of a
single [[binding]] says, to which such a row is given. So there is one text for each mistake, and rows that
are good (all, as a rule) never become objects. Bindings of the TOML take part where rows are compared with
each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.config import bulk_claims as claims
from ipshare.config import check_bindings, checks, schema
from ipshare.config.bulk import Parsed, keys, parse, prefix_of, sort_order, unreadable
from ipshare.config.bulk_read import capped, read_columns
from ipshare.config.bulk_text import Bytes, host_mask
from ipshare.config.resolve import first_local, is_encapsulated, named, readable
from ipshare.config.site import Site
from ipshare.config.units import SCOPES
from ipshare.errors import Problem
from ipshare.model import (
    BINDING_ROW,
    NO_NAME,
    BindingKind,
    BindingSet,
    Place,
    Prefix,
    host_prefix,
    packed,
    unpacked,
)

Rows = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
_TOML = 0xFFFFFFFF  # `source` of rows that stand for a [[binding]]; `line` is its index


def bindings_files(site: Site) -> tuple[BindingSet, list[Problem], list[Problem]]:
    """All rows of all files, resolved and sorted; problems; warnings."""
    merged = _Bulk(site)
    for table in readable(site.bindings_file, "path"):
        merged.add_file(table)
    merged.add_toml()
    merged.resolve()
    merged.compare()
    return merged.result(), merged.problems, merged.warnings


@dataclass
class _Place:
    """One way to a local address: the rows that take it at a rewriting end point, and each row's local
    address.
    """

    endpoint: str
    rows: Mask
    local: Bytes


class _Bulk:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.rows: Rows = np.zeros(0, BINDING_ROW)
        self.local_len: Bytes = np.zeros(0, np.uint8)
        self.files: list[Path] = []
        self.targets: list[str] = []
        self.copies: list[str] = []
        self.places: list[_Place] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    # -- gathering

    def add_file(self, table: schema.BindingsFile) -> None:
        place = self.site.document.place((*table._path, "path"))
        path = place.file.parent / table.path
        try:
            columns = read_columns(path)
        except OSError as error:
            found = unreadable(path, error)
            self.problems.append(
                self.site.document.problem((*table._path, "path"), found.message, found.hint)
            )
            return
        self.site.document.files.append(path)
        parsed = parse(columns)
        self.problems += parsed.problems
        self._add(parsed, len(self.files))
        self.files.append(path)

    def add_toml(self) -> None:
        """[[binding]] tables that are whole, as rows; what they mean is resolved with the others."""
        rows, lengths = [], []
        targets, copies = tuple(self.targets), tuple(self.copies)
        names = list(targets)
        for index, binding in enumerate(self.site.binding):
            if binding._broken or not (binding.to or binding.policy or binding.here or binding.down):
                continue
            target = binding.to or binding.policy
            if target is not None and target not in names:
                names.append(target)
            rows.append(_toml_row(binding, index, names.index(target) if target is not None else NO_NAME))
            lengths.append(binding.local.prefixlen if binding.local is not None else 0)
        found = BindingSet(np.concatenate([np.zeros(0, BINDING_ROW), *rows]), tuple(names), copies, ())
        self._add(Parsed(found, np.array(lengths, np.uint8), []), _TOML)

    def _add(self, parsed: Parsed, source: int) -> None:
        rows = parsed.bindings.rows
        rows["source"] = source
        for column, mine, theirs in (
            ("target", self.targets, parsed.bindings.targets),
            ("copy", self.copies, parsed.bindings.copies),
        ):
            mine += [name for name in theirs if name not in mine]
            table = np.array([mine.index(name) for name in theirs] + [NO_NAME], np.uint32)
            rows[column] = table[np.where(rows[column] == NO_NAME, len(theirs), rows[column])]
        self.rows = np.concatenate([self.rows, rows])
        self.local_len = np.concatenate([self.local_len, parsed.local_len])

    # -- each row alone

    def resolve(self) -> None:
        """Local addresses and offsets; every row with a mistake is reported and left out."""
        rows, n = self.rows, len(self.rows)
        bad = np.zeros(n, np.bool_)
        offset = np.zeros((n, 16), np.uint8)
        in_network = np.zeros(n, np.bool_)
        for network in readable(self.site.network, "prefix"):
            inside = _inside(rows["global"], rows["family"], rows["prefix_len"], network.prefix)
            mask = _mask(network.prefix)
            offset[inside] = rows["global"][inside] & mask
            in_network |= inside
        if "network" not in self.site.incomplete and not any(
            "prefix" in t._broken for t in self.site.network
        ):
            bad |= ~in_network
        copies = np.array([named(self.site.copy, name) is None for name in self.copies] + [False], np.bool_)
        if "copy" not in self.site.incomplete:
            bad |= copies[np.where(rows["copy"] == NO_NAME, len(self.copies), rows["copy"])]
        for number, name in enumerate(self.targets):
            mine = rows["target"] == number
            bad |= self._endpoint(name, mine & (rows["kind"] == BindingKind.ENDPOINT), offset)
            bad |= self._policy(name, mine & (rows["kind"] == BindingKind.POLICY), offset)
        self._explain(np.flatnonzero(bad & (rows["source"] != _TOML)))
        good = ~bad
        for place in self.places:
            place.rows &= good
        self.bad = bad

    def _endpoint(self, name: str, mine: Mask, offset: Bytes) -> Mask:
        """Fills `local` of the rows `mine`, bound to one end point; returns those that do not fit."""
        rows, endpoint = self.rows, named(self.site.endpoint, name)
        bad = np.zeros(len(rows), np.bool_)
        if not mine.any() or endpoint is None or {"path", "local"} & endpoint._broken:
            return mine if endpoint is None and "endpoint" not in self.site.incomplete else bad
        if is_encapsulated(endpoint):
            rows["local"][mine], rows["local_family"][mine] = 0, 0
            return bad
        local = rows["local"].copy()
        given = mine & (rows["local_family"] != 0)
        bad |= given & ((rows["local_family"] != rows["family"]) | (self.local_len != rows["prefix_len"]))
        own = np.zeros(len(rows), np.bool_)
        for prefix in endpoint.local:
            own |= _inside(rows["local"], rows["local_family"], self.local_len, prefix)
        foreign = given & ~own
        if foreign.any():
            bad |= foreign & self._unfit(endpoint)
            rows["kind"][foreign] = BindingKind.ADDRESS
            self._warn_foreign(name, foreign & ~bad & (rows["source"] != _TOML))
        for family in (4, 6):
            default = mine & (rows["local_family"] == 0) & (rows["family"] == family)
            base = first_local(endpoint, family)
            fits = _fits(default, rows, offset, base)
            if endpoint.local:  # without any, the end point itself is the mistake
                bad |= default & ~fits
            if base is not None:
                local[fits] = offset[fits] | np.frombuffer(packed(base.network_address), np.uint8)
                rows["local_family"][fits] = family
        rows["local"] = local
        self.places.append(_Place(name, mine & (rows["local_family"] != 0) & ~bad, local))
        return bad

    def _unfit(self, endpoint: schema.Endpoint) -> Mask:
        """Given local prefixes of bad scope, in or around a Global Network, or around a local network."""
        rows = self.rows
        unfit = np.zeros(len(rows), np.bool_)
        around = [network.prefix for network in readable(self.site.network, "prefix")]
        for prefix in (*around, *endpoint.local, *(scope for scope, _ in SCOPES)):
            unfit |= _overlaps(rows["local"], rows["local_family"], self.local_len, prefix)
        return unfit

    def _policy(self, name: str, mine: Mask, offset: Bytes) -> Mask:
        rows, policy = self.rows, named(self.site.policy, name)
        bad = np.zeros(len(rows), np.bool_)
        if not mine.any() or policy is None or "members" in policy._broken:
            return mine if policy is None and "policy" not in self.site.incomplete else bad
        rows["local"][mine] = offset[mine]
        for member in policy.members:
            endpoint = named(self.site.endpoint, member.endpoint)
            if endpoint is None or {"path", "local"} & endpoint._broken or not endpoint.local:
                continue
            for family in (4, 6) if not is_encapsulated(endpoint) else ():
                base, here = first_local(endpoint, family), mine & (rows["family"] == family)
                fits = _fits(here, rows, offset, base)
                bad |= here & ~fits
                if base is not None and fits.any():
                    local = offset | np.frombuffer(packed(base.network_address), np.uint8)
                    self.places.append(_Place(member.endpoint, fits, local))
        return bad

    def _warn_foreign(self, name: str, rows: Mask) -> None:
        found = np.flatnonzero(rows)
        if len(found):
            place = self._at(self.rows[found[0]])
            count = (
                "1 row has a local address" if len(found) == 1 else f"{len(found)} rows have local addresses"
            )
            message = f"{count} outside of the local networks of end point {name!r}, this one first"
            hint = "right only if it is routed there by other means"
            self.warnings.append(Problem(str(place.file), place.line, 0, "local", message, hint))

    def _explain(self, bad: npt.NDArray[np.int64]) -> None:
        """Gives rows to the checks of a single binding, a hundred of each file at most."""
        for source, path in enumerate(self.files):
            mine = bad[self.rows["source"][bad] == source]
            problems: list[Problem] = []
            for row in mine[:100]:
                problems += self._row_problems(path, int(row))
            self.problems += capped(problems, len(problems) + max(0, len(mine) - 100))

    def _row_problems(self, path: Path, index: int) -> Iterator[Problem]:
        row, found = self.rows[index], False
        binding = self._binding(row, int(self.local_len[index]))
        run = checks.run_one(self.site, binding, check_bindings.CHECKS["binding"])
        for finding in run:
            if not finding.is_warning:
                found = True
                key = str(finding.path[-1]) if len(finding.path) > 1 else ""
                yield Problem(str(path), int(row["line"]), 0, key, finding.message, finding.hint)
        assert found, f"a row that is not explained: {binding}"

    def _binding(self, row: Any, local_len: int) -> schema.Binding:
        """A row as the table that it would be in TOML."""
        family, kind = int(row["family"]), int(row["kind"])
        data: dict[str, Any] = {"global": prefix_of(row), "here": kind == BindingKind.HERE}
        data["down"] = kind == BindingKind.DOWN
        if kind in (BindingKind.ENDPOINT, BindingKind.ADDRESS):
            data["to"] = self.targets[row["target"]]
            if local_len:
                data["local"] = f"{unpacked(row['local'].tobytes(), int(row['local_family']))}/{local_len}"
        elif kind == BindingKind.POLICY:
            data["policy"] = self.targets[row["target"]]
        if row["copy"] != NO_NAME:
            data["copy"] = self.copies[row["copy"]]
        assert family in (4, 6)
        binding = schema.Binding.model_validate(data)
        binding._path = ("row",)
        return binding

    # -- rows against each other

    def compare(self) -> None:
        """Equal prefixes, local addresses claimed twice, tunnel addresses claimed."""
        order = sort_order(self.rows)
        key = keys(self.rows[order])
        again = np.flatnonzero(key[1:] == key[:-1]) + 1
        pairs = [(int(order[i - 1]), int(order[i])) for i in again]
        found = []
        for first, second in pairs[:100]:
            first, second = self._in_order(first, second)
            message = (
                f"{prefix_of(self.rows[second])} is bound a second time: first at "
                f"{self._at(self.rows[first])}"
            )
            hint = "leave one of them; for several end points make a policy"
            found.append(self._problem(second, "global", message, hint))
        self.problems += capped(found, len(pairs))
        once = np.ones(len(self.rows), np.bool_)
        once[order[again]] = False
        self._claims(once & ~self.bad)

    def _claims(self, usable: Mask) -> None:
        names = sorted({place.endpoint for place in self.places})
        for family in (4, 6):
            chosen = np.flatnonzero(usable & (self.rows["family"] == family))
            if not len(chosen):
                continue
            rows = self.rows[chosen]
            segments = claims.effective(rows)
            made = claims.joined(
                claims.moved(
                    segments, rows, place.rows[chosen], names.index(place.endpoint), place.local[chosen]
                )
                for place in self.places
            )
            pairs = list(claims.conflicts(made))
            found = []
            for before, after in pairs[:100]:
                owners = int(chosen[made.owner[before]]), int(chosen[made.owner[after]])
                found.append(
                    self._claimed(
                        *self._in_order(*owners), names[made.endpoint[after]], made.first.at(after), family
                    )
                )
            self.problems += capped(found, len(pairs))
            self._tunnels(made, names, chosen, family)

    def _claimed(self, first: int, second: int, name: str, local: claims.Wide, family: int) -> Problem:
        address = unpacked(local.high.astype(">u8").tobytes() + local.low.astype(">u8").tobytes(), family)
        row = self.rows[first]
        message = (
            f"local address {address} of end point {name!r} is claimed by {prefix_of(row)} "
            f"too ({self._at(row)})"
        )
        hint = f"give it another local address; many Global IPs at one address: {check_bindings.ENCAPSULATE}"
        return self._problem(second, "local", message, hint)

    def _tunnels(self, made: claims.Claims, names: list[str], chosen: Any, family: int) -> None:
        first, last = made.first.text(), made.last.text()
        for endpoint in readable(self.site.endpoint, "tunnel", "name"):
            for index, tunnel in enumerate(endpoint.tunnel):
                if tunnel.version != family or endpoint.name not in names:
                    continue
                at = np.bytes_(packed(tunnel))
                hit = np.flatnonzero(
                    (made.endpoint == names.index(endpoint.name)) & (first <= at) & (at <= last)
                )
                for claim in hit[:1]:
                    row = self.rows[chosen[made.owner[claim]]]
                    message = (
                        f"tunnel address {tunnel} is also the local address of a Global IP of "
                        f"{prefix_of(row)} "
                        f"({self._at(row)}), which cannot be reached"
                    )
                    hint = "take a tunnel address that no binding maps to"
                    alone = int(row["prefix_len"]) == host_prefix(tunnel).prefixlen
                    problem = self.site.document.problem((*endpoint._path, "tunnel", index), message, hint)
                    (self.problems if alone else self.warnings).append(problem)

    # -- what comes out

    def result(self) -> BindingSet:
        rows = self.rows[(self.rows["source"] != _TOML) & ~self.bad]
        return BindingSet(rows[sort_order(rows)], tuple(self.targets), tuple(self.copies), tuple(self.files))

    def _at(self, row: Any) -> Place:
        if row["source"] == _TOML:
            return self.site.document.place(("binding", int(row["line"])))
        return Place(self.files[row["source"]], int(row["line"]))

    def _in_order(self, one: int, other: int) -> tuple[int, int]:
        """First what is in the TOML, then by file and line."""

        def rank(index: int) -> tuple[int, int]:
            source = int(self.rows["source"][index])
            return (-1 if source == _TOML else source), int(self.rows["line"][index])

        return (one, other) if rank(one) <= rank(other) else (other, one)

    def _problem(self, index: int, key: str, message: str, hint: str) -> Problem:
        row = self.rows[index]
        if row["source"] == _TOML:
            return self.site.document.problem(("binding", int(row["line"]), key), message, hint)
        return Problem(str(self.files[row["source"]]), int(row["line"]), 0, key, message, hint)


def _toml_row(binding: schema.Binding, index: int, target: int) -> Rows:
    row = np.zeros(1, BINDING_ROW)
    row["global"] = np.frombuffer(packed(binding.prefix.network_address), np.uint8)
    row["family"], row["prefix_len"] = binding.prefix.version, binding.prefix.prefixlen
    row["kind"] = (
        BindingKind.HERE if binding.here else BindingKind.DOWN if binding.down else BindingKind.POLICY
    )
    if binding.to:
        row["kind"] = BindingKind.ENDPOINT
    if binding.to and binding.local is not None:
        row["local"] = np.frombuffer(packed(binding.local.network_address), np.uint8)
        row["local_family"] = binding.local.version
    row["target"], row["copy"], row["line"] = target, NO_NAME, index
    return row


def _mask(prefix: Prefix) -> Bytes:
    """(16,) the host bits of a prefix."""
    mask: Bytes = host_mask(np.array([prefix.prefixlen], np.uint8))[0]
    return mask


def _inside(address: Bytes, family: Any, length: Any, prefix: Prefix) -> Mask:
    """Rows whose prefix (address, family, length) is inside `prefix`."""
    base = np.frombuffer(packed(prefix.network_address), np.uint8)
    same: Mask = ((address & ~_mask(prefix)) == base).all(axis=1)
    same &= (family == prefix.version) & (length >= prefix.prefixlen)
    return same


def _overlaps(address: Bytes, family: Any, length: Any, prefix: Prefix) -> Mask:
    base = np.frombuffer(packed(prefix.network_address), np.uint8)
    around: Mask = ((base & ~host_mask(length)) == address).all(axis=1)
    around &= (family == prefix.version) & (length <= prefix.prefixlen)
    return _inside(address, family, length, prefix) | around


def _fits(rows_mine: Mask, rows: Rows, offset: Bytes, base: Prefix | None) -> Mask:
    """Rows whose offset and length fit into `base`."""
    if base is None:
        return np.zeros(len(rows), np.bool_)
    beyond = (offset & ~_mask(base)).any(axis=1)
    return rows_mine & ~beyond & (rows["prefix_len"] >= base.prefixlen)
