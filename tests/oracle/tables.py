"""What the tables have to answer, slowly: a dictionary, longest prefix first, every address spelt out.

Bindings are rows of ``tests.table_images``. Policies are followed as far as
which end points may be chosen; who is chosen is the business of ``oracle.maglev``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ipshare.core import lib
from tests.table_images import Image, Record

LEADS_ON = (lib.IPS_KIND_ENDPOINT, lib.IPS_KIND_POLICY, lib.IPS_KIND_ADDRESS)


def number(raw: Sequence[int], family: int) -> int:
    return int.from_bytes(bytes(raw[: 4 if family == 4 else 16]), "big")


@dataclass(frozen=True)
class Answer:
    """Of one address: what is bound there, and the (end point, local address) pairs it may go to."""

    row: Record | None
    goes_to: tuple[tuple[int, int], ...] = ()


class Oracle:
    def __init__(self, image: Image, bindings: Sequence[Record]) -> None:
        self.image, self.bindings = image, bindings
        self.roles = image.header.get("roles", 0)

    def addresses(self, family: int) -> Iterator[int]:
        for net in self.image.networks:
            if net["family"] == family:
                first = number(net["prefix"], family)
                yield from range(first, first + (1 << (_bits(family) - net["prefix_len"])))

    def find_global(self, family: int, address: int) -> Answer:
        covering = [row for row in self.bindings if row["family"] == family and _covers(row, address)]
        if not covering:
            return Answer(None)
        row = max(covering, key=lambda row: row["prefix_len"])
        if row["kind"] not in LEADS_ON:
            return Answer(row)
        offset = number(row["local"], family) + address - number(row["global"], family)
        if row["kind"] == lib.IPS_KIND_ADDRESS:
            return Answer(row, ((row["target"], offset),))
        ends = self.image.endpoints
        return Answer(
            row, tuple((e, offset + number(ends[e].get("local", [0] * 16), family)) for e in self._ends(row))
        )

    def find_local(self, family: int) -> dict[int, list[tuple[int, int, bool]]]:
        """Local address -> (Global IP, end point, is it encapsulated) that this node maps back to."""
        found: dict[int, list[tuple[int, int, bool]]] = {}
        for address in self.addresses(family):
            for end, local in self.find_global(family, address).goes_to:
                if self._is_mapped_back(end):
                    is_soft = bool(self.image.endpoints[end].get("encap", 0))
                    found.setdefault(local, []).append((address, end, is_soft))
        return found

    def is_contested(self, family: int, local: int) -> bool:
        """Do several bindings claim it, in force or not? Then encapsulation may leave it to nobody."""
        claims = 0
        for row in self.bindings:
            if row["family"] == family and row["kind"] in LEADS_ON:
                ends = {base for end, base in self._bases(row) if self._is_mapped_back(end)}
                host = _bits(family) - row["prefix_len"]
                claims += any((base + number(row["local"], family)) >> host == local >> host for base in ends)
        return claims > 1

    def overlaps(self) -> bool:
        """Do two bindings claim one local address, or, though not in force, one local prefix?"""
        for family in (4, 6):
            for claims in self.find_local(family).values():
                if len({address for address, _, is_soft in claims if not is_soft}) > 1:
                    return True
        prefixes: dict[tuple[int, int, int], int] = {}
        for i, row in enumerate(self.bindings):
            for end, base in self._bases(row) if row["kind"] in LEADS_ON else ():
                if not self._is_mapped_back(end) or self.image.endpoints[end].get("encap", 0):
                    continue
                key = (row["family"], base + number(row["local"], row["family"]), row["prefix_len"])
                if prefixes.setdefault(key, i) != i:
                    return True
        return False

    def _ends(self, row: Record) -> list[int]:
        if row["kind"] != lib.IPS_KIND_POLICY:
            return [row["target"]]
        rec = self.image.policies[row["target"]]
        return [m["endpoint"] for m in self.image.members[rec["first_member"] :][: rec["n_members"]]]

    def _bases(self, row: Record) -> list[tuple[int, int]]:
        """(end point, what its local addresses begin with) for a binding that leads on."""
        if row["kind"] == lib.IPS_KIND_ADDRESS:
            return [(row["target"], 0)]
        return [(e, number(self.image.endpoints[e]["local"], row["family"])) for e in self._ends(row)]

    def _is_mapped_back(self, end: int) -> bool:
        record = self.image.endpoints[end]
        if self.roles & lib.IPS_ROLE_REPLY_GLOBAL:
            return True
        is_own = record.get("flags", 0) & lib.IPS_EP_SELF
        return bool(is_own and self.roles & (lib.IPS_ROLE_INNER | lib.IPS_ROLE_REPLY_LOCAL))


def _bits(family: int) -> int:
    return 32 if family == 4 else 128


def _covers(row: Record, address: int) -> bool:
    host = _bits(row["family"]) - row["prefix_len"]
    return address >> host == number(row["global"], row["family"]) >> host
