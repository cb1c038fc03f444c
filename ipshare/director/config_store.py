"""config_store: [store] of a director's file: where its memory is, and the times that several directors need.

The times are checked against each other: a renewal that begins when it should (a fifth of the lease after the
one before began), and takes as long as it may, ends before the leader has to stop sending. It is three
requests (look, lease, take), and none is longer than ``timeout``, whatever etcd does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from ipshare.config.read import Document
from ipshare.config.values import Duration, Table
from ipshare.errors import Problem

SHORTEST_S, LONGEST_S = 2.0, 3600.0
RENEWALS = 5
"""In each lease."""
REQUESTS = 3
"""For a renewal."""
ETCD_ONLY = ("endpoints", "ca", "certificate")


class Store(Table):
    """Where a director keeps what must outlive it."""

    kind: Literal["sqlite", "etcd"] = Field(
        default="sqlite",
        description="`sqlite`: in `state_dir`, for one director. `etcd`: in a cluster of etcd 3.4 or newer, "
        "for several, of which one leads.",
    )
    endpoints: list[str] = Field(default=[], description="URLs of the etcd cluster's members.")
    prefix: str = Field(
        default="/ipshare/director",
        pattern=r"^/[!-~]{0,199}[!-.0-~]$",
        description="Beginning of the names of this installation's keys in etcd; the same at all directors.",
    )
    ca: str | None = Field(
        default=None,
        min_length=1,
        description="Certificates that vouch for etcd, relative to this file. Default: the system's.",
    )
    certificate: str | None = Field(
        default=None,
        min_length=1,
        description="Private key and certificate of this director as a client of etcd, in one file.",
    )
    lease: Duration = Field(
        default=10.0,
        json_schema_extra={"default": "10s"},
        description="How long a leader that is not heard keeps others waiting: 2s or more, whole seconds.",
    )
    timeout: Duration = Field(
        default=2.0,
        json_schema_extra={"default": "2s"},
        description="How long one request to etcd may take, all members together.",
    )
    margin: Duration = Field(
        default=1.0,
        json_schema_extra={"default": "1s"},
        description="So long before its lease ends a leader sends nothing more.",
    )


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """What a process needs to know of etcd."""

    endpoints: tuple[str, ...]
    prefix: str
    ca: Path | None
    certificate: Path | None
    lease_s: float
    timeout_s: float
    margin_s: float

    @property
    def renew_s(self) -> float:
        return self.lease_s / RENEWALS


def settings_of(store: Store, folder: Path) -> EtcdSettings | None:
    """None: it is not in etcd."""
    if store.kind != "etcd":
        return None
    return EtcdSettings(
        endpoints=tuple(store.endpoints),
        prefix=store.prefix,
        ca=folder / store.ca if store.ca else None,
        certificate=folder / store.certificate if store.certificate else None,
        lease_s=store.lease,
        timeout_s=store.timeout,
        margin_s=store.margin,
    )


def problems(document: Document, store: Store) -> Iterator[Problem]:
    if store._broken:
        return
    if store.kind == "sqlite":
        for name in ETCD_ONLY:
            if getattr(store, name):
                hint = "leave it out, or change the kind"
                yield document.problem(("store", name), f'{name} is for kind = "etcd"', hint)
        return
    if not store.endpoints:
        hint = 'write endpoints = ["http://192.0.2.1:2379"]'
        yield document.problem(("store",), "a store in etcd needs endpoints", hint)
    for index, endpoint in enumerate(store.endpoints):
        if not _is_url(endpoint):
            message = f"{endpoint!r} is no URL of an etcd member"
            hint = 'write for example "https://192.0.2.1:2379"'
            yield document.problem(("store", "endpoints", index), message, hint)
    if not SHORTEST_S <= store.lease <= LONGEST_S or store.lease != int(store.lease):
        message = f"lease {store.lease:g} s: etcd's leases are whole seconds, 2 s to an hour"
        yield document.problem(("store", "lease"), message, 'write for example "10s"')
        return
    needed = store.lease / RENEWALS + REQUESTS * store.timeout + store.margin
    if not store.timeout or not store.margin or needed > store.lease:
        message = (
            f"lease {store.lease:g} s is too short: a leader asks every {store.lease / RENEWALS:g} s, "
            f"its {REQUESTS} requests may take {store.timeout:g} s each, and it stops {store.margin:g} s "
            "before the end"
        )
        if not store.timeout or not store.margin:
            message = "timeout and margin must be longer than nothing"
        hint = "let lease / 5 + 3 x timeout + margin be at most lease"
        yield document.problem(("store", "lease"), message, hint)


def _is_url(endpoint: str) -> bool:
    try:
        is_one = re.fullmatch(r"https?://[a-zA-Z0-9._:%\[\]-]+/?", endpoint) is not None
        return is_one and urlsplit(endpoint).port != 0
    except ValueError:  # of the port
        return False
