"""Changes to a node's kernel, as values: what the recipes produce and what the undo journal stores.

An action names one thing (`key`) and the state it shall have. It does not know how that is done:
net/kernel.py looks at the thing, changes it and puts it back; net/journal.py keeps what was there
before. Prefixes and addresses are strings in the form the standard library prints, so that an action
is equal to itself after a trip through JSON. Pure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ipshare.errors import IpshareError

RouteKind = Literal["unicast", "unreachable", "blackhole", "throw"]
"""throw: the lookup goes on with the next rule."""
Key = tuple[str | int | None, ...]

# Marks our routes and rules in the kernel (rtm_protocol, FRA_PROTOCOL): what carries another number
# was made by somebody else and is never changed. Not in use by any daemon in iproute2's rt_protos.
PROTOCOL = 173


class NetError(IpshareError):
    """The kernel cannot be, or could not be, brought into the wanted state."""


@dataclass(frozen=True, slots=True)
class LinkSet:
    """An existing device is up and has this MTU (bytes)."""

    name: str
    mtu: int

    @property
    def key(self) -> Key:
        return ("link", self.name)


@dataclass(frozen=True, slots=True)
class AddressAdd:
    """A device has an address, given with its prefix length: ``203.0.113.7/32``. No DAD."""

    device: str
    address: str

    @property
    def key(self) -> Key:
        return ("address", self.device, self.address)


@dataclass(frozen=True, slots=True)
class RouteAdd:
    """A route. `mtu` 0: the device's; `lock` is what makes IPv6 forwarding honour a route's MTU."""

    table: int
    prefix: str
    kind: RouteKind = "unicast"
    device: str | None = None
    via: str | None = None
    metric: int = 0
    mtu: int = 0
    lock: bool = False

    @property
    def key(self) -> Key:
        return ("route", self.table, self.prefix, self.metric)

    @property
    def family(self) -> int:
        return 6 if ":" in self.prefix else 4


@dataclass(frozen=True, slots=True)
class RuleAdd:
    """A policy routing rule: lookup in `table`, or go on at priority `goto`, or (neither) do nothing."""

    family: int
    priority: int
    iif: str | None = None
    source: str | None = None
    table: int | None = None
    goto: int | None = None
    destination: str | None = None
    protocol: int | None = None  # of IP: 1 is ICMP

    @property
    def key(self) -> Key:
        selector = (self.iif, self.source, self.destination, self.protocol)
        return ("rule", self.family, self.priority, *selector, self.table, self.goto)


@dataclass(frozen=True, slots=True)
class SysctlSet:
    """A value under /proc/sys. `also`: patterns of other values that the kernel changes with it;
    they are saved before and restored after. optional: a kernel without this value needs none.
    restore False: undo leaves it (it belongs to a device of the engine's, which goes away)."""

    path: str
    value: str
    also: tuple[str, ...] = ()
    optional: bool = False
    restore: bool = True

    @property
    def key(self) -> Key:
        return ("sysctl", self.path)


@dataclass(frozen=True, slots=True)
class NftTable:
    """A whole nftables table of our own, family inet, replaced in one transaction. `body` is nft syntax."""

    name: str
    body: str

    @property
    def key(self) -> Key:
        return ("nft", self.name)


Action = LinkSet | AddressAdd | RouteAdd | RuleAdd | SysctlSet | NftTable
_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (LinkSet, AddressAdd, RouteAdd, RuleAdd, SysctlSet, NftTable)
}


def to_json(action: Action) -> dict[str, Any]:
    """The action as JSON values; `from_json` gives an equal one back."""
    return {"kind_of_action": type(action).__name__, **asdict(action)}


def from_json(record: dict[str, Any]) -> Action:
    """Raises KeyError or TypeError where the record is none of ours."""
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    action: Action = _KINDS[str(fields.pop("kind_of_action"))](**fields)
    return action


def describe(action: Action) -> str:
    """One line for people, close to the command they would have typed."""
    match action:
        case LinkSet(name, mtu):
            return f"link set {name} up mtu {mtu}"
        case AddressAdd(device, address):
            return f"address add {address} dev {device}"
        case RouteAdd():
            return _describe_route(action)
        case RuleAdd(family, priority, iif, source, table, goto, destination, protocol):
            words = [f"from {source or 'all'}", f"to {destination}" if destination else ""]
            words += [f"iif {iif}" if iif else "", f"ipproto {protocol}" if protocol else ""]
            selector = " ".join(filter(None, words))
            target = f"lookup {table}" if table is not None else f"goto {goto}" if goto is not None else "nop"
            return f"-{family} rule add priority {priority} {selector} {target}"
        case SysctlSet(path, value):
            return f"sysctl {path} = {value}"
        case NftTable(name):
            return f"nft table inet {name}"


def _describe_route(route: RouteAdd) -> str:
    words = ["route add"]
    if route.kind != "unicast":
        words.append(route.kind)
    words.append(route.prefix)
    words += [f"via {route.via}"] if route.via else []
    words += [f"dev {route.device}"] if route.device else []
    words += [f"mtu {'lock ' if route.lock else ''}{route.mtu}"] if route.mtu else []
    words += [f"metric {route.metric}"] if route.metric else []
    return " ".join([*words, f"table {route.table}"])
