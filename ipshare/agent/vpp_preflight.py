"""Everything that a node's VPP, or this machine, has against a configuration: one sentence each, with remedy.

Only reads. Without ``engine`` no VPP runs: a managed one is about to be started here, any other is missing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from ipshare.agent.flows import memory_short
from ipshare.agent.netspec import read_facts
from ipshare.agent.pair import preflight as pair_preflight
from ipshare.agent.vpp import LCP_SYNC, no_vpp, settings, vpp_of
from ipshare.bgp.speaker import NAMESPACES
from ipshare.engine.vpp.cards import BESIDE_THE_KERNEL, SYS, VFIO, address_of, driver
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.find import PLUGIN, find
from ipshare.engine.vpp.ports_wanted import is_loopback
from ipshare.engine.vpp.startup import CELL_BYTES, DPDK
from ipshare.errors import NotRunning, Problem
from ipshare.model import Config, Vpp
from ipshare.net.clusters import unprobed

VHOST = Path("/dev/vhost-net")
PAIRS_NEED = {"tap": "tap_create_v2", "linux_cp": "lcp_itf_pair_add_del_v3"}
"""Plugins, and a message of each."""


def preflight(config: Config, engine: VppEngine | None) -> list[Problem]:
    """All obstacles at once; an empty list: go ahead. Raises NotRunning where a VPP of others is missing: it
    may be about to start, and a service manager tries again."""
    vpp = vpp_of(config)
    if engine is not None:
        return [*_running(config, vpp, engine), *_pair(config, engine), *_probed(config)]
    if not vpp.managed:
        raise no_vpp(vpp)
    short = memory_short(config)
    found = [*_installed(config), *_devices(vpp), *_cards(vpp), *_pair(config, None), *_probed(config)]
    return found if short is None else [*found, short]


def _problem(message: str, hint: str) -> Problem:
    return Problem("this machine", 0, 0, "", message, hint)


def _pair(config: Config, engine: VppEngine | None) -> list[Problem]:
    """The ends of the pair's paths are the kernel's, where VPP runs; VIPs are on interfaces of VPP."""
    if config.pair is None:
        return []
    here = engine is None or _is_here(engine.info().pid)
    return pair_preflight(config.pair, has_ports=False, has_paths=here)


def _probed(config: Config) -> list[Problem]:
    """The way by which servers are probed; pairs in Linux may become it."""
    if not config.clusters or any(port.linux_cp for port in vpp_of(config).interfaces):
        return []
    return unprobed(config.clusters, read_facts().routes)


def _is_here(pid: int) -> bool:
    """Whether that process sees the same network as we; False where we may not look."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return False


def _installed(config: Config) -> Iterator[Problem]:
    what = settings(config)
    try:
        install = find(what.binary, what.plugin_path)
    except NotRunning as error:
        yield _problem(error.message, error.hint)
        return
    looked = ", ".join(str(path) for path in install.plugin_dirs)
    if install.plugin is None:
        yield _problem(f"{PLUGIN} is nowhere: looked in {looked}", "install the package vpp-plugin-ipshare")
    if what.metal.cards and not any((path / DPDK).is_file() for path in install.plugin_dirs):
        yield _problem(f"{DPDK} is nowhere: looked in {looked}", "install the package vpp-plugin-dpdk")


def _devices(vpp: Vpp) -> Iterator[Problem]:
    """Of a VPP that will run here, in this network namespace (of which /sys need not be)."""
    here = {name for _, name in socket.if_nameindex()}
    for port in vpp.interfaces:
        if port.host is not None and port.host not in here:
            yield _problem(
                f"there is no device {port.host} for {port.name} to open",
                "correct `host`, or make the device first: ip link show",
            )
    yield from _pairs(vpp)


def _cards(vpp: Vpp) -> Iterator[Problem]:
    """Cards are given to DPDK by `ipshare vpp prepare` alone, which keeps those by which we are reached."""
    for card in vpp.metal.cards:
        address = address_of(card, SYS)
        if address is None or not (SYS / "bus/pci/devices" / address).exists():
            hint = "lspci -D and ip -br link show what there is; correct `device` in [[vpp.dpdk]]"
            yield _problem(f"{card.device} is no network card on PCI here", hint)
        elif (has := driver(address, SYS)) != VFIO and has not in BESIDE_THE_KERNEL:
            message = f"card {card.device} ({address}) is driven by {has or 'nothing'}, not by {VFIO}"
            yield _problem(message, "ipshare vpp prepare gives it away, or says why it does not")


def _pairs(vpp: Vpp) -> Iterator[Problem]:
    """What the pairs in Linux that VPP shall make need of this machine."""
    for port in vpp.interfaces:
        if port.linux_cp is None:
            continue
        if not VHOST.exists():
            yield _problem(
                f"{VHOST} is missing, which VPP needs for the pair {port.linux_cp} of {port.name}",
                "modprobe vhost_net; in a container pass the device in; or leave linux_cp out",
            )
        if port.linux_cp_netns is not None and not (NAMESPACES / port.linux_cp_netns).exists():
            yield _problem(
                f"there is no network namespace {port.linux_cp_netns} for the pair {port.linux_cp} of "
                f"{port.name}",
                f"ip netns add {port.linux_cp_netns}, at every boot before this agent starts",
            )


def _running(config: Config, vpp: Vpp, engine: VppEngine) -> Iterator[Problem]:
    names = {one.interface_name for one in engine.client.dump("sw_interface_dump")}
    for port in vpp.interfaces:
        if port.host is None and not is_loopback(port.name) and port.name not in names:
            yield _problem(
                f"VPP has no interface {port.name}",
                f"it has {', '.join(sorted(names - {'local0'})) or 'none'}: correct the name, or add `host`",
            )
    if any(port.host for port in vpp.interfaces) and not engine.client.has("af_packet_create_v3"):
        yield _problem(
            "VPP runs without its af_packet plugin, which opens Linux devices",
            "startup.conf: plugins { plugin af_packet_plugin.so { enable } }, and restart VPP",
        )
    if any(port.linux_cp for port in vpp.interfaces):
        yield from _paired(vpp, engine)
    yield from _setup(config, vpp, engine)


def _paired(vpp: Vpp, engine: VppEngine) -> Iterator[Problem]:
    """What keeps a VPP that runs from making pairs; those that are there need nothing any more."""
    lacks = [name for name, message in PAIRS_NEED.items() if not engine.client.has(message)]
    if lacks:
        enabled = " ".join(f"plugin {name}_plugin.so {{ enable }}" for name in PAIRS_NEED)
        yield _problem(
            f"VPP runs without plugins that pairs in Linux need: {', '.join(lacks)}",
            f"startup.conf: plugins {{ {enabled} }} {LCP_SYNC}, and restart VPP",
        )
    elif not engine.client.dump("lcp_itf_pair_get", cursor=0):
        yield from _pairs(vpp)


def _setup(config: Config, vpp: Vpp, engine: VppEngine) -> Iterator[Problem]:
    """What the plugin is told once for each run of VPP."""
    hello, cells = engine.control.hello(), config.engine.counter_cells
    if hello.is_configured:
        has = (hello.service_table, hello.delivery_table, hello.counter_cells)
        if has != (vpp.service_table, vpp.delivery_table, cells):
            yield _problem(
                f"this VPP was set up with service_table {has[0]}, delivery_table {has[1]} and "
                f"{has[2]} counter_cells, which cannot change while it runs",
                "restart VPP (a moment without traffic), or configure these",
            )
        return
    need = cells * CELL_BYTES * hello.threads
    if need > hello.stats_free:
        size = -(-(hello.stats_size - hello.stats_free + need * 9 // 8) // (1 << 20))
        yield _problem(
            f"{cells} counter_cells need {need >> 20} MB of VPP's stats segment, and "
            f"{hello.stats_free >> 20} MB are free",
            f"startup.conf: statseg {{ size {size}M }} and restart VPP, or fewer counter_cells in [engine]",
        )
