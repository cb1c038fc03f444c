"""S5 in namespaces: a database moves twice, its addresses change, the application's connections go on.

    app 172.16.1.5 -- P -- wan -- B -- db: known as 10.1.0.9 and fd00:1::9, kept on its lo wherever it is
                            \\-- db, at first

P and B are nodes, each with an agent and its engine. The way to B is narrower than that to where the database
was, so that routers' errors have to find the application's old connections.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.lab import netns
from ipshare.lab.netns import inside
from tests.engine_lab import SYSCTLS, run
from tests.group_sites import group, member

KNOWN = ("10.1.0.9", "fd00:1::9")
FIRST, SECOND = ("10.2.0.9", "fd00:2::9"), ("10.22.0.9", "fd00:22::9")
APP = ("172.16.1.5", "fd00:aa::5")
NARROW = 1400
PATIENCE_S = 60.0
FAMILIES = {4: (socket.AF_INET, KNOWN[0]), 6: (socket.AF_INET6, KNOWN[1])}
SITE = """
[node]
name = "{node}"
endpoint = "{node}"
runtime_dir = "{directory}/run-{node}"
state_dir = "{directory}/state-{node}"
icmp_source = {icmp}
[[endpoint]]
name = "P"
local = ["10.101.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.102.0.0/24"]
[probe]
mtu = false
"""
AT_HOME = group(member("app", "P", APP), member("db", "P", KNOWN))


def moved(now: tuple[str, ...], also: tuple[str, ...] = ()) -> str:
    return group(member("app", "P", APP), member("db", "B", KNOWN, now, also))


def bits(address: str) -> int:
    return ip_address(address).max_prefixlen


class World:
    """The namespaces, two agents, and whoever serves at the database."""

    def __init__(self, directory: Path) -> None:
        self.directory, tag = directory, f"grp{os.getpid()}"
        self.names = {name: f"{tag}{name}" for name in ("app", "P", "wan", "B", "db")}
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.order = ["P", "B"]  # in which nodes are told
        self.now: tuple[str, ...] = ()  # addresses of the database besides the one that its peers know
        self._stack = contextlib.ExitStack()
        for name in self.names.values():
            netns.create(name)
            self._stack.callback(self._remove, name)
            run(name, "ip link set lo up")
            for setting in SYSCTLS:
                run(name, f"sysctl -qw net.{setting}")
        self.cable("app", "P", 1, 1500)
        self.cable("P", "wan", 2, 1500)
        self.cable("B", "wan", 3, NARROW)
        self.on("app", "ip route add default via 10.9.1.2", "ip -6 route add default via fd00:9:1::2")
        self.on("app", f"ip address add {APP[0]}/32 dev lo", f"ip address add {APP[1]}/128 dev lo")
        for node, far in (("P", 2), ("B", 3)):
            self.on(
                node, f"ip route add default via 10.9.{far}.2", f"ip -6 route add default via fd00:9:{far}::2"
            )
        for address in APP:
            self.on("P", f"ip route add {address} via {self.gateway(address, 1, 1)}")
            self.on("wan", f"ip route add {address} via {self.gateway(address, 2, 1)}")
        for known in KNOWN:
            self.on("db", f"ip address add {known}/{bits(known)} dev lo")
        self.place("wan", 4, ())
        for address in (*FIRST, *SECOND):
            self.on("wan", f"ip route add {address} via {self.gateway(address, 3, 1)}")

    def _remove(self, name: str) -> None:
        for pid in netns.process_ids(name):
            os.kill(pid, 9)
        netns.delete(name)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.kill()
            agent.wait()
        self._stack.close()

    def on(self, name: str, *commands: str) -> None:
        for command in commands:
            run(self.names[name], command)

    @staticmethod
    def gateway(address: str, link: int, end: int) -> str:
        return f"10.9.{link}.{end}" if ip_address(address).version == 4 else f"fd00:9:{link}::{end}"

    def cable(self, one: str, other: str, link: int, mtu: int) -> None:
        """10.9.LINK.1 at `one`, 10.9.LINK.2 at `other`."""
        self.on(
            one,
            f"ip link add l{link} mtu {mtu} type veth peer name l{link} mtu {mtu} netns {self.names[other]}",
        )
        for name, end in ((one, 1), (other, 2)):
            self.on(name, f"ip address add 10.9.{link}.{end}/24 dev l{link}")
            self.on(
                name, f"ip address add fd00:9:{link}::{end}/64 dev l{link} nodad", f"ip link set l{link} up"
            )

    def place(self, router: str, link: int, now: tuple[str, ...]) -> None:
        """Plugs the database in behind a router, under its addresses of now; its sockets stay open."""
        self.on("db", *self._unplug())
        for address in self.now:
            self.on("db", f"ip address del {address}/{bits(address)} dev lo")
        self.now = now
        self.cable("db", router, link, 1500)
        self.on(
            "db", f"ip route add default via 10.9.{link}.2", f"ip -6 route add default via fd00:9:{link}::2"
        )
        for address in now:
            self.on("db", f"ip address add {address}/{bits(address)} dev lo")
        for address in (*KNOWN, *now):
            self.on(router, f"ip route add {address} via {self.gateway(address, link, 1)}")

    def _unplug(self) -> list[str]:
        links = [line.split(":")[1].strip() for line in run(self.names["db"], "ip -o link show").splitlines()]
        return [
            f"ip link del {name.split('@')[0]}" for name in links if name.startswith("l") and name != "lo"
        ]

    def write(self, node: str, groups: str) -> Path:
        file = self.directory / f"{node}.toml"
        far = {"P": 2, "B": 3}[node]
        icmp = f'["10.9.{far}.1", "fd00:9:{far}::1"]'
        file.write_text(
            SITE.format(node=node, directory=self.directory, icmp=icmp) + groups.replace("'", '"')
        )
        return file

    def start(self, node: str, groups: str) -> None:
        prefix = ["nsenter", f"--net={netns.NETNS_DIR / self.names[node]}"]
        self.agents[node] = spawn(self.write(node, groups), prefix=prefix, log=self.directory / f"{node}.log")

    def apply(self, groups: str) -> None:
        for node in self.order:
            self.write(node, groups)
            with AgentClient(self.directory / f"run-{node}") as agent:
                agent.call("reload")

    def traces(self, node: str) -> tuple[str, ...]:
        """What a group leaves in a kernel."""
        rules = run(self.names[node], "ip rule") + run(self.names[node], "ip -6 rule")
        routes = "".join(run(self.names[node], f"ip -{f} route show table all") for f in (4, 6))
        ours = ("4900", "4903")
        return (rules, *(line for line in routes.splitlines() if any(f"table {t}" in line for t in ours)))


def serve(world: World, family: int, listeners: list[socket.socket]) -> None:
    """Sends back whatever it gets, until the client ends: at the database, under the name its peers know."""

    def listen() -> socket.socket:
        listener = socket.socket(FAMILIES[family][0])
        listener.bind((FAMILIES[family][1], 5432))
        listener.listen(64)
        return listener

    listener = inside(world.names["db"], listen)
    listeners.append(listener)

    def echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while part := connection.recv(65536):
                connection.sendall(part)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def connect(world: World, family: int) -> socket.socket:
    kind, address = FAMILIES[family]
    client = inside(world.names["app"], lambda: socket.socket(kind))
    client.settimeout(PATIENCE_S)
    client.bind((APP[0] if family == 4 else APP[1], 0))
    client.connect((address, 5432))
    return client


def talk(client: socket.socket, size: int = 300_000) -> None:
    """Every byte comes back, in order: in both directions more than any path carries in one packet."""
    sent = os.urandom(size)
    sender = threading.Thread(target=client.sendall, args=(sent,))
    sender.start()
    got = bytearray()
    while len(got) < size:
        part = client.recv(65536)
        assert part, "the other side has closed"
        got += part
    sender.join()
    assert bytes(got) == sent


@contextlib.contextmanager
def serving(made: World) -> Iterator[World]:
    """With a database in it."""
    listeners: list[socket.socket] = []
    try:
        for family in FAMILIES:
            serve(made, family, listeners)
        yield made
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with serving(World(tmp_path)) as made:
        yield made


def test_an_application_keeps_its_database_through_two_moves(world: World) -> None:
    """S5.1 - S5.3."""
    for node in ("P", "B"):
        world.start(node, AT_HOME)
    empty = {node: world.traces(node) for node in ("P", "B")}
    clients = [connect(world, family) for family in (4, 6) for _ in range(3)]
    for client in clients:
        talk(client)

    world.apply(moved((), FIRST))
    for known in KNOWN:
        run(world.names["wan"], f"ip route del {known}")
    world.place("B", 5, FIRST)
    world.apply(moved(FIRST))
    for client in clients:
        talk(client)
    clients += [connect(world, family) for family in (4, 6)]

    world.order.reverse()
    world.apply(moved(FIRST, SECOND))
    world.place("B", 6, SECOND)
    world.apply(moved(SECOND, FIRST))
    world.apply(moved(SECOND))
    for client in clients:
        talk(client)
    clients += [connect(world, family) for family in (4, 6)]
    for client in clients:
        talk(client, 1000)
    for node in ("P", "B"):
        text = " ".join(world.traces(node))
        assert SECOND[0] in text and not any(address in text for address in FIRST), "no chain"

    # ping: the database answers under the name that it is asked by
    for address in KNOWN:
        source = APP[0] if "." in address else APP[1]
        run(world.names["app"], f"ping -c 2 -W 20 -I {source} {address}")

    world.apply("")  # everybody leaves the group
    for node in ("P", "B"):
        assert world.traces(node) == empty[node]
    for client in clients:
        client.close()
