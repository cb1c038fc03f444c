"""Site without mistakes -> the model of tracked connections: sessions, NATs, this node's side of the mirror.
Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

from ipshare import model
from ipshare.config import schema, schema_pair
from ipshare.config.check_channel import ends_here
from ipshare.config.check_flows import is_tracked
from ipshare.config.resolve import named
from ipshare.config.site import Site

LOOPBACK = IPv4Address("127.0.0.1")
FIRST_OBSERVER, RELAY = 3, 9
"""Numbers of mirrors beside those of the pair's nodes, 1 and 2."""
End = tuple[model.Address, int]


def sessions(site: Site, bulk: model.BindingSet | None) -> model.Sessions | None:
    """The session table; with defaults where something needs it and no [sessions] says how large it is."""
    wanted = site.sessions
    if wanted is None:
        in_bulk = bulk is not None and bulk.rows["tracking"].any()
        if not (site.nat or site.cluster or is_tracked(site) or in_bulk or ends_here(site)):
            return None
        wanted = schema.Sessions()
    return model.Sessions(
        capacity=wanted.capacity,
        half_open=wanted.half_open,
        half_open_per_source=min(wanted.half_open_per_source, wanted.half_open),
        mappings=wanted.mappings,
        addresses=wanted.addresses,
        source_bits4=wanted.source_bits.v4,
        source_bits6=wanted.source_bits.v6,
        udp_inbound_refreshes=wanted.udp_inbound_refreshes,
        timeouts=model.SessionTimeouts(**{key: int(value) for key, value in dict(wanted.timeouts).items()}),
    )


def nats(site: Site) -> tuple[model.Nat, ...]:
    return tuple(
        model.Nat(
            name=nat.name,
            realm=realm,
            inside=tuple(nat.inside),
            pools=tuple(nat.addresses),
            first_port=nat.ports[0],
            last_port=nat.ports[1],
            filtering=model.Filtering(nat.filtering),
            deterministic=nat.deterministic,
            interfaces=tuple(nat.interfaces),
        )
        for realm, nat in enumerate(site.nat, 1)
    )


def _way(here: Sequence[End], there: Sequence[End]) -> tuple[model.PairPath, ...]:
    """From each end here to each there, of one family."""
    return tuple(
        model.PairPath(ours[0], ours[1], theirs[0], theirs[1])
        for ours, theirs in itertools.product(here, there)
        if ours[0].version == theirs[0].version
    )


def _path_by_path(here: Sequence[End], there: Sequence[End]) -> tuple[model.PairPath, ...]:
    return tuple(model.PairPath(*ours, *theirs) for ours, theirs in zip(here, there, strict=True))


def _ends(wanted: schema.Mirror, node: schema_pair.PairNode) -> list[End]:
    """Of the mirror, at a half of the pair: the pair's addresses, at ports of the mirror's own."""
    return [(address, wanted.port or port + 1) for address, port in node.paths]


def _others(site: Site, wanted: schema.Mirror, pair: schema.Pair) -> Iterator[model.MirrorPeer]:
    """Whom this node speaks with."""
    mine = next((one for one in wanted.observer if one.name == site.node.name), None)
    half = next((node for node in pair.node if node.name == site.node.name), None)
    here = mine.paths if mine is not None else _ends(wanted, half) if half is not None else []
    for number, node in enumerate(pair.node, 1):
        if node is half:
            continue
        there = _ends(wanted, node)
        paths = _way(here, there) if half is None else _path_by_path(here, there)
        yield model.MirrorPeer(node.name, number, paths)
    for number, one in enumerate(wanted.observer, FIRST_OBSERVER):
        if half is not None:
            yield model.MirrorPeer(one.name, number, _way(here, one.paths))


def _agent(wanted: schema.Mirror, pair: model.Pair) -> model.MirrorPeer:
    port = wanted.port or pair.paths[0].local_port + 1
    path = model.PairPath(LOOPBACK, port, LOOPBACK, port + 1)
    return model.MirrorPeer("redis", RELAY, (path,))


def _database(site: Site, wanted: schema.Mirror) -> model.Database | None:
    if wanted.redis is None:
        return None
    at, password = wanted.redis, None
    if at.password_file is not None:
        place = site.document.place((*wanted._path, "redis", "password_file"))
        password = place.file.parent / at.password_file
    return model.Database(at.url, at.prefix, password)


def mirror(site: Site, wanted: schema.Mirror, pair: schema.Pair, half: model.Pair | None) -> model.Mirror:
    """This node's side; half: its half of the pair, None: an observer."""
    database, names = _database(site, wanted), [one.name for one in wanted.observer]
    folder = site.document.place((*pair._path, "key_file")).file.parent
    return model.Mirror(
        node=site.node.name,
        number=half.node_id if half is not None else FIRST_OBSERVER + names.index(site.node.name),
        is_observer=half is None,
        key_file=folder / pair.key_file,
        peers=(_agent(wanted, half),)
        if database is not None and half is not None
        else tuple(_others(site, wanted, pair)),
        database=database,
        commit=model.Commit(wanted.commit),
        commit_timeout_s=wanted.commit_timeout,
        ring=wanted.ring,
        window=wanted.window,
        digest_s=wanted.digest,
    )


def tracking(site: Site, binding: schema.Binding) -> model.Tracking:
    """Its own word, else its policy's."""
    policy = named(site.policy, binding.policy) if binding.policy else None
    for table in (binding, policy):
        if table is not None and table.track != "off":
            return model.Tracking(table.observe)
    return model.Tracking.OFF
