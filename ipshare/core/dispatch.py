"""A worker of the C core with clusters (native/ips_dispatch_api.h), for tests: what native/flows does in
an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.core._native import ffi, lib
from ipshare.core.pair import enum_names
from ipshare.core.worker import HEADROOM, Worker

SERVER_STATES: dict[int, str] = enum_names("enum ips_server_state", "IPS_SERVER_")


class DispatchWorker(Worker):
    """A worker with a session table and clusters. ``servers`` of ``set_clusters``: by address."""

    def __init__(self, *, sessions: int = 4096, addresses: int = 0, **options: Any) -> None:
        super().__init__(**options)
        config = ffi.new("struct ips_sessions_config *", {"seed": 7, "now_ns": self.now_ns})
        config.sessions, config.half_open = sessions, max(sessions // 8, 64)
        config.half_open_per_source, config.addresses = config.half_open, addresses
        self.sessions = lib.ips_sessions_new(config)
        if not self.sessions:
            raise MemoryError("no memory for so many sessions")
        self._frags = lib.ips_frag_new(256, 64, 2048, 11)
        self._counts = ffi.new("struct ips_server_count[]", lib.ips_sessions_addresses(self.sessions))
        self._set = ffi.NULL
        self.servers: dict[int, str] = {}
        self.emitted: list[str] = []
        lib.ips_worker_set_flows(self._worker, self.sessions, ffi.NULL)

    def set_clusters(self, clusters: Mapping[str, Sequence[tuple[str, int, int]]]) -> None:
        """Address -> (server, weight, state) of each. Raises ``ValueError``, in the core's words."""
        rows = [(c, server) for c, servers in clusters.items() for server in servers]
        recs, first = [], 0
        for address, servers in clusters.items():
            rec = {"address": _raw(address), "family": ip_address(address).version}
            recs.append(rec | {"first_server": first, "n_servers": len(servers)})
            first += len(servers)
        made = [{"address": _raw(a), "weight": weight, "state": state} for _, (a, weight, state) in rows]
        fault = ffi.new("char **")
        new = lib.ips_clusters_new(
            self.sessions, ffi.new("struct ips_cluster_rec[]", recs or 1), len(recs),
            ffi.new("struct ips_server_rec[]", made or 1), len(made), self._frags, self._counts,
            ffi.cast("char const * *", fault),
        )  # fmt: skip
        if not new:
            raise ValueError(ffi.string(fault[0]).decode())
        lib.ips_worker_set_clusters(self._worker, new)
        lib.ips_clusters_free(self._set)
        self._set = new
        self.servers |= {self.number(address): address for _, (address, _, _) in rows}

    def dispatch(self, packet: bytes) -> tuple[str, str | None]:
        """(verdict, address of the server that it goes to) of a packet from outside; the packet is
        unchanged."""
        self.emitted = []
        ffi.memmove(self._buffer + HEADROOM, packet, len(packet))
        p = ffi.new("struct ips_pkt *")
        p.data, p.len, p.total_len, p.headroom = self._buffer + HEADROOM, len(packet), len(packet), HEADROOM
        self.begin()
        verdict = lib.ips_outer(self._worker, p)
        self.end()
        assert bytes(ffi.buffer(p.data, p.len)) == packet, "a dispatched packet stays as it is"
        name = ffi.string(lib.ips_verdict_name(verdict)).decode()
        return name, self.servers[p.server - 1] if p.server else None

    def _on_emit(self, arg: Any, p: Any, kind: int) -> None:
        super()._on_emit(arg, p, kind)
        if p.server:
            self.emitted.append(self.servers[p.server - 1])

    def number(self, address: str) -> int:
        family = ip_address(address).version
        return int(lib.ips_sessions_number(self.sessions, family, _raw(address)))

    def use(self, address: str) -> tuple[int, int]:
        """(left, open): sessions of a server that are not over; of them, whose client has not closed."""
        use = ffi.new("struct ips_server_use *")
        lib.ips_sessions_use(self.sessions, self.number(address), use)
        return int(use.left), int(use.open)

    def count(self, address: str) -> dict[str, int]:
        """Members of ``struct ips_server_count``."""
        found = self._counts[self.number(address)]
        return {
            name: int(getattr(found, name)) for name in ("opened", "packets", "bytes", "untracked", "unsent")
        }

    def shares(self, cluster: int = 0) -> npt.NDArray[np.int64]:
        """Slots of each server, by its place in the cluster."""
        slots = np.zeros(1 << 24, np.uint16)
        size = lib.ips_clusters_table(self._set, cluster, ffi.from_buffer("uint16_t *", slots), len(slots))
        return np.bincount(slots[:size])

    def stand_by(self) -> None:
        lib.ips_sessions_stand_by(self.sessions)

    def close(self) -> None:
        if self._tables is not None:
            lib.ips_worker_set_clusters(self._worker, ffi.NULL)
            lib.ips_clusters_free(self._set)
            lib.ips_sessions_free(self.sessions)
            lib.ips_frag_free(self._frags)
        super().close()


def _raw(address: str) -> bytes:
    return ip_address(address).packed.ljust(16, b"\0")
