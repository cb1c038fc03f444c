"""Tables: everything a node's data path knows, as one value.

``desired(config)`` makes one, an engine's ``read()`` returns one, ``plan.diff``
compares two. The bulk is NumPy structured arrays with the layout of the C
records (``native/ips_api.h``), so a million bindings never become a million
objects; an image is their concatenation behind a header. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.core import dtype, ffi, lib
from ipshare.errors import IpshareError

Records = npt.NDArray[Any]

HEADER = dtype("struct ips_image_header")
NETWORK = dtype("struct ips_network_rec")
ENDPOINT = dtype("struct ips_endpoint_rec")
POLICY = dtype("struct ips_policy_rec")
MEMBER = dtype("struct ips_member_rec")
PEER = dtype("struct ips_peer_rec")
BINDING = dtype("struct ips_binding_rec")

SECTIONS = {
    "network": NETWORK,
    "endpoint": ENDPOINT,
    "policy": POLICY,
    "member": MEMBER,
    "peer": PEER,
    "binding": BINDING,
}
"""Sections of an image in their order; the header has ``n_<name>s`` and ``<name>_bytes`` for each."""

NO_POLICY = 0xFFFFFFFF


class ImageError(IpshareError):
    """A table image that does not parse; ``hint`` says what to do."""


def plural(section: str) -> str:
    return "policies" if section == "policy" else f"{section}s"


def _none(layout: np.dtype[Any]) -> Any:
    return field(default_factory=lambda: np.zeros(0, layout))


@dataclass(frozen=True, eq=False)
class Tables:
    """One complete set of records. Arrays are never written to after construction.

    ``bindings`` ascend by (family, global, prefix_len), ``peers`` as ``sort_peers`` has
    them, without duplicates.
    ``options`` are the header's scalars: roles (``IPS_ROLE_*``), reply_policy,
    icmp_source4/6 (16 bytes), icmp_rate (errors per second and worker), flags.
    Two values are equal if they make the same image, (term, revision) aside.
    """

    networks: Records = _none(NETWORK)
    endpoints: Records = _none(ENDPOINT)
    policies: Records = _none(POLICY)
    members: Records = _none(MEMBER)
    peers: Records = _none(PEER)
    bindings: Records = _none(BINDING)
    roles: int = 0
    reply_policy: int = NO_POLICY
    icmp_source4: bytes = bytes(16)
    icmp_source6: bytes = bytes(16)
    icmp_rate: int = 1000
    flags: int = 0
    term: int = 0
    revision: int = 0
    endpoint_names: tuple[str, ...] = ()
    policy_names: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tables):
            return NotImplemented
        return self.options == other.options and all(
            np.array_equal(self.section(name), other.section(name)) for name in SECTIONS
        )

    __hash__ = None  # type: ignore[assignment]  # arrays: compare by value, do not use as a key

    @property
    def options(self) -> dict[str, int | bytes]:
        """The scalars that a diff compares, by name."""
        return {name: getattr(self, name) for name in OPTIONS}

    def section(self, name: str) -> Records:
        """The records of one section (a key of ``SECTIONS``)."""
        records: Records = getattr(self, plural(name))
        return records

    def endpoint_name(self, index: int) -> str:
        """For people: the configured name, else the number."""
        return self.endpoint_names[index] if index < len(self.endpoint_names) else f"#{index}"

    def numbered(self, term: int, revision: int) -> Tables:
        return replace(self, term=term, revision=revision)


OPTIONS = ("roles", "reply_policy", "icmp_source4", "icmp_source6", "icmp_rate", "flags")


def pack(tables: Tables, *, changes: Records | None = None, base_generation: int = 0) -> bytearray:
    """The image of ``tables``; with ``changes`` a delta to ``base_generation``.

    ``changes`` are binding records sorted like ``bindings``; kind 0 removes.
    """
    sections = {name: tables.section(name) for name in SECTIONS}
    header = np.zeros(1, HEADER)
    head = header[0]
    head["magic"], head["version"] = lib.IPS_IMAGE_MAGIC, lib.IPS_IMAGE_VERSION
    head["header_bytes"] = HEADER.itemsize
    head["flags"] = tables.flags
    if changes is not None:
        sections["binding"] = changes
        head["flags"] |= lib.IPS_IMAGE_DELTA
        head["base_generation"] = base_generation
    for name in ("roles", "reply_policy", "icmp_rate", "term", "revision"):
        head[name] = getattr(tables, name)
    for name in ("icmp_source4", "icmp_source6"):
        head[name] = np.frombuffer(getattr(tables, name), np.uint8)
    for name, layout in SECTIONS.items():
        head[f"{name}_bytes"] = layout.itemsize
        head[f"n_{plural(name)}"] = len(sections[name])
    total = HEADER.itemsize + sum(records.nbytes for records in sections.values())
    head["total_bytes"] = total
    image = bytearray(total)
    at = HEADER.itemsize
    for records in sections.values():
        image[at : at + records.nbytes] = np.ascontiguousarray(records).view(np.uint8).data
        at += records.nbytes
    body = np.frombuffer(image, np.uint8)[HEADER.itemsize :]
    head["digest"] = lib.ips_digest(ffi.from_buffer(body), body.nbytes)
    image[: HEADER.itemsize] = header.tobytes()
    return image


def unpack(image: bytes | bytearray | memoryview) -> Tables:
    """The tables of a complete image. Raises ``ImageError`` if it is cut, foreign or damaged."""
    if len(image) < HEADER.itemsize:
        raise ImageError(f"table image of {len(image)} bytes is shorter than its header")
    head = np.frombuffer(image, HEADER, count=1)[0]
    if head["magic"] != lib.IPS_IMAGE_MAGIC or head["version"] != lib.IPS_IMAGE_VERSION:
        raise ImageError(
            "not a table image of this version", hint="use one version of ipshare for agent and engine"
        )
    if int(head["flags"]) & lib.IPS_IMAGE_DELTA:
        raise ImageError("a delta is no complete image")
    if int(head["total_bytes"]) != len(image):
        raise ImageError(f"table image has {len(image)} bytes, its header says {head['total_bytes']}")
    body = np.frombuffer(image, np.uint8)[HEADER.itemsize :]
    if lib.ips_digest(ffi.from_buffer(body), body.nbytes) != int(head["digest"]):
        raise ImageError("table image is damaged: its digest does not match")
    arrays: dict[str, Any] = {}
    at = HEADER.itemsize
    for name, layout in SECTIONS.items():
        if head[f"{name}_bytes"] != layout.itemsize:
            raise ImageError(
                f"{name} records have {head[f'{name}_bytes']} bytes here, {layout.itemsize} expected"
            )
        count = int(head[f"n_{plural(name)}"])
        if at + count * layout.itemsize > len(image):
            raise ImageError(f"table image ends within its {plural(name)}")
        arrays[plural(name)] = np.frombuffer(image, layout, count=count, offset=at)
        at += count * layout.itemsize
    return Tables(
        **arrays,
        roles=int(head["roles"]),
        reply_policy=int(head["reply_policy"]),
        icmp_source4=head["icmp_source4"].tobytes(),
        icmp_source6=head["icmp_source6"].tobytes(),
        icmp_rate=int(head["icmp_rate"]),
        flags=int(head["flags"]),
        term=int(head["term"]),
        revision=int(head["revision"]),
    )


def binding_keys(bindings: Records) -> npt.NDArray[np.bytes_]:
    """Sort keys of binding records, shape (n,), 18 bytes: family, global, prefix_len."""
    keys = np.empty((len(bindings), 18), np.uint8)
    keys[:, 0] = bindings["family"]
    keys[:, 1:17] = bindings["global"]
    keys[:, 17] = bindings["prefix_len"]
    return keys.view("S18").reshape(-1)


def peer_keys(peers: Records) -> npt.NDArray[np.bytes_]:
    """Sort keys of peer records, shape (n,), 34 bytes: family, address, and what is also understood."""
    keys = np.zeros((len(peers), 34), np.uint8)
    also = (peers["flags"] & lib.IPS_PEER_ALSO) != 0
    keys[:, 0] = peers["family"]
    keys[:, 1:17] = peers["address"]
    keys[also, 17] = 1
    keys[also, 18:] = peers["now"][also]
    return keys.view("S34").reshape(-1)


def sort_peers(peers: Records) -> Records:
    """A sorted copy, as Tables want it."""
    return peers[np.argsort(peer_keys(peers), kind="stable")]


def sort_bindings(bindings: Records) -> Records:
    """A sorted copy, as images want it (stable; duplicates are kept for the check to find)."""
    high, low = (
        bindings["global"].reshape(-1, 16)[:, i : i + 8].copy().view(">u8").reshape(-1) for i in (0, 8)
    )
    order = np.lexsort((bindings["prefix_len"], low, high, bindings["family"]))
    return bindings[order]
