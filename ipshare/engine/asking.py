"""asking: one question (``why``) put to an engine, and its answer by name.

Which side a packet enters, which binding decided, what the core would send: from an Explanation and the
tables that it was made with. Pure but for the calls to the engine it is given.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from ipaddress import ip_network
from typing import Any

import numpy as np

from ipshare.core import VERDICTS, lib
from ipshare.engine.packet_text import describe, read
from ipshare.engine.plan_text import prefix_text, target_text
from ipshare.engine.protocol import Engine, Side
from ipshare.engine.tables import Tables
from ipshare.model import contains, host_prefix, unpacked


@dataclass(frozen=True, slots=True)
class Answer:
    """What the live generation does with a packet. ``packets`` and ``errors``: what would be sent, in words
    and hex."""

    side: Side
    packet: str
    verdict: str
    text: str
    disposition: str
    generation: int
    binding: str | None
    target: str | None
    endpoint: str | None
    packets: tuple[dict[str, str], ...]
    errors: tuple[dict[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def ask(engine: Engine, tables: Tables, packet: bytes, side: Side | None = None) -> Answer:
    """``tables``: the engine's, with names. ``side`` None: where the node's routes would take the packet."""
    where = side or side_of(tables, packet)
    answer = engine.why(packet, where)
    verdict = VERDICTS[answer.verdict]
    found = None if answer.counter is None else binding_of(engine, tables, answer.counter)
    return Answer(
        side=where,
        packet=describe(packet),
        verdict=verdict.name,
        text=verdict.text,
        disposition=verdict.disposition,
        generation=answer.generation,
        binding=None if found is None else prefix_text(tables.bindings[found], "global"),
        target=None if found is None else target_text(tables, tables.bindings[found]),
        endpoint=None if answer.endpoint is None else tables.endpoint_name(answer.endpoint),
        packets=tuple(_made(p) for p in answer.packets),
        errors=tuple(_made(p) for p in answer.errors),
    )


def side_of(tables: Tables, packet: bytes) -> Side:
    """Outer where the destination is in a Global Network and the node translates outwards; else inner, if
    it does that."""
    if not tables.roles & lib.IPS_ROLE_INNER:
        return "outer"
    if not tables.roles & lib.IPS_ROLE_OUTER:
        return "inner"
    fields = read(packet)
    if "malformed" in fields:
        return "outer"
    family = int(fields["family"])
    raw = packet[16:20] if family == 4 else packet[24:40]
    destination = host_prefix(unpacked(raw.ljust(16, b"\0"), family))
    for record in tables.networks:
        if record["family"] == family:
            first = unpacked(record["prefix"].tobytes(), family)
            if contains(ip_network((first, int(record["prefix_len"]))), destination):
                return "outer"
    return "inner"


def binding_of(engine: Engine, tables: Tables, cell: int) -> int | None:
    """The index of the narrowest binding that counts in ``cell``."""
    first, span = engine.counter_cells(tables.bindings)
    holds = np.flatnonzero((first <= cell) & (cell - first.astype(np.int64) < span) & (span > 0))
    if not len(holds):
        return None
    return int(holds[np.argmin(span[holds])])


def _made(packet: bytes) -> dict[str, str]:
    return {"text": describe(packet), "hex": packet.hex()}
