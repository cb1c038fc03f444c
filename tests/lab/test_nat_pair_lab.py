"""A pair of NAT gateways as its operator has it: TCP connections from inside outlive a switchover and a kill
(S3).

Client and gateways share a LAN, gateways and server a WAN; the client's default route and the server's routes
to the pools point to VIPs. Two agents run from one file. tests/vpp/test_nat_pair_vpp.py has the gateways on
VPP. Every wait is for an event, bounded by the lab's patience.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.agent.client import AgentClient
from ipshare.agent.pair import make_key
from ipshare.agent.spawn import spawn
from ipshare.api import Node
from ipshare.lab import netns
from ipshare.lab.netns import NETNS_DIR, inside
from tests.engine_lab import run
from tests.pair_lab import PATIENCE_S, Half, PairLab, until
from tests.pair_nodes import IPSHARE

SITE = """
[node]
name = "{node}"
icmp_source = ["192.0.2.{host}", "2001:db8:ff::{host}"]
endpoint = "A"
outside = ["{port}wan0"]
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
track = "always"
[pair]
key_file = "pair.key"
{times}
[[pair.node]]
name = "a"
paths = ["10.9.0.1:6081", "{second}.1:6081"]
[[pair.node]]
name = "b"
paths = ["10.9.0.2:6081", "{second}.2:6081"]
[[pair.vip]]
address = "10.0.0.100"
interface = "{port}lan0"
[[pair.vip]]
address = "fd00::100"
interface = "{port}lan0"
[[pair.vip]]
address = "192.0.2.100"
interface = "{port}wan0"
[[pair.vip]]
address = "2001:db8:ff::100"
interface = "{port}wan0"
[sessions]
capacity = 4096
[[nat]]
name = "office"
inside = ["10.0.0.0/24", "fd00::/64"]
addresses = ["198.51.100.8/30", "2001:db8:5::10-2001:db8:5::13"]
interfaces = ["{port}lan0"]
[mirror]
commit_timeout = "20ms"
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
[probe]
mtu = false
"""
PORT = """[[interface]]
name = "host-{device}"
host = "{device}"
mac = "{mac}"
addresses = ["{net4}.{host}/24", "{net6}::{host}/64"]
"""
POOLS = (ip_network("198.51.100.8/30"), ip_network("2001:db8:5::10/126"))
SERVERS = (("192.0.2.9", 7000), ("2001:db8:ff::9", 7000))


class NatLab(PairLab):
    """The pair's lab, and a WAN with a server that knows the way to the pools."""

    def __init__(self, directory: Path, kind: type[Half] = Half) -> None:
        super().__init__(directory, kind)
        self.names["server"] = self.names["client"].replace("client", "server")

    def _build(self) -> None:
        super()._build()
        lan = self.names["lan"]
        run(lan, "ip link add br1 type bridge mcast_snooping 0")
        run(lan, "ip link set br1 up")
        for node, host in (("server", 9), ("a", 1), ("b", 2)):
            name = self.names[node]
            run(name, f"ip link add wan0 type veth peer name wan-{node} netns {lan}")
            run(lan, f"ip link set wan-{node} master br1 up")
            if self.kind.owns_lan and node != "server":
                run(name, "sysctl -qw net.ipv6.conf.wan0.disable_ipv6=1")
                run(name, "ip link set wan0 arp off up")
                continue
            run(name, f"ip address add 192.0.2.{host}/24 dev wan0")
            run(name, f"ip address add 2001:db8:ff::{host}/64 dev wan0 nodad")
            run(name, "ip link set wan0 up")
        for node, vips, to in (
            ("client", ("10.0.0.100", "fd00::100"), ("default", "default")),
            ("server", ("192.0.2.100", "2001:db8:ff::100"), map(str, POOLS)),
        ):
            for family, vip, prefix in zip((4, 6), vips, to, strict=True):
                run(self.names[node], f"ip -{family} route add {prefix} via {vip}")
        run(self.names["server"], "ip route add 198.18.1.0/24 via 192.0.2.100")


OBSERVER = '[[mirror.observer]]\nname = "o"\npaths = ["10.0.0.3:6082"]\n'


def site(lab: NatLab, node: str, host: int, directory: Path) -> str:
    on_vpp = lab.kind.owns_lan
    port, second = ("host-", "10.8.0") if on_vpp else ("", "10.0.0")
    times = 'interval = "500ms"\nmisses = 4' if on_vpp else ""  # its packet thread is VPP's main one
    text = SITE.format(node=node, host=host, dir=directory, port=port, second=second, times=times)
    if not on_vpp:
        return text
    nets = {"lan0": ("10.0.0", "fd00"), "wan0": ("192.0.2", "2001:db8:ff")}
    ports = (
        PORT.format(device=device, mac=lab.mac(node, device), net4=net4, net6=net6, host=host)
        for device, (net4, net6) in nets.items()
    )
    return text.replace("[[network]]", ON_VPP + "".join(ports) + "[[network]]", 1)


class Gateway:
    """One node: its directory, its namespace, its agent."""

    def __init__(self, lab: NatLab, name: str, host: int, more: str) -> None:
        self.name, self.dir = name, lab.directory / name
        self.dir.mkdir()
        self.file = self.dir / "site.toml"
        self.file.write_text(site(lab, name, host, self.dir) + more)
        self.prefix = ["nsenter", f"--net={NETNS_DIR / lab.names[name]}"]
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.agent = spawn(self.file, prefix=self.prefix, log=self.dir / "agent.log")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, *IPSHARE, *words, "-c", str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def asked(self, *words: str) -> Any:
        done = self.cli(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        with AgentClient(self.dir / "run") as agent:
            return agent.call("status")

    def stop(self) -> None:
        if self.agent is not None:
            self.cli("down")
            self.agent.kill()
            self.agent.wait()


class Net:
    """Two gateways, and a server that sends back what it gets."""

    def __init__(self, lab: NatLab, end: contextlib.ExitStack, more: str) -> None:
        self.lab, self.end = lab, end
        self.a, self.b = Gateway(lab, "a", 1, more), Gateway(lab, "b", 2, more)
        make_key(self.a.dir / "pair.key")
        key = self.b.dir / "pair.key"
        key.write_text((self.a.dir / "pair.key").read_text())
        key.chmod(0o600)
        self.peers: list[str] = []  # whom the server saw
        for address in SERVERS:
            listener = self._socket("server", lambda address=address: socket.create_server(
                address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET))  # fmt: skip
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _socket(self, node: str, make: Any) -> socket.socket:
        made: socket.socket = self.end.enter_context(inside(self.lab.names[node], make))
        return made

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it ends with the lab
            while True:
                connection, peer = listener.accept()
                self.peers.append(peer[0])
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def connect(self) -> list[socket.socket]:
        """A connection of each family from inside."""
        return [
            self._socket("client", lambda to=to: socket.create_connection(to, timeout=PATIENCE_S))
            for to in SERVERS
        ]

    def both(self) -> tuple[Gateway, Gateway]:
        """(the active one, the standby), as soon as the standby could take over without loss."""

        def found() -> tuple[Gateway, Gateway] | None:
            at = {node.name: node.status() for node in (self.a, self.b)}
            for one, other in ((self.a, self.b), (self.b, self.a)):
                mine, theirs = at[one.name], at[other.name]
                states = [(each["pair"] or {}).get("state") for each in (mine, theirs)]
                mirror = mine["mirror"]
                if states == ["active", "standby"] and mirror and mirror["peers"][0]["ready"]:
                    return one, other
            return None

        return until(found)


@contextlib.contextmanager
def started(directory: Path, more: str = "", kind: type[Half] = Half) -> Iterator[Net]:
    with contextlib.ExitStack() as end:
        made = Net(end.enter_context(NatLab(directory, kind)), end, more)
        end.callback(made.a.stop)
        end.callback(made.b.stop)
        for node in (made.a, made.b):
            node.start()
        yield made


@pytest.fixture
def kind() -> type[Half]:
    """Which engine."""
    return Half


@pytest.fixture
def net(tmp_path: Path, kind: type[Half]) -> Iterator[Net]:
    with started(tmp_path, kind=kind) as made:
        yield made


def talk(connections: list[socket.socket], word: bytes) -> None:
    """Each one carries it there and back."""
    for connection in connections:
        connection.sendall(word)
    for connection in connections:
        got = b""
        while len(got) < len(word):
            piece = connection.recv(len(word) - len(got))
            assert piece, "the connection was closed"
            got += piece
        assert got == word


def test_connections_outlive_a_switchover_and_the_death_of_the_active_engine(net: Net) -> None:
    active, standby = net.both()
    first = net.connect()
    talk(first, b"hello")
    assert len(net.peers) == 2
    for peer, pool in zip(sorted(net.peers, key=lambda text: ":" in text), POOLS, strict=True):
        assert ip_address(peer) in pool, "the server sees a public address"
    mine = {connection.getsockname()[1] for connection in first}

    def listed() -> bool:
        found = standby.asked("sessions", "--proto", "tcp")["sessions"]
        return mine <= {row["src_port"] for row in found}

    until(listed)  # the standby has them
    done = until(lambda: ordered(net.both()[0]))
    assert done["state"] == "standby"
    talk(first, b"after the switchover")
    second = net.connect()
    talk([*first, *second], b"both old and new")
    active, standby = net.both()  # whoever it is: on a busy machine a node may take over once more
    os.kill(active.status()["engine_pid"], signal.SIGKILL)
    talk([*first, *second], b"after the kill")
    active, _ = net.both()  # the killed one is back as standby, up to date
    talk([*first, *second, *net.connect()], b"x" * 300_000)
    status = active.asked("mirror", "status")
    assert (status["role"], status["troubles"], status["sessions"]) == ("active", [], 6)


def ordered(node: Gateway) -> dict[str, Any] | None:
    """What a switchover says that was taken; None: the peer was not ready yet."""
    done = node.cli("pair", "switchover", "--json")
    assert done.returncode in (0, 3), done.stderr
    state: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return state


def test_what_the_operator_sees_and_does(net: Net, tmp_path: Path) -> None:
    net.both()
    connections = net.connect()
    talk(connections, b"hello")

    def listed() -> tuple[Gateway, Gateway, dict[str, Any]] | None:
        active, standby = net.both()  # whichever it is, on a busy machine
        found = active.asked("sessions", "--nat", "office", "--state", "open")
        return (active, standby, found) if found["matched"] == 2 else None

    def refused_by_the_standby() -> str | None:
        done = net.both()[1].cli("sessions", "close", "--src", "10.99.0.0/16", "--yes")
        return done.stderr if done.returncode == 3 else None  # or it is the active one meanwhile

    def closed_at_the_active() -> Any:
        done = net.both()[0].cli("sessions", "close", "--src", "fd00::/64", "--yes", "--json")
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout) if done.returncode == 0 else None

    active, standby, found = until(listed)
    assert found["exact"]
    assert {row["dst"] for row in found["sessions"]} == {address for address, _ in SERVERS}
    nat = active.asked("nat")["nats"][0]
    assert (nat["count"], nat["tcp"]) == (8, 2)
    file = tmp_path / "sessions.npy"
    assert active.cli("sessions", "--npy", str(file), "--src", "10.0.0.9").returncode == 0
    assert np.load(file)["flow"]["dst_port"].tolist() == [7000]
    assert "at the active node" in until(refused_by_the_standby)
    assert until(closed_at_the_active) == {"closed": 1}
    until(lambda: active.asked("sessions", "--src", "fd00::/64")["matched"] == 0)
    until(lambda: standby.asked("sessions", "--src", "fd00::/64")["matched"] == 0)
    talk(connections[:1], b"the other one goes on")


def test_pools_change_under_traffic_sizes_do_not_and_a_difference_is_named(net: Net) -> None:
    active, standby = net.both()
    connections = net.connect()
    talk(connections, b"hello")
    text = active.file.read_text()

    def applied(node: Gateway, text: str) -> subprocess.CompletedProcess[str]:
        node.file.write_text(text)
        command = [*node.prefix, *IPSHARE, "apply", str(node.file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = applied(active, text.replace("capacity = 4096", "capacity = 8192"))
    assert refused.returncode == 3 and "restart the engine to change them" in refused.stderr
    talk(connections, b"nothing happened")
    wider = ("198.51.100.8/30", "198.51.100.8/29")
    done = applied(active, text.replace(*wider))
    assert done.returncode == 0 and "~ nat office: pools 198.51.100.8-198.51.100.11" in done.stdout
    talk(connections, b"more addresses")
    assert active.asked("nat")["nats"][0]["count"] == 12
    until(lambda: "other [[nat]] tables" in active.cli("mirror", "status").stdout)
    assert applied(standby, standby.file.read_text().replace(*wider)).returncode == 0
    assert net.both() == (active, standby)
    talk(connections, b"still there")


def test_what_is_only_followed_is_counted_honestly_and_mirrored_too(net: Net) -> None:
    active, standby = net.both()
    sender = net._socket("server", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.bind(("192.0.2.9", 5555))

    def followed() -> dict[str, Any] | None:
        sender.sendto(b"to a device", ("198.18.1.7", 9000))  # the second one makes it a session
        found: dict[str, Any] = active.asked("sessions", "--kind", "track")
        return found if found["matched"] else None

    found = until(followed)
    [row] = found["sessions"]
    assert (row["src"], row["src_port"], row["dst_port"], row["one_sided"]) == ("192.0.2.9", 5555, 9000, True)
    assert (found["exact"], found["one_sided"]) == (False, 1)
    assert "at most 1 session (1 active in 60 s)" in active.cli("sessions").stdout
    until(lambda: standby.asked("sessions", "--kind", "track")["matched"] == 1)


def test_what_is_inside_stays_inside_and_everything_is_undone(net: Net) -> None:
    active, _ = net.both()
    name = net.lab.names[active.name]
    way = run(name, "ip route get 192.0.2.9 from 10.0.0.9 iif lan0")
    assert "dev ips-in" in way
    assert "dev lan0" in run(name, "ip route get 10.0.0.77 from 10.0.0.9 iif lan0"), "inside to inside"
    assert "dev ips-in" in run(name, "ip route get 198.51.100.9 from 10.0.0.9 iif lan0"), "hairpinning"
    assert "dev wan0" in run(name, "ip route get 192.0.2.9"), "the node's own"
    assert "dev ips-out" in run(name, "ip route get 198.51.100.9 from 192.0.2.9 iif wan0")
    assert "dev ips-in" in run(name, "ip -6 route get 2001:db8:ff::9 from fd00::9 iif lan0")
    assert "dev lan0" in run(name, "ip -6 route get fd00::77 from fd00::9 iif lan0")
    for node in (net.a, net.b):
        assert node.cli("down").returncode == 0
        name = net.lab.names[node.name]
        assert "490" not in run(name, "ip rule") + run(name, "ip -6 rule")
        assert run(name, "ip route show table all").count("4902") == 0


def test_public_addresses_on_the_uplinks_own_link_are_vips(tmp_path: Path, kind: type[Half]) -> None:
    port = "host-wan0" if kind.owns_lan else "wan0"
    vips = (f'[[pair.vip]]\naddress = "{address}"\ninterface = "{port}"\n' for address in POOLS[0])
    with started(tmp_path, "".join(vips), kind) as net:
        net.both()
        server = net.lab.names["server"]
        run(server, f"ip route replace {POOLS[0]} dev wan0")
        connections = net.connect()
        talk(connections, b"hello")
        assert until(lambda: ordered(net.both()[0]))["state"] == "standby"
        talk(connections, b"after the switchover")

        def told() -> bool:
            mac = net.lab.mac(net.both()[0].name, "wan0")  # whoever it is, on a busy machine
            found = run(server, "ip neigh show dev wan0").splitlines()
            known = [line for line in found if "198.51.100." in line]
            return bool(known) and all(mac in line for line in known)

        until(told)  # whoever answered for them before


def test_an_observer_has_what_the_active_node_has(tmp_path: Path) -> None:
    """Beside the pair, across a takeover. It is never active, and says what differs in its file."""
    with started(tmp_path, f'digest = "1s"\n{OBSERVER}') as net:
        lab, name = net.lab, net.lab.names["client"].replace("client", "observer")
        netns.create(name)
        net.end.callback(netns.delete, name)
        lab.names["o"] = name
        run(name, f"ip link add lan0 type veth peer name to-o netns {lab.names['lan']}")
        run(lab.names["lan"], "ip link set to-o master br0 up")
        for words in ("address add 10.0.0.3/24 dev lan0", "link set lan0 up", "link set lo up"):
            run(name, f"ip {words}")
        observer = Gateway(lab, "o", 3, f'digest = "1s"\n{OBSERVER}')
        shutil.copy(net.a.dir / "pair.key", observer.dir / "pair.key")
        observer.start()
        net.end.callback(observer.stop)
        active, _ = net.both()
        connections = net.connect()
        talk(connections, b"hello")

        def rows(node: Gateway) -> set[bytes]:
            """All that has to be equal of each session."""
            names = ("flow", "mapped", "mapped_port", "kind", "state", "flags", "version")
            found = inside(lab.names[node.name], lambda: Node(node.file).sessions())
            return {b"".join(r[name].tobytes() for name in names) for r in found}

        def status_of(node: Gateway) -> dict[str, Any]:
            return inside(lab.names[node.name], lambda: Node(node.file).mirror_status())

        until(lambda: len(rows(active)) == 2 and rows(active) == rows(observer))
        assert until(lambda: ordered(net.both()[0]))["state"] == "standby"
        talk(connections, b"after the switchover")
        more = net.connect()
        talk(more, b"more")
        active, _ = net.both()
        until(lambda: len(rows(active)) == 4 and rows(active) == rows(observer))
        status = observer.asked("mirror", "status")
        assert (status["role"], status["ready"], status["troubles"]) == ("observer", True, [])
        assert "4903:" not in run(name, "ip rule"), "no inside traffic is routed into its engine"
        compared = status_of(observer)["counters"]["DIGESTS_COMPARED"]
        until(lambda: status_of(observer)["counters"]["DIGESTS_COMPARED"] > compared)
        assert status_of(observer)["counters"]["SHARDS_DIVERGED"] == 0
        refused = observer.cli("sessions", "close", "--proto", "tcp", "--yes")
        assert refused.returncode == 3 and "at the active node" in refused.stderr
        [peer] = [one for one in active.asked("mirror", "status")["peers"] if one["name"] == "o"]
        assert peer["ready"] and peer["phase"] == "live"
        text = active.cli("mirror", "status").stdout
        assert "to o           live, ready" in text
        other = observer.file.read_text().replace("[[nat]]", '[sessions.timeouts]\nudp = "2m"\n[[nat]]')
        observer.file.write_text(other)
        applied = subprocess.run([*observer.prefix, *IPSHARE, "apply", str(observer.file)], check=False)
        assert applied.returncode == 0
        until(lambda: "o has other timeouts in" in str(status_of(active)["troubles"]))
        said = f"{active.name} has other timeouts"
        until(lambda: said in str(status_of(observer)["troubles"]))
        talk([*connections, *more], b"all the same")


def test_a_pool_address_on_an_interface_is_refused_before_anything_is_changed(net: Net) -> None:
    net.a.stop()
    name = net.lab.names["a"]
    run(name, "ip address add 198.51.100.9/32 dev wan0")
    run(name, "ip link set lan0 name lan7")
    done = subprocess.run(
        [*net.a.prefix, *IPSHARE, "check", "--machine", str(net.a.file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "198.51.100.9 in the NAT pool 198.51.100.8/30 belongs to this node itself" in done.stderr
    assert "there is no device lan0 for what NAT translates to come in by" in done.stderr
