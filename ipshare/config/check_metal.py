"""Checks of what [vpp] asks of the machine: cores of its threads, hugepages, cards for DPDK.

What the machine has is not looked at here: see ipshare.appliance.hardware and the agent's preflight. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.check_vpp import given
from ipshare.config.checks import Check, Finding, is_vpp
from ipshare.config.site import Site

MOST_WORKERS = 64


def cores(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    """A core for each thread, and one for the main thread that no worker has."""
    if not is_vpp(site) or not vpp.managed:
        return
    seen: dict[int, int] = {}
    for index, core in enumerate(vpp.worker_cores):
        if core in seen:
            message = f"core {core} is in worker_cores twice"
            yield Finding(("vpp", "worker_cores", index), message, "give every worker a core of its own")
        seen.setdefault(core, index)
    if len(vpp.worker_cores) > MOST_WORKERS:
        message = f"{len(vpp.worker_cores)} worker_cores, and {MOST_WORKERS} workers at most"
        yield Finding(("vpp", "worker_cores"), message, "name fewer cores")
    if vpp.main_core in seen:
        message = f"core {vpp.main_core} is main_core and that of a worker"
        hint = "a worker never sleeps: give the main thread another core"
        yield Finding(("vpp", "worker_cores", seen[vpp.main_core]), message, hint)


def as_many_workers(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    if not is_vpp(site) or not vpp.managed or not vpp.worker_cores or site.engine.workers is None:
        return
    if site.engine.workers != len(vpp.worker_cores):
        message = f"{site.engine.workers} workers, and {len(vpp.worker_cores)} worker_cores"
        yield Finding(("engine", "workers"), message, "leave `workers` out: every core of the list has one")


def isolated(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    """What is isolated is known by number; a main thread among the workers' cores would share one."""
    if not is_vpp(site) or not vpp.managed or not vpp.isolate_cores:
        return
    if vpp.main_core is None or not vpp.worker_cores:
        key = "main_core" if vpp.worker_cores else "worker_cores"
        message = f"isolate_cores without {key}"
        yield Finding(("vpp", "isolate_cores"), message, "say main_core = 1 and worker_cores = [2, 3]")


def sizes(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    """VPP takes zero for a size and ends."""
    if not is_vpp(site):
        return
    for key in ("heap_size", "statseg_size"):
        if key in given(site, "vpp") and key not in vpp._broken and getattr(vpp, key) == 0:
            yield Finding(("vpp", key), f"{key} is zero", "leave it out for the default")


def pages(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    seen: dict[tuple[int, int], int] = {}
    for index, wanted in enumerate(vpp.hugepages if is_vpp(site) else ()):
        what = (wanted.size, wanted.numa)
        if what in seen:
            message = f"hugepages of this size on NUMA node {wanted.numa} are in number {seen[what] + 1} too"
            yield Finding(("vpp", "hugepages", index), message, "say one count for both")
        seen.setdefault(what, index)


def cards(site: Site, vpp: schema.Vpp) -> Iterator[Finding]:
    """A card once, each name once, and none that af_packet opens as well."""
    if not is_vpp(site) or not vpp.managed:
        return
    hosts = {port.host for port in site.interface if "host" not in port._broken and port.host is not None}
    devices: dict[str, int] = {}
    names: dict[str, int] = {}
    for index, card in enumerate(vpp.dpdk):
        if card.device in devices:
            message = f"{card.device} is number {devices[card.device] + 1} of [[vpp.dpdk]] too"
            yield Finding(("vpp", "dpdk", index, "device"), message, "leave one of them out")
        if card.device in hosts:
            message = f"{card.device} is `host` of an [[interface]]: the kernel's, or DPDK's?"
            yield Finding(("vpp", "dpdk", index, "device"), message, "leave one of them out")
        if card.name is not None and card.name in names:
            message = f"the name {card.name!r} is that of number {names[card.name] + 1} too"
            yield Finding(("vpp", "dpdk", index, "name"), message, "give every card a name of its own")
        devices.setdefault(card.device, index)
        if card.name is not None:
            names.setdefault(card.name, index)


CHECKS: dict[str, list[Check]] = {"vpp": [cores, as_many_workers, isolated, sizes, pages, cards]}
