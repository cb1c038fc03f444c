"""The packet cases: one table, packets.yaml, for every host of the C core.

Each packet goes from ``client`` to ``global``; the outer translation makes it ``local``, the inner one
``global`` again. What the bytes must be is the oracle's to say; the table says the verdict.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cases.build import ADDRESSES, address, build
from tests.oracle.parse import PLAIN, Offload

__all__ = ["ADDRESSES", "Case", "address", "cases"]


@dataclass(frozen=True)
class Case:
    """One packet as a host may receive it."""

    name: str
    why: str
    packet: bytes
    verdict: str = "OK"  # of ips_parse or ips_rewrite, destination global -> local
    offload: Offload = field(default_factory=Offload)

    @property
    def family(self) -> int:
        """4 or 6; what the verdict of a packet of another version is, is the table's to say."""
        return 6 if self.packet and self.packet[0] >> 4 == 6 else 4

    @property
    def on_wire(self) -> bool:
        """False: offload fields, so no such packet can be sent through a real link."""
        return self.offload == PLAIN


@cache
def cases() -> tuple[Case, ...]:
    """All cases; an entry with ``cuts`` is one case for each length."""
    table = yaml.safe_load((Path(__file__).parent / "packets.yaml").read_text())
    return tuple(case for entry in table for case in _expand(entry))


def _expand(entry: dict[str, Any]) -> list[Case]:
    packet = build(entry["packet"])
    packet = packet[: entry.get("cut", len(packet))] + bytes.fromhex(entry.get("then", ""))
    offload = Offload(**entry.get("offload", {}))
    known = {"name", "why", "packet", "verdict", "cut", "then", "offload", "quote_cuts"}
    assert set(entry) <= known, f"{entry['name']}: {set(entry) - known}"
    if "quote_cuts" not in entry:
        return [Case(entry["name"], entry["why"], packet, entry.get("verdict", "OK"), offload)]
    return [
        Case(f"{entry['name']}/{cut}", entry["why"], build(_cut_quote(entry["packet"], cut)))
        for cut in range(*entry["quote_cuts"])
    ]


def _cut_quote(layers: list[Any], cut: int) -> list[Any]:
    return [
        {"quote": {**layer["quote"], "cut": cut}} if isinstance(layer, dict) and "quote" in layer else layer
        for layer in layers
    ]
