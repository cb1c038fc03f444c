"""Site without mistakes -> Config: defaults that depend on other tables, names, resolved local prefixes.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ipshare import model
from ipshare.config import schema
from ipshare.config.build_bgp import bgp
from ipshare.config.build_channel import channels
from ipshare.config.build_clusters import clusters
from ipshare.config.build_flows import mirror, nats, sessions, tracking
from ipshare.config.build_groups import groups
from ipshare.config.build_migration import migrations
from ipshare.config.build_natlog import leases, nat_log
from ipshare.config.build_pair import pair
from ipshare.config.build_remote import remote
from ipshare.config.build_vpp import vpp
from ipshare.config.check_observers import is_observer
from ipshare.config.check_workload import workloads
from ipshare.config.resolve import is_encapsulated, local_prefix, named, network_of, own_name
from ipshare.config.site import Site
from ipshare.model import BindingKind, BindingSet, contains, offset_in


def build(site: Site, bulk: BindingSet | None) -> model.Config:
    """The Config of a site in which the checks found no mistake."""
    endpoint, distribution = own_name(site, "endpoint"), own_name(site, "distribution")
    node, is_vpp = _node(site.node, endpoint, distribution), site.engine.kind == "vpp"
    half = pair(site, site.pair) if site.pair is not None and not is_observer(site) else None
    tracked = sessions(site, bulk)
    workers = site.engine.workers
    if workers is None:
        workers = len(site.vpp.worker_cores) if is_vpp else 2
    return model.Config(
        node=node,
        engine=model.Engine(**{**dict(site.engine), "workers": workers}),
        networks=tuple(
            model.Network(n.name, n.prefix, model.Unmatched(n.unmatched), site.document.place(n._path))
            for n in site.network
        ),
        endpoints=tuple(_endpoint(site, e, e.name == endpoint) for e in site.endpoint),
        distributions=tuple(_distribution(site, d, d.name == distribution) for d in site.distribution),
        policies=tuple(_policy(site, p) for p in site.policy),
        bindings=tuple(_binding(site, b) for b in site.binding),
        bulk=bulk,
        copies=tuple(_copy(site, c) for c in site.copy),
        probe=model.Probe(site.probe.interval, site.probe.timeout, site.probe.attempts, site.probe.mtu),
        files=tuple(site.document.files),
        vpp=vpp(site, node) if is_vpp else None,
        pair=half,
        sessions=tracked,
        nats=nats(site),
        mirror=mirror(site, site.mirror, site.pair, half) if site.mirror and site.pair and tracked else None,
        nat_log=nat_log(site.nat_log) if site.nat_log is not None else None,
        leases=leases(site),
        groups=groups(site),
        channels=channels(site),
        bgp=bgp(site, site.bgp) if site.bgp is not None else None,
        clusters=() if is_observer(site) else clusters(site),
        remote=remote(site, site.remote) if site.remote is not None else None,
        workloads=workloads(site),
        migrations=migrations(site),
    )


def _v4(addresses: Iterable[model.Address]) -> IPv4Address | None:
    return next((a for a in addresses if isinstance(a, IPv4Address)), None)


def _v6(addresses: Iterable[model.Address]) -> IPv6Address | None:
    return next((a for a in addresses if isinstance(a, IPv6Address)), None)


def _node(node: schema.Node, endpoint: str | None, distribution: str | None) -> model.Node:
    return model.Node(
        name=node.name,
        runtime_dir=Path(node.runtime_dir or f"/run/ipshare/{node.name}"),
        state_dir=Path(node.state_dir or f"/var/lib/ipshare/{node.name}"),
        icmp_source4=_v4(node.icmp_source),
        icmp_source6=_v6(node.icmp_source),
        icmp_rate=node.icmp_rate,
        outside=tuple(node.outside),
        inside=tuple(node.inside),
        endpoint=endpoint,
        distribution=distribution,
    )


def _endpoint(site: Site, endpoint: schema.Endpoint, is_self: bool) -> model.Endpoint:
    return model.Endpoint(
        name=endpoint.name,
        local=tuple(endpoint.local),
        path=model.PathKind(endpoint.path),
        tunnel4=_v4(endpoint.tunnel),
        tunnel6=_v6(endpoint.tunnel),
        gue_port=endpoint.gue_port,
        path_mtu=endpoint.path_mtu,
        replies=model.Replies(endpoint.replies),
        mss_clamp=endpoint.mss_clamp,
        next_hop4=_v4(endpoint.next_hop),
        next_hop6=_v6(endpoint.next_hop),
        is_self=is_self,
        place=site.document.place(endpoint._path),
    )


def _distribution(site: Site, point: schema.Distribution, is_self: bool) -> model.Distribution:
    return model.Distribution(
        name=point.name,
        tunnel4=_v4(point.tunnel),
        tunnel6=_v6(point.tunnel),
        path=model.PathKind(point.path),
        gue_port=point.gue_port,
        path_mtu=point.path_mtu,
        weight=point.weight,
        is_self=is_self,
        place=site.document.place(point._path),
    )


def _policy(site: Site, policy: schema.Policy) -> model.Policy:
    return model.Policy(
        name=policy.name,
        members=tuple(model.Member(m.endpoint, m.weight) for m in policy.members),
        client_bits4=policy.client_bits.v4,
        client_bits6=policy.client_bits.v6,
        place=site.document.place(policy._path),
        drain_s=policy.drain,
    )


def _binding(site: Site, binding: schema.Binding) -> model.Binding:
    network = network_of(site.network, binding.prefix)
    endpoint = named(site.endpoint, binding.to) if binding.to else None
    assert network is not None, "checked: a binding is inside a Global Network"
    local: model.Prefix | None = None
    kind = BindingKind.HERE if binding.here else BindingKind.DOWN if binding.down else BindingKind.POLICY
    if endpoint is not None:
        kind = BindingKind.ENDPOINT
        if not is_encapsulated(endpoint):
            local = local_prefix(binding.prefix, binding.local, network.prefix, endpoint)
            if local is not None and not any(contains(own, local) for own in endpoint.local):
                kind = BindingKind.ADDRESS
    return model.Binding(
        prefix=binding.prefix,
        kind=kind,
        target=binding.to or binding.policy,
        local=local,
        offset=offset_in(network.prefix, binding.prefix),
        copy=binding.copy_to,
        place=site.document.place(binding._path),
        tracking=tracking(site, binding),
    )


def _copy(site: Site, copy: schema.Copy) -> model.Copy:
    place = site.document.place(copy._path)
    return model.Copy(
        name=copy.name,
        interface=copy.interface,
        collector=copy.collector,
        file=place.file.parent / copy.file if copy.file else None,
        sample_every=copy.sample,
        snaplen=copy.snaplen,
        place=place,
    )
