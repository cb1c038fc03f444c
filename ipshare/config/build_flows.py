"""Site without mistakes -> the model of tracked connections: sessions, NATs, this node's side of the mirror.
Pure."""

from __future__ import annotations

from ipshare import model
from ipshare.config import schema
from ipshare.config.check_flows import is_tracked
from ipshare.config.site import Site


def sessions(site: Site) -> model.Sessions | None:
    """The session table; with defaults where something needs it and no [sessions] says how large it is."""
    wanted = site.sessions
    if wanted is None:
        if not site.nat and not is_tracked(site):
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


def mirror(wanted: schema.Mirror, pair: model.Pair) -> model.Mirror:
    """This node's side: the pair's paths, at ports of its own."""
    return model.Mirror(
        paths=tuple(
            model.PairPath(
                path.local,
                wanted.port or path.local_port + 1,
                path.remote,
                wanted.port or path.remote_port + 1,
            )
            for path in pair.paths
        ),
        commit=model.Commit(wanted.commit),
        commit_timeout_s=wanted.commit_timeout,
        ring=wanted.ring,
        window=wanted.window,
        digest_s=wanted.digest,
    )


def tracking(binding: schema.Binding) -> model.Tracking:
    return model.Tracking.OFF if binding.track == "off" else model.Tracking(binding.observe)
