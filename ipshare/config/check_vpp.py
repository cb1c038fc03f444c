"""Checks of what `[engine] kind = "vpp"` brings: [vpp] and the interfaces, bridges, routes, neighbours.

With the embedded engine these tables are a mistake, and nothing else about them is said; with VPP the
embedded engine's own keys are. How addresses must lie beside Global Networks, local networks and tunnels
follows from the two tables: connected routes and adjacencies beat any entry of the plugin. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ipshare.config import schema
from ipshare.config.checks import Check, Finding, is_vpp, unique_name, unknown_name
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import named, own_name, readable
from ipshare.config.site import Site

SECTIONS = ("vpp", "interface", "bridge", "route", "neighbor")
EMBEDDED_ONLY = {
    "outer_device": "VPP has no TUN devices",
    "inner_device": "VPP has no TUN devices",
    "service_table": "that is a table of the kernel; VPP's is service_table in [vpp]",
    "reply_table": "VPP looks at replies on their interfaces, without a table",
    "rule_priority": "VPP has no rules",
}
MANAGED_ONLY = (
    "binary",
    "plugin_path",
    "heap_size",
    "statseg_size",
    "buffers",
    "poll_sleep",
    "main_core",
    "worker_cores",
    "isolate_cores",
    "dpdk",
)


def given(site: Site, section: str) -> dict[str, Any]:
    """The keys that a single table of the document sets, whether their values are sound or not."""
    found = site.document.data.get(section, {})
    return found if isinstance(found, dict) else {}


def engine_kind(site: Site, engine: schema.Engine) -> Iterator[Finding]:
    kind, keys = engine.kind, given(site, "engine")
    if kind == "vpp":
        for key, reason in EMBEDDED_ONLY.items():
            if key in keys:
                yield Finding(("engine", key), f"{key} is for the embedded engine: {reason}", "leave it out")
        if "workers" in keys and not given(site, "vpp").get("managed"):
            message = "workers of a VPP that somebody else starts are set in its startup.conf"
            yield Finding(
                ("engine", "workers"), message, "leave it out; there: cpu { workers N }, or corelist-workers"
            )
        return
    if "workers" not in engine._broken and engine.workers == 0:
        yield Finding(
            ("engine", "workers"), "must be at least 1, not 0", "the embedded engine needs a worker"
        )
    for section in SECTIONS:
        if section in site.document.data:
            path: KeyPath = (section,) if section == "vpp" else (section, 0)
            title = "[vpp]" if section == "vpp" else f"[[{section}]]"
            message = f"{title} is for the VPP engine, and this node's is embedded"
            yield Finding(path, message, 'write kind = "vpp" in [engine], or leave it out')


def where_vpp_is(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    if not is_vpp(site):
        return
    keys, managed = given(site, "vpp"), vpp.managed
    for key in MANAGED_ONLY:
        if key in keys and not managed:
            message = f"{key} is for a managed VPP, and this one is started by somebody else"
            yield Finding(("vpp", key), message, "set it in startup.conf, or write managed = true")
    for key in ("api_socket", "stats_socket"):
        if key in keys and managed:
            message = f"{key} of a managed VPP is in runtime_dir"
            yield Finding(("vpp", key), message, "leave it out, or write managed = false")
    for key in ("api_socket", "stats_socket", "binary", "plugin_path"):
        value = None if key in vpp._broken else getattr(vpp, key)
        if value is not None and not value.startswith("/"):
            yield Finding(("vpp", key), f"{value!r} is not an absolute path", "begin it with /")


def two_tables(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    """Both roles in one table: what the inner translation delivers would be translated outwards again."""
    if not is_vpp(site) or vpp.service_table != vpp.delivery_table:
        return
    if own_name(site, "endpoint") is not None and own_name(site, "distribution") is not None:
        message = (
            f"service_table and delivery_table are both {vpp.service_table}, but this node is end point and "
            "distribution point: delivered packets would be sent on again"
        )
        hint = 'write another delivery_table in [vpp], and table = "delivery" at the devices\' interfaces'
        key = next((k for k in ("delivery_table", "service_table") if k in given(site, "vpp")), None)
        yield Finding(("vpp", key) if key else ("engine", "kind"), message, hint)


def known_ports(site: Site, node: schema.Node) -> Iterator[Finding]:
    """Interfaces that [node] and [[copy]] name."""
    if not is_vpp(site):
        return
    for key in ("outside", "inside"):
        for index, name in enumerate([] if key in node._broken else getattr(node, key)):
            yield from known_port(site, ("node", key, index), name)
    for copy in readable(site.copy, "interface"):
        if copy.interface is not None:
            yield from known_port(site, (*copy._path, "interface"), copy.interface)


def next_hops(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    """Only VPP can do without a lookup; each family has one way there."""
    if endpoint.next_hop and not is_vpp(site) and "kind" not in site.engine._broken:
        message = "next_hop is for the VPP engine: the kernel looks up every packet"
        yield Finding((*endpoint._path, "next_hop"), message, "leave it out")
        return
    seen: set[int] = set()
    for index, address in enumerate(endpoint.next_hop):
        if address.version in seen:
            message = f"a second IPv{address.version} next hop"
            yield Finding(
                (*endpoint._path, "next_hop", index), message, "at most one per family: leave one out"
            )
        seen.add(address.version)


def known_port(site: Site, path: KeyPath, name: str) -> Iterator[Finding]:
    yield from unknown_name(site, "interface", path, name, "[[interface]]")


def port_name(site: Site, port: schema.Interface) -> Iterator[Finding]:
    if port.host is not None and port.name != f"host-{port.host}":
        message = f"VPP calls the interface over {port.host} host-{port.host}, not {port.name}"
        yield Finding((*port._path, "name"), message, f'write name = "host-{port.host}"')


def port_bridge(site: Site, port: schema.Interface) -> Iterator[Finding]:
    if port.bridge is None:
        return
    path = (*port._path, "bridge")
    yield from unknown_name(site, "bridge", path, port.bridge, "[[bridge]]")
    if any(bridge.bvi == port.name for bridge in readable(site.bridge, "bvi")):
        message = f"{port.name} is a bridge's bvi: it belongs to that bridge already"
        yield Finding(path, message, "leave `bridge` out here")
    elif port.addresses:
        message = f"{port.name} is a port of bridge {port.bridge!r}: it cannot have addresses"
        yield Finding((*port._path, "addresses"), message, "give them to the bridge's bvi")


def port_pair(site: Site, port: schema.Interface) -> Iterator[Finding]:
    if port.linux_cp is None:
        if port.linux_cp_netns is not None:
            yield Finding(
                (*port._path, "linux_cp_netns"), "linux_cp_netns without linux_cp", "name the device to make"
            )
        return
    for other in readable(site.interface, "linux_cp", "linux_cp_netns"):
        if other is port:
            return
        if (other.linux_cp, other.linux_cp_netns) == (port.linux_cp, port.linux_cp_netns):
            message = (
                f"the Linux device {port.linux_cp!r} is the pair of the interface at {site.where(other)}"
            )
            yield Finding((*port._path, "linux_cp"), message, "give every pair a device of its own")
            return


def bridge_numbers(site: Site, bridge: schema.Bridge) -> Iterator[Finding]:
    for other in readable(site.bridge, "id"):
        if other is bridge:
            return
        if other.id == bridge.id:
            message = f"bridge domain {bridge.id} is that of the bridge at {site.where(other)}"
            yield Finding((*bridge._path, "id"), message, "give every bridge a number of its own")
            return


def bridge_bvi(site: Site, bridge: schema.Bridge) -> Iterator[Finding]:
    if bridge.bvi is None:
        return
    path = (*bridge._path, "bvi")
    yield from known_port(site, path, bridge.bvi)
    for other in readable(site.bridge, "bvi"):
        if other is bridge:
            return
        if other.bvi == bridge.bvi:
            message = f"{bridge.bvi} is the bvi of the bridge at {site.where(other)}"
            yield Finding(path, message, "give every bridge a loopback of its own")
            return


def route_leads(site: Site, route: schema.Route) -> Iterator[Finding]:
    if route.via is None and route.interface is None:
        yield Finding(route._path, "this route leads nowhere", "add via = (next hop), or interface, or both")
    if route.interface is not None:
        yield from known_port(site, (*route._path, "interface"), route.interface)
    if route.via is not None and route.via.version != route.prefix.version:
        message = f"{route.prefix} is IPv{route.prefix.version}, its next hop IPv{route.via.version}"
        yield Finding((*route._path, "via"), message, "use a next hop of the same family")
    if route.via is not None and route.via.is_link_local and route.interface is None:
        message = f"next hop {route.via} is link-local: on which link?"
        yield Finding((*route._path, "via"), message, "add interface = ...")
    for other in readable(site.route, "prefix", "table"):
        if other is route:
            return
        if (other.prefix, table_of(site, other)) == (route.prefix, table_of(site, route)):
            message = f"a second route to {route.prefix} in one table: also at {site.where(other)}"
            yield Finding((*route._path, "prefix"), message, "leave one of them out")
            return


def neighbor_behind(site: Site, neighbor: schema.Neighbor) -> Iterator[Finding]:
    yield from known_port(site, (*neighbor._path, "interface"), neighbor.interface)
    for other in readable(site.neighbor, "interface", "address"):
        if other is neighbor:
            break
        if (other.interface, other.address) == (neighbor.interface, neighbor.address):
            message = f"{neighbor.address} on {neighbor.interface} is at {site.where(other)} already"
            yield Finding((*neighbor._path, "address"), message, "leave one of them out")
            break
    port = named(site.interface, neighbor.interface)
    if port is None or not port.addresses or neighbor.address.is_link_local:
        return
    if not any(neighbor.address in address.network for address in port.addresses):
        message = f"{neighbor.address} is in no subnet of {port.name}"
        yield Finding((*neighbor._path, "address"), message, "correct it, or the interface's addresses")


def table_of(site: Site, table: schema.Interface | schema.Route) -> int:
    """The number of the table that an interface or a route is in."""
    return site.vpp.delivery_table if table.table == "delivery" else site.vpp.service_table


def _with_vpp(check: Check) -> Check:
    def only(site: Site, table: Any) -> Iterator[Finding]:
        if is_vpp(site):
            yield from check(site, table)

    return only


CHECKS: dict[str, list[Check]] = {
    "engine": [engine_kind],
    "vpp": [where_vpp_is, two_tables],
    "node": [known_ports],
    "endpoint": [next_hops],
    "interface": [_with_vpp(check) for check in (unique_name, port_name, port_bridge, port_pair)],
    "bridge": [_with_vpp(check) for check in (unique_name, bridge_numbers, bridge_bvi)],
    "route": [_with_vpp(route_leads)],
    "neighbor": [_with_vpp(neighbor_behind)],
}
