"""elsewhere: which Global IPs of a subnet have no device there, by the bindings. Pure.

The longest binding of an address decides, as everywhere: bound to this node's end point (or to a policy that
has it as a member, or served on the node itself) is here, bound otherwise is elsewhere. What no binding
covers is neither: nobody answers for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range

import numpy as np

from ipshare.config.claims import Span, effective
from ipshare.model import Address, BindingKind, BindingSet, Config, Prefix, contains

HERE, ELSEWHERE = 0, 1


def elsewhere(config: Config, within: Prefix, own: Address) -> Iterator[Span]:
    """Ranges of ``within``, ascending, never touching; ``own``, the node's address there, is left out."""
    bound = sorted([*_own_spans(config, within), *_bulk_spans(config, within)])
    point = int(own)
    spans = {span[:2]: span for _, span in [*bound, (0, Span(point, point, HERE))]}  # the longest of equals
    joined: list[Span] = []
    for span in sorted(effective(spans.values())):
        if span.owner == HERE:
            continue
        if joined and joined[-1].last + 1 == span.first:
            joined[-1] = Span(joined[-1].first, span.last, ELSEWHERE)
        else:
            joined.append(span)
    yield from joined


def summarized(ranges: Iterable[Span], version: int) -> Iterator[Prefix]:
    """The same as prefixes."""
    for span in ranges:
        if version == 4:
            yield from summarize_address_range(IPv4Address(span.first), IPv4Address(span.last))
        else:
            yield from summarize_address_range(IPv6Address(span.first), IPv6Address(span.last))


def _own_spans(config: Config, within: Prefix) -> Iterator[tuple[int, Span]]:
    """(length of the binding's prefix, what it covers of ``within``)."""
    for binding in config.bindings:
        span = _cut(within, binding.prefix)
        if span is not None:
            where = HERE if _is_here(config, binding.kind, binding.target) else ELSEWHERE
            yield binding.prefix.prefixlen, Span(*span, where)


def _bulk_spans(config: Config, within: Prefix) -> Iterator[tuple[int, Span]]:
    bulk = config.bulk
    if bulk is None:
        return
    family = 4 if isinstance(within, IPv4Network) else 6
    for row in bulk.rows[_overlapping(bulk, within)]:
        data = row["global"].tobytes()
        prefix: Prefix = (
            IPv4Network((data[:4], int(row["prefix_len"])))
            if family == 4
            else IPv6Network((data, int(row["prefix_len"])))
        )
        kind, target = BindingKind(int(row["kind"])), int(row["target"])
        names = () if kind in (BindingKind.HERE, BindingKind.DOWN) else bulk.targets
        span = _cut(within, prefix)
        if span is not None:
            where = HERE if _is_here(config, kind, names[target] if names else None) else ELSEWHERE
            yield prefix.prefixlen, Span(*span, where)


def _overlapping(bulk: BindingSet, within: Prefix) -> np.ndarray:
    """Mask of rows that may overlap: of the family, and equal in the bits that both prefixes have."""
    rows, size = bulk.rows, 4 if within.version == 4 else 16
    mask: np.ndarray = rows["family"] == within.version
    base = np.frombuffer(within.network_address.packed, np.uint8)
    lengths = np.minimum(rows["prefix_len"], within.prefixlen).astype(np.int32)
    for index in range(size):
        bits = np.clip(lengths - 8 * index, 0, 8)
        wanted = (0xFF00 >> bits) & 0xFF
        mask &= ((rows["global"][:, index] ^ base[index]) & wanted) == 0
    return mask


def _is_here(config: Config, kind: BindingKind, target: str | None) -> bool:
    endpoint = config.self_endpoint
    name = endpoint.name if endpoint is not None else None
    if kind is BindingKind.POLICY:
        members = next((policy.members for policy in config.policies if policy.name == target), ())
        return any(member.endpoint == name for member in members)
    return kind is BindingKind.HERE or (kind is not BindingKind.DOWN and target == name)


def _cut(within: Prefix, prefix: Prefix) -> tuple[int, int] | None:
    """First and last address of both."""
    if contains(prefix, within):
        prefix = within
    elif not contains(within, prefix):
        return None
    return int(prefix.network_address), int(prefix.broadcast_address)
