"""Table images written by hand, and tables of the C core to load them into.

Independent of ``ipshare.engine``, so that the core's judgement of an image is
tested on images that no configuration would produce.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np

from ipshare.core import dtype, ffi, lib

HEADER, NETWORK, ENDPOINT, POLICY, MEMBER, PEER, BINDING = (
    dtype(f"struct ips_{name}")
    for name in (
        "image_header",
        "network_rec",
        "endpoint_rec",
        "policy_rec",
        "member_rec",
        "peer_rec",
        "binding_rec",
    )
)
LOOKUP, CELLS = dtype("struct ips_lookup"), dtype("struct ips_cell_range")
NONE = 0xFFFFFFFF
SECTIONS = {
    "network": NETWORK,
    "endpoint": ENDPOINT,
    "policy": POLICY,
    "member": MEMBER,
    "peer": PEER,
    "binding": BINDING,
}
PLURAL = {
    "network": "networks",
    "endpoint": "endpoints",
    "policy": "policies",
    "member": "members",
    "peer": "peers",
    "binding": "bindings",
}

Record = dict[str, Any]


def packed(address: str | int | bytes, family: int = 4) -> list[int]:
    """16 bytes of an address; of an integer, those of that number in ``family``."""
    if isinstance(address, int):
        raw = address.to_bytes(4 if family == 4 else 16, "big")
    else:
        raw = address if isinstance(address, bytes) else ip_address(address).packed
    return list(raw.ljust(16, b"\0"))


def network(prefix: str, **fields: Any) -> Record:
    net = ip_network(prefix)
    return {"prefix": packed(net[0].packed), "family": net.version, "prefix_len": net.prefixlen, **fields}


def endpoint(prefix: str, *, tunnel: tuple[str, str] | None = None, **fields: Any) -> Record:
    """``tunnel``: (remote, local); ``prefix`` "" is a record without a local prefix, of IPv4."""
    record: Record = {"family": 4}
    if prefix:
        net = ip_network(prefix)
        record = {"local": packed(net[0].packed), "family": net.version, "prefix_len": net.prefixlen}
    if tunnel:
        record["tunnel_remote"], record["tunnel_local"] = (packed(end) for end in tunnel)
        record["tunnel_family"] = ip_address(tunnel[0]).version
    return record | fields


def policy(first: int, n: int, **fields: Any) -> Record:
    return {"first_member": first, "n_members": n, "v4_bits": 32, "v6_bits": 64, **fields}


def member(end: int, weight: int = 1) -> Record:
    return {"endpoint": end, "weight": weight}


def peer(address: str, now: str | list[int] = "", **fields: Any) -> Record:
    """A member of a group; ``now`` "": it has not moved."""
    record: Record = {"address": packed(address), "family": ip_address(address).version, "group": 1}
    if now:
        record["now"] = packed(now) if isinstance(now, str) else now
    return record | fields


def binding(
    prefix: str, target: int = 0, local: str | int = 0, kind: int | None = None, **fields: Any
) -> Record:
    """``local``: an offset as a number, or an address."""
    net = ip_network(prefix)
    return {
        "global": packed(net[0].packed),
        "family": net.version,
        "prefix_len": net.prefixlen,
        "kind": lib.IPS_KIND_ENDPOINT if kind is None else kind,
        "target": target,
        "local": packed(local, net.version),
        **fields,
    }


def records(section: str, rows: Sequence[Record]) -> np.ndarray[Any, Any]:
    out = np.zeros(len(rows), SECTIONS[section])
    for i, row in enumerate(rows):
        for name, value in row.items():
            out[name][i] = value
    return out


def in_order(rows: Iterable[Record]) -> list[Record]:
    return sorted(rows, key=lambda row: (row["family"], bytes(row["global"]), row["prefix_len"]))


@dataclass(frozen=True)
class Image:
    """Sections as rows; ``header``: fields that differ from what they should be."""

    networks: Sequence[Record] = (network("203.0.113.0/24"),)
    endpoints: Sequence[Record] = (endpoint("10.0.0.0/24"), endpoint("10.0.1.0/24"))
    policies: Sequence[Record] = ()
    members: Sequence[Record] = ()
    bindings: Sequence[Record] | np.ndarray[Any, Any] = ()
    header: Record = field(default_factory=dict)
    peers: Sequence[Record] = ()

    def but(self, **changes: Any) -> Image:
        return replace(self, **changes)

    def delta(self, base: int, bindings: Sequence[Record], **changes: Any) -> Image:
        header = {**self.header, "flags": lib.IPS_IMAGE_DELTA, "base_generation": base}
        return replace(self, bindings=bindings, header=header, **changes)

    def pack(self) -> bytes:
        header = np.zeros(1, HEADER)
        header["magic"], header["version"] = lib.IPS_IMAGE_MAGIC, lib.IPS_IMAGE_VERSION
        header["header_bytes"], header["reply_policy"] = HEADER.itemsize, NONE
        body = b""
        for section, plural in PLURAL.items():
            rows = getattr(self, plural)
            array = rows if isinstance(rows, np.ndarray) else records(section, rows)
            header[f"{section}_bytes"], header[f"n_{plural}"] = array.itemsize, len(array)
            body += array.tobytes()
        header["total_bytes"] = HEADER.itemsize + len(body)
        header["digest"] = lib.ips_digest(ffi.from_buffer(body), len(body))
        for name, value in self.header.items():
            header[name] = value
        return header.tobytes() + body


class Refused(Exception):
    """An image that the core did not take: ``reason`` is (error, section, index)."""

    def __init__(self, reason: tuple[int, int, int]) -> None:
        super().__init__(f"{ffi.string(lib.ips_load_error_text(reason[0])).decode()}: {reason}")
        self.reason = reason


class Tables:
    """Tables of the core; freed when garbage collected."""

    def __init__(self, workers: int = 1) -> None:
        self.c = ffi.gc(lib.ips_tables_new(workers), lib.ips_tables_free)

    def prepare(self, image: Image | bytes) -> int:
        raw = image if isinstance(image, bytes) else image.pack()
        status = ffi.new("struct ips_load_status *")
        generation = lib.ips_tables_prepare(self.c, ffi.from_buffer(raw), len(raw), status)
        if generation == 0:
            raise Refused((status.error, status.section, status.index))
        assert status.error == lib.IPS_LOAD_OK
        return int(generation)

    def load(self, image: Image | bytes) -> int:
        generation = self.prepare(image)
        assert lib.ips_tables_commit(self.c, generation) == 0
        lib.ips_tables_reclaim(self.c)
        return generation

    def info(self) -> dict[str, int]:
        info = ffi.new("struct ips_tables_info *")
        lib.ips_tables_info(self.c, info)
        return {name: int(getattr(info, name)) for name, _ in ffi.typeof(info[0]).fields}

    def dump(self) -> bytes:
        size = lib.ips_tables_dump(self.c, ffi.NULL, 0)
        out = ffi.new("uint8_t[]", size)
        assert lib.ips_tables_dump(self.c, out, size) == size
        return bytes(ffi.buffer(out, size))

    def find_global(self, keys: Sequence[str], client: str | None = None) -> np.ndarray[Any, Any]:
        """Rows of ``struct ips_lookup``, one for each key; all of one family."""
        clients = [client] * len(keys) if client else None
        return self.globals(ip_address(keys[0]).version, _keys(keys), clients and _keys(clients))

    def find_local(self, keys: Sequence[str]) -> np.ndarray[Any, Any]:
        return self.locals(ip_address(keys[0]).version, _keys(keys))

    def globals(self, family: int, keys: bytes, clients: bytes | None) -> np.ndarray[Any, Any]:
        out = np.zeros(len(keys) // 16, LOOKUP)
        whom = ffi.from_buffer(clients) if clients else ffi.NULL
        lib.ips_lookup_global(
            self.c, family, ffi.from_buffer(keys), whom, len(out), ffi.from_buffer("struct ips_lookup *", out)
        )
        return out

    def locals(self, family: int, keys: bytes) -> np.ndarray[Any, Any]:
        out = np.zeros(len(keys) // 16, LOOKUP)
        lib.ips_lookup_local(
            self.c, family, ffi.from_buffer(keys), len(out), ffi.from_buffer("struct ips_lookup *", out)
        )
        return out

    def cells(self, rows: Sequence[Record]) -> list[tuple[int, int]]:
        """(index, span) of the counter cells of each binding."""
        recs = records("binding", rows)
        index, span = np.zeros(len(recs), "u4"), np.zeros(len(recs), "u4")
        lib.ips_tables_counter_index(
            self.c,
            ffi.from_buffer("struct ips_binding_rec *", recs),
            len(recs),
            ffi.from_buffer("uint32_t *", index),
            ffi.from_buffer("uint32_t *", span),
        )
        return list(zip(index.tolist(), span.tolist(), strict=True))

    def fresh_cells(self) -> set[int]:
        n = lib.ips_tables_fresh_cells(self.c, ffi.NULL, 0)
        out = np.zeros(n, CELLS)
        lib.ips_tables_fresh_cells(self.c, ffi.from_buffer("struct ips_cell_range *", out), n)
        return {cell for row in out for cell in range(row["first"], row["first"] + row["n"])}


def _keys(addresses: Sequence[str]) -> bytes:
    return b"".join(bytes(packed(address)) for address in addresses)


def text(row: Any) -> str | None:
    """The address of one answer; None where there is none."""
    raw = bytes(row["address"])
    if not any(raw):
        return None
    return str(ip_address(raw if any(raw[4:]) else raw[:4]))
