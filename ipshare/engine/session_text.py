"""session_text: sessions in words: a row each, the greatest of many, and how many there really are.

Everything is computed in NumPy over the whole array; Python objects are made of what is printed alone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from ipshare.core import lib
from ipshare.core.flows import SESSION_KINDS, SESSION_STATES
from ipshare.engine.flows import SessionDump
from ipshare.engine.session_filter import protocol_name
from ipshare.engine.tables import Records
from ipshare.model import unpacked

Measure = Literal["bytes", "packets", "source"]
COLUMNS = (
    *("proto", "state", "kind", "src", "src_port", "dst", "dst_port", "mapped", "mapped_port", "nat"),
    *("packets_out", "packets_in", "bytes_out", "bytes_in", "age_s", "idle_s", "from_outside", "one_sided"),
)
ACTIVE_MS = 60_000
CHUNK = 8192


def rows(records: Records, nats: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    """JSON values of each record, by COLUMNS; ``nats``: realm -> name. out: from the opener."""
    for start in range(0, len(records), CHUNK):
        for record in records[start : start + CHUNK]:
            yield _row(record, nats)


def _row(record: Any, nats: Mapping[int, str]) -> dict[str, Any]:
    flow, family = record["flow"], int(record["flow"]["family"])
    kind, state, flags = int(record["kind"]), int(record["state"]), int(record["flags"])
    is_mapped = bool(record["mapped"].any())
    return {
        "proto": protocol_name(int(flow["proto"])),
        "state": SESSION_STATES.get(state, str(state)),
        "kind": SESSION_KINDS.get(kind, str(kind)),
        "src": str(unpacked(flow["src"].tobytes(), family)),
        "src_port": int(flow["src_port"]),
        "dst": str(unpacked(flow["dst"].tobytes(), family)),
        "dst_port": int(flow["dst_port"]),
        "mapped": str(unpacked(record["mapped"].tobytes(), family)) if is_mapped else None,
        "mapped_port": int(record["mapped_port"]) or None,
        "nat": nats.get(int(flow["realm"])) if kind == lib.IPS_SESSION_NAPT else None,
        "packets_out": int(record["packets"][0]),
        "packets_in": int(record["packets"][1]),
        "bytes_out": int(record["bytes"][0]),
        "bytes_in": int(record["bytes"][1]),
        "age_s": int(record["age_s"]),
        "idle_s": int(record["idle_ms"]) / 1e3,
        "from_outside": bool(flags & lib.IPS_SESSION_FROM_OUTSIDE),
        "one_sided": bool(flags & lib.IPS_SESSION_ONE_SIDED),
    }


def end(address: str | None, port: int | None) -> str | None:
    """ "192.0.2.1:80", "[2001:db8::1]:80"; None for none."""
    if address is None or not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def greatest(records: Records, count: int, measure: Measure) -> Records:
    """The ``count`` records with the most bytes or packets, both directions together, the greatest first."""
    if measure == "source":
        raise ValueError("sources are no records: see sources")
    weight = records[measure].sum(axis=1)
    rest = max(0, len(records) - count)
    best = np.argpartition(weight, rest)[rest:] if rest < len(records) else np.arange(len(records))
    found: Records = records[best[np.argsort(weight[best], kind="stable")[::-1]]][:count]
    return found


def sources(records: Records, count: int) -> list[dict[str, Any]]:
    """The ``count`` openers with the most sessions: source, sessions, packets, bytes."""
    keys = np.concatenate([records["flow"]["src"], records["flow"]["family"][:, None]], axis=1)
    unique, index = np.unique(keys, axis=0, return_inverse=True)
    index = index.reshape(-1)
    totals = {name: _sums(index, records[name].sum(axis=1), len(unique)) for name in ("packets", "bytes")}
    sessions = np.bincount(index, minlength=len(unique))
    return [
        {
            "source": str(unpacked(unique[i][:16].tobytes(), int(unique[i][16]))),
            "sessions": int(sessions[i]),
            "packets": int(totals["packets"][i]),
            "bytes": int(totals["bytes"][i]),
        }
        for i in np.argsort(sessions, kind="stable")[::-1][:count]
    ]


def _sums(index: Any, values: Any, count: int) -> Any:
    """Exact, unlike weights of bincount, which are floating-point numbers."""
    found = np.zeros(count, np.uint64)
    np.add.at(found, index, values)
    return found


def counted(dump: SessionDump) -> dict[str, Any]:
    """How many there are. ``exact`` False: ``matched`` is an upper bound, because of ``one_sided`` sessions
    the server's end is not seen; ``active``: of the records at hand, with a packet in the last 60 s."""
    one_sided = int((dump.records["flags"] & lib.IPS_SESSION_ONE_SIDED != 0).sum())
    active = int((dump.records["idle_ms"] <= ACTIVE_MS).sum())
    return {
        "matched": dump.matched,
        "scanned": dump.scanned,
        "exact": one_sided == 0 and len(dump.records) == dump.matched,
        "one_sided": one_sided,
        "active": active,
    }


def count_words(dump: SessionDump) -> str:
    found = counted(dump)
    total = f"{found['matched']:,} {'session' if found['matched'] == 1 else 'sessions'}"
    if found["exact"]:
        return f"{total} ({found['active']:,} active in 60 s)"
    if len(dump.records) < dump.matched:
        return f"at most {total}: the first {len(dump.records):,} were looked at"
    return (
        f"at most {total} ({found['active']:,} active in 60 s): of {found['one_sided']:,} "
        "only one direction is seen, not their end"
    )
