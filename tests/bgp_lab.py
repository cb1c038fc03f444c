"""The lab with real routers upstream: BIRD on r1 (AS 64496), FRR on r2 (AS 64497), and [bgp] at C and D.

    c1 -- r1 (BIRD) ------ r2 (FRR) -- c3       C: AS 64500, eBGP with r1 (MD5 and BFD over IPv4)
           |                  |                 D: AS 64497, iBGP with r2
           C                  D                 r1 prefers C, unless it asks for less (RFC 8326)

Both families in sessions of their own. `Watch` follows a router's kernel by its own events.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.lab import Lab, LabSpec
from ipshare.lab.internet import global_network

BIRD = shutil.which("bird", path="/usr/sbin:/usr/local/sbin")
FRR = Path("/usr/lib/frr")
IS_ROOT = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
MISSING = " and ".join(
    name
    for name, there in (
        ("the package bird2", BIRD),
        ("the package frr", (FRR / "bgpd").exists()),
        ("root, not in a user namespace (FRR changes its user)", IS_ROOT),
    )
    if not there
)
ASNS = {"r1": 64496, "r2": 64497, "C": 64500, "D": 64497}
UPSTREAM = {"C": "r1", "D": "r2"}
PASSWORD = "a secret of two"
WAIT_S = 60.0
LONG = "1h"
"""drain_time where a drain lasts until the test ends it. The default, a minute, is as long as WAIT_S."""
NETWORKS = {family: str(global_network(family)) for family in (4, 6)}


def address(lab: Lab, node: str, device: str, family: int) -> str:
    """Of the device, the one that is not link-local."""
    found = json.loads(lab.run(node, ["ip", "-j", "addr", "show", "dev", device]))[0]["addr_info"]
    name = "inet" if family == 4 else "inet6"
    return next(str(a["local"]) for a in found if a["family"] == name and a["scope"] == "global")


def bgp_toml(lab: Lab, node: str, more: str = "", *, password: bool = False) -> str:
    """[bgp] of a distribution point."""
    up = UPSTREAM[node]
    lines = ["[bgp]", f"asn = {ASNS[node]}", "allow_long = true", 'bfd_interval = "100ms"', more]
    lines += [f'local = ["{address(lab, node, up, 4)}", "{address(lab, node, up, 6)}"]']
    for family in (4, 6):
        lines += ["[[bgp.neighbor]]", f'address = "{address(lab, up, node, family)}"', f"asn = {ASNS[up]}"]
        if node == "C":
            lines += ['communities = ["64500:1"]', "med = 7", f"bfd = {'true' if family == 4 else 'false'}"]
            lines += ['password_file = "bgp.password"'] if family == 4 and password else []
    return "\n".join(lines) + "\n"


def bird_conf(lab: Lab, *, password: str = PASSWORD) -> str:
    """Of r1. What RFC 8326 asks of who hears the community, and a preference for C."""
    parts = [
        "log stderr all;",
        f"router id {address(lab, 'r1', 'r2', 4)};",
        "protocol device { }",
        'protocol bfd { interface "*" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }',
        "protocol kernel { ipv4 { export all; }; }",
        "protocol kernel { ipv6 { export all; }; }",
        "filter from_c { if (65535, 0) ~ bgp_community then bgp_local_pref = 0; else bgp_local_pref = 200;"
        " accept; }",
    ]
    for family in (4, 6):
        secret = f'password "{password}"; bfd on;' if family == 4 else ""
        parts += [
            f"protocol bgp c{family} {{ local as 64496; neighbor {address(lab, 'C', 'r1', family)} as 64500;"
            f" direct; {secret} connect retry time 2; connect delay time 1; error wait time 1, 2;"
            f" ipv{family} {{ import filter from_c; export none; }}; }}",
            f"protocol bgp r{family} {{ local as 64496; neighbor {address(lab, 'r2', 'r1', family)} as 64497;"
            f" direct; connect retry time 2; connect delay time 1; error wait time 1, 2;"
            f" ipv{family} {{ import all; export where source = RTS_BGP; next hop self; }}; }}",
        ]
    return "\n".join(parts) + "\n"


def frr_conf(lab: Lab) -> str:
    """Of r2."""
    lines = [
        "router bgp 64497",
        f" bgp router-id {address(lab, 'r2', 'r1', 4)}",
        " no bgp ebgp-requires-policy",
    ]
    lines += [" no bgp default ipv4-unicast", " timers bgp 3 9"]
    for family in (4, 6):
        for peer, asn in (("D", 64497), ("r1", 64496)):
            far = address(lab, peer, "r2", family)
            lines += [f" neighbor {far} remote-as {asn}", f" neighbor {far} timers connect 2"]
            lines += [f" neighbor {far} shutdown"]  # until Routers._open
            lines += [
                f" address-family ipv{family} unicast",
                f"  neighbor {far} activate",
                " exit-address-family",
            ]
    return "\n".join(lines) + "\n"


class Routers:
    """BIRD on r1, FRR on r2, as processes of the lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.dir = lab, lab.directory
        self.errors = (self.dir / "routers.log").open("ab")
        for node in ("r1", "r2"):
            for network in NETWORKS.values():
                lab.run(node, ["ip", "route", "del", network])
        self.write(bird_conf(lab))
        self.frr = self.dir / "frr"
        self.frr.mkdir(mode=0o755)
        (self.frr / "zebra.conf").write_text("")
        (self.frr / "bgpd.conf").write_text(frr_conf(lab))
        for path in (self.frr, *self.frr.iterdir()):
            shutil.chown(path, "frr", "frr")  # its daemons insist on a user of their own
        self.processes: dict[str, subprocess.Popen[Any]] = {}
        for name in ("bird", "zebra", "bgpd"):
            self.start(name)

    def start(self, name: str) -> None:
        """bird on r1, zebra or bgpd on r2; again, after it was killed."""
        if name == "bird":
            files = ["-c", self._conf, "-s", self._ctl, "-P", str(self.dir / "r1.pid")]
            self.processes[name] = self._start("r1", [str(BIRD), "-f", *files])
            return
        paths = {"-f": f"{name}.conf", "-i": f"{name}.pid", "-z": "zserv.api"}
        words = [word for option, file in paths.items() for word in (option, str(self.frr / file))]
        words += ["-P", "0", "--vty_socket", str(self.frr), "--log", "stdout"]
        self.processes[name] = self._start("r2", [str(FRR / name), *words])
        if name == "bgpd":
            self._open()

    def _open(self) -> None:
        """FRR's sessions begin when bgpd has heard of the interfaces: a route with a link-local next hop that
        comes before that is withdrawn for good ("there's no peer interface information")."""
        end = time.monotonic() + WAIT_S
        while not self._heard_of_interfaces():
            assert time.monotonic() < end, f"bgpd heard nothing of zebra: {self.vtysh('show zebra client')}"
        far = [address(self.lab, p, "r2", family) for p in ("D", "r1") for family in (4, 6)]
        self.vtysh("configure", "router bgp 64497", *(f"no neighbor {one} shutdown" for one in far))

    def _heard_of_interfaces(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError, OSError, ValueError):
            clients = self.vtysh("show zebra client").split("Client: ")
            bgp = [one for one in clients if one.startswith("bgp")]  # it has a second one, for labels
            return any(int(n.split()[0]) > 0 for one in bgp for n in one.split("Intf Addr")[1:])
        return False

    def vtysh(self, *lines: str) -> str:
        words = [word for line in lines for word in ("-c", line)]
        return self.lab.run("r2", ["vtysh", "--vty_socket", str(self.frr), *words])

    @property
    def _conf(self) -> str:
        return str(self.dir / "r1.conf")

    @property
    def _ctl(self) -> str:
        return str(self.dir / "r1.ctl")

    def _start(self, node: str, command: list[str]) -> subprocess.Popen[Any]:
        return self.lab.popen(node, command, stdout=self.errors, stderr=self.errors)

    def write(self, text: str) -> None:
        Path(self._conf).write_text(text)

    def birdc(self, line: str) -> list[str]:
        from ipshare.bgp.control import Control

        with Control(Path(self._ctl), 10.0) as control:
            return [reply.text for reply in control.call(line)]

    def heard(self, family: int = 4) -> str:
        """All that r1 knows of the Global Network."""
        return "\n".join(self.birdc(f"show route for {NETWORKS[family]} all"))

    def close(self) -> None:
        self.errors.close()


class Watch:
    """A router's routes to the Global Networks, by `ip monitor`."""

    def __init__(self, lab: Lab, node: str) -> None:
        self.lab, self.node, self.lines = lab, node, list[str]()
        self._process = lab.popen(node, ["ip", "-o", "monitor", "route"], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._fd, self._rest = self._process.stdout.fileno(), b""
        os.set_blocking(self._fd, False)
        self._await_own_event()

    def via(self, family: int = 4) -> str:
        """Device that the Global Network is routed to; "": none."""
        words = ["ip", "-j", f"-{family}", "route", "show", NETWORKS[family]]
        found = json.loads(self.lab.run(self.node, words) or "[]")
        return str(found[0].get("dev") or found[0]["nexthops"][0]["dev"]) if found else ""

    def until(self, done: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Returns when it is so. Looks again at each change of a route, and now and then."""
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, f"never: {what}; {self.node} saw {self.lines[-6:]}"
            self.wait_line(0.5)

    def goes_by(self, device: str, family: int) -> None:
        """Returns when the Global Network is routed there."""
        self.until(lambda: self.via(family) == device, f"IPv{family} by {device}")

    def wait_line(self, timeout_s: float) -> list[str]:
        """What changed, when something has."""
        select.select([self._fd], [], [], timeout_s)
        return self.read()

    def read(self) -> list[str]:
        """Changes of routes to the Global Networks since the last call."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 65536):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        texts = [line.decode() for line in lines]
        found = [text for text in texts if any(network in text for network in NETWORKS.values())]
        self.lines += found
        self._others = [text for text in texts if text not in found]
        return found

    def close(self) -> None:
        self.lab.end(self._process)

    def _await_own_event(self) -> None:
        """It listens when it has seen a route that is made for it."""
        end = time.monotonic() + WAIT_S
        while True:
            self.lab.run(self.node, ["ip", "route", "add", "192.0.2.77", "dev", "lo", "metric", "4"])
            self.lab.run(self.node, ["ip", "route", "del", "192.0.2.77", "dev", "lo", "metric", "4"])
            self.wait_line(0.5)
            if any("192.0.2.77" in text for text in self._others):
                return
            assert time.monotonic() < end, "ip monitor says nothing"


class BgpLab:
    """The lab, its routers, and the agents of C, D and A."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.routers = Routers(lab)
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        secret = lab.site_file("C").parent / "bgp.password"
        secret.touch(mode=0o600)
        secret.write_text(PASSWORD + "\n")
        for node in ("C", "D"):
            self.write_site(node)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.start, ("A", "C", "D")))
        self.r1, self.r2 = Watch(lab, "r1"), Watch(lab, "r2")

    def write_site(self, node: str, *, target: str = "A", drain_time: str = LONG) -> None:
        file, more = self.lab.write_site(node, target=target), f'drain_time = "{drain_time}"'
        file.write_text(file.read_text() + bgp_toml(self.lab, node, more, password=True))

    def start(self, node: str) -> None:
        file = self.lab.site_file(node)
        self.agents[node] = spawn(file, prefix=self.lab.command(node, []), log=file.parent / "agent.log")

    def kill_agent(self, node: str) -> None:
        self.agents[node].kill()
        self.agents[node].wait()

    def kill_engine(self, node: str) -> None:
        os.kill(self.engine_pid(node), signal.SIGKILL)

    def engine_pid(self, node: str) -> int:
        from ipshare.api import Node

        with Node(self.lab.site_file(node)) as api:
            return self.lab.inside(node, lambda: api.info().pid)

    def ask(self, node: str, verb: str = "bgp", **arguments: Any) -> dict[str, Any]:
        with AgentClient(self.lab.site_file(node).parent / "run") as agent:
            return agent.call(verb, **arguments)

    def is_announced(self, node: str) -> bool:
        """By both sessions."""
        found = self.ask(node)
        sessions = found["neighbors"]
        return found["state"] == "announced" and all(row["announced"] for row in sessions)

    def settled(self) -> None:
        """Both announce, and each router uses its own."""
        for watch, node in ((self.r1, "C"), (self.r2, "D")):
            for family in (4, 6):
                watch.goes_by(node, family)
            watch.until(partial(self.is_announced, node), f"{node} announces")

    def close(self) -> None:
        for agent in self.agents.values():
            agent.kill()
            agent.wait()
        self.routers.close()


@contextlib.contextmanager
def bgp_lab() -> Iterator[BgpLab]:
    """Settled."""
    with Lab(LabSpec()) as lab:
        world = BgpLab(lab)
        try:
            world.settled()
            yield world
        finally:
            world.close()
