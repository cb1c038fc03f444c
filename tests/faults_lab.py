"""The whole of an installation in one lab: what the fault matrix (tests/faults_table.py) breaks and looks at.

    c1, d1 --+                            +-- c3, d2     C, D: distribution points with [bgp]
    etcd ----+- r1 (BIRD) ---- r2 (FRR) --+              A, B: end points
               |  |              |  |                    d1, d2: directors, beside c1 and c3; etcd: in c2
               C  B              A  D                  web (at A), app (at B): shared. shop (at B): exclusive

All are processes: agents over TLS, their engines, BIRD and keepers, two directors on etcd. Timers are the
defaults; only what would end a series of faults (flaps, limit) is set aside. c1 comes by C and c3 by D, over
both families; `loads` are their connections (tests/faults_load.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.director import render
from ipshare.errors import IpshareError
from ipshare.lab import Lab, LabSpec, traffic
from ipshare.lab.internet import GLOBAL4, global_ip
from ipshare.lab.netns import NETNS_DIR
from ipshare.lab.traffic import PORT
from tests.bgp_lab import PASSWORD, Routers, Watch, bgp_toml
from tests.etcd_world import EtcdServer
from tests.lab.test_director_lab import NODES, REMOTE
from tests.lab.test_health_lab import HOOK, SERVER, WORKLOAD
from tests.lab.test_health_lab import PORT as SHOP_PORT
from tests.pki import Pki

PATIENCE_S = 120.0
CLIENTS = ("c1", "c3")
AT = {"d1": "c1", "d2": "c3"}
HOMES = {"web": "A", "app": "B", "shop": "B"}
SHOP = str(GLOBAL4[12])
DEFAULTS: Mapping[str, str] = {}
SHARED = {"web": "a1", "app": "a2"}
"""Workload -> the server whose Global IP it has."""
HEAD = """
[director]
name = "{name}"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/director-{name}.pem"
revoked = "{pki}/ca/revoked.pem"
state_dir = "{dir}/{name}"
runtime_dir = "{dir}/{name}-run"
[store]
kind = "etcd"
endpoints = ["{url}"]
{store}
[health]
flaps = 1000
{health}
[[health.probe]]
workload = "shop"
port = {port}
[failover]
mode = "automatic"
limit = 1000
{failover}
[[site]]
name = "here"
"""
SLOW = {
    "store": 'lease = "5s"\ntimeout = "1s"',
    "health": 'echo_timeout = "1s"',
    "failover": 'shared_after = "3s"\nafter = "5s"\nlease = "7s"\nstop_time = "3s"',
}
"""For a test: nobody is taken for dead on a machine that does much else, and waits are short."""


def until(claim: Callable[[], Any], what: str = "", within_s: float = PATIENCE_S) -> Any:
    end = time.monotonic() + within_s
    while not (found := claim()):
        assert time.monotonic() < end, f"it did not come: {what or claim}"
        time.sleep(0.1)  # the other end is in other processes
    return found


class World:
    """All of it, running."""

    def __init__(self, lab: Lab, pki: Pki, etcd: EtcdServer, timers: Mapping[str, str]) -> None:
        self.lab, self.pki, self.etcd = lab, pki, etcd
        self.timers = {"store": "", "health": "", "failover": "", **timers}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.struck_s = 0.0
        rows = tomllib.loads(lab.site_file("C").read_text())
        self.tables = {
            kind: [{key: value for key, value in row.items() if key != "self"} for row in rows[kind]]
            for kind in ("network", "endpoint", "distribution", "binding")
        }
        self._shop()
        for name in NODES:
            self._strip(name)
        for name in AT:
            self.write(name)

    # ---- files ------------------------------------------------------------------

    def _shop(self) -> None:
        self.folder = self.lab.directory / "shop"
        self.folder.mkdir()
        (self.folder / "server.py").write_text(SERVER.format(port=SHOP_PORT))
        hook = self.folder / "hook"
        hook.write_text(HOOK.format(python=sys.executable))
        hook.chmod(0o755)
        for server in ("a1", "b1"):
            self.lab.run(server, ["ip", "addr", "add", f"{SHOP}/32", "dev", server[0].upper()])

    def _strip(self, name: str) -> None:
        """A node's own file has nothing that a director assigns."""
        self.pki.file("node", name)
        file = self.lab.site_file(name)
        text = file.read_text().partition("[[network]]")[0]
        text += REMOTE.format(host=self.lab.address(name, 4), pki=self.pki.folder, name=name)
        if name in "CD":
            text += bgp_toml(self.lab, name, password=True)
            secret = file.parent / "bgp.password"
            secret.touch(mode=0o600)
            secret.write_text(PASSWORD + "\n")
        else:
            server = f"{name.lower()}1"
            netns = NETNS_DIR / self.lab.namespace(server)
            text += WORKLOAD.format(hook=self.folder / "hook", server=server, netns=netns, folder=self.folder)
        file.write_text(text)

    def file(self, director: str) -> Path:
        return self.lab.directory / f"{director}.toml"

    def write(self, director: str) -> None:
        self.pki.file("director", director)
        text = HEAD.format(
            name=director, pki=self.pki.folder, dir=self.lab.directory, url=self.etcd.url, port=SHOP_PORT,
            **self.timers,
        )  # fmt: skip
        for name in NODES:
            role = "endpoint" if name in "AB" else "distribution"
            text += (
                f'[[node]]\nname = "{name}"\naddress = "{self.lab.address(name, 4)}:7443"\nsite = "here"\n'
            )
            text += f'{role} = "{name}"\n' + ("capacity = 10\n" if name in "AB" else "")
        bindings = [{**row, "to": "A"} for row in self.tables["binding"]]
        for workload, home in HOMES.items():
            kind = "exclusive" if workload == "shop" else "shared"
            text += f'[[workload]]\nname = "{workload}"\nnode = "{home}"\nkind = "{kind}"\n'
            addresses = [f"{host}/{128 if ':' in host else 32}" for host in hosts(workload)]
            text += f"addresses = {json.dumps(addresses)}\n"
            bindings += [{"global": address, "to": home} for address in addresses]
        self.file(director).write_text(text + render.text(self.tables | {"binding": bindings}))

    # ---- processes ----------------------------------------------------------------

    def agent(self, name: str) -> None:
        file = self.lab.site_file(name)
        prefix, log = self.lab.command(name, []), file.parent / "agent.log"
        self.processes[name] = spawn(file, prefix=prefix, log=log)

    def director(self, name: str) -> None:
        prefix, log = self.lab.command(AT[name], []), self.file(name).with_suffix(".log")
        self.processes[name] = spawn(self.file(name), prefix=prefix, log=log, verb=("director", "run", "-c"))

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def start(self) -> None:
        self.routers = Routers(self.lab)
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(self.agent, NODES))
        for name in AT:
            self.director(name)
        self.watches = {"C": Watch(self.lab, "r1"), "D": Watch(self.lab, "r2")}
        self.settled()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for name in "AB":
            with contextlib.suppress(OSError, ValueError):
                os.kill(self.keeper(name), signal.SIGTERM)
        with contextlib.suppress(OSError):
            for file in self.folder.glob("*.pid"):
                os.kill(int(file.read_text()), signal.SIGTERM)
        self.routers.close()

    def asked(self, node: str, verb: str) -> dict[str, Any]:
        with AgentClient(self.lab.site_file(node).parent / "run") as agent:
            return agent.call(verb)

    def engine(self, node: str) -> int:
        return int(self.asked(node, "status")["engine_pid"])

    def bird(self, node: str) -> int:
        return int((self.lab.site_file(node).parent / "run" / "bird.pid").read_text())

    def keeper(self, node: str) -> int:
        return int((self.lab.site_file(node).parent / "run" / "keeper.lock").read_text())

    # ---- what directors say -----------------------------------------------------------

    def tell(self, director: str, verb: str, **words: Any) -> dict[str, Any]:
        """{}: it is between two reigns, or dead."""
        folder = self.lab.directory / f"{director}-run"
        try:
            with AgentClient(folder, timeout_s=PATIENCE_S, path=folder / "director.sock") as client:
                return client.call(verb, **words)
        except IpshareError:
            return {}

    def leader(self) -> str:
        """ "": nobody says so."""
        return next((name for name in AT if self.tell(name, "status").get("leads")), "")

    def lead(self, name: str) -> None:
        """``name`` leads from now on."""
        if (other := until(self.leader, "somebody leads")) != name:
            self.processes[other].terminate()
            self.processes[other].wait()
            until(lambda: self.leader() == name, f"{name} leads")
            self.director(other)

    def at(self) -> dict[str, str]:
        """Where the workloads are."""
        shown = self.tell(self.leader(), "show", node="C").get("final", "")
        found = {row["global"]: row["to"] for row in tomllib.loads(shown).get("binding", ())}
        return {name: found.get(f"{hosts(name)[0]}/32", "") for name in HOMES}

    # ---- at rest ------------------------------------------------------------------------

    def home(self) -> None:
        """Every workload where it belongs, and the whole as it should be."""
        self.settled()

        def asked() -> bool:
            return bool(self.tell(self.leader(), "apply", why="home", again=1) or self.at() == HOMES)

        until(asked, "apply")
        self.settled()
        assert self.at() == HOMES, self.at()

    def settled(self) -> None:
        until(lambda: all(self.tell(name, "status") for name in AT), "both directors answer")
        until(lambda: self.tell(self.leader(), "status").get("settled"), "all nodes have acked")
        for node, watch in self.watches.items():
            for family in (4, 6):
                watch.until(
                    lambda w=watch, f=family, n=node: w.via(f) == n, f"IPv{family} by {node}", PATIENCE_S
                )  # type: ignore[misc]
            until(partial(self.is_announced, node), f"{node} announces")
        until(self.is_well, "all is up")

    def is_announced(self, node: str) -> bool:
        with contextlib.suppress(IpshareError):
            found = self.asked(node, "bgp")
            return found["state"] == "announced" and all(row["announced"] for row in found["neighbors"])
        return False

    def is_well(self) -> bool:
        leader = self.leader()
        health, failover = self.tell(leader, "health"), self.tell(leader, "failover")
        return (
            bool(health.get("targets"))
            and all(row["state"] == "up" for row in health["targets"])
            and all(row["state"] == "alive" for row in health["nodes"])
            and not failover.get("cases", [1])
            and all(row["state"] == "running" for row in failover["workloads"])
        )

    def mark(self) -> None:
        """Now it strikes: all that had to be found out for it is known."""
        self.struck_s = time.monotonic()

    # ---- cuts -------------------------------------------------------------------------

    @contextlib.contextmanager
    def cut(self, a: str, b: str) -> Iterator[None]:
        """The cable between two nodes; both see that it is dark."""
        addresses = self.lab.run(a, ["ip", "-6", "-o", "addr", "show", "dev", b, "scope", "global"])
        routes = self._routes(a, b)
        self.mark()
        self.lab.run(a, ["ip", "link", "set", b, "down"])
        yield
        self.lab.run(a, ["ip", "link", "set", b, "up"])
        for line in addresses.splitlines():  # Linux forgets IPv6 addresses of a link that is set down
            words = ["ip", "addr", "replace", line.split()[3], "dev", b, "nodad"]
            self.lab.run(a, words)
        for family, route in routes:
            self.lab.run(a, ["ip", f"-{family}", "route", "replace", *route.split()], check=False)

    def _routes(self, node: str, device: str) -> list[tuple[int, str]]:
        """What was configured, which the kernel forgets with the link; routes of BGP come by themselves."""
        found = []
        for family in (4, 6):
            for line in self.lab.run(node, ["ip", f"-{family}", "route", "show", "dev", device]).splitlines():
                if "proto kernel" not in line and "proto b" not in line and not line.startswith("fe80"):
                    found.append((family, line.replace("linkdown", "") + f" dev {device}"))
        return found

    @contextlib.contextmanager
    def deaf(self, node: str, port: int, source: str = "") -> Iterator[None]:
        """What comes for a TCP port of a node is lost on its way."""
        rule = ["INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
        rule += ["-s", source] if source else []
        self.mark()
        self.lab.run(node, ["iptables", "-I", *rule])
        yield
        self.lab.run(node, ["iptables", "-D", *rule])


def hosts(workload: str) -> list[str]:
    if workload == "shop":
        return [SHOP]
    return [str(global_ip(SHARED[workload], family)) for family in (4, 6)]


class Client:
    """Connections of one client."""

    def __init__(self, lab: Lab, node: str, connections: int, period_s: float, shop: bool) -> None:
        addresses = [(name, host) for name in SHARED for host in hosts(name)]
        wanted: dict[str, list[Any]] = {
            f"{name} v{6 if ':' in host else 4}": [host, PORT, (connections + n) // len(addresses)]
            for n, (name, host) in enumerate(addresses)
        }
        if shop:
            wanted["shop v4"] = [SHOP, SHOP_PORT, 0]
        words = [sys.executable, "-m", "tests.faults_load", json.dumps(wanted), str(period_s)]
        self.node, self.lab = node, lab
        self.process = lab.popen(node, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def line(self, say: str = "", within_s: float = PATIENCE_S) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        if say:
            self.process.stdin.write(say.encode() + b"\n")
            self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], within_s)[0], f"{self.node}: {say or 'begin'}"
        return str(self.process.stdout.readline().decode())

    def look(self) -> dict[str, list[Any]]:
        """Flow -> [bad, good, first good after that, server, why]."""
        return {f"{self.node} {name}": row for name, row in json.loads(self.line("look")).items()}

    def end(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.line("end"))
        self.lab.end(self.process)
        return {f"{self.node} {name}": row for name, row in found.items()}


@contextlib.contextmanager
def faults_lab(folder: Path, timers: Mapping[str, str] = DEFAULTS) -> Iterator[World]:
    """Settled. ``timers``: more lines of tables of the directors' files."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(LabSpec()))
        etcd = EtcdServer(
            str(lab.address("c2", 4)),
            prefix=lab.command("c2", []),
            inside=lambda job: lab.inside("c2", job),
        )
        stack.enter_context(traffic.serve(lab, "a1", "a2", "b1", "b2"))
        stack.callback(etcd.end)
        etcd.start()
        made = World(lab, Pki(folder), etcd, timers)
        stack.callback(made.close)
        try:
            made.start()
            yield made
        finally:
            keep = Path(os.environ.get("IPSHARE_FAULTS_LOGS", "/nonexistent"))
            if keep.is_dir():  # what the processes said
                for log in lab.directory.rglob("*.log"):
                    shutil.copy(log, keep / f"{log.parent.name}-{log.name}")
