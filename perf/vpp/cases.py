"""cases: what is measured beside ipshare: plain routing, a second lookup alone, and the translators VPP
has.

Each case enters by an interface of its own, so that a translator's features are on its packets only; all
leave by pg0. Destinations are rewritten, from 100.N.0.0/16 or 2001:db8:bN::/48 to 172.(16 + N).0.0/16 or
2001:db8:cN::/48. Addresses of ipshare's own sites (vpp.ours) lie elsewhere. Commands are VPP's CLI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ipshare.bench.packets import Kind
from vpp import flows

SIZE = 250
GATEWAY = {4: "192.168.0.2", 6: "2001:db8:ffff::2"}
BESIDE = ("nat", "pnat", "npt66", "nat66", "cnat", "lb")
TOPOLOGY = (
    "set interface ip address pg0 192.168.0.1/24",
    "set interface ip address pg0 2001:db8:ffff::1/64",
    f"set ip neighbor pg0 {GATEWAY[4]} 02:00:00:00:00:02",
    f"set ip neighbor pg0 {GATEWAY[6]} 02:00:00:00:00:02",
    f"ip route add 10.0.0.0/8 via {GATEWAY[4]} pg0",
    f"ip route add 172.16.0.0/12 via {GATEWAY[4]} pg0",
    f"ip route add 100.64.0.0/10 via {GATEWAY[4]} pg0",
    f"ip route add 2001:db8:a0::/44 via {GATEWAY[6]} pg0",
    f"ip route add 2001:db8:c0::/44 via {GATEWAY[6]} pg0",
    f"ip route add 2001:db8:100::/64 via {GATEWAY[6]} pg0",
)


def interfaces(count: int) -> list[str]:
    """Commands that make pg0 and `count` more, IPv4 and IPv6 enabled, and the routes of all cases."""
    made = []
    for i in range(count + 1):
        made += [f"create packet-generator interface pg{i}", f"set interface state pg{i} up"]
        made += [f"enable ip{family} interface pg{i}" for family in ("4", "6")] if i else []
    return [*made, *TOPOLOGY]


@dataclass(frozen=True, slots=True)
class Case:
    """``setup(interface, n)``: commands for n bindings; packets go to n addresses from ``base``.

    ``through``: the node that every packet has to pass. ``opened``: flows begin with SYN. ``kinds``: packets
    that it can translate besides ``kind``. ``largest``: bindings that it is measured with where growth is.
    """

    name: str
    family: int
    base: str
    setup: Callable[[str, int], list[str]]
    through: str
    kind: Kind = "mixed"
    opened: bool = False
    kinds: tuple[Kind, ...] = ()
    largest: int = SIZE
    note: str = ""


def _v4(i: int, net: str) -> str:
    return f"{net}.{i >> 8}.{i & 255}"


def _plain(_interface: str, _n: int) -> list[str]:
    return []


def _twice4(_interface: str, _n: int) -> list[str]:
    return [
        "ip table add 5",
        f"ip route add 172.25.0.0/16 table 5 via {GATEWAY[4]} pg0",
        "ip route add 172.25.0.0/16 via ip4-lookup-in-table 5",
    ]


def _twice6(_interface: str, _n: int) -> list[str]:
    return [
        "ip6 table add 5",
        f"ip route add 2001:db8:c9::/48 table 5 via {GATEWAY[6]} pg0",
        "ip route add 2001:db8:c9::/48 via ip6-lookup-in-table 5",
    ]


def _nat44_ed(interface: str, n: int) -> list[str]:
    return [
        f"nat44 plugin enable sessions {max(4 * n, 10_000)}",
        f"set interface nat44 out {interface}",
        *(f"nat44 add static mapping local {_v4(i, '172.17')} external {_v4(i, '100.1')}" for i in range(n)),
    ]


def _pnat(interface: str, n: int) -> list[str]:
    at = f"set pnat translation interface {interface}"
    return [f"{at} match dst {_v4(i, '100.2')} rewrite dst {_v4(i, '172.18')} in" for i in range(n)]


def _npt66(interface: str, _n: int) -> list[str]:
    inside, outside = "internal 2001:db8:c3::/48", "external 2001:db8:b3::/48"
    return [f"set npt66 binding interface {interface} {inside} {outside}"]


def _nat66(interface: str, n: int) -> list[str]:
    return [
        "nat66 plugin enable",
        f"set interface nat66 out {interface}",
        *(f"nat66 add static mapping local 2001:db8:c4::{i:x} external 2001:db8:b4::{i:x}" for i in range(n)),
    ]


def _cnat(_interface: str, n: int) -> list[str]:
    return [
        f"cnat translation add proto {proto} vip {_v4(i, '100.5')} 443 to ->{_v4(i, '172.21')} 443"
        for i in range(n)
        for proto in ("TCP", "UDP")
    ]


def _lb(_interface: str, n: int) -> list[str]:
    service = "protocol udp port 443 encap nat4 type clusterip target_port 443 new_len 16"
    return [
        "lb conf ip4-src-address 192.168.0.1 ip6-src-address 2001:db8:ffff::1",
        *(f"lb vip {_v4(i, '100.6')}/32 {service}" for i in range(n)),
        *(f"lb as {_v4(i, '100.6')}/32 protocol udp port 443 {_v4(i, '172.22')}" for i in range(n)),
    ]


PLAIN = {
    4: Case("plain", 4, "172.16.0.0", _plain, "ip4-lookup"),
    6: Case("plain", 6, "2001:db8:c0::", _plain, "ip6-lookup"),
}
CASES = (
    *PLAIN.values(),
    Case(
        "second lookup",
        4,
        "172.25.0.0",
        _twice4,
        "lookup-ip4-dst",
        note="no translation: a route into a table",
    ),
    Case(
        "second lookup",
        6,
        "2001:db8:c9::",
        _twice6,
        "lookup-ip6-dst",
        note="no translation: a route into a table",
    ),
    Case(
        "nat44-ed",
        4,
        "100.1.0.0",
        _nat44_ed,
        "nat44-ed-out2in",
        opened=True,
        kinds=("tcp", "udp", "fragment"),
        largest=64_000,
        note="static mappings, a session for each flow",
    ),
    Case("pnat", 4, "100.2.0.0", _pnat, "pnat-input", kinds=("tcp", "udp", "fragment"), largest=64_000),
    Case(
        "npt66",
        6,
        "2001:db8:b3::",
        _npt66,
        "npt66-input",
        kinds=("tcp", "udp", "fragment"),
        note="one prefix, no transport checksum",
    ),
    Case("nat66", 6, "2001:db8:b4::", _nat66, "nat66-out2in", kinds=("tcp", "udp"), note="static mappings"),
    Case(
        "cnat", 4, "100.5.0.0", _cnat, "ip4-cnat-tx", kinds=("tcp", "udp"), note="a service for each binding"
    ),
    Case(
        "lb",
        4,
        "100.6.0.0",
        _lb,
        "lb4-nat4-port",
        kind="udp",
        note="nat4, a service for each binding; UDP only",
    ),
)


def _nat44_ei(mode: str) -> Callable[[str, int], list[str]]:
    return lambda interface, n: [
        f"nat44 ei plugin enable {mode}",
        f"set interface nat44 ei out {interface}",
        *(
            f"nat44 ei add static mapping local {_v4(i, '172.23')} external {_v4(i, '100.7')}"
            for i in range(n)
        ),
    ]


ALONE = (
    Case(
        "nat44-ei",
        4,
        "100.7.0.0",
        _nat44_ei("static-mapping-only"),
        "nat44-ei-out2in",
        note="static-mapping-only",
    ),
    Case(
        "nat44-ei-tracking",
        4,
        "100.7.0.0",
        _nat44_ei("static-mapping-only connection-tracking"),
        "nat44-ei-out2in",
        opened=True,
        kinds=("tcp", "udp"),
        note="static-mapping-only connection-tracking",
    ),
)
"""Each in a VPP process of its own: the plugin cannot run beside nat44-ed, and may end the process."""


def packets_of(case: Case, n: int, pattern: flows.Pattern, kind: Kind) -> flows.Frames:
    """What the case's burst consists of."""
    return flows.of(kind, case.family, flows.addresses(case.base, flows.numbers(pattern, n)))
