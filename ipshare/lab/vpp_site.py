"""The sections of site.toml that a node's VPP needs, as text. Pure.

Four of them share a small machine: each agent starts its VPP with little memory, no worker threads, and
interfaces in interrupt mode, so that an idle one sleeps. Without poll_sleep: it would wake an idle VPP ten
thousand times a second, and delay a packet.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.lab.topology import Port, Vpp

_SIZES = (
    "counter_cells = 4096",
    "workers = 0",
    "",
    "[vpp]",
    "managed = true",
    'heap_size = "256MiB"',
    "buffers = 8192",
)


def sections(vpp: Vpp) -> Iterator[str]:
    """[engine], [vpp], interfaces, bridges, routes, neighbours; each ends with an empty line."""
    yield "[engine]"
    yield 'kind = "vpp"'
    yield from _SIZES
    if vpp.delivery_table:
        yield f"delivery_table = {vpp.delivery_table}"
    yield ""
    for number, (bridge, loopback) in enumerate(vpp.bvis.items(), start=1):
        yield from _section("bridge", name=bridge, id=number, bvi=loopback)
    for port in vpp.ports:
        yield from _section("interface", **_interface(port))
    for route in vpp.routes:
        yield from _section(
            "route", prefix=route.prefix, via=route.via, interface=route.port, table=route.table
        )
    for neighbor in vpp.neighbors:
        yield from _section("neighbor", interface=neighbor.port, address=neighbor.address, mac=neighbor.mac)


def _interface(port: Port) -> dict[str, object]:
    return {
        "name": port.name,
        "host": port.host,
        "mac": port.mac,
        "addresses": list(port.addresses) or None,
        "table": port.table,
        "bridge": port.bridge,
        "mtu": port.mtu,
        "rx_mode": "interrupt" if port.host is not None else None,
    }


def _section(title: str, /, **keys: object) -> Iterator[str]:
    """What is None is left out."""
    yield f"[[{title}]]"
    for key, value in keys.items():
        if value is not None:
            yield f"{key} = {_value(value)}"
    yield ""


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'
