"""Sessions and port-translating NAT of the C core as plain Python: a flow in, verdict and flow out.

An end is (address text, port). ``Nat`` owns a session table, a fragment table and the NAT on both; what its
events said is in ``events``. Time is in ticks of the core (2^26 ns), so that a test can stand on an edge.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from ipshare.core import ffi, lib
from tests.oracle import encap as oracle
from tests.packet_doors import Packet, ip, name

TICK = 1 << 26
S = 10**9
TCP, UDP, ICMP, ICMP6, SCTP, ESP, AH = 6, 17, 1, 58, 132, 50, 51
FIN, SYN, RST, ACK = 1, 2, 4, 16
End = tuple[str, int]
REALM = 7
POOL4, POOL6 = "203.0.113.0", "2001:db8:ff::"


def ticks(seconds: float) -> int:
    """How long a session of that time-out may be idle."""
    return (round(seconds * S) >> 26) + 1


def packed(address: str) -> bytes:
    return ip_address(address).packed.ljust(16, b"\0")


def unpacked(address: Any, family: int) -> str:
    return str(ip_address(bytes(address)[: 4 if family == 4 else 16]))


class Flow(NamedTuple):
    proto: int
    src: End
    dst: End


def flow(f: Flow, realm: int = REALM) -> Any:
    fields = {"src": list(packed(f.src[0])), "dst": list(packed(f.dst[0]))}
    ports = {"src_port": f.src[1], "dst_port": f.dst[1]}
    family = ip_address(f.src[0]).version
    return ffi.new("struct ips_flow *", fields | ports | {"family": family, "proto": f.proto, "realm": realm})


class Rec(NamedTuple):
    flow: Flow
    mapped: End
    kind: int
    state: int
    flags: int
    version: int
    age_s: int
    idle_ms: int
    packets: tuple[int, int]
    bytes: tuple[int, int]


def rec(r: Any) -> Rec:
    f = r.flow
    src, dst = ((unpacked(a, f.family), p) for a, p in ((f.src, f.src_port), (f.dst, f.dst_port)))
    mapped = (unpacked(r.mapped, f.family), r.mapped_port)
    counts = (tuple(r.packets), tuple(r.bytes))
    return Rec(
        Flow(f.proto, src, dst), mapped, r.kind, r.state, r.flags, r.version, r.age_s, r.idle_ms, *counts
    )


def c_rec(r: Rec, realm: int = REALM) -> Any:
    out = ffi.new("struct ips_session_rec *")
    out.flow = flow(r.flow, realm)[0]
    out.mapped = list(packed(r.mapped[0]))
    out.mapped_port = r.mapped[1]
    for field in ("kind", "state", "flags", "version", "age_s", "idle_ms", "packets", "bytes"):
        setattr(out, field, getattr(r, field))
    return out


def packet(f: Flow, flags: int = SYN, payload: bytes = b"abcdefgh", kind: int = 0, **fields: Any) -> bytes:
    """ICMP: the source's port is the identifier, ``kind`` the type."""
    (src, sport), (dst, dport) = f.src, f.dst
    if f.proto == TCP:
        l4, at = struct.pack("!HHIIBBHHH", sport, dport, 1, 2, 0x50, flags, 512, 0, 0), 16
    elif f.proto == UDP:
        l4, at = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0), 6
    elif f.proto in (ICMP, ICMP6):
        l4, at = struct.pack("!BBHHH", kind, 0, 0, sport, 9), 2
    else:
        return ip(f.proto, struct.pack("!HHII", sport, dport, 3, 4) + payload, src, dst, **fields)
    whole = ip(f.proto, l4 + payload, src, dst, **fields)
    if f.proto == ICMP:
        body = whole[20:22] + oracle.checksum(whole[20:]).to_bytes(2, "big") + whole[24:]
        return whole[:20] + body
    return oracle.with_l4_sum(whole, at)


def parsed(data: bytes) -> Flow:
    header = oracle.ip_header_len(data)
    a, n = oracle.addresses(data), 4 if oracle.family(data) == 4 else 16
    proto, l4 = oracle.proto(data), data[header:]
    ports = (0, 0)
    if proto in (TCP, UDP, SCTP):
        ports = struct.unpack("!HH", l4[:4])
    elif proto in (ICMP, ICMP6):
        ports = (struct.unpack("!H", l4[4:6])[0],) * 2
    src, dst = str(ip_address(a[:n])), str(ip_address(a[n:]))
    return Flow(proto, (src, ports[0]), (dst, ports[1]))


def sums_are_right(data: bytes) -> bool:
    header = oracle.ip_header_len(data)
    if oracle.family(data) == 4 and oracle.ones_sum(data[:header]) != 0xFFFF:
        return False
    if oracle.proto(data) == ICMP:
        return oracle.ones_sum(data[header:]) == 0xFFFF
    if oracle.proto(data) in (TCP, UDP, ICMP6):
        pseudo = oracle.pseudo(data, oracle.proto(data), len(data) - header)
        return oracle.ones_sum(pseudo + data[header:]) == 0xFFFF
    return True


class Sessions:
    """A session table; ``now`` is moved by hand."""

    def __init__(self, now: int = 100, **config: Any) -> None:
        self.now = now
        timeouts = config.pop("timeouts", {})
        plain = {"sessions": 1000, "half_open": 1000, "seed": 5, "now_ns": now * TICK} | config
        c = ffi.new("struct ips_sessions_config *", plain)
        for field, seconds in timeouts.items():
            setattr(c.timeouts, field, seconds)
        self.s = lib.ips_sessions_new(c)
        assert self.s
        self.events: list[tuple[int, Rec]] = []
        self._heard = ffi.callback(
            "void(void *, uint32_t, int, const struct ips_session_rec *)",
            lambda _arg, _worker, op, r: self.events.append((op & ~lib.IPS_SESSION_BORN, rec(r))),
        )
        lib.ips_sessions_on_event(self.s, self._heard, ffi.NULL)

    def __del__(self) -> None:
        lib.ips_sessions_free(self.s)

    @property
    def ns(self) -> int:
        return self.now * TICK

    def see(self, f: Flow, flags: int = 0, see: int = 0, mapped: str | None = None, size: int = 60) -> str:
        server = packed(mapped) if mapped else ffi.NULL
        return name(lib.ips_session_see(self.s, 0, flow(f), see, flags, size, server, self.ns))

    def get(self, f: Flow) -> Rec | None:
        out = ffi.new("struct ips_session_rec *")
        return rec(out) if lib.ips_sessions_get(self.s, flow(f), self.ns, out) else None

    def close(self, f: Flow) -> int:
        return int(lib.ips_sessions_close(self.s, 0, flow(f), self.ns))

    def apply(self, op: int, r: Rec, realm: int = REALM) -> tuple[int, Rec]:
        owner = ffi.new("struct ips_session_rec *")
        owner.flow.family = 4
        return int(lib.ips_sessions_apply(self.s, 0, op, c_rec(r, realm), self.ns, owner)), rec(owner)

    def scan(self, room: int = 7) -> list[Rec]:
        cursor, out, found = ffi.new("uint64_t *"), ffi.new("struct ips_session_rec[]", room), []
        while n := lib.ips_sessions_scan(self.s, cursor, self.ns, out, room):
            found += [rec(out[i]) for i in range(n)]
        return found

    def expire(self) -> int:
        return int(lib.ips_sessions_expire(self.s, 0, self.ns, lib.ips_sessions_buckets(self.s)))

    def stat(self, field: str) -> int:
        stats = ffi.new("struct ips_sessions_stats *")
        lib.ips_sessions_stats(self.s, stats)
        return int(getattr(stats, field))


class Nat(Sessions):
    """Inside 10/8 and fd00::/8; a pool of each family. ``ports``: first and last. ``blocks``: bits of
    subscriber numbers and ports of each; the subscribers are the first ones of the inside prefix."""

    def __init__(
        self,
        *,
        addresses: int = 2,
        ports: tuple[int, int] = (0, 0),
        filtering: int = 1,
        blocks: tuple[int, int] = (0, 0),
        **config: Any,
    ) -> None:
        super().__init__(**config)
        self.frags = ffi.gc(lib.ips_frag_new(64, 32, 1500, 1), lib.ips_frag_free)
        pools = ffi.new("struct ips_napt_pool_rec[2]")
        insides = ffi.new("struct ips_napt_inside_rec[2]")
        for i, (first, prefix) in enumerate(((POOL4, "10.0.0.0/8"), (POOL6, "fd00::/8"))):
            inside = ip_network(prefix)
            pools[i].first, pools[i].n, pools[i].realm = list(packed(first)), addresses, REALM
            pools[i].family, (pools[i].first_port, pools[i].last_port) = inside.version, ports
            if blocks[1]:
                unit = 32 if inside.version == 4 else 64
                pools[i].inside, pools[i].unit_len = list(packed(prefix.split("/")[0])), unit
                pools[i].inside_len, pools[i].block = unit - blocks[0], blocks[1]
            insides[i].prefix = list(packed(str(inside.network_address)))
            insides[i].family, insides[i].prefix_len, insides[i].realm = (
                inside.version,
                inside.prefixlen,
                REALM,
            )
        self.config = ffi.new(
            "struct ips_napt_config *",
            {"pools": pools, "insides": insides, "n_pools": 2, "n_insides": 2, "filtering": filtering},
        )
        self._kept = (pools, insides)
        self.n = ffi.gc(lib.ips_napt_new(self.s, self.frags, self.config), lib.ips_napt_free)
        assert self.n
        self.emitted: list[bytes] = []
        self._emit = ffi.callback(
            "void(void *, struct ips_pkt *, int)",
            lambda _arg, p, _kind: self.emitted.append(bytes(ffi.buffer(p.data, p.len))),
        )
        lib.ips_napt_set_emit(self.n, 0, self._emit, ffi.NULL)

    def raw(self, out: bool, data: bytes, **fields: int) -> tuple[str, bytes]:
        """A refused packet must be untouched."""
        p = Packet(data, **fields)
        verdict = name((lib.ips_napt_out if out else lib.ips_napt_in)(self.n, p.c, 0, self.ns))
        assert verdict in ("OK", "HAIRPINNED") or p.data == data
        return verdict, p.data

    def out(self, f: Flow, flags: int = SYN, **fields: Any) -> tuple[str, Flow]:
        return self._way(True, f, flags, fields)

    def back(self, f: Flow, flags: int = SYN | ACK, **fields: Any) -> tuple[str, Flow]:
        return self._way(False, f, flags, fields)

    def _way(self, out: bool, f: Flow, flags: int, fields: dict[str, Any]) -> tuple[str, Flow]:
        if f.proto in (ICMP, ICMP6):
            fields = {
                "kind": {True: {ICMP: 8, ICMP6: 128}, False: {ICMP: 0, ICMP6: 129}}[out][f.proto]
            } | fields
        verdict, data = self.raw(out, packet(f, flags, **fields))
        assert sums_are_right(data)
        return verdict, parsed(data)

    def ports(self) -> int:
        room = ffi.new("struct ips_napt_address[]", 16)
        n = lib.ips_napt_addresses(self.n, room, 16)
        return sum(room[i].tcp + room[i].udp + room[i].icmp + room[i].whole for i in range(n))


# ---- who talks to whom in the tests -------------------------------------------

A, B, C = ("10.0.0.1", 1000), ("10.0.0.2", 1000), ("10.9.9.9", 7)
WEB, DNS = ("198.51.100.1", 443), ("198.51.100.2", 53)
INSIDE = {4: A, 6: ("fd00::1", 1000)}
REMOTE = {4: WEB, 6: ("2001:db8:1::1", 443)}
ECHO = {4: ICMP, 6: ICMP6}
INDEPENDENT, DEPENDENT = 0, 1


def through(nat: Nat, proto: int, inside: End, remote: End, flags: int = SYN) -> End:
    """The public end of a flow from inside."""
    verdict, went = nat.out(Flow(proto, inside, remote), flags)
    assert verdict == "OK" and went.dst[0] == remote[0]
    return went.src
