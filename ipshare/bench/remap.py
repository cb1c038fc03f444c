"""remap: what a packet costs at a node with remaps: followed, opened earlier here, of another address.

Processor time of one thread in this process, no device, as in ``core``: IPv4 UDP of 64 bytes, rewritten at
an end point. "plain": translated by the express lane, no remap anywhere; "other": the same on a node that
has a remap of another address; "own": of a remapped address, a flow of this node; "followed": a flow of the
giver, encapsulated to it (IPIP, GUE) or re-addressed; "encapsulated": no remap, by a distribution point to an
end point that is reached through a tunnel: what translating and encapsulating a packet costs anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ipshare.bench.result import Progress, Result, beside
from ipshare.core import dtype, ffi, lib
from ipshare.core.remap import RemapWorker
from ipshare.engine.tables import BINDING, ENDPOINT, NETWORK, Tables, pack

SESSION = dtype("struct ips_session_rec")
BYTES, STRIDE = 46, 64
MILLION, REPEATS = 1_000_000, 5
GLOBAL, LOCAL, OTHER = (np.array([int(n) for n in text.split(".")], np.uint8)
                        for text in ("203.0.113.9", "198.18.1.9", "203.0.113.77"))  # fmt: skip
KINDS = {"ipip": lib.IPS_ENCAP_IPIP, "gue": lib.IPS_ENCAP_GUE, "rewrite": lib.IPS_ENCAP_NONE}
TUNNELS = ("ipip", "gue")


def figures(progress: Progress, *, million: int, repeats: int) -> Iterator[Result]:
    """At a thousand flows, then at many: beside plain translation of the same packets."""
    for flows in (1000, million):
        size = "1k" if flows == 1000 else "1m" if flows == 1_000_000 else f"{flows // 1000}k"
        progress(f"remap.{size}")
        taken = costs(flows, repeats)
        yield Result(f"remap.{size}.plain", taken["plain"], "ns/packet")
        for name, cost in taken.items():
            if name != "plain":
                yield beside(f"remap.{size}.{name}", cost, "ns/packet", f"remap.{size}.plain", taken["plain"])


def costs(flows: int, repeats: int) -> dict[str, float]:
    """Nanoseconds of each, the least of the passes, all of them alternating."""
    data, lengths, records = packets(flows, LOCAL)
    outside, _, _ = packets(flows, GLOBAL)
    rounds = max(1, 200_000 // flows)
    least: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(RemapWorker(sessions=flows + 16))
        worker.load(pack(tables()))
        points = {kind: stack.enter_context(RemapWorker(sessions=16)) for kind in TUNNELS}
        for kind, point in points.items():
            point.load(pack(distribution(kind)))
        variants = {"plain": [], "other": [remap(1, OTHER)], "own": [remap(1, GLOBAL)]}
        variants |= {f"followed.{kind}": [remap(2 + i, GLOBAL, kind)] for i, kind in enumerate(KINDS)}
        for name, remaps in variants.items():
            worker.set_remaps(remaps)
            if name.startswith("followed"):
                worker.follow(remaps[0]["id"], records)
        worker.set_remaps([])
        for _ in range(repeats):
            for name, remaps in variants.items():
                worker.set_remaps(remaps)
                if name == "own":
                    worker.own(records)
                whole = passes(worker, data, lengths, rounds)
                bare = passes(None, data, lengths, rounds)
                if name == "own":
                    disown(worker, records)
                least[name] = min(least.get(name, 1e9), (whole - bare) / (rounds * flows))
            for kind, point in points.items():
                name = f"encapsulated.{kind}"
                whole = passes(point, outside, lengths, rounds, side=0)
                bare = passes(None, outside, lengths, rounds)
                least[name] = min(least.get(name, 1e9), (whole - bare) / (rounds * flows))
    return least


def disown(worker: RemapWorker, records: Any) -> None:
    flows = ffi.from_buffer("struct ips_session_rec *", records)
    for i in range(len(records)):
        flow = ffi.addressof(flows[i], "flow")
        lib.ips_sessions_close(worker.sessions, 0, flow, worker.now_ns)


def passes(worker: RemapWorker | None, data: Any, lengths: Any, rounds: int, *, side: int = 1) -> int:
    at = ffi.NULL if worker is None else worker.handle
    return int(
        lib.ips_bench_packets(
            at, side, ffi.from_buffer("uint8_t *", data), STRIDE, ffi.from_buffer("uint16_t *", lengths),
            len(lengths),
            rounds, 0,
        )
    )  # fmt: skip


def remap(number: int, address: Any, kind: str = "ipip") -> dict[str, Any]:
    """The taker's half."""
    marks = [bytes([10, 0, 1, 8]), bytes([10, 0, 1, 8 if kind == "gue" else 9])]
    ends = {"local": marks, "remote": [bytes([10, 0, 2, mark[3]]) for mark in marks]}
    channel = {"encap": KINDS[kind], "family": 4, "gue_port": 6080 if kind == "gue" else 0, "mtu": 1500}
    channel |= {side: [address.ljust(16, b"\0") for address in some] for side, some in ends.items()}
    return {
        "id": number, "prefix": bytes(address).ljust(16, b"\0"), "prefix_len": 32, "family": 4,
        "role": lib.IPS_REMAP_TAKING, "peer": 1, "flags": 0, "channel": channel,
    }  # fmt: skip


def packets(flows: int, to: Any) -> tuple[Any, Any, Any]:
    """One packet of each flow, 64 bytes apart; their lengths; the flows as records of the giver."""
    data, number = np.zeros((flows, STRIDE), np.uint8), np.arange(flows, dtype=np.uint32)
    data[:, 0], data[:, 3], data[:, 8], data[:, 9] = 0x45, BYTES, 64, 17
    data[:, 12], data[:, 13] = 192, number >> 16 & 3
    data[:, 14], data[:, 15] = number >> 8 & 255, number & 255
    data[:, 16:20] = to
    data[:, 20], data[:, 21] = 0x80 | number >> 18, 7
    data[:, 23], data[:, 25] = 53, BYTES - 20
    words = data[:, 0:20].astype(np.uint32)
    total = (words[:, 0::2] << 8).sum(axis=1) + words[:, 1::2].sum(axis=1)
    total = (total & 0xFFFF) + (total >> 16)
    total = 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))
    data[:, 10], data[:, 11] = total >> 8, total & 255
    records = np.zeros(flows, SESSION)
    flow = records["flow"]
    flow["src"][:, :4], flow["dst"][:, :4] = data[:, 12:16], GLOBAL
    flow["src_port"], flow["dst_port"] = data[:, 20].astype(np.uint16) << 8 | 7, 53
    flow["family"], flow["proto"] = 4, 17
    records["kind"], records["state"], records["version"] = lib.IPS_SESSION_TRACK, lib.IPS_STATE_OPEN, 1
    return data, np.full(flows, BYTES, np.uint16), records


def distribution(kind: str) -> Tables:
    """A distribution point that sends all of 203.0.113.0/24 through a tunnel."""
    content = tables()
    content.endpoints["flags"] = 0
    content.endpoints["encap"], content.endpoints["tunnel_family"] = KINDS[kind], 4
    content.endpoints["gue_port"] = 6080 if kind == "gue" else 0
    content.endpoints["tunnel_local"][0, :4] = np.array([10, 0, 1, 8])
    content.endpoints["tunnel_remote"][0, :4] = np.array([10, 0, 2, 8])
    return replace(content, roles=lib.IPS_ROLE_OUTER)


def tables() -> Tables:
    """An end point with all of 203.0.113.0/24."""
    networks, endpoints, bindings = np.zeros(1, NETWORK), np.zeros(1, ENDPOINT), np.zeros(1, BINDING)
    networks[0]["prefix"][:3], networks[0]["prefix_len"], networks[0]["family"] = GLOBAL[:3], 24, 4
    endpoints[0]["local"][:3], endpoints[0]["prefix_len"], endpoints[0]["family"] = LOCAL[:3], 24, 4
    endpoints[0]["flags"] = lib.IPS_EP_SELF
    bindings[0]["global"][:3], bindings[0]["prefix_len"], bindings[0]["family"] = GLOBAL[:3], 24, 4
    bindings[0]["kind"] = lib.IPS_KIND_ENDPOINT
    return Tables(networks=networks, endpoints=endpoints, bindings=bindings, roles=lib.IPS_ROLE_INNER)
