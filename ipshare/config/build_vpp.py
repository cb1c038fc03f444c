"""Site without mistakes -> model.Vpp: where VPP is, and what it shall have. Pure."""

from __future__ import annotations

from pathlib import Path

from ipshare import model
from ipshare.config import schema
from ipshare.config.site import Site

API_SOCKET = "/run/vpp/api.sock"
STATS_SOCKET = "/run/vpp/stats.sock"
STATSEG_BASE = 32 << 20
"""What VPP's own counters need at most, by its default."""


def vpp(site: Site, node: model.Node, workers: int) -> model.Vpp:
    """The VPP of a site whose engine it is. A managed one keeps its sockets in runtime_dir."""
    wanted, folder = site.vpp, node.runtime_dir
    return model.Vpp(
        api_socket=folder / "vpp-api.sock" if wanted.managed else Path(wanted.api_socket or API_SOCKET),
        stats_socket=folder / "vpp-stats.sock"
        if wanted.managed
        else Path(wanted.stats_socket or STATS_SOCKET),
        managed=wanted.managed,
        binary=Path(wanted.binary) if wanted.binary else None,
        plugin_path=Path(wanted.plugin_path) if wanted.plugin_path else None,
        service_table=wanted.service_table,
        delivery_table=wanted.delivery_table,
        heap_size=wanted.heap_size,
        statseg_size=wanted.statseg_size or statseg_size(site.engine.counter_cells, workers),
        buffers=wanted.buffers,
        poll_sleep_s=wanted.poll_sleep,
        interfaces=tuple(_interface(site, port) for port in site.interface),
        bridges=tuple(
            model.Bridge(bridge.name, bridge.id, bridge.bvi, site.document.place(bridge._path))
            for bridge in site.bridge
        ),
        routes=tuple(
            model.Route(
                route.prefix,
                route.via,
                route.interface,
                model.Lookup(route.table),
                site.document.place(route._path),
            )
            for route in site.route
        ),
        neighbors=tuple(
            model.Neighbor(
                neighbor.interface, neighbor.address, neighbor.mac, site.document.place(neighbor._path)
            )
            for neighbor in site.neighbor
        ),
    )


def statseg_size(counter_cells: int, workers: int) -> int:
    """Bytes of a stats segment that holds so many combined counters (16 bytes) for every thread."""
    need = STATSEG_BASE + counter_cells * 16 * (workers + 1)
    return (need + (1 << 20) - 1) >> 20 << 20


def _interface(site: Site, port: schema.Interface) -> model.Interface:
    return model.Interface(
        name=port.name,
        host=port.host,
        table=model.Lookup(port.table),
        addresses=tuple(port.addresses),
        mtu=port.mtu,
        bridge=port.bridge,
        is_up=port.up,
        mac=port.mac,
        linux_cp=port.linux_cp,
        linux_cp_netns=port.linux_cp_netns,
        rx_mode=port.rx_mode or ("interrupt" if port.host is not None else None),
        place=site.document.place(port._path),
    )
