"""What VPP shall have besides tables, as values: interfaces, bridges, addresses, routes, neighbours, proxies.

A configuration becomes a list of parts (ports_wanted), what VPP has is the same kind of values
(ports_state), ports_plan compares the two, ports_apply carries the difference out. A part says what it is;
``slot`` is what only one part can have at a time (one table of an interface), ``needs`` are the slots that
must be filled before it. Addresses and prefixes are strings as the standard library prints them, so that a
part is equal to itself after a trip through JSON. Pure. DESIGN.md section 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

Slot = tuple[str | int, ...]
SEVERAL = "several"
"""Next hop of a route that is none of ours: several paths, or a path of another kind."""


@dataclass(frozen=True, slots=True)
class Part(ABC):
    """Base. ``can_change``: VPP takes another value in place, no removal comes before it."""

    can_change: ClassVar[bool] = False

    @property
    @abstractmethod
    def slot(self) -> Slot:
        """What only one part can have at a time."""

    @property
    def needs(self) -> tuple[Slot, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class OnPort(Part):
    """A property of interface ``port``."""

    port: str

    @property
    def slot(self) -> Slot:
        return (type(self).__name__, self.port)

    @property
    def needs(self) -> tuple[Slot, ...]:
        return (("port", self.port),)


@dataclass(frozen=True, slots=True)
class HostPort(Part):
    """An interface over a Linux device (af_packet)."""

    port: str
    host: str

    @property
    def slot(self) -> Slot:
        return ("port", self.port)


@dataclass(frozen=True, slots=True)
class Loopback(Part):
    """loopN."""

    port: str

    @property
    def slot(self) -> Slot:
        return ("port", self.port)


@dataclass(frozen=True, slots=True)
class FoundPort(Part):
    """An interface that VPP must have by itself: never made, never removed."""

    port: str

    @property
    def slot(self) -> Slot:
        return ("port", self.port)


@dataclass(frozen=True, slots=True)
class Domain(Part):
    """A bridge domain."""

    number: int

    @property
    def slot(self) -> Slot:
        return ("domain", self.number)


@dataclass(frozen=True, slots=True)
class Mac(OnPort):
    can_change: ClassVar[bool] = True
    mac: str


@dataclass(frozen=True, slots=True)
class Mtu(OnPort):
    """Largest IP packet, bytes."""

    can_change: ClassVar[bool] = True
    mtu: int


@dataclass(frozen=True, slots=True)
class RxMode(OnPort):
    can_change: ClassVar[bool] = True
    mode: str


@dataclass(frozen=True, slots=True)
class InTable(OnPort):
    """The table in which packets of a family that come in are looked up."""

    can_change: ClassVar[bool] = True
    family: int
    table: int

    @property
    def slot(self) -> Slot:
        return ("in table", self.port, self.family)


@dataclass(frozen=True, slots=True)
class Member(OnPort):
    """The interface is in a bridge domain; as its bvi: VPP's own interface there."""

    can_change: ClassVar[bool] = True
    domain: int
    is_bvi: bool

    @property
    def needs(self) -> tuple[Slot, ...]:
        return (("port", self.port), ("domain", self.domain))


@dataclass(frozen=True, slots=True)
class PortAddress(OnPort):
    """An address with the length of its subnet: "10.0.1.2/29"."""

    address: str

    @property
    def slot(self) -> Slot:
        return ("address", self.port, self.address)

    @property
    def needs(self) -> tuple[Slot, ...]:
        return (("port", self.port), ("in table", self.port, _family(self.address)))


@dataclass(frozen=True, slots=True)
class Quiet(OnPort):
    """No router advertisements: a node that translates does not offer itself as a default gateway."""

    @property
    def needs(self) -> tuple[Slot, ...]:
        return (("port", self.port), ("in table", self.port, 6))


@dataclass(frozen=True, slots=True)
class LinuxPair(OnPort):
    """A Linux device that mirrors the interface (linux-cp). netns "": VPP's own."""

    device: str
    netns: str


@dataclass(frozen=True, slots=True)
class Admin(OnPort):
    """Administratively up, or down."""

    can_change: ClassVar[bool] = True
    is_up: bool


@dataclass(frozen=True, slots=True)
class StaticNeighbor(OnPort):
    can_change: ClassVar[bool] = True
    address: str
    mac: str

    @property
    def slot(self) -> Slot:
        return ("neighbor", self.port, self.address)


@dataclass(frozen=True, slots=True)
class StaticRoute(Part):
    """Via a next hop, a port, both; or neither: looked up again in table ``again_in``, or dropped."""

    can_change: ClassVar[bool] = True
    table: int
    prefix: str
    via: str | None = None
    port: str | None = None
    again_in: int | None = None
    drops: bool = False

    @property
    def slot(self) -> Slot:
        return ("route", self.table, self.prefix)

    @property
    def needs(self) -> tuple[Slot, ...]:
        return (("port", self.port),) if self.port is not None else ()


@dataclass(frozen=True, slots=True)
class ArpRange(Part):
    """VPP answers ARP for first..last on the interfaces of a table that are ArpProxy."""

    table: int
    first: str
    last: str

    @property
    def slot(self) -> Slot:
        return ("arp", self.table, self.first, self.last)


@dataclass(frozen=True, slots=True)
class ArpProxy(OnPort):
    """ArpRanges of its table are answered here."""


@dataclass(frozen=True, slots=True)
class NdProxy(OnPort):
    """VPP answers neighbour solicitations for this address here."""

    address: str

    @property
    def slot(self) -> Slot:
        return ("nd", self.port, self.address)

    @property
    def needs(self) -> tuple[Slot, ...]:
        return (("port", self.port), ("in table", self.port, 6))


@dataclass(frozen=True, slots=True)
class ReplySide(OnPort):
    """Sources of packets that come in here are looked at (S1.5): side 1 at an end point, 0 at a distribution
    point."""

    side: int


@dataclass(frozen=True, slots=True)
class NatSide(OnPort):
    """Inside hosts of the NAT ``realm`` are behind the interface (S3.5)."""

    realm: int

    @property
    def slot(self) -> Slot:
        return ("nat", self.port, self.realm)


KINDS: tuple[type[Any], ...] = (
    HostPort,
    Loopback,
    FoundPort,
    Domain,
    Mac,
    Mtu,
    RxMode,
    InTable,
    Member,
    PortAddress,
    Quiet,
    LinuxPair,
    NatSide,
    Admin,
    StaticNeighbor,
    StaticRoute,
    ArpRange,
    ArpProxy,
    NdProxy,
    ReplySide,
)
"""In the order in which parts are made; they are removed in the opposite one."""

RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_BY_NAME = {kind.__name__: kind for kind in KINDS}


def to_json(part: Part) -> dict[str, Any]:
    return {"kind": type(part).__name__, **asdict(part)}


def from_json(record: dict[str, Any]) -> Part:
    """Raises LookupError or TypeError where ``record`` is no part."""
    values = dict(record)
    part: Part = _BY_NAME[values.pop("kind")](**values)
    return part


def describe(part: Part) -> str:
    """For people: ``host-up0: address 10.0.1.2/29``."""
    match part:
        case HostPort(port, host):
            return f"interface {port} over {host}"
        case Loopback(port) | FoundPort(port):
            return f"interface {port}"
        case Domain(number):
            return f"bridge domain {number}"
        case StaticRoute():
            return f"table {part.table}: route {part.prefix} {' '.join(_way(part))}"
        case ArpRange(table, first, last):
            return f"table {table}: ARP is answered for {first} to {last}"
        case OnPort():
            return f"{part.port}: {_property(part)}"
    raise AssertionError(part)


def _way(route: StaticRoute) -> Iterator[str]:
    if route.via is not None:
        yield f"via {route.via}"
    if route.port is not None:
        yield f"dev {route.port}"
    if route.again_in is not None:
        yield f"lookup in table {route.again_in}"
    if route.drops:
        yield "drop"


def _property(part: OnPort) -> str:
    match part:
        case InTable(_, family, table):
            return f"IPv{family} table {table}"
        case Member(_, domain, is_bvi):
            return f"{'bvi' if is_bvi else 'port'} of bridge domain {domain}"
        case PortAddress(_, address):
            return f"address {address}"
        case LinuxPair(_, device, netns):
            return f"linux-cp pair {device}{f' in {netns}' if netns else ''}"
        case StaticNeighbor(_, address, mac):
            return f"neighbour {address} {mac}"
        case NdProxy(_, address):
            return f"neighbour solicitations for {address} are answered"
        case Mac(_, mac):
            return f"MAC address {mac}"
        case Mtu(_, mtu):
            return f"mtu {mtu}"
        case RxMode(_, mode):
            return f"rx mode {mode}"
        case Admin(_, is_up):
            return "up" if is_up else "down"
        case NatSide(_, realm):
            return f"inside of NAT {realm} is behind it"
        case ReplySide(_, side):
            return f"replies are translated ({'inner' if side else 'outer'} side)"
    return {Quiet: "no router advertisements", ArpProxy: "ARP proxy"}[type(part)]


def _family(address: str) -> int:
    return 6 if ":" in address else 4
