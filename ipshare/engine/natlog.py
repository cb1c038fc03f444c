"""natlog: what an engine is told about NAT logs, and how it says that they go; who has a deterministic port.

Records of the control socket (native/ips_control_natlog.h) as values. ``whois`` asks nobody: the answer
follows from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ipshare.core import dtype, ffi, lib
from ipshare.engine.flows import put_block
from ipshare.model import Address, AddressRange, Nat, NatLog, Prefix, host_prefix, packed, unpacked

NAT_LOG = dtype("struct ips_ctl_natlog")
NAT_LOG_STATE = dtype("struct ips_ctl_natlog_state")
_POOL = dtype("struct ips_napt_pool_rec")
_WHAT = {
    "sessions": lib.IPS_NATLOG_SESSIONS,
    "mappings": lib.IPS_NATLOG_MAPPINGS,
    "limits": lib.IPS_NATLOG_LIMITS,
}
_FORMATS = {"ipfix": lib.IPS_CTL_NATLOG_IPFIX, "syslog": lib.IPS_CTL_NATLOG_SYSLOG}


@dataclass(frozen=True, slots=True)
class CollectorState:
    """Datagrams that the system took, that it refused, and the errno of its last refusal (0: none)."""

    datagrams: int
    unsent: int
    last_errno: int


@dataclass(frozen=True, slots=True)
class NatLogState:
    """``records``: taken out of the engine's rings. ``lost``: no room in a ring."""

    records: int
    lost: int
    collectors: tuple[CollectorState, ...]


@runtime_checkable
class NatLogging(Protocol):
    """An engine that logs what its NATs do."""

    def set_nat_log(self, log: NatLog | None, host: str) -> None:
        """To whom; None: nobody. Again with the same content: nothing."""

    def nat_log_state(self) -> NatLogState | None:
        """None: an engine of an earlier version."""


def encode_nat_log(log: NatLog | None, host: str) -> bytes:
    """``struct ips_ctl_natlog``."""
    records = np.zeros(1, NAT_LOG)
    record = records[0]
    record["template_s"] = log.template_s if log is not None else 600
    if log is None:
        return records.tobytes()
    record["what"] = sum(_WHAT[event] for event in log.events)
    record["domain"], record["n_targets"] = log.domain, len(log.collectors)
    record["host"] = np.frombuffer(host.encode().ljust(64, b"\0")[:64], record["host"].dtype)
    for row, collector in zip(record["targets"], log.collectors, strict=False):
        row["address"] = np.frombuffer(packed(collector.address), np.uint8)
        row["port"], row["family"] = collector.port, collector.address.version
        row["format"], row["facility"] = _FORMATS[collector.format], collector.facility
    return records.tobytes()


def decode_nat_log_state(record: Any) -> NatLogState:
    names = ("datagrams", "unsent", "last_errno")
    rows = record["targets"][: int(record["n_targets"])]
    found = tuple(CollectorState(*(int(row[name]) for name in names)) for row in rows)
    return NatLogState(int(record["records"]), int(record["lost"]), found)


@dataclass(frozen=True, slots=True)
class Block:
    """A subscriber's ports at a public address, ``first`` to ``last``."""

    nat: str
    subscriber: Prefix
    address: Address
    first: int
    last: int


def whois(nats: Iterable[Nat], address: Address, port: int | None) -> list[Block]:
    """Who has this public port, or, with an inside address and no port, what it has; of deterministic NATs
    alone. ICMP identifiers count as ports."""
    found = []
    for nat in (nat for nat in nats if nat.deterministic):
        for pool in (pool for pool in nat.pools if pool.first.version == address.version):
            block = _block(nat, pool, address, port)
            if block is not None:
                found.append(block)
    return found


def _block(nat: Nat, pool: AddressRange, address: Address, port: int | None) -> Block | None:
    records = np.zeros(1, _POOL)
    row = records[0]
    row["first"], row["n"] = np.frombuffer(packed(pool.first), np.uint8), pool.count
    row["family"], row["first_port"], row["last_port"] = pool.first.version, nat.first_port, nat.last_port
    put_block(row, nat, pool)
    record = ffi.from_buffer("struct ips_napt_pool_rec *", records)
    out = ffi.new("struct ips_block *")
    if port is None:
        known = lib.ips_block_of(record, packed(address), out)
    else:
        known = lib.ips_block_at(record, packed(address), port, out)
    if not known:
        return None
    subscriber = host_prefix(unpacked(bytes(out.subscriber), out.family)).supernet(
        new_prefix=out.subscriber_len
    )
    return Block(nat.name, subscriber, unpacked(bytes(out.address), out.family), out.first, out.last)


def nat_log_report(log: NatLog, state: NatLogState) -> dict[str, Any]:
    """For people and JSON."""
    collectors = [
        {
            "address": str(collector.address),
            "port": collector.port,
            "format": collector.format,
            "datagrams": sent.datagrams,
            "unsent": sent.unsent,
            "last_errno": sent.last_errno,
        }
        for collector, sent in zip(log.collectors, state.collectors, strict=False)
    ]
    return {
        "events": list(log.events),
        "records": state.records,
        "lost": state.lost,
        "collectors": collectors,
    }
