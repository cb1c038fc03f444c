"""road: the lab of the takeover benchmark: routers on both sides follow the VIPs as real ones do.

Inside and outside have static routes by way of the VIPs 10.0.1.100, fd00:1::100, 192.0.2.100,
2001:db8:2::100; whoever is active answers ARP and neighbour solicitations for them, and nothing in here
tells anybody who that is. A gateway whose translator is dead drops what still comes to it: its kernel
would otherwise answer with errors.
"""

from __future__ import annotations

import subprocess

from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.flows_lab import POOL4, POOL6, Nat

VIPS = {"lan0": ("10.0.1.100", "fd00:1::100"), "up0": ("192.0.2.100", "2001:db8:2::100")}


class Road(Nat):
    """Networks up, gateways not started."""

    def _build(self) -> None:
        super()._build()
        ports = ["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000"]
        inside(self.names["in"], lambda: subprocess.run(ports, check=True))
        run(self.names["out"], "sysctl -qw net.core.somaxconn=8192")
        for node in ("a", "b"):
            for prefix in (f"{POOL4}/30", f"{POOL6}/126"):
                run(self.names[node], f"ip route add blackhole {prefix} metric 4000")
            for family in ("-4", "-6"):
                run(self.names[node], f"ip {family} route add blackhole default table 80 metric 4000")

    def follow(self, node: str) -> None:
        """Whoever has the VIPs; `node` is not asked."""
        (in4, in6), (out4, out6) = VIPS["lan0"], VIPS["up0"]
        run(self.names["in"], f"ip route replace default via {in4}")
        run(self.names["in"], f"ip -6 route replace default via {in6}")
        run(self.names["out"], f"ip route replace {POOL4}/30 via {out4}")
        run(self.names["out"], f"ip -6 route replace {POOL6}/126 via {out6}")
