"""The one door to the kernel's network configuration: netlink (pyroute2's IPRoute), /proc/sys and nft.

A Kernel acts on the network namespace of the thread that made it and must be used by that thread only
(and not inside a running asyncio loop: use asyncio.to_thread). For each action it can tell whether its
state is there, say what undo will need (JSON values), bring it about and put it back. It never changes
a route or rule whose protocol number is not ours, and undoes a setting only while it is as we left it. It is
made for one pass, and believes what it has read until it changes something itself: a dump costs milliseconds.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from ipshare.net import nft
from ipshare.net.actions import (
    PROTOCOL,
    Action,
    AddressAdd,
    LinkSet,
    NetError,
    NftTable,
    RouteAdd,
    RuleAdd,
    SysctlSet,
    describe,
)

T = TypeVar("T")
PROC_SYS = Path("/proc/sys")
_ANY = {4: "0.0.0.0", 6: "::"}
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ROUTE_TYPES = {"unicast": 1, "blackhole": 6, "unreachable": 7, "throw": 9}  # RTN_*
_TYPE_NAMES = {number: name for name, number in _ROUTE_TYPES.items()}
_ACTION_NAMES = {1: "to_tbl", 2: "goto", 3: "nop"}  # FR_ACT_*
_NODAD = 0x02  # IFA_F_NODAD
_LOCK_MTU = 1 << 2  # RTAX_LOCK with the bit of RTAX_MTU
_UP = 1  # IFF_UP
_REMEDIES = {
    errno.EPERM: "run as root, or give the process CAP_NET_ADMIN",
    errno.EOPNOTSUPP: "this kernel lacks the feature",
    errno.ENETDOWN: "the device is down",
    errno.ENETUNREACH: "the next hop is not reachable by any connected network",
}


class Kernel:
    """See the module. Use as a context manager."""

    def __init__(self) -> None:
        try:
            self._ip = IPRoute(strict_check=True)
        except OSError as error:
            raise NetError(
                f"cannot open a netlink socket: {error.strerror}", hint="AF_NETLINK must be allowed"
            ) from None
        self._read: dict[tuple[Any, ...], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ip.close()

    # -- what there is ---------------------------------------------------

    def links(self) -> dict[str, dict[str, Any]]:
        """Name -> index, up, mtu, kind ("" for hardware) of every device."""
        return self._once(("links",), self._links)

    def _links(self) -> dict[str, dict[str, Any]]:
        found = {}
        for message in self._ip.get_links():
            info = message.get_attr("IFLA_LINKINFO")
            found[message.get_attr("IFLA_IFNAME")] = {
                "index": message["index"],
                "up": bool(message["flags"] & _UP),
                "mtu": message.get_attr("IFLA_MTU"),
                "kind": (info.get_attr("IFLA_INFO_KIND") or "") if info else "",
            }
        return found

    def addresses(self) -> list[tuple[int, str]]:
        """(device index, "address/length") of every address."""
        return self._once(("addresses",), lambda: list(self._addresses()))

    def _addresses(self) -> Iterator[tuple[int, str]]:
        for message in self._ip.get_addr():
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            yield message["index"], f"{address}/{message['prefixlen']}"

    def routes(self, family: int, table: int) -> list[dict[str, Any]]:
        """Routes of one table: prefix, kind, oif (device index), via, metric, mtu, lock, protocol."""
        return self._once(("routes", family, table), lambda: list(self._routes(family, table)))

    def _routes(self, family: int, table: int) -> Iterator[dict[str, Any]]:
        for message in self._ip.route("dump", family=_AF[family], table=table):
            if message.get_attr("RTA_TABLE") != table:
                continue
            metrics = message.get_attr("RTA_METRICS")
            yield {
                "prefix": f"{message.get_attr('RTA_DST') or _ANY[family]}/{message['dst_len']}",
                "kind": _TYPE_NAMES.get(message["type"], message["type"]),
                "oif": message.get_attr("RTA_OIF"),
                "via": message.get_attr("RTA_GATEWAY"),
                "metric": message.get_attr("RTA_PRIORITY") or 0,
                "mtu": (metrics.get_attr("RTAX_MTU") or 0) if metrics else 0,
                "lock": bool((metrics.get_attr("RTAX_LOCK") or 0) & _LOCK_MTU) if metrics else False,
                "protocol": message["proto"],
            }

    def rules(self, family: int) -> list[tuple[RuleAdd, int]]:
        """(the rule as far as our words go, its protocol number), for every rule of a family."""
        return self._once(("rules", family), lambda: list(self._rules(family)))

    def _once(self, what: tuple[Any, ...], read: Callable[[], T]) -> T:
        if what not in self._read:
            self._read[what] = read()
        found: T = self._read[what]
        return found

    def _rules(self, family: int) -> Iterator[tuple[RuleAdd, int]]:
        for message in self._ip.get_rules(family=_AF[family]):
            action = _ACTION_NAMES.get(message["action"])
            source, destination = message.get_attr("FRA_SRC"), message.get_attr("FRA_DST")
            rule = RuleAdd(
                family,
                message.get_attr("FRA_PRIORITY") or 0,
                iif=message.get_attr("FRA_IIFNAME"),
                source=f"{source}/{message['src_len']}" if source else None,
                table=message.get_attr("FRA_TABLE") if action == "to_tbl" else None,
                goto=message.get_attr("FRA_GOTO") if action == "goto" else None,
                destination=f"{destination}/{message['dst_len']}" if destination else None,
                protocol=message.get_attr("FRA_IP_PROTO"),
            )
            yield rule, message.get_attr("FRA_PROTOCOL") or 0

    def up(self, device: str) -> None:
        """Switches a device on, its MTU as it is."""
        self._ip.link("set", index=self._index(device), state="up")
        self._read.clear()

    # -- the four questions about an action --------------------------------

    def is_present(self, action: Action) -> bool:
        """Whether the action's state is there. Raises NetError where somebody else holds its place."""
        match action:
            case LinkSet(name, mtu):
                link = self.links().get(name)
                return link is not None and link["up"] and link["mtu"] == mtu
            case AddressAdd(device, address):
                return (self._index(device), str(ip_interface(address))) in set(self.addresses())
            case RouteAdd():
                found = self._route(action)
                return found is not None and self._matches(action, found)
            case RuleAdd(family):
                return (action, PROTOCOL) in self.rules(family)
            case SysctlSet(path, value):
                return (action.optional and not (PROC_SYS / path).exists()) or self.sysctl(path) == value
            case NftTable(name, body):
                return nft.is_loaded(name, body)

    def before(self, action: Action) -> Any:
        """What undo will need, as JSON values; None: the thing is not there."""
        match action:
            case LinkSet(name):
                link = self.links().get(name)
                return None if link is None else {"up": link["up"], "mtu": link["mtu"]}
            case SysctlSet(path, _, also):
                paths = [
                    path,
                    *(self._relative(p) for pattern in also for p in sorted(PROC_SYS.glob(pattern))),
                ]
                return {p: self.sysctl(p) for p in paths}
            case _:
                return None

    def do(self, action: Action) -> None:
        """Brings the state about. Raises NetError, with a hint."""
        try:
            self._do(action)
        except (NetlinkError, OSError) as error:
            raise _failure(action, error) from error
        finally:
            self._read.clear()

    def undo(self, action: Action, before: Any) -> bool:
        """Puts back what was there before. False: somebody else changed it since, it was left alone."""
        try:
            return self._undo(action, before)
        except NetlinkError as error:
            if error.code in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL):
                return True  # gone meanwhile, with its device
            raise _failure(action, error) from error
        finally:
            self._read.clear()

    # -- how -----------------------------------------------------------------

    def sysctl(self, path: str) -> str:
        """The value under /proc/sys. Raises NetError where there is none."""
        try:
            return (PROC_SYS / path).read_text().strip()
        except OSError as error:
            raise NetError(
                f"cannot read sysctl {path}: {error.strerror}", hint="is the device there?"
            ) from None

    @staticmethod
    def _relative(path: Path) -> str:
        return str(path.relative_to(PROC_SYS))

    def _index(self, device: str) -> int:
        if device not in self.links():
            self._read.pop(("links",))  # it may be new
        found = self.links().get(device)
        if found is None:
            raise NetError(
                f"there is no device {device}", hint="start ipshare-engine first: it makes the ips-* devices"
            )
        return int(found["index"])

    def _route(self, action: RouteAdd) -> dict[str, Any] | None:
        """The route with this key, ours; a foreign one in its place is an error."""
        prefix = str(ip_network(action.prefix))
        for found in self.routes(action.family, action.table):
            if found["prefix"] == prefix and found["metric"] == action.metric:
                if found["protocol"] != PROTOCOL:
                    raise NetError(
                        f"table {action.table} already has a route to {prefix} that is not ours",
                        hint="remove it, or configure another table number",
                    )
                return found
        return None

    def _matches(self, action: RouteAdd, found: dict[str, Any]) -> bool:
        if (action.kind, action.mtu, action.lock, action.via) != tuple(
            found[k] for k in ("kind", "mtu", "lock", "via")
        ):
            return False
        # IPv6 hangs routes without device on lo; what counts is the kind.
        return action.kind != "unicast" or action.device is None or self._index(action.device) == found["oif"]

    def _route_arguments(self, action: RouteAdd) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "family": _AF[action.family],
            "dst": action.prefix,
            "table": action.table,
            "type": _ROUTE_TYPES[action.kind],
            "proto": PROTOCOL,
        }
        if action.metric:
            arguments["priority"] = action.metric
        if action.device is not None:
            arguments["oif"] = self._index(action.device)
        if action.via is not None:
            arguments["gateway"] = action.via
        if action.mtu:
            arguments["metrics"] = {"mtu": action.mtu, **({"lock": _LOCK_MTU} if action.lock else {})}
        return arguments

    def _add_route(self, action: RouteAdd) -> None:
        arguments = self._route_arguments(action)
        try:
            self._ip.route("add", **arguments)
        except NetlinkError as error:
            self._read.clear()
            if error.code != errno.EEXIST or self._route(action) is None:
                raise
            self._ip.route("replace", **arguments)

    @staticmethod
    def _rule_arguments(rule: RuleAdd) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "family": _AF[rule.family],
            "priority": rule.priority,
            "protocol": PROTOCOL,
        }
        if rule.iif is not None:
            arguments["iifname"] = rule.iif
        if rule.source is not None:
            network = ip_network(rule.source)
            arguments |= {"src": str(network.network_address), "src_len": network.prefixlen}
        if rule.destination is not None:
            network = ip_network(rule.destination)
            arguments |= {"dst": str(network.network_address), "dst_len": network.prefixlen}
        if rule.protocol is not None:
            arguments["ip_proto"] = rule.protocol
        if rule.table is not None:
            return arguments | {"action": "to_tbl", "table": rule.table}
        if rule.goto is not None:
            return arguments | {"action": "goto", "goto": rule.goto}
        return arguments | {"action": "nop"}

    def _do(self, action: Action) -> None:
        match action:
            case LinkSet(name, mtu):
                self._ip.link("set", index=self._index(name), mtu=mtu, state="up")
            case AddressAdd(device, address):
                interface = ip_interface(address)
                flags = {"flags": _NODAD} if interface.version == 6 else {}
                self._ip.addr(
                    "add",
                    index=self._index(device),
                    address=str(interface.ip),
                    prefixlen=interface.network.prefixlen,
                    **flags,
                )
            case RouteAdd():
                self._add_route(action)
            case RuleAdd():
                self._ip.rule("add", **self._rule_arguments(action))
            case SysctlSet(path, value):
                (PROC_SYS / path).write_text(value)
            case NftTable(name, body):
                nft.replace(name, body)

    def _undo(self, action: Action, before: Any) -> bool:
        match action:
            case LinkSet(name):
                return self._restore_link(action, before) if name in self.links() else True
            case AddressAdd(device, address):
                if device in self.links():
                    interface = ip_interface(address)
                    self._ip.addr(
                        "del",
                        index=self._index(device),
                        address=str(interface.ip),
                        prefixlen=interface.network.prefixlen,
                    )
            case RouteAdd():
                found = next(
                    (r for r in self.routes(action.family, action.table) if self._is_ours(action, r)), None
                )
                if found is not None:
                    arguments = self._route_arguments(action)
                    self._ip.route("del", **{k: v for k, v in arguments.items() if k != "metrics"})
            case RuleAdd(family):
                if (action, PROTOCOL) in self.rules(family):
                    self._ip.rule("del", **self._rule_arguments(action))
            case SysctlSet(restore=True):
                return self._restore_sysctl(action, before)
            case NftTable(name):
                nft.remove(name)
        return True

    @staticmethod
    def _is_ours(action: RouteAdd, found: dict[str, Any]) -> bool:
        wanted = (str(ip_network(action.prefix)), action.metric, PROTOCOL)
        return (found["prefix"], found["metric"], found["protocol"]) == wanted

    def _restore_link(self, action: LinkSet, before: dict[str, Any]) -> bool:
        link = self.links()[action.name]
        if (link["up"], link["mtu"]) not in ((True, action.mtu), (before["up"], before["mtu"])):
            return False
        self._ip.link("set", index=link["index"], mtu=before["mtu"], state="up" if before["up"] else "down")
        return True

    def _restore_sysctl(self, action: SysctlSet, before: dict[str, str]) -> bool:
        """The value itself first (it drags the others along), then each of the others that differs."""
        target = PROC_SYS / action.path
        if target.exists() and self.sysctl(action.path) not in (action.value, before[action.path]):
            return False
        for path, value in before.items():
            if (PROC_SYS / path).exists() and self.sysctl(path) != value:
                (PROC_SYS / path).write_text(value)
        return True


def _failure(action: Action, error: NetlinkError | OSError) -> NetError:
    code = error.code if isinstance(error, NetlinkError) else (error.errno or 0)
    reason = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else (error.args[-1] if error.args else "")
    )
    return NetError(f"{describe(action)}: {reason}", hint=_REMEDIES.get(code, "see the kernel's reason"))
