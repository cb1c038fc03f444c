"""Agent and VPP as processes, with devices and traffic: who may die, what is made again, what is left."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ipshare.agent.pair import make_key
from ipshare.engine.vpp.client import Client
from ipshare.lab import netns
from ipshare.net.wiring import offloads_off
from tests.vpp.agent_lab import DEVICE, MANAGED, AgentNode, wait_end
from tests.vpp.port_lab import reaches, run, space, wired
from tests.vpp.test_ports import everything
from tests.vpp.vpp_process import Running, vpp

THOUSAND = "".join(
    f'[[binding]]\nglobal = "203.0.113.{host}"\nto = "B"\nlocal = "10.2.{number}.{host}"\n'
    for number, host in enumerate(range(64, 192))
)


@pytest.fixture(scope="module")
def cables() -> Iterator[None]:
    with wired():
        yield


@pytest.fixture
def managed(cables: None, tmp_path: Path) -> Iterator[AgentNode]:
    node = AgentNode(tmp_path, more=THOUSAND)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def theirs(cables: None) -> Iterator[Running]:
    """A VPP that is not the agent's."""
    with vpp(netns=space("node"), counter_cells=4096) as running:
        yield running


@pytest.fixture
def guest(theirs: Running, tmp_path: Path) -> Iterator[AgentNode]:
    node = AgentNode(tmp_path, sockets(theirs))
    try:
        node.start()
        yield node
    finally:
        node.close()


def sockets(running: Running) -> str:
    return f'api_socket = "{running.settings.api}"\nstats_socket = "{running.settings.stats}"\n'


def until(condition: Callable[[], bool], timeout_s: float = 180.0) -> None:
    """Until it is so; each look takes its time by itself."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


# ---- managed ---------------------------------------------------------------------


def test_from_nothing_to_nothing(managed: AgentNode) -> None:
    assert reaches("router", DEVICE), "translated outwards, inwards, delivered"
    info = managed.show()
    assert (info["kind"], info["generation"], info["bindings"]) == ("vpp", 1, 129)
    assert not managed.ask("apply")["changed"]
    assert "nothing to do" in managed.cli("apply", str(managed.file)).stdout
    why = managed.cli("why", "-c", str(managed.file), f"icmp 192.0.2.1 > {DEVICE}").stdout
    assert "Global IP is served on this node" in why
    assert "203.0.113.16/28" in managed.cli("counters", "-c", str(managed.file)).stdout
    down = managed.cli("down", str(managed.file))
    assert "engine ended" in down.stdout
    assert wait_end(info["pid"])
    assert not managed.runtime.exists()
    assert "nothing to do" in managed.cli("down", str(managed.file)).stdout


def test_devices_that_compute_no_checksums(cables: None, tmp_path: Path) -> None:
    """As cards of small virtual machines: what VPP would leave out of a frame is not promised."""
    node = AgentNode(tmp_path)
    try:
        for device in ("up0", "lan1"):
            run("node", f"ethtool -K {device} tx off gso off")
        node.start()
        assert reaches("router", DEVICE)
    finally:
        node.close()
        for device in ("up0", "lan1"):
            run("node", f"ethtool -K {device} tx on gso on")


def test_vpp_dies(managed: AgentNode) -> None:
    before = managed.show()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: managed.ask()["engine_restarts"] == 1 and managed.ask()["engine_pid"] is not None)
    until(lambda: not managed.ask()["notes"])
    after = managed.show()
    assert after["pid"] != before["pid"] and after["boot_id"] != before["boot_id"]
    assert (after["generation"], after["bindings"], after["digest"]) == (1, 129, before["digest"])
    assert reaches("router", DEVICE), "with the MAC addresses that neighbours know"
    assert not managed.ask("apply")["changed"]


def test_the_agent_dies(managed: AgentNode) -> None:
    before = managed.show()
    managed.kill()
    assert reaches("router", DEVICE), "nobody watches, VPP goes on"
    managed.start()
    after = managed.show()
    assert (after["pid"], after["generation"]) == (before["pid"], 1)
    assert not managed.ask("apply")["changed"], "all of it was found"


def test_a_change_that_vpp_refuses_changes_nothing(managed: AgentNode) -> None:
    digest = managed.show()["digest"]
    managed.rewrite('to = "A"', 'to = "B"')
    managed.rewrite('host = "lan2"', 'host = "lan9"')
    managed.rewrite('name = "host-lan2"', 'name = "host-lan9"')
    refused = managed.cli("apply", str(managed.file))
    assert refused.returncode == 1 and "cannot add interface host-lan9 over lan9" in refused.stderr
    assert managed.show()["digest"] == digest
    assert reaches("router", DEVICE)
    assert managed.ask()["notes"] == {"apply": managed.ask()["notes"]["apply"]}
    managed.rewrite("lan9", "lan2")
    assert managed.ask("apply")["changes"] == 1
    assert not reaches("router", DEVICE), "it is said to be at B now"
    assert managed.ask("rollback")["changed"]
    assert reaches("router", DEVICE)


def test_what_vpp_is_started_with_cannot_change_under_it(managed: AgentNode) -> None:
    managed.rewrite("delivery_table = 1", "delivery_table = 2")
    refused = managed.cli("apply", str(managed.file))
    assert refused.returncode == 3 and "[vpp] or runtime_dir changed" in refused.stderr


def test_what_somebody_removed_comes_back(managed: AgentNode) -> None:
    with closing(Client(managed.runtime / "vpp" / "api.sock")) as client:
        client.call("sw_interface_set_flags", sw_if_index=1, flags=0)
        assert "down" in client.cli("show interface host-up0")
    assert managed.ask("apply")["routes"] == ["host-up0: up"]
    assert reaches("router", DEVICE)


def test_a_path_mtu_that_was_measured(managed: AgentNode) -> None:
    """What the agent learns, VPP answers with; here it is told by hand."""
    from ipshare.agent.vpp import VppDataPath
    from ipshare.config import load

    config, path = load(managed.file), VppDataPath()
    engine = path.attach(config)
    assert engine is not None
    packet = ["why", "-c", str(managed.file), "udp 192.0.2.1:9 > 203.0.113.70:9 df len 1400"]
    assert "OK: translated" in managed.cli(*packet).stdout
    path.learn_path(engine, 1, 1300, 60)
    assert "too big" in managed.cli(*packet).stdout
    path.learn_path(engine, 1, 0, 60)
    assert "OK: translated" in managed.cli(*packet).stdout
    engine.close()


def test_a_next_hop_spares_the_lookup(managed: AgentNode) -> None:
    """No route of the delivery table leads to B: a device's packets arrive there by the next hop alone."""
    run("router", "ip address replace 10.2.6.70/32 dev lo")
    assert not arrive_at_b()
    managed.rewrite('local = ["10.2.0.0/16"]', 'local = ["10.2.0.0/16"]\nnext_hop = ["192.0.2.1"]')
    assert managed.ask("apply")["changes"] == 1
    assert not managed.ask("apply")["changed"]
    assert arrive_at_b()
    assert managed.ask("rollback")["changed"]
    assert not arrive_at_b()


def arrive_at_b() -> bool:
    """Whether of some datagrams that device one sends to a Global IP at B any comes to the router, which has
    its local address. Only whole ones, with a checksum, go by the next hop; all others are looked up."""

    def send() -> None:
        offloads_off("eth0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for _ in range(10):
                out.sendto(b"x", ("203.0.113.70", 9))
                time.sleep(0.05)  # the first ones make VPP and the device ask for neighbours

    before = datagrams()
    netns.inside(space("one"), send)
    return datagrams() > before


def datagrams() -> int:
    """UDP datagrams that came to the router for a port that nobody has."""
    lines = [line.split() for line in run("router", "cat /proc/net/snmp").splitlines() if "Udp:" in line]
    return int(lines[1][lines[0].index("NoPorts")])


def test_no_device_no_start(cables: None, tmp_path: Path) -> None:
    """Everything at once, before anything is started."""
    node = AgentNode(tmp_path)
    node.rewrite('host = "lan2"', 'host = "lan9"\nlinux_cp = "x0"')
    node.rewrite('name = "host-lan2"', 'name = "host-lan9"')
    started = node.cli("agent", str(node.file))
    assert started.returncode == 3
    assert "there is no device lan9 for host-lan9 to open" in started.stderr
    if not Path("/dev/vhost-net").exists():
        assert "/dev/vhost-net is missing, which VPP needs for the pair x0" in started.stderr
    assert not node.runtime.exists()


def test_no_vpp_is_one_sentence(cables: None, tmp_path: Path) -> None:
    node = AgentNode(tmp_path, f'{MANAGED}binary = "/nonexistent/vpp"\n')
    started = node.cli("agent", str(node.file))
    assert started.returncode != 0 and "/nonexistent/vpp does not exist" in started.stderr
    assert "Traceback" not in started.stderr and not node.runtime.exists()


# ---- somebody else's -----------------------------------------------------------------


def test_a_vpp_of_somebody_else(theirs: Running, tmp_path: Path) -> None:
    before = everything(theirs.client)
    guest = AgentNode(tmp_path, sockets(theirs))
    guest.start()
    assert reaches("router", DEVICE)
    assert guest.show()["pid"] == theirs.process.pid
    down = guest.cli("down", str(guest.file))
    assert "tables taken out of VPP, which goes on" in down.stdout
    assert theirs.process.is_alive()
    assert everything(theirs.client) == before, "no interface, no route, no proxy, no bridge"
    assert "203.0.113.0/24" not in theirs.cli("show ip fib")
    assert "nothing to do" in guest.cli("down", str(guest.file)).stdout


def test_it_was_restarted(guest: AgentNode, theirs: Running) -> None:
    digest = guest.show()["digest"]
    theirs.restart()
    until(lambda: guest.ask()["engine_pid"] == theirs.process.pid and not guest.ask()["notes"])
    assert guest.show()["digest"] == digest
    assert reaches("router", DEVICE)


def test_it_stays_away_for_a_while(guest: AgentNode, theirs: Running) -> None:
    theirs.kill()
    until(lambda: "no VPP answers at" in guest.ask()["notes"].get("engine", ""))
    apply = guest.cli("apply", str(guest.file))
    assert apply.returncode in (3, 4) and "no VPP answers at" in apply.stderr
    theirs.restart()
    until(lambda: guest.ask()["engine_pid"] == theirs.process.pid and not guest.ask()["notes"])
    assert reaches("router", DEVICE)


def test_a_vpp_that_comes_a_moment_later(theirs: Running, tmp_path: Path) -> None:
    """As at boot."""
    theirs.kill()
    node = AgentNode(tmp_path, sockets(theirs))
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(node.start)
        until(lambda: node.log.exists() and "waiting: no VPP answers at" in node.log.read_text())
        theirs.restart()
        started.result()
    assert reaches("router", DEVICE)
    node.close()


def test_no_vpp_to_be_a_guest_of(cables: None, tmp_path: Path) -> None:
    node = AgentNode(tmp_path, f'api_socket = "{tmp_path}/api.sock"\n')
    started = node.cli("agent", str(node.file))
    assert started.returncode == 4 and f"no VPP answers at {tmp_path}/api.sock" in started.stderr
    assert "systemctl start vpp" in started.stderr
    assert not node.runtime.exists()


def test_what_a_running_vpp_has_against_it(theirs: Running, tmp_path: Path) -> None:
    """Interfaces, plugins, room for counters: all at once, nothing changed."""
    before = everything(theirs.client)
    node = AgentNode(tmp_path, sockets(theirs))
    node.rewrite("counter_cells = 4096", "counter_cells = 16777216")
    node.rewrite('name = "host-lan2"\nhost = "lan2"', 'name = "Eth7"\nlinux_cp = "x0"')
    started = node.cli("agent", str(node.file))
    assert started.returncode == 3
    assert "16777216 counter_cells need 256 MB of VPP's stats segment" in started.stderr
    assert "startup.conf: statseg { size" in started.stderr
    assert "VPP has no interface Eth7" in started.stderr
    assert "VPP runs without plugins that pairs in Linux need: tap, linux_cp" in started.stderr
    assert everything(theirs.client) == before


def test_a_vpp_that_was_set_up_for_others(guest: AgentNode, tmp_path: Path) -> None:
    guest.cli("down", str(guest.file))
    guest.rewrite("counter_cells = 4096", "counter_cells = 8192")
    started = guest.cli("agent", str(guest.file))
    assert started.returncode == 3
    assert (
        "this VPP was set up with service_table 0, delivery_table 1 and 4096 counter_cells" in started.stderr
    )


def test_a_vpp_without_our_plugin(cables: None, tmp_path: Path) -> None:
    with vpp(netns=space("node"), needs_plugin=False, is_ours_enabled=False) as bare:
        node = AgentNode(tmp_path, sockets(bare))
        started = node.cli("agent", str(node.file))
        assert "runs without the ipshare plugin" in started.stderr
        assert "Traceback" not in started.stderr and not node.runtime.exists()


# ---- half of a pair ----------------------------------------------------------------

PAIR = """
[pair]
key_file = "pair.key"
interval = "50ms"
[[pair.node]]
name = "v1"
paths = ["10.9.0.1:6081", "10.9.1.1:6081"]
[[pair.node]]
name = "v2"
paths = ["10.9.0.2:6081", "10.9.1.2:6081"]
[[pair.vip]]
address = "192.0.2.3"
interface = "host-up0"
"""


def test_a_pair_goes_with_its_tables(cables: None, theirs: Running, tmp_path: Path) -> None:
    """Somebody else's VPP forwards what it did before, once `down` has taken both out of it."""
    make_key(tmp_path / "pair.key")
    node = AgentNode(tmp_path, sockets(theirs), PAIR)
    try:
        for subnet in ("10.9.0", "10.9.1"):
            run("node", f"ip address replace {subnet}.1/24 dev lo")
        node.start()
        assert not reaches("router", DEVICE), "without an epoch it waits for its peer, or for a word"
        assert node.cli("pair", "force", "--yes", "-c", str(node.file)).returncode == 0
        until(lambda: reaches("router", DEVICE))
        down = node.cli("down", str(node.file))
        assert "tables and the pair taken out of VPP" in down.stdout, down.stderr
        assert theirs.new_engine().pair_state() is None
    finally:
        node.close()
