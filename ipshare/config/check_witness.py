"""Checks of `[pair.witness]`: where it is, how long a grant lasts, what only one of both kinds has. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Finding
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import host_prefix
from ipshare.model_pair import FLOOR_S

SHORTEST_S, LONGEST_S, ETCD_S = 0.05, 10.0, 2.0
ETCD_ONLY = ("endpoints", "ca_file", "cert_file", "cert_key_file")


def witness(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    wanted = pair.witness
    if wanted is None:
        return
    path = (*pair._path, "witness")
    address, _ = wanted.address
    scope, is_etcd = bad_scope(host_prefix(address)), wanted.kind == "etcd"
    if scope is not None and not (is_etcd and scope == "loopback"):
        yield Finding(
            (*path, "address"), f"{address} is {scope}: no witness is there", "use an address of its machine"
        )
    if not SHORTEST_S <= wanted.ttl <= LONGEST_S:
        message = f"ttl {wanted.ttl:g} s is not between 50ms and 10s"
        yield Finding((*path, "ttl"), message, 'write for example "2s"')
    elif is_etcd and (wanted.ttl < ETCD_S or wanted.ttl != int(wanted.ttl)):
        message = f"ttl {wanted.ttl:g} s: etcd's leases are whole seconds, and no shorter than 2 s"
        yield Finding((*path, "ttl"), message, 'write "2s"')
    elif wanted.ttl < max(pair.misses * pair.interval, FLOOR_S):
        message = (
            f"ttl {wanted.ttl:g} s is shorter than the dead time: a grant would end before silence is noticed"
        )
        yield Finding((*path, "ttl"), message, "let it be longer than misses x interval")
    if wanted.key_file == pair.key_file:
        message = "the witness has the pair's own key: it could speak for either node"
        yield Finding((*path, "key_file"), message, "make another one with `ipshare pair key`")
    yield from _etcd(wanted, path)


def _etcd(wanted: schema.PairWitness, path: tuple[str | int, ...]) -> Iterator[Finding]:
    if wanted.kind == "node":
        for key in ETCD_ONLY:
            if getattr(wanted, key):
                yield Finding((*path, key), f'{key} is for kind = "etcd"', "leave it out, or change the kind")
        return
    if not wanted.endpoints:
        yield Finding(
            path, "a witness in etcd needs endpoints", 'write endpoints = ["http://192.0.2.1:2379"]'
        )
    for index, endpoint in enumerate(wanted.endpoints):
        if not re.fullmatch(r"https?://[^/\s]+/?", endpoint):
            message = f"{endpoint!r} is no URL of an etcd member"
            yield Finding((*path, "endpoints", index), message, 'write for example "http://192.0.2.1:2379"')
    if (wanted.cert_file is None) != (wanted.cert_key_file is None):
        yield Finding(path, "cert_file and cert_key_file go together", "write both, or neither")
