"""rebound: bindings of a configuration as remaps have moved them (SYSTEMS.md S4.1). Pure.

A move holds as long as the file still says what it said before; a file that says anything else has been
brought up to date, or is newer than the move, and is right. What binds an address is the longest prefix, of
file and moves together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ipshare.model import (
    NO_NAME,
    Binding,
    BindingKind,
    BindingSet,
    Config,
    Endpoint,
    Move,
    Network,
    Place,
    Prefix,
    Tracking,
    contains,
    offset_in,
    packed,
    prefix_at,
    unpacked,
)


def with_moves(config: Config, moves: Sequence[Move]) -> Config:
    """``config`` with every move that holds."""
    held = [move for move in moves if holds(config, move)]
    if not held:
        return config
    gone = {move.prefix for move in held}
    kept = tuple(binding for binding in config.bindings if binding.prefix not in gone)
    made = tuple(_binding(config, move.prefix, move.to) for move in held)
    return replace(config, bindings=(*kept, *made), bulk=_without(config.bulk, gone))


def holds(config: Config, move: Move) -> bool:
    """Whether it still says something that the file does not, of something that the file still has."""
    return (target(config, move.prefix) or "") == move.was and not unfit(config, move.prefix, move.to)


def moved(config: Config, moves: Sequence[Move], prefix: Prefix, to: str | None) -> tuple[Move, ...]:
    """The moves with ``prefix`` at ``to`` (None: where the file and the other moves have it): one more, one
    less, or another one; those that hold no more are left out."""
    others = tuple(move for move in moves if move.prefix != prefix and holds(config, move))
    if to is None or target(with_moves(config, others), prefix) == to:
        return others
    return (*others, Move(prefix, target(config, prefix) or "", to))


def target(config: Config, prefix: Prefix) -> str | None:
    """The end point that all of ``prefix`` is bound to by the longest binding over it; None: to none."""
    binding = covering(config, prefix)
    return binding.target if binding is not None and _is_at_endpoint(binding) else None


def covering(config: Config, prefix: Prefix) -> Binding | None:
    """The longest binding that covers ``prefix``, of TOML and bulk."""
    found = [binding for binding in config.bindings if contains(binding.prefix, prefix)]
    if config.bulk is not None:
        found += _bulk_over(config, config.bulk, prefix)
    return max(found, key=lambda binding: binding.prefix.prefixlen, default=None)


def inside(config: Config, prefix: Prefix, endpoint: str) -> list[Prefix]:
    """Longer bindings in ``prefix`` that lead to ``endpoint``: they would stay there."""
    found = [
        binding.prefix
        for binding in config.bindings
        if binding.prefix != prefix and contains(prefix, binding.prefix) and binding.target == endpoint
    ]
    if config.bulk is not None and endpoint in config.bulk.targets:
        found += _bulk_inside(config.bulk, prefix, config.bulk.targets.index(endpoint))
    return found


def unfit(config: Config, prefix: Prefix, to: str) -> str:
    """Why ``prefix`` cannot be bound to end point ``to``; "": it can."""
    endpoint = _endpoint(config, to)
    if endpoint is None:
        known = ", ".join(one.name for one in config.endpoints) or "none"
        return f"there is no end point {to!r} (known: {known})"
    if _network(config, prefix) is None:
        return f"{prefix} is in no Global Network"
    if not endpoint.is_encapsulated and _local(config, prefix, endpoint) is None:
        return f"{prefix} has no place in the local networks of end point {to}"
    return ""


def local_at(config: Config, prefix: Prefix, to: str) -> Prefix | None:
    """Where ``prefix`` is, or would be, in the local networks of end point ``to``; None: nowhere."""
    endpoint = _endpoint(config, to)
    return _local(config, prefix, endpoint) if endpoint is not None else None


def _endpoint(config: Config, name: str) -> Endpoint | None:
    return next((one for one in config.endpoints if one.name == name), None)


def _network(config: Config, prefix: Prefix) -> Network | None:
    return next((network for network in config.networks if contains(network.prefix, prefix)), None)


def _is_at_endpoint(binding: Binding) -> bool:
    return binding.kind in (BindingKind.ENDPOINT, BindingKind.ADDRESS)


def _binding(config: Config, prefix: Prefix, to: str) -> Binding:
    network, endpoint, over = _network(config, prefix), _endpoint(config, to), covering(config, prefix)
    assert network is not None and endpoint is not None, "a move that holds"
    local = None if endpoint.is_encapsulated else _local(config, prefix, endpoint)
    outside = local is not None and not any(contains(own, local) for own in endpoint.local)
    return Binding(
        prefix=prefix,
        kind=BindingKind.ADDRESS if outside else BindingKind.ENDPOINT,
        target=to,
        local=local,
        offset=offset_in(network.prefix, prefix),
        copy=over.copy if over is not None else None,
        place=Place(config.files[0]) if config.files else network.place,
        tracking=over.tracking if over is not None else Tracking.OFF,
    )


def _local(config: Config, prefix: Prefix, endpoint: Endpoint) -> Prefix | None:
    """Where the file has it there, else the same place in the first local network of the family."""
    over, network = covering(config, prefix), _network(config, prefix)
    if over is not None and over.target == endpoint.name and over.local is not None:
        return prefix_at(over.local, offset_in(over.prefix, prefix), prefix.prefixlen)
    first = next((local for local in endpoint.local if local.version == prefix.version), None)
    if first is None or network is None:
        return None
    return prefix_at(first, offset_in(network.prefix, prefix), prefix.prefixlen)


# ---- rows of bindings files ---------------------------------------------------------


def _without(bulk: BindingSet | None, gone: Iterable[Prefix]) -> BindingSet | None:
    if bulk is None:
        return None
    import numpy as np

    rows = bulk.rows
    keep = np.ones(len(rows), bool)
    for prefix in gone:
        keep &= ~_equal(rows, prefix)
    return bulk if keep.all() else replace(bulk, rows=rows[keep])


def _equal(rows: Any, prefix: Prefix) -> Any:
    """Which rows are of that prefix: an array of booleans."""
    import numpy as np

    wanted = np.frombuffer(packed(prefix.network_address), np.uint8)
    at = (rows["family"] == prefix.version) & (rows["prefix_len"] == prefix.prefixlen)
    return at & (rows["global"] == wanted).all(axis=1)


def _bulk_over(config: Config, bulk: BindingSet, prefix: Prefix) -> list[Binding]:
    """The longest row over ``prefix``, as a binding."""
    for length in range(prefix.prefixlen, -1, -1):
        found = bulk.rows[_equal(bulk.rows, prefix.supernet(new_prefix=length))]
        if len(found):
            row, over = found[0], prefix.supernet(new_prefix=length)
            network, kind = _network(config, over), BindingKind(int(row["kind"]))
            local = None
            if row["local_family"] and kind is not BindingKind.POLICY:
                address = unpacked(row["local"].tobytes(), int(row["local_family"]))
                local = type(prefix)((int(address), length))
            return [
                Binding(
                    prefix=over,
                    kind=kind,
                    target=bulk.targets[int(row["target"])] if row["target"] != NO_NAME else None,
                    local=local,
                    offset=offset_in(network.prefix, over) if network is not None else 0,
                    copy=bulk.copies[int(row["copy"])] if row["copy"] != NO_NAME else None,
                    place=Place(bulk.files[int(row["source"])], int(row["line"])),
                )
            ]
    return []


def _bulk_inside(bulk: BindingSet, prefix: Prefix, number: int) -> list[Prefix]:
    import numpy as np

    rows, size = bulk.rows, prefix.prefixlen
    bits = np.unpackbits(rows["global"], axis=1)[:, :size]
    wanted = np.unpackbits(np.frombuffer(packed(prefix.network_address), np.uint8))[:size]
    at = (rows["family"] == prefix.version) & (rows["prefix_len"] > size) & (bits == wanted).all(axis=1)
    kinds = np.isin(rows["kind"], [int(BindingKind.ENDPOINT), int(BindingKind.ADDRESS)])
    return [
        type(prefix)((int(unpacked(row["global"].tobytes(), prefix.version)), int(row["prefix_len"])))
        for row in rows[at & kinds & (rows["target"] == number)]
    ]
