"""pair_ports: makes the sub-interfaces of a pair, down, before they are needed (S3.4).

A macvlan with the workload's MAC address on its parent; no ARP, no IPv6 address of its own, so that nothing
leaves by it before the engine wants it. What this node made is marked by its alias: an interface of another
configuration is taken away again, one that somebody else made never.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ipshare.errors import IpshareError, Refused
from ipshare.model import Pair, PairPort

log = logging.getLogger(__name__)


def mark_of(state_dir: Path) -> str:
    """The alias of what this node makes; at most 255 bytes go into one."""
    return f"ipshare pair {state_dir}"[:250]


def made_here(pair: Pair) -> list[PairPort]:
    """Those that are made of devices of Linux; VPP's are like its other interfaces (engine.vpp.ports)."""
    return [port for port in pair.ports if port.parent is not None]


def ensure(ports: Sequence[PairPort], state_dir: Path) -> bool:
    """Makes what is missing, takes away what is wanted no more; True: something was done. Raises Refused: an
    interface of that name is somebody else's, or the parent is not there."""
    links = {link["ifname"]: link for link in json.loads(_ip("-j", "link", "show"))}
    mark, changed = mark_of(state_dir), False
    wanted = {port.name: port for port in ports}
    for name, link in links.items():
        port = wanted.get(name)
        if link.get("ifalias") == mark and (port is None or link["address"] != port.mac):
            _ip("link", "delete", name)
            changed = True
        elif port is not None and link.get("ifalias") == mark:
            del wanted[name]
        elif port is not None:
            raise Refused(
                f"{name} is there already, and this node did not make it",
                hint="name the sub-interface otherwise in [[pair.interface]], or take it away",
            )
    for port in wanted.values():
        _make(port, mark)
        changed = True
    return changed


def remove(state_dir: Path) -> None:
    """What ``ensure`` made."""
    ensure((), state_dir)


def _make(port: PairPort, mark: str) -> None:
    words = ["link", "add", "link", port.parent or "", "name", port.name, "address", port.mac]
    _ip(*words, "type", "macvlan", "mode", "bridge")
    try:
        _ip("link", "set", port.name, "addrgenmode", "none", "arp", "off", "alias", mark)
    except IpshareError:
        _ip("link", "delete", port.name)
        raise
    log.info("pair: made %s on %s, down", port.name, port.parent)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(
            f"`ip {' '.join(words)}` failed: {done.stderr.strip()}", hint="correct [[pair.interface]]"
        )
    return done.stdout
