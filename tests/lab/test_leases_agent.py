"""Leases with a real DHCP server (dnsmasq) and a real agent with its engine: S3.5.

    dhcp 198.51.100.1 -- link -- gateway 198.51.100.2 (agent, engine)

The server's lease file says what it gave to whom. All is awaited: a row of `ipshare leases`, a binding.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.lab import netns
from tests.engine_lab import run

DNSMASQ = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
pytestmark = pytest.mark.skipif(not Path(DNSMASQ).exists(), reason="LEASES NOT RUN: no dnsmasq")
PATIENCE_S = 60.0
SITE = """
[node]
name = "{name}"
runtime_dir = "{directory}/run-{name}"
state_dir = "{directory}/state-{name}"
distribution = "C"
[[network]]
name = "public"
prefix = "198.51.100.64/26"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
replies = "rewrite"
[[distribution]]
name = "C"
[probe]
mtu = false
"""
LEASE = """
[[lease]]
name = "{name}"
mac = "02:00:00:00:00:{number:02x}"
local = "10.1.0.{number}"
interface = "eth0"
"""


class World:
    """A DHCP server and a gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory, tag = directory, f"lease{os.getpid()}"
        self.names = {"dhcp": f"{tag}d", "gw": f"{tag}g"}
        self.server: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        self.file = directory / "site.toml"
        for name in self.names.values():
            netns.create(name)
        run(self.names["dhcp"], f"ip link add eth0 type veth peer name eth0 netns {self.names['gw']}")
        for node, last in (("dhcp", 1), ("gw", 2)):
            run(self.names[node], f"ip address add 198.51.100.{last}/24 dev eth0")
            run(self.names[node], "ip link set eth0 up")
            run(self.names[node], "ip link set lo up")

    def close(self) -> None:
        self.stop()
        if self.server is not None:
            self.server.kill()
            self.server.wait()
        for name in self.names.values():
            for pid in netns.process_ids(name):
                os.kill(pid, 9)
            netns.delete(name)

    def prefix(self, node: str) -> list[str]:
        return ["nsenter", f"--net={netns.NETNS_DIR / self.names[node]}"]

    def serve(self, first: int = 100, last: int = 110) -> None:
        options = f"--dhcp-range=198.51.100.{first},198.51.100.{last},255.255.255.0,2m"
        files = f"--dhcp-leasefile={self.directory}/dnsmasq.leases --pid-file={self.directory}/dnsmasq.pid"
        command = [*self.prefix("dhcp"), DNSMASQ, "--keep-in-foreground", "--port=0", "--no-ping",
                   "--conf-file=/dev/null",
                   "--user=root", "--dhcp-authoritative", "--log-facility=-", options,
                   *files.split()]  # fmt: skip
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE)
        said = b""
        while b"DHCP, IP range" not in said:
            assert self.server.stderr and select.select([self.server.stderr], [], [], PATIENCE_S)[0], said
            part = os.read(self.server.stderr.fileno(), 4096)
            assert part, said
            said += part

    def start(self, *numbers: int, name: str = "gw") -> None:
        leases = "".join(LEASE.format(name=f"w{number}", number=number) for number in numbers)
        self.file.write_text(SITE.format(name=name, directory=self.directory) + leases)
        self.agent = spawn(self.file, prefix=self.prefix("gw"), log=self.directory / "agent.log")

    def stop(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
            self.agent = None

    def cli(self, *words: str) -> str:
        command = [*self.prefix("gw"), sys.executable, "-m", "ipshare", *words, "--config", str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def ask(self, verb: str = "status", name: str = "gw") -> dict[str, Any]:
        with AgentClient(self.directory / f"run-{name}") as agent:
            return agent.call(verb)

    def until(self, wanted: Callable[[list[dict[str, Any]]], bool], name: str = "gw") -> list[dict[str, Any]]:
        """Rows that ``wanted`` accepts. Asking blocks; there is no other event to wait for."""
        end = time.monotonic() + PATIENCE_S
        while not wanted(rows := self.ask(name=name)["leases"]):
            assert time.monotonic() < end, (rows, (self.directory / "agent.log").read_text()[-3000:])
        return rows

    def given(self) -> dict[str, str]:
        """MAC -> address, as the server's file says."""
        lines = (self.directory / "dnsmasq.leases").read_text().splitlines()
        return {words[1]: words[2] for words in map(str.split, lines)}


def bound(rows: list[dict[str, Any]]) -> bool:
    return all(row["address"] for row in rows)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


def shown(world: World) -> str:
    return world.cli("show", "bindings")


def until_shown(world: World, *addresses: str) -> str:
    end = time.monotonic() + PATIENCE_S
    while not all(address in (text := shown(world)) for address in addresses):
        assert time.monotonic() < end, text
    return text


def test_workloads_get_addresses_and_bindings(world: World) -> None:
    world.serve()
    world.start(1, 2, 3)
    rows = world.until(bound)
    had = {row["mac"]: row["address"] for row in rows}
    assert had == world.given() and len(set(had.values())) == 3
    text = until_shown(world, *had.values())
    assert "10.1.0.1" in text and "10.1.0.3" in text
    table = world.cli("leases")
    assert all(address in table for address in had.values()) and "bound" in table

    world.stop()  # the agent dies: bindings stay; the next one renews the same
    text = shown(world)
    assert all(address in text for address in had.values())
    world.start(1, 2, 3)
    rows = world.until(lambda rows: bound(rows) and all(row["state"] == "bound" for row in rows))
    assert {row["mac"]: row["address"] for row in rows} == had
    text = shown(world)
    assert all(address in text for address in had.values())

    world.file.write_text(world.file.read_text().replace(LEASE.format(name="w2", number=2), ""))
    world.ask("reload")  # a workload that is gone gives its address back
    end = time.monotonic() + PATIENCE_S
    while "02:00:00:00:00:02" in world.given():
        assert time.monotonic() < end
    assert had["02:00:00:00:00:02"] not in until_shown(world, had["02:00:00:00:00:01"])

    world.ask("down")
    end = time.monotonic() + PATIENCE_S
    while world.given():
        assert time.monotonic() < end, "a node that is taken down gives everything back"


def test_another_node_gets_the_same_leases(world: World) -> None:
    """The key is the workload's MAC: whoever becomes active has the same addresses."""
    world.serve()
    world.start(7, 8, name="gw1")
    had = {row["mac"]: row["address"] for row in world.until(bound, "gw1")}
    world.stop()
    ended = [os.pidfd_open(pid) for pid in netns.process_ids(world.names["gw"])]
    for pidfd in ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE_S)[0]
        os.close(pidfd)
    world.start(7, 8, name="gw2")
    assert {row["mac"]: row["address"] for row in world.until(bound, "gw2")} == had


def test_an_address_of_no_global_network_is_declined_and_said(world: World) -> None:
    world.serve(first=10, last=11)
    world.start(1)
    (row,) = world.until(lambda rows: bool(rows[0]["trouble"]))
    assert "is in no Global Network" in row["trouble"] and row["address"] is None
