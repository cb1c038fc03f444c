"""A leased address and a takeover: a real DHCP server, two agents, packets to the workload (S3.5, S2).

dnsmasq is on the LAN of the pair; the client sends to the leased address, for which the active node answers,
and is the workload too: what was translated is routed back to it. The node that takes over asks with the same
MAC address. tests/vpp/test_leases_vpp.py has the nodes on VPP, whose agents ask by a card of their own.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.client import AgentClient
from ipshare.agent.pair import make_key
from ipshare.agent.spawn import spawn
from ipshare.errors import IpshareError
from ipshare.lab import netns
from ipshare.lab.netns import NETNS_DIR, inside
from tests.engine_lab import run
from tests.lab.test_nat_pair_lab import ON_VPP as VPP
from tests.pair_lab import LAN, Half, PairLab, until

DNSMASQ = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
pytestmark = pytest.mark.skipif(not Path(DNSMASQ).exists(), reason="LEASES NOT RUN: no dnsmasq")
MAC, LOCAL, PORT = "02:00:00:00:00:77", "10.1.0.201", 9000
OPTIONS = (
    "--keep-in-foreground --port=0 --no-ping --conf-file=/dev/null --user=root --dhcp-authoritative "
    f"--log-facility=- --dhcp-range=10.0.0.130,10.0.0.140,255.255.255.0,2m --listen-address={LAN}"
)
SITE = """
[node]
name = "{node}"
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
distribution = "C"
[[network]]
name = "public"
prefix = "10.0.0.128/28"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
replies = "rewrite"
[[distribution]]
name = "C"
[probe]
mtu = false
[pair]
key_file = "pair.key"
[[pair.node]]
name = "a"
paths = ["10.9.0.1:6081", "{second}.1:6081"]
[[pair.node]]
name = "b"
paths = ["10.9.0.2:6081", "{second}.2:6081"]
[[pair.public]]
prefix = "10.0.0.128/28"
interface = "{port}"
[[lease]]
name = "vm"
mac = "02:00:00:00:00:77"
local = "10.1.0.201"
interface = "{asks_by}"
"""
ON_VPP = """
[[interface]]
name = "host-lan0"
host = "lan0"
mac = "{mac}"
addresses = ["10.0.0.{host}/24"]
[[route]]
prefix = "10.1.0.0/24"
via = "10.0.0.9"
table = "delivery"
"""


SLOW = 'interval = "500ms"\nmisses = 4'
"""VPP's packet thread is its main one."""


class Gateway:
    def __init__(self, lab: PairLab, name: str, end: contextlib.ExitStack) -> None:
        self.name, self.dir, self.space = name, lab.directory / name, lab.names[name]
        self.dir.mkdir()
        (self.dir / "site.toml").write_text(self.site(lab))
        if not lab.kind.owns_lan:
            run(self.space, "ip route add 10.1.0.0/24 via 10.0.0.9")
        end.callback(self.end)
        self.agent: subprocess.Popen[bytes] | None = None

    def site(self, lab: PairLab) -> str:
        on_vpp, host = lab.kind.owns_lan, "ab".index(self.name) + 1
        text = SITE.format(
            node=self.name,
            dir=self.dir,
            second="10.8.0" if on_vpp else "10.0.0",
            port=lab.kind.interface,
            asks_by="own0" if on_vpp else "lan0",
        )
        if not on_vpp:
            return text
        vpp = VPP + ON_VPP.format(mac=lab.mac(self.name), host=host)
        return text.replace("[probe]\nmtu = false\n", vpp).replace('"pair.key"\n', f'"pair.key"\n{SLOW}\n')

    def start(self) -> None:
        prefix = ["nsenter", f"--net={NETNS_DIR / self.space}"]
        self.agent = spawn(self.dir / "site.toml", prefix=prefix, log=self.dir / "agent.log")

    def status(self) -> dict[str, Any]:
        with AgentClient(self.dir / "run") as agent:
            return agent.call("status")

    def lease(self) -> str | None:
        """Its address, where this node is the active one."""
        with contextlib.suppress(IpshareError, OSError):
            status = self.status()
            (row,) = status["leases"]
            if (status["pair"] or {}).get("state") == "active" and row["state"] == "bound":
                return str(row["address"])
        return None

    def end(self) -> None:
        """All at once, as if its power were gone."""
        for pid in netns.process_ids(self.space):
            os.kill(pid, 9)
        if self.agent is not None:
            self.agent.wait()


@contextlib.contextmanager
def served(lab: PairLab) -> Iterator[Path]:
    """dnsmasq on the LAN; its file of leases."""
    file = lab.directory / "leases"
    command = ["nsenter", f"--net={NETNS_DIR / lab.names['lan']}", DNSMASQ, *OPTIONS.split(),
               f"--dhcp-leasefile={file}", f"--pid-file={lab.directory}/pid"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        said = b""
        while b"DHCP, IP range" not in said:
            assert server.stderr and select.select([server.stderr], [], [], 60)[0], said
            said += os.read(server.stderr.fileno(), 4096)
        drain = threading.Thread(target=server.stderr.read, daemon=True)
        drain.start()
        try:
            yield file
        finally:
            server.kill()


def cards(lab: PairLab) -> None:
    """Where VPP has the devices on the LAN, agents ask by others there."""
    for node, host in (("a", 11), ("b", 12)) if lab.kind.owns_lan else ():
        run(lab.names[node], f"ip link add own0 type veth peer name own-{node} netns {lab.names['lan']}")
        run(lab.names["lan"], f"ip link set own-{node} master br0 up")
        run(lab.names[node], f"ip address add 10.0.0.{host}/24 dev own0")
        run(lab.names[node], "ip link set own0 up")


@pytest.fixture
def kind() -> type[Half]:
    return Half


def test_the_address_of_a_lease_outlives_the_node_that_asked_for_it(tmp_path: Path, kind: type[Half]) -> None:
    with contextlib.ExitStack() as end:
        lab = end.enter_context(PairLab(tmp_path, kind))
        cards(lab)
        client = lab.names["client"]
        run(client, f"ip address add {LOCAL}/32 dev lo")
        run(client, "sysctl -qw net.ipv4.conf.lan0.accept_local=1")
        file = end.enter_context(served(lab))
        one, other = nodes = [Gateway(lab, name, end) for name in ("a", "b")]
        make_key(one.dir / "pair.key")
        shutil.copy(one.dir / "pair.key", other.dir / "pair.key")
        for node in nodes:
            node.start()
        workload = end.enter_context(inside(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        workload.bind((LOCAL, PORT))
        workload.setblocking(False)
        sender = end.enter_context(inside(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))

        def arrives(address: str) -> bool:
            with contextlib.suppress(OSError):  # nobody answers for the address yet
                sender.sendto(address.encode(), (address, PORT))
            return bool(select.select([workload], [], [], 0.05)[0]) and workload.recv(100) == address.encode()

        active = until(lambda: next((node for node in nodes if node.lease()), None))
        address = active.lease()
        assert address is not None
        until(lambda: arrives(address))
        standby = other if active is one else one
        assert standby.status()["leases"][0]["state"] == "standby"
        active.end()
        assert until(standby.lease) == address, "the same, to the same MAC address"
        until(lambda: arrives(address))
        given = [line.split()[1:3] for line in file.read_text().splitlines()]
        assert given == [[MAC, address]]
