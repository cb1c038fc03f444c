"""Site without mistakes -> the model of tracked connections: sessions, NATs, this node's side of the mirror.
Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from ipshare import model
from ipshare.config import schema
from ipshare.config.check_channel import ends_here
from ipshare.config.check_flows import is_tracked
from ipshare.config.site import Site

LOOPBACK = IPv4Address("127.0.0.1")


def sessions(site: Site) -> model.Sessions | None:
    """The session table; with defaults where something needs it and no [sessions] says how large it is."""
    wanted = site.sessions
    if wanted is None:
        if not site.nat and not is_tracked(site) and not ends_here(site):
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


def _over_network(wanted: schema.Mirror, pair: model.Pair) -> tuple[model.PairPath, ...]:
    """The pair's paths, at ports of the mirror's own."""
    return tuple(
        model.PairPath(
            path.local, wanted.port or path.local_port + 1, path.remote, wanted.port or path.remote_port + 1
        )
        for path in pair.paths
    )


def _to_the_agent(wanted: schema.Mirror, pair: model.Pair) -> tuple[model.PairPath, ...]:
    port = wanted.port or pair.paths[0].local_port + 1
    return (model.PairPath(LOOPBACK, port, LOOPBACK, port + 1),)


def _database(site: Site, wanted: schema.Mirror) -> model.Database | None:
    if wanted.redis is None:
        return None
    at, password = wanted.redis, None
    if at.password_file is not None:
        place = site.document.place((*wanted._path, "redis", "password_file"))
        password = place.file.parent / at.password_file
    return model.Database(at.url, at.prefix, password)


def mirror(site: Site, wanted: schema.Mirror, pair: model.Pair) -> model.Mirror:
    """This node's side."""
    database = _database(site, wanted)
    return model.Mirror(
        paths=_over_network(wanted, pair) if database is None else _to_the_agent(wanted, pair),
        database=database,
        commit=model.Commit(wanted.commit),
        commit_timeout_s=wanted.commit_timeout,
        ring=wanted.ring,
        window=wanted.window,
        digest_s=wanted.digest,
    )


def tracking(binding: schema.Binding) -> model.Tracking:
    return model.Tracking.OFF if binding.track == "off" else model.Tracking(binding.observe)
