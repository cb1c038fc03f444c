"""probing: which probes a node is to make, from [health] and the topology. Pure.

What is looked after has a key: "end point A", "workload shop". An end point that no probe names is asked by
ICMP at its tunnel addresses, where its engine answers; one without any is not looked after.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from ipshare.director.schema_health import Health, Probe
from ipshare.director.topology import Topology


def endpoint_key(name: str) -> str:
    return f"end point {name}"


def workload_key(name: str) -> str:
    return f"workload {name}"


def places(topology: Topology) -> dict[str, str]:
    """Key -> the end point where that is."""
    found = {endpoint_key(name): name for name in topology.by_name["endpoint"]}
    for row in topology.rows("workload"):
        found[workload_key(row["name"])] = topology.nodes[row["node"]].endpoint or ""
    return found


def targets(topology: Topology, health: Health) -> list[str]:
    """Keys of what is looked after."""
    return list(dict.fromkeys(key for key, _, _ in _wanted(topology, health)))


def by_echo(topology: Topology, health: Health) -> frozenset[str]:
    """Keys of what is looked after by ICMP alone."""
    kinds: dict[str, set[str]] = {}
    for key, probe, _ in _wanted(topology, health):
        kinds.setdefault(key, set()).add(probe.kind)
    return frozenset(key for key, found in kinds.items() if found == {"icmp"})


def probes(topology: Topology, health: Health, node: str) -> list[dict[str, Any]]:
    """What ``node`` is told."""
    row = topology.nodes.get(node)
    observes = row is not None and (node in health.observers or not health.observers and row.distribution)
    if not observes:
        return []
    return [
        {
            "name": key,
            "address": address,
            "kind": probe.kind,
            "port": probe.port or 0,
            "path": probe.path,
            "interval_s": health.echo_interval if probe.kind == "icmp" else health.interval,
            "timeout_s": health.echo_timeout if probe.kind == "icmp" else health.timeout,
        }
        for key, probe, address in _wanted(topology, health)
    ]


def _wanted(topology: Topology, health: Health) -> Iterator[tuple[str, Probe, str]]:
    """(key, probe, address)."""
    named = {probe.endpoint for probe in health.probe if probe.endpoint is not None}
    for probe in health.probe:
        if probe.endpoint is not None:
            row = topology.by_name["endpoint"].get(probe.endpoint)
            key = endpoint_key(probe.endpoint)
            addresses = list(row.get("tunnel", ())) if row is not None else []
        else:
            row = topology.by_name["workload"].get(probe.workload or "")
            key = workload_key(probe.workload or "")
            networks = row.get("addresses", ()) if row is not None else ()
            addresses = [str(ip_network(address).network_address) for address in networks]
        if row is not None and (probe.address is not None or addresses):
            yield key, probe, str(probe.address) if probe.address is not None else addresses[0]
    for name, row in topology.by_name["endpoint"].items():
        if name not in named and row.get("tunnel"):
            yield endpoint_key(name), Probe(endpoint=name, kind="icmp"), row["tunnel"][0]
