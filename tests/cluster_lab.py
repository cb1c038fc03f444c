"""A cluster behind a pair, for tests: the LAN of tests.pair_lab with servers on it, and a client that is
its own router.

Servers are namespaces s1 to s3 at 10.0.0.11 (fd00::11) and so on; each has the cluster's addresses on lo,
answers no ARP for them, and replies to the client directly. What they serve runs in threads of the test's
process: sockets belong to the namespace that they were made in. Port 80 says the server's name and then
echoes; port 8080 answers HTTP, as late as it is told to.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ipshare.agent.client import AgentClient
from ipshare.agent.pair import make_key
from ipshare.lab import netns
from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.pair_lab import PATIENCE_S, VIPS, Half, PairLab
from tests.pair_nodes import Node, Nodes

TIMES = 'interval = "100ms"\nmisses = 8'
SERVERS = ("s1", "s2", "s3")
ADDRESSES = {4: "198.51.100.10", 6: "2001:db8:c::10"}
SITE = """
[node]
name = "{node}"
icmp_source = ["10.0.0.{host}", "fd00::{host}"]
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
[sessions]
capacity = 16384
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
[mirror]
[[cluster]]
name = "web"
address = ["198.51.100.10", "2001:db8:c::10"]
subnet = ["10.0.0.0/24", "fd00::/64"]
interface = "{port}"
by = [{by}]
{servers}
[cluster.probe]
kind = "http"
port = 8080
interval = "1s"
timeout = "900ms"
fall = 3
rise = 1
"""
SERVER = """
[[cluster.server]]
name = "s{n}"
address = ["10.0.0.1{n}", "fd00::1{n}"]
weight = {weight}
drain = {drain}
"""


FILL = b"x"
"""What begins with it is not echoed, in whatever pieces it comes."""


def more_files() -> None:
    """Thousands of sockets in one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 16384), hard), hard))


class Service:
    """What one server serves, from a thread; it ends with ``close``."""

    def __init__(self, namespace: str, name: str) -> None:
        self.name, self.delay_s, self.received = name, 0.0, 0
        self._selector = selectors.DefaultSelector()
        self._late: list[tuple[float, socket.socket]] = []
        self._ends = threading.Event()
        for port in (80, 8080):
            plug = inside(namespace, lambda port=port: _listener(port))  # type: ignore[misc]
            self._selector.register(plug, selectors.EVENT_READ, self._accept if port == 80 else self._asked)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            for key, _ in self._selector.select(0.05):
                with contextlib.suppress(OSError):
                    key.data(key.fileobj)
            now = time.monotonic()
            for due, plug in [one for one in self._late if one[0] <= now]:
                self._late.remove((due, plug))
                with contextlib.suppress(OSError), plug:
                    plug.sendall(b"HTTP/1.1 200 well\r\n\r\n")

    def _accept(self, listener: socket.socket) -> None:
        plug, _ = listener.accept()
        plug.setblocking(False)
        plug.sendall(self.name.encode())
        self._selector.register(plug, selectors.EVENT_READ, self._echo)

    def _echo(self, plug: socket.socket) -> None:
        data = plug.recv(1 << 16)
        self.received += len(data)
        if data:
            if not data.startswith(FILL):
                plug.sendall(data)
            return
        self._selector.unregister(plug)
        plug.close()

    def _asked(self, listener: socket.socket) -> None:
        plug, _ = listener.accept()
        self._late.append((time.monotonic() + self.delay_s, plug))

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def _listener(port: int) -> socket.socket:
    plug = socket.create_server(("", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    plug.setblocking(False)
    return plug


class ClusterLab(PairLab):
    """The pair's LAN, with servers."""

    def __enter__(self) -> ClusterLab:
        super().__enter__()
        try:
            if self.kind.owns_lan:
                self._add_probers()
            self._add_servers()
        except BaseException:
            self._end.close()
            raise
        return self

    def _add_probers(self) -> None:
        """Devices of the nodes' kernels on the LAN."""
        for node, host in (("a", 201), ("b", 202)):
            name = self.names[node]
            run(name, f"ip link add probe0 type veth peer name probe-{node} netns {self.names['lan']}")
            run(self.names["lan"], f"ip link set probe-{node} master br0 up")
            run(name, f"ip address add 10.0.0.{host}/24 dev probe0")
            run(name, f"ip address add fd00::{host}/64 dev probe0 nodad")
            run(name, "ip link set probe0 up")

    def _add_servers(self) -> None:
        more_files()
        client = self.names["client"]
        for family, vip in zip((4, 6), VIPS, strict=True):
            run(client, f"ip -{family} route add {ADDRESSES[family]} via {vip}")
        self.services: dict[str, Service] = {}
        for number, name in enumerate(SERVERS, 1):
            space = self.names[name] = self.names["lan"].replace("-lan-", f"-{name}-")
            netns.create(space)
            self._end.callback(netns.delete, space)
            run(space, "ip link set lo up")
            run(space, f"ip link add lan0 type veth peer name to-{name} netns {self.names['lan']}")
            run(self.names["lan"], f"ip link set to-{name} master br0 up")
            for setting in ("arp_ignore=1", "arp_announce=2"):
                run(space, f"sysctl -qw net.ipv4.conf.all.{setting}")
            run(space, f"ip address add 10.0.0.1{number}/24 dev lan0")
            run(space, f"ip address add fd00::1{number}/64 dev lan0 nodad")
            run(space, "ip link set lan0 up")
            run(space, f"ip address add {ADDRESSES[4]}/32 dev lo")
            run(space, f"ip address add {ADDRESSES[6]}/128 dev lo nodad")
            self.services[name] = Service(space, name)
            self._end.callback(self.services[name].close)


class ClusterNode(Node):
    """A node with the cluster's site. ``write``: another one of its servers."""

    weights: tuple[int, ...] = (1, 1, 1)
    drained: tuple[int, ...] = ()
    by: tuple[str, ...] = ()

    def site(self, host: int) -> str:
        self.host = host
        servers = [
            SERVER.format(n=n, weight=weight, drain=str(n in self.drained).lower())
            for n, weight in enumerate(self.weights, 1)
        ]
        by = ", ".join(f'"{word}"' for word in self.by)
        text = SITE.format(
            node=self.name,
            host=host,
            dir=self.dir,
            times=self.times,
            servers="".join(servers),
            by=by,
            port=self.lab.kind.interface,
            second="10.8.0" if self.lab.kind.owns_lan else "10.0.0",
        )
        return self.with_engine(text, host)

    def apply(self, text: str = "") -> None:
        """The site as it is to be now, or ``text``."""
        self.file.write_text(text or self.site(self.host))
        with AgentClient(self.dir / "run") as agent:
            agent.call("apply")

    def servers(self, family: int = 4) -> dict[str, dict[str, object]]:
        """What the agent says of each, by name."""
        row = next(r for r in self.status()["clusters"] if r["address"] == ADDRESSES[family])
        return {server["name"]: server for server in row["servers"]}


class ClusterNodes(Nodes):
    """Both nodes of the pair."""

    a: ClusterNode
    b: ClusterNode

    def __init__(self, lab: ClusterLab) -> None:
        self.lab = lab
        self.a, self.b = ClusterNode(lab, "a", 1, TIMES), ClusterNode(lab, "b", 2, TIMES)
        make_key(self.a.dir / "pair.key")
        self.give_key((self.a.dir / "pair.key").read_text())


@contextlib.contextmanager
def cluster_lab(directory: Path, kind: type[Half] = Half) -> Iterator[ClusterNodes]:
    """``kind``: of the pair's halves; a VPP takes the LAN from its node's kernel, which has a device of its
    own there to probe by."""
    with ClusterLab(directory, kind) as lab:
        nodes = ClusterNodes(lab)
        try:
            yield nodes
        finally:
            nodes.a.stop()
            nodes.b.stop()


class Clients:
    """Connections of the lab's client. Each knows its server, by what that said first."""

    def __init__(self, lab: ClusterLab) -> None:
        self.space = lab.names["client"]
        self.open: list[tuple[socket.socket, str]] = []

    def connect(self, count: int, family: int = 4) -> Counter[str]:
        """So many more, that stay; how many went where."""
        made = inside(self.space, lambda: [_connect(family) for _ in range(count)])
        self.open += made
        return Counter(name for _, name in made)

    def try_once(self, count: int, family: int = 4) -> Counter[str]:
        """So many, closed at once."""
        made = inside(self.space, lambda: [_connect(family) for _ in range(count)])
        for plug, _ in made:
            plug.close()
        return Counter(name for _, name in made)

    def lost(self, word: bytes = b"still there") -> Counter[str]:
        """Says it on every connection; by server, those where it does not come back."""
        lost: Counter[str] = Counter()
        for plug, _ in self.open:
            with contextlib.suppress(OSError):
                plug.sendall(word)
        for plug, name in self.open:
            plug.settimeout(1 if lost else PATIENCE_S)
            with contextlib.suppress(OSError):
                if _receive(plug, len(word)) == word:
                    continue
            lost[name] += 1
        return lost

    def close(self, names: Iterable[str] = SERVERS) -> None:
        gone = [one for one in self.open if one[1] in names]
        self.open = [one for one in self.open if one[1] not in names]
        for plug, _ in gone:
            plug.close()


def _connect(family: int) -> tuple[socket.socket, str]:
    """Again where it is refused: a probe may have missed every server of a loaded machine."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            plug = socket.create_connection((ADDRESSES[family], 80), timeout=PATIENCE_S)
            return plug, _receive(plug, 2).decode()
        except OSError:
            assert time.monotonic() < end, "no server takes a connection"
            time.sleep(0.05)


def _receive(plug: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        some = plug.recv(count - len(data))
        if not some:
            raise OSError("closed by the server")
        data += some
    return data
