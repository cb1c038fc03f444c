"""A redundant pair as its operator has it, for tests: two agents from one site file, a hook each, in the
lab of pair_lab.

Whose engine is VPP has the site of a VPP: the kind of half that the lab was made for says which. Every wait
is for an event, bounded by the lab's patience.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.agent.pair import make_key
from ipshare.agent.spawn import spawn
from ipshare.lab.netns import NETNS_DIR, inside
from tests.engine_lab import run
from tests.pair_lab import LAN, PairLab, until

SITE = """
[node]
name = "{node}"
endpoint = "A"
icmp_source = ["10.0.0.{host}", "fd00::{host}"]
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
[[network]]
name = "g"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["198.18.1.0/24"]
[[binding]]
global = "203.0.113.0/24"
to = "A"
[pair]
key_file = "pair.key"
hook = "{dir}/hook"
{times}
[[pair.node]]
name = "a"
paths = ["10.9.0.1:6081", "{second}.1:6081"]
[[pair.node]]
name = "b"
paths = ["10.9.0.2:6081", "{second}.2:6081"]
[[pair.vip]]
address = "10.0.0.100"
interface = "{port}"
[[pair.vip]]
address = "fd00::100"
interface = "{port}"
"""
ON_VPP = """
[engine]
kind = "vpp"
counter_cells = 4096
[vpp]
managed = true
heap_size = "256MiB"
buffers = 8192
poll_sleep = "100us"
[[interface]]
name = "host-lan0"
host = "lan0"
mac = "{mac}"
addresses = ["10.0.0.{host}/24", "fd00::{host}/64"]
[probe]
mtu = false
"""
BEHIND = """
[[route]]
prefix = "203.0.113.0/24"
via = "{via}"
interface = "{port}"
table = "delivery"
"""
HOOK = '#!/bin/sh\necho "$IPSHARE_OLD_STATE $IPSHARE_NEW_STATE $IPSHARE_REASON" >>{dir}/hook.log\n'
IPSHARE = [sys.executable, "-m", "ipshare"]


class Node:
    """One node: its directory, its namespace, its agent."""

    def __init__(self, lab: PairLab, name: str, host: int, times: str) -> None:
        self.lab, self.name, self.dir = lab, name, lab.directory / name
        self.times = times
        self.dir.mkdir()
        self.file, hook = self.dir / "site.toml", self.dir / "hook"
        self.file.write_text(self.site(host))
        hook.write_text(HOOK.format(dir=self.dir))
        hook.chmod(0o755)
        self.prefix = ["nsenter", f"--net={NETNS_DIR / lab.names[name]}"]
        self.agent: subprocess.Popen[bytes] | None = None

    def site(self, host: int) -> str:
        """The pair is the last part of it."""
        kind = self.lab.kind
        second = "10.8.0" if kind.owns_lan else "10.0.0"
        times = self.times or ('interval = "50ms"\nmisses = 4' if kind.owns_lan else "")
        text = SITE.format(
            node=self.name, host=host, dir=self.dir, second=second, times=times, port=kind.interface
        )
        return self.with_engine(text, host)

    def with_engine(self, text: str, host: int) -> str:
        """The site with its engine, where that is a VPP."""
        if not self.lab.kind.owns_lan:
            return text
        return text.replace("[pair]", ON_VPP.format(mac=self.lab.mac(self.name), host=host) + "[pair]", 1)

    def start(self) -> None:
        self.agent = spawn(self.file, prefix=self.prefix, log=self.dir / "agent.log")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, *IPSHARE, *words, "-c", str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def status(self) -> dict[str, Any]:
        with AgentClient(self.dir / "run") as agent:
            return agent.call("status")

    def pair(self) -> dict[str, Any]:
        pair: dict[str, Any] = self.status()["pair"] or {"state": "none"}
        return pair

    def told(self) -> list[str]:
        log = self.dir / "hook.log"
        return log.read_text().splitlines() if log.exists() else []

    def kill_engine(self) -> None:
        os.kill(self.status()["engine_pid"], signal.SIGKILL)

    def stop(self) -> None:
        if self.agent is not None:
            self.cli("down")
            self.agent.kill()
            self.agent.wait()


class Nodes:
    """Both, with one key. ``times``: lines of [pair]. ``delivers``: Global IPs lie behind the LAN's
    address."""

    def __init__(self, lab: PairLab, *, times: str = "", delivers: bool = False) -> None:
        self.lab, self.a, self.b = lab, Node(lab, "a", 1, times), Node(lab, "b", 2, times)
        if delivers:
            self._deliver()
        make_key(self.a.dir / "pair.key")
        self.give_key((self.a.dir / "pair.key").read_text())

    def give_key(self, text: str) -> None:
        """To b."""
        file = self.b.dir / "pair.key"
        file.write_text(text)
        file.chmod(0o600)

    def _deliver(self) -> None:
        for node in (self.a, self.b):
            if not self.lab.kind.owns_lan:
                run(self.lab.names[node.name], f"ip route add 203.0.113.0/24 via {LAN}")
                continue
            route = BEHIND.format(via=LAN, port=self.lab.kind.interface)
            node.file.write_text(node.file.read_text().replace("[pair]", route + "[pair]", 1))

    def active(self) -> tuple[Node, Node]:
        """(the active one, the standby), as soon as it is so."""

        def found() -> tuple[Node, Node] | None:
            states = (self.a.pair()["state"], self.b.pair()["state"])
            return {("active", "standby"): (self.a, self.b), ("standby", "active"): (self.b, self.a)}.get(
                states
            )

        return until(found)

    def neighbour(self, vip: str) -> str:
        """The MAC address that the client has for it."""
        words = run(self.lab.names["client"], f"ip neigh show {vip}").split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    def ask_for(self, vip: str) -> None:
        """Has the client's kernel resolve it. Nobody answers pings to a VIP: only ARP and ND count."""
        command = ["ping", "-6" if ":" in vip else "-4", "-c", "1", "-W", "1", vip]
        client = self.lab.names["client"]
        inside(client, lambda: subprocess.run(command, capture_output=True, check=False))
