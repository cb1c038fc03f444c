"""Site without mistakes -> model.Vpp: where VPP is, and what it shall have. Pure."""

from __future__ import annotations

from pathlib import Path

from ipshare import model
from ipshare.config import schema
from ipshare.config.site import Site

API_SOCKET = "/run/vpp/api.sock"
STATS_SOCKET = "/run/vpp/stats.sock"


def vpp(site: Site, node: model.Node) -> model.Vpp:
    """The VPP of a site whose engine it is. A managed one keeps its sockets in runtime_dir."""
    wanted, folder = site.vpp, node.runtime_dir / "vpp"
    return model.Vpp(
        api_socket=folder / "api.sock" if wanted.managed else Path(wanted.api_socket or API_SOCKET),
        stats_socket=folder / "stats.sock" if wanted.managed else Path(wanted.stats_socket or STATS_SOCKET),
        managed=wanted.managed,
        binary=Path(wanted.binary) if wanted.binary else None,
        plugin_path=Path(wanted.plugin_path) if wanted.plugin_path else None,
        service_table=wanted.service_table,
        delivery_table=wanted.delivery_table,
        heap_size=wanted.heap_size,
        statseg_size=wanted.statseg_size or 0,
        buffers=wanted.buffers,
        poll_sleep_s=wanted.poll_sleep,
        metal=_metal(wanted),
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


def _metal(wanted: schema.Vpp) -> model.Metal:
    return model.Metal(
        main_core=wanted.main_core,
        worker_cores=tuple(wanted.worker_cores),
        is_isolated=wanted.isolate_cores,
        hugepages=tuple(model.Hugepages(pages.size, pages.count, pages.numa) for pages in wanted.hugepages),
        cards=tuple(
            model.Card(
                card.device,
                card.name or "",
                card.rx_queues or 0,
                card.tx_queues or 0,
                card.rx_descriptors or 0,
                card.tx_descriptors or 0,
            )
            for card in wanted.dpdk
        ),
    )
