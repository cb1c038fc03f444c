"""dispatching: what an engine is told about clusters, and what it says of their servers (SYSTEMS.md S2.4,
S2.5).

Records of the control socket (native/ips_control_dispatch.h) as values. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ipshare.core import dtype, lib
from ipshare.errors import EngineError
from ipshare.model import Address, packed, unpacked

DISPATCH = dtype("struct ips_ctl_dispatch")
SERVER_STATE = dtype("struct ips_ctl_server_state")


class ServerState(StrEnum):
    """What a server is good for."""

    UP = "up"
    DRAINING = "draining"  # nothing new; what it has stays
    FAILED = "failed"  # nothing new; what can begin anew goes to another one

    @property
    def code(self) -> int:
        """The core's number."""
        return int(getattr(lib, f"IPS_SERVER_{self.name}"))


STATES = {state.code: state for state in ServerState}


@dataclass(frozen=True, slots=True)
class ServerSetting:
    address: Address
    weight: int
    state: ServerState = ServerState.UP


@dataclass(frozen=True, slots=True)
class ClusterSetting:
    """A cluster's address of one family, and its servers, on-link at ``interface``."""

    address: Address
    interface: str
    servers: tuple[ServerSetting, ...]


@dataclass(frozen=True, slots=True)
class ServerReport:
    """One server of one cluster. Counts since the engine began, and sessions, are those of the server in
    all its clusters. ``left``: connections that are not over; ``open``: of them, those whose client has
    not closed; both at most, since replies are not seen. ``untracked``: without a session, for want of
    room. ``unsent``: dropped, as ``mac`` was not known or the interface refused."""

    cluster: Address
    address: Address
    state: ServerState
    weight: int
    left: int
    open: int
    opened: int
    packets: int
    bytes: int
    untracked: int
    unsent: int
    mac: str | None


@runtime_checkable
class Dispatching(Protocol):
    """An engine that can dispatch to servers."""

    def set_clusters(self, clusters: Sequence[ClusterSetting]) -> None:
        """These and no others, from now on; connections stay with their servers. Again with the same
        content: nothing. Raises ``Refused`` with the reason: no connections are tracked, no such
        interface, an engine of an earlier version."""

    def servers(self) -> tuple[ServerReport, ...]:
        """In the order of ``set_clusters``; nothing from an engine of an earlier version."""


def encode_clusters(clusters: Sequence[ClusterSetting]) -> bytes:
    """``struct ips_ctl_dispatch``. Raises ``EngineError`` where something does not fit."""
    records = np.zeros(1, DISPATCH)
    record = records[0]
    count = sum(len(cluster.servers) for cluster in clusters)
    if len(clusters) > len(record["clusters"]) or count > len(record["servers"]):
        raise EngineError(
            f"{len(clusters)} clusters with {count} servers: an engine takes 64 with 512 in all"
        )
    record["n_clusters"], record["n_servers"] = len(clusters), count
    at = 0
    for row, cluster in zip(record["clusters"], clusters, strict=False):
        rec, name = row["rec"], cluster.interface.encode()
        rec["address"], rec["family"] = _raw(cluster.address), cluster.address.version
        rec["first_server"], rec["n_servers"] = at, len(cluster.servers)
        if not 0 < len(name) < row["interface"].nbytes:
            raise EngineError(f"no interface is called {cluster.interface!r}")
        row["interface"] = np.frombuffer(name.ljust(row["interface"].nbytes, b"\0"), row["interface"].dtype)
        for server in cluster.servers:
            place = record["servers"][at]
            place["address"], place["weight"] = _raw(server.address), server.weight
            place["state"] = server.state.code
            at += 1
    return records.tobytes()


def decode_servers(payload: bytes) -> tuple[ServerReport, ...]:
    """An array of ``struct ips_ctl_server_state``."""
    return tuple(_report(record) for record in np.frombuffer(payload, SERVER_STATE))


def _report(record: Any) -> ServerReport:
    family = int(record["family"])
    mac = ":".join(f"{byte:02x}" for byte in record["mac"]) if record["has_mac"] else None
    return ServerReport(
        cluster=unpacked(record["cluster"].tobytes(), family),
        address=unpacked(record["address"].tobytes(), family),
        state=STATES[int(record["state"])],
        mac=mac,
        **{name: int(record[name]) for name in _NUMBERS},
    )


_NUMBERS = ("weight", "left", "open", "opened", "packets", "bytes", "untracked", "unsent")


def _raw(address: Address) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(packed(address), np.uint8)
