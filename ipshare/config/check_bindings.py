"""Checks of policies, bindings and copies: does every Global IP lead to one place that can take it? Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from ipshare.config import schema
from ipshare.config.checks import Check, Finding, unknown_name
from ipshare.config.claims import Claim, Span, conflicts, effective
from ipshare.config.resolve import (
    first_local,
    is_encapsulated,
    local_prefix,
    named,
    network_of,
    own_name,
    readable,
)
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, Prefix, contains, offset_in

_TARGETS = ("to", "policy", "here", "down")
ENCAPSULATE = 'encapsulate (path = "ipip" and a tunnel address)'


def members(site: Site, policy: schema.Policy) -> Iterator[Finding]:
    path = (*policy._path, "members")
    if not policy.members:
        yield Finding(path, f"policy {policy.name!r} has no members", 'write members = [{endpoint = "A"}]')
        return
    seen: set[str] = set()
    for index, member in enumerate(policy.members):
        yield from unknown_name(site, "endpoint", (*path, index, "endpoint"), member.endpoint, "end point")
        if member.endpoint in seen:
            message = f"end point {member.endpoint!r} is a member twice"
            yield Finding((*path, index, "endpoint"), message, "name it once and add up the weights")
        seen.add(member.endpoint)
    if not any(member.weight for member in policy.members):
        message = f"policy {policy.name!r} has no weight: every member has 0"
        yield Finding(path, message, "give at least one member a weight of 1 or more")


def one_target(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    given = [key for key in _TARGETS if getattr(binding, key)]
    if len(given) != 1:
        message = f"{' and '.join(given)} exclude each other" if given else "this binding leads nowhere"
        yield Finding(
            binding._path, message, 'write one of: to = "...", policy = "...", here = true, down = true'
        )
    if binding.local is not None and not binding.to:
        hint = "a policy uses the same offset at every member; here and down translate nothing: leave it out"
        yield Finding((*binding._path, "local"), "local goes only together with `to`", hint)


def targets(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    for key, kind, words in (
        ("to", "endpoint", "end point"),
        ("policy", "policy", "policy"),
        ("copy", "copy", "copy"),
    ):
        field = "copy_to" if key == "copy" else key
        name = None if field in binding._broken else getattr(binding, field)
        if name is not None:
            yield from unknown_name(site, kind, (*binding._path, key), name, words)


def in_network(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    if "network" in site.incomplete or any("prefix" in network._broken for network in site.network):
        return
    prefix, path = binding.prefix, (*binding._path, "global")
    if network_of(site.network, prefix) is not None:
        return
    parts = [str(n.prefix) for n in site.network if contains(prefix, n.prefix)]
    hint = f"bind {parts[0]} instead" if parts else "add a [[network]] that covers it, or correct the address"
    yield Finding(path, f"{prefix} is outside of every Global Network", hint)


def same_prefix(site: Site, bindings: list[schema.Binding]) -> Iterator[Finding]:
    """Equal prefixes: an error whatever they lead to, for the second one can never take effect."""
    seen: dict[Prefix, schema.Binding] = {}
    for binding in readable(bindings, "prefix"):
        first = seen.setdefault(binding.prefix, binding)
        if first is not binding:
            same = "a second time" if _target(first) == _target(binding) else "again, to a different target"
            message = f"{binding.prefix} is bound {same}: first at {site.where(first)}"
            hint = "leave one of them; for several end points make a policy"
            yield Finding((*binding._path, "global"), message, hint)


def _target(binding: schema.Binding) -> tuple[object, ...]:
    return tuple(None if key in binding._broken else getattr(binding, key) for key in (*_TARGETS, "local"))


def fits(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    """The local side exists, has the right family and length, and is a place where nothing else is."""
    network = network_of(site.network, binding.prefix)
    endpoint = named(site.endpoint, binding.to) if binding.to else None
    if network is None or endpoint is None or is_encapsulated(endpoint):
        return
    if binding.local is not None:
        yield from _given_local(site, binding, endpoint, binding.local)
    elif endpoint.local:  # without any, the end point itself is the mistake
        why = no_place(binding.prefix, network.prefix, endpoint)
        if why:
            yield Finding((*binding._path, "global"), *why)


def no_place(prefix: Prefix, network: Prefix, endpoint: schema.Endpoint) -> tuple[str, str] | None:
    """Why `prefix` cannot be served at the default place of a rewriting end point: message and hint."""
    if local_prefix(prefix, None, network, endpoint) is not None:
        return None
    base, name = first_local(endpoint, prefix.version), endpoint.name
    if base is None:
        message = (
            f"{prefix} is IPv{prefix.version}, but end point {name!r} has no "
            f"IPv{prefix.version} local network"
        )
        return message, f"add one to its `local`, or {ENCAPSULATE}"
    if prefix.prefixlen < base.prefixlen:
        message = f"{prefix} is larger than local network {base} of end point {name!r}"
        return message, f"bind parts of it (/{base.prefixlen} or longer), or {ENCAPSULATE}"
    offset = offset_in(network, prefix)
    message = (
        f"{prefix} starts {offset} addresses into {network}: beyond local network {base} of "
        f"end point {name!r}"
    )
    return message, "write `local` with the prefix that serves it there"


def _given_local(
    site: Site, binding: schema.Binding, endpoint: schema.Endpoint, local: Prefix
) -> Iterator[Finding]:
    path, prefix = (*binding._path, "local"), binding.prefix
    if local.version != prefix.version:
        message = f"{prefix} is IPv{prefix.version}, its local side {local} IPv{local.version}"
        yield Finding(path, message, f"use one family, or {ENCAPSULATE}")
    elif local.prefixlen != prefix.prefixlen:
        message = f"{prefix} and its local side {local} differ in length"
        yield Finding(
            path, message, f"write a /{prefix.prefixlen}; for many Global IPs at one address {ENCAPSULATE}"
        )
    if scope := bad_scope(local):
        yield Finding(
            path, f"{local} is {scope}: never translated", "use a prefix that is routed to the end point"
        )
    for network in readable(site.network, "prefix"):
        if contains(network.prefix, local) or contains(local, network.prefix):
            message = f"local side {local} overlaps Global Network {network.prefix}"
            yield Finding(path, message, "a translated packet would be translated again: use a local network")
            return
    same_family = [own for own in endpoint.local if own.version == local.version]
    if larger := next((own for own in same_family if contains(local, own) and own != local), None):
        message = f"{local} is larger than local network {larger} of end point {endpoint.name!r}"
        yield Finding(path, message, f"bind parts of it (/{larger.prefixlen} or longer)")
    elif not any(contains(own, local) for own in same_family):
        message = f"{local} is outside of the local networks of end point {endpoint.name!r}"
        yield Finding(path, message, "right only if it is routed there by other means", is_warning=True)


def policy_fits(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    network = network_of(site.network, binding.prefix)
    policy = named(site.policy, binding.policy) if binding.policy else None
    if network is None or policy is None:
        return
    for member in policy.members:
        endpoint = named(site.endpoint, member.endpoint)
        if endpoint and not {"path", "local"} & endpoint._broken and endpoint.local:
            why = None if is_encapsulated(endpoint) else no_place(binding.prefix, network.prefix, endpoint)
            if why:
                yield Finding((*binding._path, "policy"), f"policy {policy.name!r}: {why[0]}", why[1])


def served_here(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    if binding.here and own_name(site, "distribution") is not None:
        message = f"{binding.prefix} is served on this node, which is also a distribution point"
        hint = "the device has to live in a network namespace, or the kernel would take its packets first"
        yield Finding((*binding._path, "here"), message, hint, is_warning=True)


def claims_of(site: Site) -> Iterator[Claim]:
    """What each binding claims at each rewriting end point, longer bindings cut out."""
    bindings = list(readable(site.binding, "prefix"))
    once = {binding.prefix: index for index, binding in reversed(list(enumerate(bindings)))}
    for family in (4, 6):
        spans = [_span(prefix, index) for prefix, index in once.items() if prefix.version == family]
        for span in effective(spans):
            start = int(bindings[span.owner].prefix.network_address)
            try:
                places = list(_places(site, bindings[span.owner]))
            except schema.Unreadable:
                continue
            for name, local in places:
                base = int(local.network_address) - start
                yield Claim(name, local.version, base + span.first, base + span.last, span.owner)


def _span(prefix: Prefix, owner: int) -> Span:
    first = int(prefix.network_address)
    return Span(first, first + prefix.num_addresses - 1, owner)


def _places(site: Site, binding: schema.Binding) -> Iterator[tuple[str, Prefix]]:
    """The rewriting end points that serve a binding, with its local prefix there."""
    network = network_of(site.network, binding.prefix)
    policy = named(site.policy, binding.policy) if binding.policy else None
    names = [binding.to] if binding.to else [member.endpoint for member in policy.members] if policy else []
    for name in dict.fromkeys(names):
        endpoint = named(site.endpoint, name)
        if network is None or endpoint is None or is_encapsulated(endpoint):
            continue
        local = local_prefix(binding.prefix, binding.local, network.prefix, endpoint)
        if (
            local is not None
            and local.version == binding.prefix.version
            and local.prefixlen == binding.prefix.prefixlen
        ):
            yield name, local


def claimed_twice(site: Site, claims: list[Claim]) -> Iterator[Finding]:
    bindings = list(readable(site.binding, "prefix"))
    told: set[int] = set()
    for before, claim in conflicts(claims):
        late, early = max(before.owner, claim.owner), min(before.owner, claim.owner)
        if late in told or late == early:
            continue
        told.add(late)
        address = _address(claim.first, claim.family)
        message = (
            f"local address {address} of end point {claim.endpoint!r} is claimed by "
            f"{bindings[early].prefix} too "
            f"({site.where(bindings[early])})"
        )
        hint = f"give it another local address; many Global IPs at one address: {ENCAPSULATE}"
        yield Finding(bindings[late]._path, message, hint)


def tunnel_claimed(site: Site, claims: list[Claim]) -> Iterator[Finding]:
    """A tunnel address is taken for the tunnel before any binding sees it."""
    bindings = list(readable(site.binding, "prefix"))
    for endpoint in readable(site.endpoint, "tunnel", "name"):
        mine = [claim for claim in claims if claim.endpoint == endpoint.name]
        for index, tunnel in enumerate(endpoint.tunnel):
            for claim in mine:
                if claim.family == tunnel.version and claim.first <= int(tunnel) <= claim.last:
                    binding = bindings[claim.owner]
                    alone = binding.prefix.num_addresses == 1
                    message, hint = tunnel_taken(tunnel, str(binding.prefix), site.where(binding))
                    yield Finding((*endpoint._path, "tunnel", index), message, hint, is_warning=not alone)


def tunnel_taken(tunnel: Address, prefix: str, where: str) -> tuple[str, str]:
    """Message and hint."""
    message = (
        f"tunnel address {tunnel} is also the local address of a Global IP of {prefix} ({where}), "
        "which cannot be reached"
    )
    return message, "take a tunnel address that no binding maps to"


def _address(number: int, family: int) -> str:
    return str(ip_address(number.to_bytes(4 if family == 4 else 16, "big")))


def together(site: Site) -> Iterator[Finding]:
    """Checks of all bindings at once."""
    yield from same_prefix(site, site.binding)
    claims = list(claims_of(site))
    yield from claimed_twice(site, claims)
    yield from tunnel_claimed(site, claims)


def one_sink(site: Site, copy: schema.Copy) -> Iterator[Finding]:
    given = [key for key in ("interface", "collector", "file") if getattr(copy, key) is not None]
    if len(given) != 1:
        message = f"{' and '.join(given)} exclude each other" if given else "this copy goes nowhere"
        hint = 'write one of: interface = "eth2", collector = "192.0.2.9:4789", file = "/var/log/x.pcapng"'
        yield Finding(copy._path, message, hint)


def snap_length(site: Site, copy: schema.Copy) -> Iterator[Finding]:
    if not 64 <= copy.snaplen <= 65535:
        message = f"snaplen {copy.snaplen} is not between 64 and 65535 bytes"
        yield Finding((*copy._path, "snaplen"), message, "64 keeps the headers, 65535 everything")


CHECKS: dict[str, list[Check]] = {
    "policy": [members],
    "binding": [one_target, targets, in_network, fits, policy_fits, served_here],
    "copy": [one_sink, snap_length],
}
