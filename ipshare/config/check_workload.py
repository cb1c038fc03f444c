"""Checks of `[[workload]]` in a site file, and its tables as values. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ipshare import model
from ipshare.config import schema
from ipshare.config.checks import Check, Finding, unique_name
from ipshare.config.resolve import readable
from ipshare.config.site import Site

LONGEST_STOP_S, LONGEST_START_S = 3600.0, 86400.0


def has_director(site: Site, workload: schema.SiteWorkload) -> Iterator[Finding]:
    if site.remote is None:
        text = "nobody gives leases: without [remote] no director reaches this node, and it is never started"
        yield Finding(workload._path, text, "write [remote] (docs/director.md)")


def not_migrated(site: Site, workload: schema.SiteWorkload) -> Iterator[Finding]:
    """What leaves alive has ended here for whoever watches over the lease, and would be started again."""
    if any(one.workload == workload.name for one in readable(site.migration, "workload")):
        text = f"{workload.name} has a [[migration]] here: one workload is migrated, or runs on leases"
        yield Finding((*workload._path, "name"), text, "leave one of the two tables out")


def programs(site: Site, workload: schema.SiteWorkload) -> Iterator[Finding]:
    for key in ("start", "stop", "status", "fence"):
        words = [] if key in workload._broken else getattr(workload, key)
        if words and not words[0].startswith("/"):
            text = f"{words[0]!r} is not an absolute path"
            yield Finding((*workload._path, key, 0), text, "begin it with /")


def times(site: Site, workload: schema.SiteWorkload) -> Iterator[Finding]:
    bounds = (("stop_time", LONGEST_STOP_S, "1h"), ("start_time", LONGEST_START_S, "24h"))
    for key, longest_s, said in bounds:
        if key not in workload._broken and not 0 < (time_s := getattr(workload, key)) <= longest_s:
            text = f"a {key} of {time_s:g} s is out of range"
            yield Finding((*workload._path, key), text, f"above 0, up to {said}")


CHECKS: dict[str, list[Check]] = {"workload": [unique_name, has_director, not_migrated, programs, times]}


def workloads(site: Site) -> tuple[model.Workload, ...]:
    return tuple(
        model.Workload(
            name=one.name,
            start=tuple(one.start),
            stop=tuple(one.stop),
            status=tuple(one.status),
            fence=tuple(one.fence),
            stop_s=one.stop_time,
            start_s=one.start_time,
            place=site.document.place(one._path),
        )
        for one in site.workload
    )
