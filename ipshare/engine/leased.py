"""leased: leases by DHCP as bindings of a configuration (SYSTEMS.md S3.5). Pure.

The leased address is the Global IP, the private address what it is bound to. What does not fit (any
more) is left out: ``unfit`` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from ipshare.model import (
    Binding,
    BindingKind,
    Config,
    Lease,
    Network,
    Place,
    contains,
    host_prefix,
    offset_in,
)


def with_leases(config: Config, addresses: Mapping[str, IPv4Address]) -> Config:
    """``config`` with a binding for each of its leases that has an address. By name of the workload."""
    bindings = [
        _binding(config, lease, addresses[lease.name])
        for lease in config.leases
        if lease.name in addresses and not unfit(config, addresses[lease.name])
    ]
    return replace(config, bindings=(*config.bindings, *bindings)) if bindings else config


def unfit(config: Config, address: IPv4Address) -> str:
    """Why an address cannot be a workload's; "": it can."""
    prefix = host_prefix(address)
    if _network(config, address) is None:
        return f"the DHCP server leased {address}, which is in no Global Network of this node"
    if any(binding.prefix == prefix for binding in config.bindings):
        return f"the DHCP server leased {address}, which a [[binding]] has"
    return ""


def _network(config: Config, address: IPv4Address) -> Network | None:
    return next((n for n in config.networks if contains(n.prefix, host_prefix(address))), None)


def _binding(config: Config, lease: Lease, address: IPv4Address) -> Binding:
    network = _network(config, address)
    assert network is not None, "fits"
    prefix = host_prefix(address)
    return Binding(
        prefix=prefix,
        kind=BindingKind.ENDPOINT,
        target=lease.endpoint,
        local=host_prefix(lease.local),
        offset=offset_in(network.prefix, prefix),
        copy=None,
        place=Place(config.files[0]) if config.files else Place(network.place.file),
    )
