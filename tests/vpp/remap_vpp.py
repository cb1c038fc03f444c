"""The network for remaps (tests/remap_lab.py) with VPP at a, at b, at the distribution point, or at all.

VPP has the devices between the nodes, under MAC addresses of its own, so that the kernel takes nothing of
what comes in. At an end point the kernel, where the servers' sockets and the mirror's are, is behind a leg
of VPP's: 10.8.N.1 and fd00:8:N::1 at VPP, .2 in the kernel, N the number of the node's link.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ipshare.core import lib
from ipshare.engine.plan import diff
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.launch import start
from ipshare.engine.vpp.startup import Settings
from tests.engine_lab import GLOBAL4, GLOBAL6, run
from tests.remap_lab import LINKS, Remaps, flows_of_site, site_tables, ways
from tests.vpp.nat_vpp import RINGS, mac

ALL = ("a", "b", "dist")


class VppRemaps(Remaps):
    """``on_vpp``: the nodes that are VPPs."""

    on_vpp: tuple[str, ...] = ALL

    def _end_of(self, number: int, node: str, device: str, host: int) -> None:
        name = self.names[node]
        run(name, f"ethtool -K {device} tx-udp-segmentation off")
        if node not in self.on_vpp:
            super()._end_of(number, node, device, host)
            return
        run(name, f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1")
        run(name, f"ip link set {device} up")

    def _way(self, prefix: str, via: str) -> None:
        if "dist" not in self.on_vpp:
            super()._way(prefix, via)

    def _engine(self, node: str) -> None:
        if node not in self.on_vpp:
            super()._engine(node)
            return
        settings = Settings(
            Path(tempfile.mkdtemp(prefix=f"{node}-", dir=self.directory)), counter_cells=1 << 12
        )
        process = start(settings, wrap=("nsenter", f"--net=/run/netns/{self.names[node]}"))
        self._end.callback(process.terminate)
        driver = VppEngine(settings.api, settings.stats, counter_cells=1 << 12)
        self._end.callback(driver.close)
        driver.configure()
        self.engines[node] = driver
        if node == "dist":
            self._distribution(driver)
        else:
            self._end_point(driver, node)

    def _distribution(self, driver: VppEngine) -> None:
        for node, number in LINKS.items():
            self._port(driver, "dist", f"to{node}", (f"10.0.{number}.1/24", f"fd00:{number}::1/64"))
            self._knows(driver, f"host-to{node}", self._mac(node, "uplink"), number)
        for node in "ab":
            for prefix, via in ways(node):
                driver.client.cli(f"ip route add {prefix} via {via} host-to{node}")

    def _end_point(self, driver: VppEngine, node: str) -> None:
        number, name = LINKS[node], self.names[node]
        run(name, "ip link add host0 type veth peer name leg")
        run(name, "sysctl -qw net.ipv6.conf.leg.disable_ipv6=1")
        for device in ("host0", "leg"):
            run(name, f"ethtool -K {device} tx-udp-segmentation off")
            run(name, f"ip link set {device} up")
        run(name, f"ip address add 10.8.{number}.2/24 dev host0")
        run(name, f"ip address add fd00:8:{number}::2/64 dev host0 nodad")
        self._port(driver, node, "uplink", (f"10.0.{number}.2/24", f"fd00:{number}::2/64"))
        self._port(driver, node, "leg", (f"10.8.{number}.1/24", f"fd00:8:{number}::1/64"))
        run(name, f"ip route add default via 10.8.{number}.1")
        run(name, f"ip -6 route add default via fd00:8:{number}::1")
        cli = driver.client.cli
        cli(f"ip route add 0.0.0.0/0 via 10.0.{number}.1 host-uplink")
        cli(f"ip route add ::/0 via fd00:{number}::1 host-uplink")
        for own in (GLOBAL4, f"10.9.{number}.2"):
            cli(f"ip route add {own}/32 via 10.8.{number}.2 host-leg")
        cli(f"ip route add {GLOBAL6}/128 via fd00:8:{number}::2 host-leg")
        self._knows(driver, "host-uplink", self._mac("dist", f"to{node}"), number, host=1)
        for address in (f"10.8.{number}.2", f"fd00:8:{number}::2"):
            cli(f"set ip neighbor host-leg {address} {mac(name, 'host0')}")
        driver.apply(diff(driver.read(), site_tables(node, lib.IPS_ROLE_INNER, lib.IPS_EP_SELF)))
        driver.tracked.order(lib.IPS_CTL_FLOWS_SET, flows_of_site())

    def _port(self, driver: VppEngine, node: str, device: str, addresses: tuple[str, ...]) -> None:
        call = driver.client.call
        own = {"hw_addr": self._mac(node, device), "use_random_hw_addr": False}
        port = int(call("af_packet_create_v3", host_if_name=device, **own, **RINGS).sw_if_index)
        call("sw_interface_set_mtu", sw_if_index=port, mtu=[1500, 0, 0, 0])
        for prefix in addresses:
            call("sw_interface_add_del_address", sw_if_index=port, is_add=True, prefix=prefix)
        call("sw_interface_ip6nd_ra_config", sw_if_index=port, suppress=1, is_no=False)
        call("sw_interface_set_flags", sw_if_index=port, flags=1)

    def _mac(self, node: str, device: str) -> str:
        """Of the end of a link: the kernel's, or VPP's own."""
        if node in self.on_vpp:
            return ":".join(f"{octet:02x}" for octet in (2, *f"{node}{device}".encode()[-5:].rjust(5, b"\0")))
        return mac(self.names[node], device)

    def _knows(self, driver: VppEngine, port: str, far: str, number: int, host: int = 2) -> None:
        """VPP drops the packet that makes it ask for a neighbour."""
        for address in (f"10.0.{number}.{host}", f"fd00:{number}::{host}"):
            driver.client.cli(f"set ip neighbor {port} {address} {far}")

    def flip(self, node: str) -> None:
        if "dist" not in self.on_vpp:
            super().flip(node)
            return
        driver = self.engines["dist"]
        driver.apply(diff(driver.read(), site_tables(node, lib.IPS_ROLE_OUTER, 0)))
