"""session_filter: which sessions are wanted, as words and as the record of the control socket.

What is None does not matter; what is given has to hold. Addresses are prefixes; the same value as JSON goes
to the agent, which closes sessions on behalf of its callers. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import ip_network
from typing import Any, Self

import numpy as np

from ipshare.core import dtype, lib
from ipshare.core.flows import SESSION_KINDS, SESSION_STATES
from ipshare.errors import IpshareError
from ipshare.model import Prefix, packed

FILTER = dtype("struct ips_ctl_session_filter")
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmp6": 58, "sctp": 132}
PREFIXES = ("src", "dst", "mapped")
PORTS = ("src_port", "dst_port", "mapped_port")
STATES = {name: number for number, name in SESSION_STATES.items() if number != lib.IPS_STATE_NONE}
KINDS = {name: number for number, name in SESSION_KINDS.items()}


class BadFilter(IpshareError):
    """A filter that cannot be meant."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """``src``: whose side opened it (of NAT: the inside); ``mapped``: the public address of NAT. ``realm``:
    the number of a NAT. ``limit`` 0: all."""

    src: Prefix | None = None
    dst: Prefix | None = None
    mapped: Prefix | None = None
    src_port: int | None = None
    dst_port: int | None = None
    mapped_port: int | None = None
    proto: int | None = None
    state: str | None = None
    kind: str | None = None
    family: int | None = None
    realm: int | None = None
    limit: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether every session matches."""
        return all(getattr(self, f.name) is None for f in fields(self) if f.name != "limit")

    @classmethod
    def parse(cls, words: dict[str, Any]) -> Self:
        """From JSON values or words of a command line. Raises ``BadFilter``."""
        known = {f.name for f in fields(cls)}
        for name in words.keys() - known:
            raise BadFilter(f"sessions have no {name!r}", hint=f"known: {', '.join(sorted(known))}")
        values = {name: value for name, value in words.items() if value is not None}
        return cls(**{name: _value(name, value) for name, value in values.items()})

    def to_json(self) -> dict[str, Any]:
        """What ``parse`` takes."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: str(value) if name in PREFIXES else value
            for name, value in found.items()
            if value is not None and (name, value) != ("limit", 0)
        }

    def encode(self) -> bytes:
        """``struct ips_ctl_session_filter``. Raises ``BadFilter`` where families differ."""
        records = np.zeros(1, FILTER)
        record, families = records[0], {self.family} - {None}
        for name in PREFIXES:
            prefix: Prefix | None = getattr(self, name)
            if prefix is not None:
                record[name] = np.frombuffer(packed(prefix.network_address), np.uint8)
                record[f"{name}_len"] = prefix.prefixlen
                families.add(prefix.version)
        if len(families) > 1:
            raise BadFilter(
                "addresses of IPv4 and IPv6 in one filter: no session has both", hint="ask for one family"
            )
        record["family"] = next(iter(families), 0)
        for name in PORTS:
            record[name] = getattr(self, name) or 0
        record["proto"], record["limit"] = self.proto or 0, self.limit
        record["state"] = STATES[self.state] if self.state is not None else 0
        record["kind"] = KINDS[self.kind] if self.kind is not None else 0
        record["realm"] = self.realm + 1 if self.realm is not None else 0
        return records.tobytes()


def _value(name: str, value: Any) -> Any:
    if name in PREFIXES:
        try:
            return ip_network(str(value), strict=False)
        except ValueError:
            raise BadFilter(
                f"{value!r} is no prefix", hint="write 203.0.113.0/24, 2001:db8::/64 or an address"
            ) from None
    if name in ("state", "kind"):
        choices = STATES if name == "state" else KINDS
        if str(value) not in choices:
            raise BadFilter(f"{value!r} is no {name} of a session", hint=f"known: {', '.join(choices)}")
        return str(value)
    if name == "proto" and str(value).lower() in PROTOCOLS:
        return PROTOCOLS[str(value).lower()]
    least, most = _RANGES[name]
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadFilter(f"{value!r} is no {name.replace('_', ' ')}", hint=f"write {least} to {most}")
    return value


_RANGES = {
    **dict.fromkeys(PORTS, (1, 65535)),
    "proto": (1, 255),
    "family": (4, 6),
    "realm": (0, 65534),
    "limit": (0, 0xFFFFFFFF),
}


def protocol_name(number: int) -> str:
    """ "tcp"; the number where there is no word."""
    return next((name for name, known in PROTOCOLS.items() if known == number), str(number))
