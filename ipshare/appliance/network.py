"""network: from the network-config of a NoCloud seed (version 2, Ethernets) to files of systemd-networkd.
Pure.

What of it the box does not know is a mistake, not ignored: an address that is not set would be found out too
late.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

KNOWN = {
    "match",
    "addresses",
    "dhcp4",
    "dhcp6",
    "gateway4",
    "gateway6",
    "routes",
    "nameservers",
    "mtu",
    "accept-ra",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.*-]{0,30}")
MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")


def rendered(config: Any, mistakes: list[str]) -> tuple[dict[str, str], list[str]]:
    """(file name -> text, name servers). Mistakes are added to `mistakes`; what is returned then counts for
    nothing."""
    files: dict[str, str] = {}
    servers: list[str] = []
    if not isinstance(config, dict):
        mistakes.append("network-config: not a table of keys")
        return files, servers
    config = config.get("network", config)
    if not isinstance(config, dict) or config.get("version") != 2:
        mistakes.append("network-config: version 2 is understood, no other")
        return files, servers
    mistakes.extend(
        f"network-config: {key} is not understood"
        for key in sorted(set(config) - {"version", "ethernets", "renderer"})
    )
    ethernets = config.get("ethernets") or {}
    if not isinstance(ethernets, dict):
        mistakes.append("network-config: ethernets is not a table")
        return files, servers
    for name, wanted in ethernets.items():
        where = f"network-config: {name}"
        if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(wanted, dict):
            mistakes.append(f"{where}: not an interface with a table of settings")
            continue
        mistakes.extend(f"{where}: {key} is not understood" for key in sorted(set(map(str, wanted)) - KNOWN))
        files[f"10-seed-{name.replace('*', 'all')}.network"] = _one(name, wanted, where, mistakes, servers)
    return files, servers


def _one(name: str, wanted: dict[str, Any], where: str, mistakes: list[str], servers: list[str]) -> str:
    def address(text: Any, what: str, *, interface: bool = False) -> str:
        try:
            if not isinstance(text, str) or "%" in text:  # a number is an address to Python, a zone any text
                raise ValueError
            return str(ipaddress.ip_interface(text) if interface else ipaddress.ip_address(text))
        except ValueError:
            mistakes.append(f"{where}: {what} {text!r} is none")
            return ""

    match = wanted.get("match") or {}
    lines = ["[Match]"]
    if not isinstance(match, dict) or set(match) - {"macaddress", "name"}:
        mistakes.append(f"{where}: match knows macaddress and name")
        match = {}
    mac, called = match.get("macaddress"), match.get("name", name)
    if mac is not None:
        if not MAC.fullmatch(str(mac)):
            mistakes.append(f"{where}: macaddress {mac!r} is none")
        lines.append(f"MACAddress={mac}")
    if mac is None or "name" in match:
        if not NAME.fullmatch(str(called)):
            mistakes.append(f"{where}: name {called!r} is none")
        lines.append(f"Name={called}")
    mistakes.extend(
        f"{where}: {key} is true or false, not {wanted[key]!r}"
        for key in ("dhcp4", "dhcp6", "accept-ra")
        if not isinstance(wanted.get(key, False), bool)
    )
    four, six = wanted.get("dhcp4"), wanted.get("dhcp6")
    lines += [
        "",
        "[Network]",
        f"DHCP={'yes' if four and six else 'ipv4' if four else 'ipv6' if six else 'no'}",
    ]
    if "accept-ra" in wanted:
        lines.append(f"IPv6AcceptRA={'yes' if wanted['accept-ra'] else 'no'}")
    for text in _list(wanted.get("addresses"), f"{where}: addresses", mistakes):
        if "/" not in str(text):
            mistakes.append(f"{where}: address {text!r} has no prefix length")
        lines.append(f"Address={address(text, 'address', interface=True)}")
    named = wanted.get("nameservers") or {}
    if not isinstance(named, dict) or set(named) - {"addresses"}:
        mistakes.append(f"{where}: nameservers has addresses, nothing else")
        named = {}
    found = named.get("addresses")
    servers += [address(text, "name server") for text in _list(found, f"{where}: nameservers", mistakes)]
    routes = [{"to": "default", "via": wanted[key]} for key in ("gateway4", "gateway6") if key in wanted]
    for route in [*routes, *_list(wanted.get("routes"), f"{where}: routes", mistakes)]:
        if not isinstance(route, dict) or set(route) - {"to", "via", "metric"} or "via" not in route:
            mistakes.append(f"{where}: a route has to, via and metric")
            continue
        lines += ["", "[Route]", f"Gateway={address(route['via'], 'gateway')}"]
        if route.get("to", "default") not in ("default", "0.0.0.0/0", "::/0"):
            lines.append(f"Destination={address(route['to'], 'destination', interface=True)}")
        if "metric" in route:
            lines.append(f"Metric={_number(route['metric'], f'{where}: metric', mistakes)}")
    if "mtu" in wanted:
        lines += ["", "[Link]", f"MTUBytes={_number(wanted['mtu'], f'{where}: mtu', mistakes)}"]
    return "\n".join(lines) + "\n"


def _list(value: Any, where: str, mistakes: list[str]) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        mistakes.append(f"{where}: not a list")
        return []
    return value


def _number(value: Any, where: str, mistakes: list[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 32:
        mistakes.append(f"{where}: {value!r} is no number")
        return 0
    return value
