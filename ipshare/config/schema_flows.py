"""The tables of tracked connections: `[sessions]`, `[[nat]]`, `[mirror]` (SYSTEMS.md S2.7, S3, S4.3).

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_flows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ipshare.config.values import Duration, Name, PathEnd, Pool, Port, PortName, Prefix, Table


def _time(seconds: float, text: str, why: str) -> Any:
    return Field(default=seconds, json_schema_extra={"default": text}, description=why)


def _count(default: int, text: str, *, least: int = 1, most: int = 1 << 28) -> Any:
    return Field(default=default, ge=least, le=most, description=text)


class SessionTimeouts(Table):
    """Time without a packet after which a session ends. Whole seconds."""

    tcp_opening: Duration = _time(240.0, "4m", "TCP, not yet established (RFC 5382 REQ-5).")
    tcp_open: Duration = _time(7440.0, "2h4m", "TCP, established (RFC 5382 REQ-5).")
    tcp_closing: Duration = _time(240.0, "4m", "TCP, closed by both sides or reset.")
    udp: Duration = _time(300.0, "5m", "UDP (RFC 4787 REQ-5).")
    icmp: Duration = _time(60.0, "1m", "ICMP echo (RFC 5508 REQ-2).")
    other: Duration = _time(600.0, "10m", "Protocols without ports.")
    refresh: Duration = _time(
        30.0, "30s", "An active session reports itself to the mirror so often. Below every other time."
    )


class SourceBits(Table):
    """Leading bits of an address that make one source, for `half_open_per_source`."""

    v4: int = Field(default=32, ge=1, le=32, description="Of IPv4 addresses.")
    v6: int = Field(default=64, ge=1, le=128, description="Of IPv6 addresses.")


class Sessions(Table):
    """The table of tracked connections. Its memory is taken when the engine gets it: 158 bytes for each of
    `capacity` and `half_open`. Only `timeouts` and `udp_inbound_refreshes` can change under a running
    engine."""

    capacity: int = _count(65536, "Connections that can be open at once. More are refused and counted.")
    half_open: int = _count(
        8192, "Connections beside them that nobody has answered yet: all that a SYN flood can fill."
    )
    half_open_per_source: int = _count(1024, "Of these, how many one source may have.")
    mappings: int = _count(
        0, "Inside endpoints (address and port) with a public port. 0: as many as `capacity`.", least=0
    )
    addresses: int = _count(
        1024,
        "Different public addresses, of all pools together, also of those that come later.",
        most=1 << 20,
    )
    source_bits: SourceBits = Field(
        default=SourceBits(), description="What counts as one source, per family."
    )
    udp_inbound_refreshes: bool = Field(
        default=False,
        description="UDP packets from outside keep a mapping open too (RFC 4787 REQ-6), not only those from "
        "inside.",
    )
    timeouts: SessionTimeouts = Field(
        default=SessionTimeouts(),
        json_schema_extra={"default": {}},
        description="When sessions end without a packet.",
    )


class Nat(Table):
    """A port-translating NAT: sources of `inside` become addresses of `addresses`. At both nodes of a pair
    the same tables in the same order."""

    name: Name = Field(description="Name, for people and `ipshare nat`.")
    inside: list[Prefix] = Field(description="Prefixes, IPv4 and IPv6, whose sources are translated.")
    addresses: list[Pool] = Field(
        description="Public addresses: prefixes, or ranges of addresses as in 192.0.2.8-192.0.2.15. "
        "Configured on no interface; upstream routes them here."
    )
    ports: list[Port] = Field(
        default=[1024, 65535], description="First and last port that is given out, of TCP and UDP."
    )
    filtering: Literal["endpoint-independent", "address-and-port"] = Field(
        default="endpoint-independent",
        description="Who may send to an open mapping: whoever knows it (RFC 4787 REQ-8), or only whom the "
        "inside endpoint has sent to. The same in every [[nat]].",
    )
    deterministic: bool = Field(
        default=False,
        description="Every inside address (IPv6: every /64) has a block of ports of its own, which follows "
        "from its number (RFC 7422): `ipshare whois` answers without a log. One prefix inside and one "
        "range of addresses, in each family.",
    )
    interfaces: list[PortName] = Field(
        description="Interfaces that traffic from inside comes in by: only theirs is translated. Linux "
        "devices with the embedded engine, names of [[interface]] tables with VPP."
    )


class Redis(Table):
    """A Redis server that both nodes reach, by way of which sessions go from one to the other."""

    url: str = Field(
        min_length=1,
        description="redis://HOST:PORT/DB, rediss:// (TLS) or unix:///PATH. Without a password.",
    )
    password_file: str | None = Field(
        default=None, min_length=1, description="File with its password. Relative to this file."
    )
    prefix: str = Field(
        default="ipshare",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Its keys begin with this; the same at both nodes, another for each pair.",
    )


class Observer(Table):
    """A further node that gets the sessions: no half of the pair, never active, on whatever machine. Its file
    has the same [pair], [sessions], [[nat]] and [mirror]; its [node] has this name."""

    name: Name = Field(description="Its name, as in the `[node]` of its file.")
    paths: list[PathEnd] = Field(
        description="Its addresses and UDP ports; each is tried from every address of a node."
    )


class Mirror(Table):
    """Session changes are sent to the other node of the pair, so that connections outlive a takeover."""

    transport: Literal["udp", "redis"] = Field(
        default="udp",
        description="udp: from engine to engine, sealed. redis: by the agents, through a database; slower, "
        "and without the comparison of digests.",
    )
    redis: Redis | None = Field(default=None, description="Where it is; for transport redis.")

    port: Port | None = Field(
        default=None,
        description="UDP port at the ends of the pair's paths, at both nodes. Default: the path's, plus 1. "
        "With transport redis: of this machine alone, this one and the next.",
    )
    commit: Literal["acked", "async"] = Field(
        default="acked",
        description="acked: a session's first packet waits until a ready standby has the session. async: it "
        "goes at once, and a takeover in that moment loses the session.",
    )
    commit_timeout: Duration = Field(
        default=0.002,
        json_schema_extra={"default": "2ms"},
        description="It waits no longer than this; then it goes, and is counted as uncommitted. 1us to 1s, "
        "and less than the pair's dead time.",
    )
    ring: Annotated[int, Field(ge=0, le=1 << 22)] = Field(
        default=0, description="Changes that a worker may have waiting, a power of two. 0: the engine's own."
    )
    window: Annotated[int, Field(ge=0, le=1 << 14)] = Field(
        default=0, description="Datagrams under way to the standby, a power of two. 0: the engine's own."
    )
    digest: Duration = Field(
        default=60.0,
        json_schema_extra={"default": "1m"},
        description='Time between two comparisons of all sessions of both nodes. "0s": never.',
    )
    observer: list[Observer] = Field(
        default=[], description="Nodes beside the pair that get the sessions too, at most 4."
    )
