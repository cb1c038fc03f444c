"""Site without mistakes -> model.Pair: the two nodes seen from the one that `[node].name` names. Pure."""

from __future__ import annotations

from pathlib import Path

from ipshare import model
from ipshare.config import schema
from ipshare.config.site import Site


def pair(site: Site, wanted: schema.Pair) -> model.Pair:
    """This node's half of the pair."""
    names = [node.name for node in wanted.node]
    mine = names.index(site.node.name)
    folder = site.document.place((*wanted._path, "key_file")).file.parent
    here, there = wanted.node[mine], wanted.node[1 - mine]
    return model.Pair(
        node=here.name,
        peer=there.name,
        node_id=mine + 1,
        key_file=folder / wanted.key_file,
        interval_s=wanted.interval,
        misses=wanted.misses,
        mode=model.PairMode(wanted.mode),
        preempt=wanted.preempt,
        hook=Path(wanted.hook) if wanted.hook is not None else None,
        paths=tuple(
            model.PairPath(*ours, *theirs) for ours, theirs in zip(here.paths, there.paths, strict=True)
        ),
        vips=tuple(model.Vip(vip.address, vip.interface) for vip in wanted.vip),
        criteria=tuple(
            model.Criterion(one.kind, one.interface, one.address, one.interval, one.misses)
            for one in wanted.criterion
        ),
        criteria_needed=wanted.criteria_needed or len(wanted.criterion),
        publics=tuple(model.PublicPrefix(one.prefix, one.interface) for one in wanted.public),
        routes=tuple(
            model.PairRoute(
                one.kind,
                one.prefix,
                one.via[mine],
                one.interface,
                one.namespace,
                one.table,
                tuple(one.command),
            )
            for one in wanted.route
        ),
        ports=tuple(model.PairPort(one.name, one.parent, one.mac.lower()) for one in wanted.interface),
        witness=_witness(wanted.witness, folder) if wanted.witness is not None else None,
    )


def _witness(wanted: schema.PairWitness, folder: Path) -> model.Witness:
    def file(name: str | None) -> Path | None:
        return folder / name if name is not None else None

    address, port = wanted.address
    return model.Witness(
        kind=wanted.kind,
        address=address,
        port=port,
        key_file=folder / wanted.key_file,
        ttl_s=wanted.ttl,
        endpoints=tuple(endpoint.rstrip("/") for endpoint in wanted.endpoints),
        prefix=wanted.prefix if wanted.kind == "etcd" else "",
        ca_file=file(wanted.ca_file),
        cert_file=file(wanted.cert_file),
        cert_key_file=file(wanted.cert_key_file),
    )
