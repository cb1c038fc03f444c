"""Bindings files among networks, end points and policies: the checks of check_bindings, in NumPy.

The vector operations only find the rows that something is wrong with; what it is, in words, the check of a
single [[binding]] says, to which such a row is given. So there is one text for each mistake, and rows that
are good (all, as a rule) never become objects. Rows are then resolved as `build` does it for [[binding]]
tables: local addresses, kind ADDRESS, offsets of policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.config import bulk_claims, check_bindings, check_flows, checks, schema
from ipshare.config.bulk import keys, prefix_of, sort_order
from ipshare.config.bulk_merge import TOML, Merged
from ipshare.config.bulk_read import MOST_PROBLEMS, capped
from ipshare.config.bulk_wide import NONE, Wide, base_of, inside, mask_of, overlaps
from ipshare.config.resolve import first_local, is_encapsulated, named, readable
from ipshare.config.site import Site
from ipshare.config.units import SCOPES
from ipshare.errors import Problem
from ipshare.model import NO_NAME, BindingKind, BindingSet, Prefix, host_prefix, packed, unpacked

OBSERVED = {"inbound": 1, "both": 2}
"""Places in ipshare.model.TRACKINGS."""
Indexes = npt.NDArray[np.int64]


def bindings_files(site: Site) -> tuple[BindingSet, list[Problem], list[Problem]]:
    """All rows of all files, resolved and sorted; problems; warnings."""
    merged = Merged(site)
    check = _Check(site, merged)
    check.rows_alone()
    check.rows_together()
    rows = merged.rows
    rows["local"] = check.local.bytes()
    kept = rows[(rows["source"] != TOML) & ~check.bad]
    found = BindingSet(
        kept[sort_order(kept)], tuple(merged.targets), tuple(merged.copies), tuple(merged.files)
    )
    return found, merged.problems + check.problems, check.warnings


class _Check:
    def __init__(self, site: Site, merged: Merged) -> None:
        n = len(merged.rows)
        self.site, self.merged, self.rows = site, merged, merged.rows
        self.globals, self.local = Wide.of(self.rows["global"]), Wide.of(self.rows["local"])
        self.offset = Wide.zeros(n)
        self.bad = np.zeros(n, np.bool_)
        self.claiming = np.zeros(n, np.bool_)  # rewritten to `local` at the end point that is the target
        self.shared: list[tuple[Indexes, str, Wide]] = []  # rows of a policy, member, its base
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    # -- each row alone

    def rows_alone(self) -> None:
        self._networks()
        self._copies()
        self._tracked()
        order = np.argsort(self.rows["target"], kind="stable")
        ends = np.searchsorted(self.rows["target"][order], np.arange(len(self.merged.targets) + 1))
        kind = self.rows["kind"].copy()
        for number, name in enumerate(self.merged.targets):
            mine = order[ends[number] : ends[number + 1]]
            self._to_endpoint(name, mine[kind[mine] == BindingKind.ENDPOINT])
            self._to_policy(name, mine[kind[mine] == BindingKind.POLICY])
        self._explain(np.flatnonzero(self.bad & (self.rows["source"] != TOML)))
        self._resolve_kinds()

    def _networks(self) -> None:
        rows = self.rows
        covered = np.zeros(len(rows), np.bool_)
        for network in readable(self.site.network, "prefix"):
            here = inside(self.globals, rows["family"], rows["prefix_len"], network.prefix)
            self.offset.put(here, self.globals.at(here) & mask_of(network.prefix))
            covered |= here
        if "network" not in self.site.incomplete and not any(
            t._broken & {"prefix"} for t in self.site.network
        ):
            self.bad |= ~covered

    def _copies(self) -> None:
        if "copy" not in self.site.incomplete:
            unknown = [named(self.site.copy, name) is None for name in self.merged.copies]
            copy = self.rows["copy"]
            self.bad |= np.array([*unknown, False])[np.where(copy == NO_NAME, len(unknown), copy)]

    def _tracked(self) -> None:
        """Where something is to be tracked that cannot be; a policy's word counts for its rows."""
        rows = self.rows
        untranslated = np.isin(rows["kind"], (BindingKind.HERE, BindingKind.DOWN))
        self.bad |= (rows["tracking"] != 0) & (untranslated | checks.is_vpp(self.site))
        for number, name in enumerate(self.merged.targets):
            policy = named(self.site.policy, name)
            if policy is not None and not policy._broken & {"track", "observe"} and policy.track != "off":
                mine = (rows["kind"] == BindingKind.POLICY) & (rows["target"] == number)
                rows["tracking"][mine & (rows["tracking"] == 0)] = OBSERVED[policy.observe]

    def _to_endpoint(self, name: str, mine: Indexes) -> None:
        """Local addresses of rows that are bound to one end point."""
        endpoint = named(self.site.endpoint, name)
        if endpoint is None:
            self.bad[mine] |= "endpoint" not in self.site.incomplete
            return
        if {"path", "local"} & endpoint._broken:
            return
        if is_encapsulated(endpoint):
            self.local.put(mine, NONE)
            self.rows["local_family"][mine] = 0
            return
        given = self.rows["local_family"][mine] != 0
        self._given_local(endpoint, mine[given])
        self._default_local(endpoint, mine[~given])

    def _given_local(self, endpoint: schema.Endpoint, mine: Indexes) -> None:
        rows, length = self.rows, self.merged.local_len[mine]
        family, local = rows["local_family"][mine], self.local.at(mine)
        self.bad[mine] |= (family != rows["family"][mine]) | (length != rows["prefix_len"][mine])
        own = np.zeros(len(mine), np.bool_)
        for prefix in endpoint.local:
            own |= inside(local, family, length, prefix)
        for network in readable(self.site.network, "prefix"):
            self.bad[mine] |= overlaps(local, family, length, network.prefix)
        foreign = np.flatnonzero(~own)
        for prefix in (*endpoint.local, *(scope for scope, _ in SCOPES)):
            self.bad[mine[foreign]] |= overlaps(local.at(foreign), family[foreign], length[foreign], prefix)
        self.claiming[mine] = True
        foreign = foreign[(rows["source"][mine[foreign]] != TOML) & ~self.bad[mine[foreign]]]
        if len(foreign):
            self._warn_foreign(endpoint.name, mine[foreign])

    def _default_local(self, endpoint: schema.Endpoint, mine: Indexes) -> None:
        for family in (4, 6):
            here = mine[self.rows["family"][mine] == family]
            base = first_local(endpoint, family)
            fits = self._fits(here, base)
            if endpoint.local:  # without any, the end point itself is the mistake
                self.bad[here[~fits]] = True
            if base is not None:
                self.local.put(here[fits], self.offset.at(here[fits]) | base_of(base))
                self.claiming[here[fits]] = True

    def _to_policy(self, name: str, mine: Indexes) -> None:
        policy = named(self.site.policy, name)
        if policy is None:
            self.bad[mine] |= "policy" not in self.site.incomplete
            return
        self.local.put(mine, self.offset.at(mine))
        for member in policy.members if "members" not in policy._broken else ():
            endpoint = named(self.site.endpoint, member.endpoint)
            if endpoint is None or {"path", "local"} & endpoint._broken or is_encapsulated(endpoint):
                continue
            for family in (4, 6) if endpoint.local else ():
                here = mine[self.rows["family"][mine] == family]
                base = first_local(endpoint, family)
                fits = self._fits(here, base)
                self.bad[here[~fits]] = True
                if base is not None:
                    self.shared.append((here[fits], member.endpoint, base_of(base)))

    def _fits(self, mine: Indexes, base: Prefix | None) -> npt.NDArray[np.bool_]:
        """Which rows' offset and length fit into `base`."""
        if base is None:
            return np.zeros(len(mine), np.bool_)
        beyond = self.offset.at(mine) & ~mask_of(base)
        return beyond.same(NONE) & (self.rows["prefix_len"][mine] >= base.prefixlen)

    def _resolve_kinds(self) -> None:
        """local_family of what is rewritten; ADDRESS for what is outside of the end point's local
        networks.
        """
        rows = self.rows
        rows["local_family"][self.claiming] = rows["family"][self.claiming]
        for number, name in enumerate(self.merged.targets):
            endpoint = named(self.site.endpoint, name)
            if endpoint is None or "local" in endpoint._broken:
                continue
            mine = np.flatnonzero(self.claiming & (rows["target"] == number) & (self.merged.local_len != 0))
            own = np.zeros(len(mine), np.bool_)
            for prefix in endpoint.local:
                own |= inside(self.local.at(mine), rows["family"][mine], rows["prefix_len"][mine], prefix)
            rows["kind"][mine[~own]] = BindingKind.ADDRESS

    def _warn_foreign(self, name: str, mine: Indexes) -> None:
        place, count = self.merged.place(int(np.min(mine))), len(mine)
        rows = "1 row has a local address" if count == 1 else f"{count} rows have local addresses"
        message = f"{rows} outside of the local networks of end point {name!r}, this one first"
        hint = "right only if it is routed there by other means"
        self.warnings.append(Problem(str(place.file), place.line, 0, "local", message, hint))

    def _explain(self, bad: Indexes) -> None:
        """Gives rows to the checks of a single binding, a hundred of each file at most."""
        for source in range(len(self.merged.files)):
            mine = bad[self.rows["source"][bad] == source]
            problems = [p for row in mine[:MOST_PROBLEMS] for p in self._row_problems(int(row))]
            self.problems += capped(problems, len(problems) + max(0, len(mine) - MOST_PROBLEMS))

    def _row_problems(self, index: int) -> Iterator[Problem]:
        binding, found = self.merged.table(index), False
        kinds = [*check_bindings.CHECKS["binding"], *check_flows.CHECKS["binding"]]
        for finding in checks.run_one(self.site, binding, kinds):
            if not finding.is_warning:
                found = True
                key = str(finding.path[-1]) if len(finding.path) > 1 else ""
                yield self.merged.problem(index, key, finding.message, finding.hint)
        assert found, f"refused, but no check says why: {binding!r}"

    # -- rows against each other

    def rows_together(self) -> None:
        """Equal prefixes, local addresses claimed twice, tunnel addresses claimed."""
        order = sort_order(self.rows)
        key = keys(self.rows[order])
        is_again = np.append(np.zeros(min(1, len(key)), np.bool_), key[1:] == key[:-1])
        again = np.flatnonzero(is_again)
        found = [self._bound_twice(int(order[i - 1]), int(order[i])) for i in again[:MOST_PROBLEMS]]
        self.problems += capped(found, len(again))
        once = order[~is_again]
        once = once[~self.bad[once]]
        for family in (4, 6):
            self._claims(once[self.rows["family"][once] == family], family)

    def _bound_twice(self, one: int, other: int) -> Problem:
        first, second = self.merged.in_order(one, other)
        one_row, other_row = self.rows[first], self.rows[second]
        same = all(one_row[key].tobytes() == other_row[key].tobytes() for key in ("kind", "target", "local"))
        again = "a second time" if same else "again, to a different target"
        message = f"{prefix_of(other_row)} is bound {again}: first at {self.merged.place(first)}"
        hint = "leave one of them; for several end points make a policy"
        return self.merged.problem(second, "global", message, hint)

    def _claims(self, chosen: Indexes, family: int) -> None:
        """`chosen`: good rows of one family, sorted, each prefix once."""
        names = [endpoint.name for endpoint in readable(self.site.endpoint, "name")]
        number = {name: index for index, name in enumerate(names)}
        start = self.globals.at(chosen)
        segments = bulk_claims.effective(start, self.rows["prefix_len"][chosen])
        of_target = np.array([number.get(name, -1) for name in self.merged.targets] + [-1], np.int64)
        target = self.rows["target"][chosen]
        endpoint = of_target[np.where(target == NO_NAME, len(of_target) - 1, target)]
        parts = [bulk_claims.moved(segments, start, self.claiming[chosen], endpoint, self.local.at(chosen))]
        for rows, name, base in self.shared:
            everyone = np.full(len(chosen), number[name])
            local = self.offset.at(chosen) | base
            parts.append(bulk_claims.moved(segments, start, np.isin(chosen, rows), everyone, local))
        claims = bulk_claims.joined(parts)
        pairs = list(bulk_claims.conflicts(claims))
        found = []
        for before, after in pairs[:MOST_PROBLEMS]:
            owners = int(chosen[claims.owner[before]]), int(chosen[claims.owner[after]])
            address = unpacked(claims.first.one(after), family)
            found.append(self._claimed(*owners, names[claims.endpoint[after]], address))
        self.problems += capped(found, len(pairs))
        self._tunnels(claims, number, chosen, family)

    def _claimed(self, one: int, other: int, name: str, address: Any) -> Problem:
        first, second = self.merged.in_order(one, other)
        row, place = self.rows[first], self.merged.place(first)
        message = (
            f"local address {address} of end point {name!r} is claimed by {prefix_of(row)} too ({place})"
        )
        hint = f"give it another local address; many Global IPs at one address: {check_bindings.ENCAPSULATE}"
        return self.merged.problem(second, "local", message, hint)

    def _tunnels(
        self, claims: bulk_claims.Claims, number: dict[str, int], chosen: Indexes, family: int
    ) -> None:
        for endpoint in readable(self.site.endpoint, "tunnel", "name"):
            for index, tunnel in enumerate(endpoint.tunnel):
                if tunnel.version != family:
                    continue
                for claim in bulk_claims.holding(claims, number[endpoint.name], packed(tunnel))[:1]:
                    row = int(chosen[claims.owner[claim]])
                    text = prefix_of(self.rows[row])
                    finding = check_bindings.tunnel_taken(tunnel, text, str(self.merged.place(row)))
                    problem = self.site.document.problem((*endpoint._path, "tunnel", index), *finding)
                    is_alone = int(self.rows["prefix_len"][row]) == host_prefix(tunnel).prefixlen
                    (self.problems if is_alone else self.warnings).append(problem)
