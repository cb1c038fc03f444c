"""A node on VPP, run by its agent, between a router and two devices (port_lab), in both roles.

The router reaches Global IPs 203.0.113.20 and .21, which are devices here; they are translated outwards and
inwards again, from the service table into the delivery table.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from tests.vpp.port_lab import run, space

HEAD = """
[node]
name = "v1"
distribution = "C"
endpoint = "A"
icmp_source = ["192.0.2.2"]
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
[engine]
kind = "vpp"
counter_cells = 4096
[vpp]
delivery_table = 1
{vpp}
[[interface]]
name = "host-up0"
host = "up0"
addresses = ["192.0.2.2/29"]
[[interface]]
name = "host-lan1"
host = "lan1"
bridge = "lan"
[[interface]]
name = "host-lan2"
host = "lan2"
bridge = "lan"
[[interface]]
name = "loop0"
table = "delivery"
addresses = ["203.0.113.1/24"]
[[bridge]]
name = "lan"
id = 1
bvi = "loop0"
[[route]]
prefix = "192.0.2.0/29"
interface = "host-up0"
table = "delivery"
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[distribution]]
name = "C"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/16"]
[[binding]]
global = "203.0.113.16/28"
to = "A"
[probe]
mtu = false
"""
MANAGED = 'managed = true\nheap_size = "256MiB"\nbuffers = 8192\npoll_sleep = "100us"\n'
DEVICE = "203.0.113.20"


class AgentNode:
    """The node whose files are in ``directory``. ``vpp``: lines for [vpp]."""

    def __init__(self, directory: Path, vpp: str = MANAGED, more: str = "") -> None:
        self.file, self.runtime = directory / "site.toml", directory / "run"
        self.log = directory / "agent.log"
        self.text = HEAD.format(dir=directory, vpp=vpp) + more
        self.file.write_text(self.text)
        self.agent: subprocess.Popen[bytes] | None = None
        run("router", "ip route replace 203.0.113.0/24 via 192.0.2.2")
        for device in ("one", "two"):
            run(device, "ip route replace default via 203.0.113.1")

    def start(self) -> None:
        """Returns when the agent says that it is ready."""
        prefix = ["nsenter", f"--net=/run/netns/{space('node')}"]
        self.agent = spawn(self.file, prefix=prefix, log=self.log)

    def ask(self, verb: str = "status", **arguments: Any) -> dict[str, Any]:
        with AgentClient(self.runtime) as agent:
            return agent.call(verb, **arguments)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ipshare", *words]
        prefix = ["nsenter", f"--net=/run/netns/{space('node')}"]
        return subprocess.run([*prefix, *command], capture_output=True, text=True, check=False, timeout=60)

    def show(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cli("show", "-c", str(self.file), "--json").stdout)
        return found

    def rewrite(self, old: str, new: str) -> None:
        assert old in self.text
        self.text = self.text.replace(old, new)
        self.file.write_text(self.text)

    def kill(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def close(self) -> None:
        """Whatever is left: the agent, and a VPP that it started."""
        if self.agent is not None and self.agent.poll() is None:
            self.cli("down", str(self.file))
        if self.agent is not None:
            self.kill()
        self.cli("down", str(self.file))


def wait_end(pid: int, timeout_s: float = 120.0) -> bool:
    """Whether the process has ended within that time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout_s)[0])
    finally:
        os.close(fd)
