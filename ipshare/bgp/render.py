"""render: a configuration as BIRD's (bird.conf of BIRD 2): one session for each neighbour, nothing learnt.

The announcement hangs on devices of the engine's process (where): a static route into them, which BIRD
withdraws by itself when the last of them goes with the process. Graceful restart is off: it would keep
traffic coming to a dead node.
Which prefixes stand there, and whether as a drain, is the caller's word (readiness). Lines that announce
are the only ones that begin with ROUTE: `held` takes them out of a text without knowing the rest. Pure. RFC
4271, RFC 8326 (drain), RFC 1997 and RFC 8092 (communities), RFC 2385 (MD5), RFC 5880 (BFD).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from ipshare.bgp.where import devices
from ipshare.errors import Refused
from ipshare.model import Bgp, BgpNeighbor, Config

ROUTE = "  route "
GRACEFUL_SHUTDOWN = (65535, 0)
"""RFC 8326."""


def protocol_name(address: IPv4Address | IPv6Address) -> str:
    """What BIRD calls the session with this neighbour: the same whatever else changes, so that it goes on."""
    return "to_" + str(address).replace(".", "_").replace(":", "_")


def render(
    config: Config, *, announces: bool, is_draining: bool = False, passwords: Mapping[str, str] | None = None
) -> str:
    """bird.conf. ``passwords``: by address of the neighbour. Raises Refused for one that BIRD cannot be
    told."""
    bgp = config.bgp
    assert bgp is not None, "asked of nodes that announce"
    return "\n".join(
        [
            "# Written by ipshare's agent, again at every change.",
            "log stderr all;",
            f"router id {bgp.router_id};",
            'timeformat protocol "%s";',
            "",
            "protocol device { }",
            *_bfd(bgp),
            *_statics(config, announces),
            *(line for n in bgp.neighbors for line in _session(bgp, n, is_draining, passwords or {})),
            "",
        ]
    )


def held(text: str) -> str:
    """The same, announcing nothing."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(ROUTE))


def is_announcing(text: str) -> bool:
    return any(line.startswith(ROUTE) for line in text.splitlines())


def _bfd(bgp: Bgp) -> Iterator[str]:
    if any(neighbor.bfd for neighbor in bgp.neighbors):
        ms, times = bgp.bfd_interval_ms, bgp.bfd_multiplier
        timers = f"min rx interval {ms} ms; min tx interval {ms} ms; multiplier {times};"
        yield f'protocol bfd {{ interface "*" {{ {timers} }}; multihop {{ {timers} }}; }}'


def _statics(config: Config, announces: bool) -> Iterator[str]:
    ways = " ".join(f'via "{device}"' for device in devices(config))
    for family in (4, 6):
        prefixes = [n.prefix for n in config.networks if n.prefix.version == family]
        if prefixes:
            yield f"protocol static networks{family} {{"
            yield f"  ipv{family};"
            for prefix in prefixes if announces else ():
                yield f"{ROUTE}{prefix} {ways};"
            yield "}"


def _session(
    bgp: Bgp, neighbor: BgpNeighbor, is_draining: bool, passwords: Mapping[str, str]
) -> Iterator[str]:
    local = bgp.local4 if neighbor.address.version == 4 else bgp.local6
    yield f"protocol bgp {protocol_name(neighbor.address)} {{"
    yield f"  local{f' {local}' if local is not None else ''} as {bgp.asn};"
    yield f"  neighbor {neighbor.address} as {neighbor.asn};"
    yield f"  multihop {neighbor.multihop};" if neighbor.multihop is not None else "  direct;"
    if local is not None:
        yield "  strict bind;"  # whoever else speaks BGP on this machine keeps his addresses
    yield f"  hold time {bgp.hold_s};"
    yield "  graceful restart off;"
    yield "  connect retry time 5;"
    yield "  error wait time 2, 30;"
    if neighbor.bfd:
        yield "  bfd on;"
    if (password := passwords.get(str(neighbor.address))) is not None:
        yield f'  password "{_checked(password, neighbor)}";'
    for family in neighbor.families:
        hop = neighbor.next_hop4 if family == 4 else neighbor.next_hop6
        yield f"  ipv{family} {{"
        yield "    import none;"
        yield f"    next hop {f'address {hop}' if hop is not None else 'self'};"
        yield "    export filter {"
        yield from (f"      {line}" for line in _attributes(bgp, neighbor, is_draining))
        yield "      accept;"
        yield "    };"
        yield "  };"
    yield "}"


def _attributes(bgp: Bgp, neighbor: BgpNeighbor, is_draining: bool) -> Iterator[str]:
    yield "if source != RTS_STATIC then reject;"
    if neighbor.med is not None:
        yield f"bgp_med = {neighbor.med};"
    yield from (f"bgp_path.prepend({bgp.asn});" for _ in range(neighbor.prepend))
    communities = neighbor.communities + ((GRACEFUL_SHUTDOWN,) if is_draining else ())
    for community in dict.fromkeys(communities):
        kind = "bgp_community" if len(community) == 2 else "bgp_large_community"
        yield f"{kind}.add(({', '.join(map(str, community))}));"
    if is_draining and neighbor.asn == bgp.asn:
        yield "bgp_local_pref = 0;"


def _checked(password: str, neighbor: BgpNeighbor) -> str:
    """BIRD's strings know no escapes; the kernel takes 80 bytes (TCP_MD5SIG_MAXKEYLEN)."""
    if not 1 <= len(password.encode()) <= 80 or not password.isprintable() or '"' in password:
        raise Refused(
            f"the password of neighbour {neighbor.address} cannot be used",
            hint='1 to 80 bytes, printable, without "',
        )
    return password
