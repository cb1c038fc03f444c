"""What a node must make of a packet: the verdict it counts and the packets it sends, by the oracle.

Shared by every host that the packet cases run through (the embedded engine on its devices, VPP through its
packet generator). Tables: OUTER for a distribution point, INNER for an end point, both families bound 1:1.
Knows nothing of hosts: what a kernel or VPP refuses before the core is asked is for their tests to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from ipshare.core import lib
from tests.engine_lab import tables
from tests.oracle.icmp_error import TTL, error
from tests.oracle.parse import PLAIN, Offload, Refused, parse
from tests.oracle.rewrite import DST, SRC, address_of, translate

PAIRS = ((4, "203.0.113.0", 24, "10.20.0.0"), (6, "2001:db8:60b:a1::", 64, "2001:db8:10ca:1::"))
SCOPES = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8")
SOURCES = {4: ip_address("192.0.2.1").packed, 6: ip_address("2001:db8:77::1").packed}
OUTER = replace(tables(lib.IPS_ROLE_OUTER, self_flag=0, pairs=PAIRS), icmp_rate=10**6)
INNER = replace(tables(lib.IPS_ROLE_INNER, self_flag=lib.IPS_EP_SELF, pairs=PAIRS), icmp_rate=10**6)


@dataclass(frozen=True)
class Seen:
    """A packet that a node sent."""

    data: bytes
    offload: Offload = PLAIN


def is_scoped(address: bytes) -> bool:
    """Never forwarded (RFC 1122 3.2.1.3, RFC 4291 2.5, 2.7)."""
    value = ip_address(address)
    return any(value in ip_network(scope) for scope in SCOPES)


def other_side(address: bytes, side: str) -> bytes | None:
    """The address that the binding puts in its place; None: no binding."""
    for _, network, length, local in PAIRS:
        here, there = (network, local) if side == "outer" else (local, network)
        if ip_address(address) in ip_network(f"{here}/{length}"):
            return ip_address(there).packed[: length // 8] + address[length // 8 :]
    return None


def expected(data: bytes, side: str, offload: Offload = PLAIN) -> tuple[str, list[Seen]]:
    """What a node with the tables of this side must count and send."""
    try:
        view = parse(data, offload)
        destination = address_of(data, DST)
        if is_scoped(destination):
            return "DESTINATION_SCOPE", []
        to = other_side(destination, side)
        if to is None:
            return "NO_BINDING", []
        if is_scoped(address_of(data, SRC)):
            return "SOURCE_SCOPE", []
        if view.ttl > 1:
            return "OK", [Seen(translate(data, DST, to, offload), offload)]
        if side == "inner":
            data = translate(data, DST, to, offload)  # the report quotes what the client sent
        report = error(data, view, TTL, 0, SOURCES[view.family], offload)
        return "TTL_EXPIRED", [Seen(report)] if report else []
    except Refused as refused:
        return refused.args[0], []
