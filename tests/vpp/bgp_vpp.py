"""A distribution point on VPP that announces: a real BIRD and a real FRR in front of it, a device behind it.

    r1 (BIRD, AS 64496) --up1--+
                               node (VPP, agent; AS 64500) --lan1-- one (203.0.113.20, 2001:db8:100::20)
    r2 (FRR, AS 64497)  --up2--+
                      to1, to2: pairs (linux-cp) in the namespace `bird`, where the agent's BIRD runs

The node has both roles: what comes by up1 or up2 is translated outwards and inwards. All four sessions have
BFD. Waits are long: this runs in a guest by emulation, too (tests.vpp.in_guest).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.bgp.control import Control
from ipshare.lab import netns
from ipshare.net.wiring import offloads_off
from tests.bgp_lab import BIRD, FRR
from tests.vpp.port_lab import run, space

WAIT_S = 600.0
NETWORKS = {4: "203.0.113.0/24", 6: "2001:db8:100::/48"}
DEVICE = {4: "203.0.113.20", 6: "2001:db8:100::20"}
LINKS = {
    "r1": ("up1", "192.0.2.{}/29", "2001:db8:1::{}/64"),
    "r2": ("up2", "192.0.2.1{}/29", "2001:db8:2::{}/64"),
}
"""Device of the node; addresses: the router ends in 1 (r2: 11 and 1), the node in 2 (r2: 12 and 2)."""
ASNS = {"r1": 64496, "r2": 64497}
SITE = """
[node]
name = "v1"
distribution = "C"
endpoint = "A"
icmp_source = ["192.0.2.2", "2001:db8:1::2"]
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
[engine]
kind = "vpp"
counter_cells = 4096
[vpp]
delivery_table = 1
managed = true
heap_size = "256MiB"
buffers = 8192
poll_sleep = "2ms"
{links}
[[interface]]
name = "host-lan1"
host = "lan1"
table = "delivery"
addresses = ["203.0.113.1/24", "2001:db8:100::1/64"]
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[network]]
name = "g6"
prefix = "2001:db8:100::/48"
[[distribution]]
name = "C"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24", "fd00:1::/64"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/16"]
[[binding]]
global = "203.0.113.16/28"
to = "A"
[[binding]]
global = "2001:db8:100::20"
to = "A"
[[binding]]
global = "203.0.113.99"
to = "B"
[probe]
mtu = false
[bgp]
asn = 64500
router_id = "192.0.2.2"
bfd_interval = "1s"
drain_time = "60s"
"""
LINK = """[[interface]]
name = "host-{device}"
host = "{device}"
addresses = ["{node4}", "{node6}"]
linux_cp = "to{number}"
linux_cp_netns = "{space}"
[[route]]
prefix = "{net4}"
interface = "host-{device}"
table = "delivery"
[[route]]
prefix = "{net6}"
interface = "host-{device}"
table = "delivery"
"""


def address(router: str, family: int, last: int) -> str:
    """Of the link with that router; 1: the router, 2: the node."""
    return LINKS[router][family // 2 - 1].format(last).partition("/")[0]


def site(directory: Path) -> str:
    links, neighbors = "", ""
    for number, (router, (device, form4, form6)) in enumerate(LINKS.items(), 1):
        node4, node6 = form4.format(2), form6.format(2)
        links += LINK.format(
            device=device, number=number, space=space("bird"), node4=node4, node6=node6,
            net4=ip_interface(node4).network, net6=ip_interface(node6).network,
        )  # fmt: skip
        for family in (4, 6):
            neighbors += f'[[bgp.neighbor]]\naddress = "{address(router, family, 1)}"\n'
            neighbors += f"asn = {ASNS[router]}\nbfd = true\n"
    return SITE.format(dir=directory, links=links) + neighbors


def bird_conf() -> str:
    """Of r1."""
    parts = [
        f"log stderr all; router id {address('r1', 4, 1)}; protocol device {{ }}",
        'protocol bfd { interface "*" { min rx interval 1 s; min tx interval 1 s; multiplier 3; }; }',
        "protocol kernel { ipv4 { export all; }; }",
        "protocol kernel { ipv6 { export all; }; }",
    ]
    parts += [
        f"protocol bgp c{family} {{ local as 64496; neighbor {address('r1', family, 2)} as 64500; direct;"
        f" bfd on; connect retry time 2; connect delay time 1; error wait time 1, 2;"
        f" ipv{family} {{ import all; export none; }}; }}"
        for family in (4, 6)
    ]
    return "\n".join(parts) + "\n"


def frr_conf() -> str:
    """Of r2."""
    lines = ["router bgp 64497", f" bgp router-id {address('r2', 4, 1)}", " no bgp ebgp-requires-policy"]
    lines += [" no bgp default ipv4-unicast"]
    for family in (4, 6):
        far = address("r2", family, 2)
        lines += [f" neighbor {far} remote-as 64500", f" neighbor {far} timers connect 2"]
        lines += [f" neighbor {far} bfd", f" neighbor {far} bfd profile slow"]
        lines += [
            f" address-family ipv{family} unicast",
            f"  neighbor {far} activate",
            " exit-address-family",
        ]
    return "\n".join(lines) + "\n"


BFDD = "bfd\n profile slow\n  detect-multiplier 3\n  receive-interval 1000\n  transmit-interval 1000\n"


def until(done: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> None:
    """Returns when it is so; each look takes its time by itself."""
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


class BgpNode:
    """Routers, cables, and the node with its agent. ``directory``: others may enter it (FRR changes its
    user)."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.dir, self.file, self.runtime = directory, directory / "site.toml", directory / "run"
        self.log = directory / "agent.log"
        self.stack = stack
        for name in ("node", "bird", "one", *LINKS):
            netns.create(space(name))
            stack.callback(netns.delete, space(name))
        self._wire()
        self.file.write_text(site(directory))

    def _wire(self) -> None:
        cables = [
            (device, router, form4.format(1), form6.format(1))
            for router, (device, form4, form6) in LINKS.items()
        ]
        for device, far, *addresses in (*cables, ("lan1", "one", f"{DEVICE[4]}/24", f"{DEVICE[6]}/64")):
            run("node", f"ip link add {device} type veth peer name eth0 netns {space(far)}")
            run("node", f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1")
            run("node", f"ip link set {device} up")
            run(far, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
            for name in ("lo", "eth0"):
                run(far, f"ip link set {name} up")
            for one in addresses:
                run(
                    far,
                    f"ip address add {one} dev eth0 nodad"
                    if ":" in one
                    else f"ip address add {one} dev eth0",
                )
            netns.inside(space(far), lambda: offloads_off("eth0"))
        run("one", "ip route add default via 203.0.113.1")
        run("one", "ip -6 route add default via 2001:db8:100::1")

    def popen(self, where: str, words: list[str]) -> None:
        """A process that is ended with the lab."""
        with (self.dir / f"{where}.log").open("ab") as log:
            prefix = ["nsenter", f"--net=/run/netns/{space(where)}"]
            process = subprocess.Popen([*prefix, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)

    def start_routers(self) -> None:
        (self.dir / "r1.conf").write_text(bird_conf())
        files = [str(self.dir / name) for name in ("r1.conf", "r1.ctl", "r1.pid")]
        self.popen("r1", [str(BIRD), "-f", "-c", files[0], "-s", files[1], "-P", files[2]])
        frr = self.dir / "frr"
        frr.mkdir(mode=0o755)
        for name, text in (("zebra", ""), ("bfdd", BFDD), ("bgpd", frr_conf())):
            (frr / f"{name}.conf").write_text(text)
        for path in (frr, *frr.iterdir()):
            shutil.chown(path, "frr", "frr")
        for name in ("zebra", "bfdd", "bgpd"):
            files = [str(frr / file) for file in (f"{name}.conf", f"{name}.pid", "zserv.api")]
            words = [str(FRR / name), "-f", files[0], "-i", files[1], "-z", files[2], "-P", "0"]
            words += ["--vty_socket", str(frr), "--log", "stdout"]
            self.popen("r2", [*words, *(["--bfdctl", str(frr / "bfdd.sock")] if name == "bfdd" else [])])
            if name == "zebra":
                until(lambda: (frr / "zserv.api").exists(), "zebra listens")

    def start_agent(self) -> None:
        prefix = ["nsenter", f"--net=/run/netns/{space('node')}"]
        self.agent = spawn(self.file, prefix=prefix, log=self.log, timeout_s=WAIT_S)
        self.stack.callback(self._end)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        prefix = ["nsenter", f"--net=/run/netns/{space('node')}"]
        command = [*prefix, sys.executable, "-m", "ipshare", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)

    def ask(self, verb: str = "bgp", **arguments: Any) -> dict[str, Any]:
        with AgentClient(self.runtime, timeout_s=WAIT_S) as agent:
            return agent.call(verb, **arguments)

    def via(self, router: str, family: int) -> str:
        """Next hop of that router's kernel to the Global Network; "": it has no route."""
        found = json.loads(run(router, f"ip -j -{family} route show {NETWORKS[family]}") or "[]")
        return str(found[0]["gateway"]) if found else ""

    def routes(self) -> list[str]:
        """Of all routers and families, those that are there."""
        return [f"{router} {family}" for router in LINKS for family in (4, 6) if self.via(router, family)]

    def heard(self, family: int) -> str:
        """All that r1 knows of the Global Network."""
        with Control(self.dir / "r1.ctl", WAIT_S) as control:
            return "\n".join(line.text for line in control.call(f"show route for {NETWORKS[family]} all"))

    def imports(self) -> list[str]:
        """Counters of what r1 was told."""
        with Control(self.dir / "r1.ctl", WAIT_S) as control:
            told = [line.text for name in ("c4", "c6") for line in control.call(f"show protocols all {name}")]
        return [line for text in told for line in text.splitlines() if "Import" in line]

    def _end(self) -> None:
        if self.agent.poll() is None:
            self.agent.kill()
        self.agent.wait()
        if self.runtime.exists():
            self.cli("down", str(self.file))


def reaches(router: str, family: int) -> bool:
    """Whether one of a few pings to the device is answered."""
    words = [
        "nsenter",
        f"--net=/run/netns/{space(router)}",
        "ping",
        f"-{family}",
        "-c1",
        "-w30",
        DEVICE[family],
    ]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def bgp_node() -> Iterator[BgpNode]:
    """Routers and agent run; nothing is said of what they have reached."""
    with tempfile.TemporaryDirectory(prefix="ipshare-bgp-") as name, contextlib.ExitStack() as stack:
        Path(name).chmod(0o755)
        world = BgpNode(Path(name), stack)
        try:
            world.start_routers()
            world.start_agent()
            yield world
        except BaseException as error:
            for log in world.dir.glob("*.log"):
                error.add_note(f"{log.name}: {log.read_text(errors='replace')[-3000:]}")
            raise
