"""Recipes against a real kernel: established, re-applied, interrupted anywhere, undone exactly.

Every test body runs in a network namespace of its own. The devices are TUNs as the engine makes them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from ipshare.net import GlobalNetwork, NetError, NodeNet, Reply, recipe
from ipshare.net.actions import Action, AddressAdd, LinkSet, NftTable, RouteAdd, RuleAdd, SysctlSet
from ipshare.net.apply import apply, installed, missing, undo
from ipshare.net.kernel import Kernel

G4, G6 = ip_network("203.0.113.0/24"), ip_network("2001:db8:9::/64")
L4, L6 = ip_network("198.18.1.0/24"), ip_network("2001:db8:1::/64")
OUTER = NodeNet(networks=(GlobalNetwork(G4, 1400), GlobalNetwork(G6, 1400)))
INNER = NodeNet(local_networks=(L4, L6), tunnels=(ip_address("198.18.1.250"), ip_address("2001:db8:1::fa")))
REPLIES = replace(INNER, replies=(Reply(G4, "up0"), Reply(G6, "lo")))
HELD = replace(INNER, held=(ip_address("203.0.113.9"), ip_address("2001:db8:9::9")))
NOTRACK = replace(INNER, notrack=True, ra_devices=("up0",))
BOTH = replace(REPLIES, networks=OUTER.networks, notrack=True)
SPECS = {"outer": OUTER, "inner": INNER, "replies": REPLIES, "held": HELD, "notrack": NOTRACK, "both": BOTH}


def run(command: str) -> str:
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


def tun(name: str) -> int:
    """A TUN device that lives as long as the returned descriptor, as the engine's do."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0001 | 0x1000 | 0x0100))
    return fd


def machine() -> list[int]:
    """A node with an uplink, forwarding off, and the engine's two devices."""
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text(
        "0"
    )  # no address that changes state by itself
    run("ip link set lo up")
    run("ip link add up0 type veth peer name up1")
    for device in ("up0", "up1"):
        run(f"ip link set {device} up")
    run("ip address add 192.0.2.1/24 dev up0")
    run("ip -6 address add 2001:db8:77::1/64 dev up0 nodad")
    # Values of its own, which a write to all/forwarding and back would not restore.
    for name, value in (("up1/forwarding", "1"), ("default/forwarding", "1"), ("all/accept_redirects", "0")):
        for family in ("ipv4", "ipv6"):
            Path("/proc/sys/net", family, "conf", name).write_text(value)
    return [tun("ips-out"), tun("ips-in")]


def snapshot() -> dict[str, Any]:
    """All that a recipe could change, but what the kernel itself sets by an `ip link set up`."""
    sysctls = {
        str(path): path.read_text()
        for family in ("ipv4", "ipv6")
        for path in Path("/proc/sys/net", family, "conf").glob("*/*")
        if path.name not in ("addr_gen_mode", "stable_secret")
        and os.access(path, os.R_OK)
        and path.name != "flush"
    }
    links = [line.split("qdisc")[0].split(": ", 1)[1] for line in run("ip -o link").splitlines()]
    tables = [
        run(f"ip {family} {what}")
        for family in ("-4", "-6")
        for what in ("rule", "route show table all", "address")
    ]
    volatile = ("expires", "valid_lft")
    lines = [line for text in tables for line in text.splitlines() if not any(w in line for w in volatile)]
    return {"sysctls": sysctls, "links": links, "lines": lines, "nft": run("nft list ruleset")}


class Killed(BaseException):
    """As if the process had died: nothing catches it."""


class DyingKernel(Kernel):
    """Dies at the n-th change, before or after it is made."""

    def __init__(self, at: int, *, after: bool) -> None:
        super().__init__()
        self.left, self.after = at, after

    def do(self, action: Action) -> None:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Killed
        super().do(action)
        if self.left < 0:
            raise Killed

    def undo(self, action: Action, before: Any) -> bool:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Killed
        result = super().undo(action, before)
        if self.left < 0:
            raise Killed
        return result


Fresh = Callable[[Callable[[], Any]], Any]


@pytest.mark.parametrize("name", SPECS)
def test_applied_then_nothing_to_do_then_undone_exactly(name: str, fresh: Fresh, undo_file: Path):
    def body() -> None:
        devices = machine()
        actions = recipe(SPECS[name])
        before = snapshot()
        assert apply(actions, undo_file).done
        assert missing(actions) == []
        assert installed(undo_file)
        again = apply(actions, undo_file)
        assert not again.done and not again.undone and not again.left
        report = undo(undo_file)
        assert report.undone and not report.left
        assert snapshot() == before
        assert not undo(undo_file).undone, "a second undo has nothing to do"
        for fd in devices:
            os.close(fd)

    fresh(body)


@pytest.mark.parametrize("after", [False, True], ids=["before-change", "after-change"])
def test_killed_anywhere_undo_restores_exactly(after: bool, fresh: Fresh, undo_file: Path):
    def body() -> None:
        devices = machine()
        actions = recipe(BOTH)
        before = snapshot()
        survived, at = False, 0
        while not survived:
            try:
                apply(actions, undo_file, kernel=DyingKernel(at, after=after))
                survived = True
            except Killed:
                pass
            undo(undo_file)
            assert snapshot() == before, f"killed at change {at}"
            at += 1
        assert at > len(actions) - 6, "nearly every action was interrupted once"
        del devices

    fresh(body)


@pytest.mark.parametrize("after", [False, True], ids=["before-change", "after-change"])
def test_killed_in_undo_a_second_undo_ends_it(after: bool, fresh: Fresh, undo_file: Path):
    def body() -> None:
        devices = machine()
        actions = recipe(BOTH)
        before = snapshot()
        for at in range(0, len(actions) - 4, 5):
            apply(actions, undo_file)
            with pytest.raises(Killed):
                undo(undo_file, kernel=DyingKernel(at, after=after))
            undo(undo_file)
            assert snapshot() == before, f"killed at step {at}"
        del devices

    fresh(body)


def test_killed_by_sigkill_undo_restores_exactly(fresh: Fresh, undo_file: Path, tmp_path: Path):
    """A process of its own, killed for real while it writes."""
    script = tmp_path / "victim.py"
    script.write_text(
        "import os, signal, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_net_apply as t\n"
        "class Deadly(t.Kernel):\n"
        "    def do(self, action):\n"
        "        super().do(action)\n"
        "        if isinstance(action, t.RuleAdd):\n            os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.apply(t.recipe(t.BOTH), Path(sys.argv[1]), kernel=Deadly())\n"
    )

    def body() -> None:
        devices = machine()
        before = snapshot()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, str(script), str(undo_file)], check=False, env=environment)
        assert done.returncode == -signal.SIGKILL
        assert snapshot() != before
        with open(undo_file, "a") as file:
            file.write('{"do": {"kind_of_action": "Rou')  # a write that was cut short
        apply(recipe(BOTH), undo_file)
        assert missing(recipe(BOTH)) == []
        undo(undo_file)
        assert snapshot() == before
        del devices

    fresh(body)


def test_engine_gone_and_back(fresh: Fresh, undo_file: Path):
    """Its routes die with its devices; what is left answers, and a re-apply mends exactly what is missing."""

    def body() -> None:
        devices = machine()
        before = snapshot()
        actions = recipe(BOTH)
        apply(actions, undo_file)
        assert "ips-out" in run("ip route get 203.0.113.5")
        for fd in devices:
            os.close(fd)
        command = ["ip", "route", "get", "203.0.113.5"]
        got = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "No route to host" in got.stderr, "unreachable, not on upstream"
        devices = [tun("ips-out"), tun("ips-in")]
        lost = missing(actions)
        assert {type(a) for a in lost} == {RouteAdd, SysctlSet, LinkSet}
        assert all(a.device in ("ips-out", "ips-in") for a in lost if isinstance(a, RouteAdd))
        apply(actions, undo_file)
        assert missing(actions) == []
        assert "ips-out" in run("ip route get 203.0.113.5")
        undo(undo_file)
        assert snapshot() == before

    fresh(body)


def test_every_pair_of_specifications_is_reachable(fresh: Fresh, undo_file: Path):
    def body() -> None:
        devices = machine()
        before = snapshot()
        moved = replace(BOTH, rule_priority=505, service_table=4900)
        order = [OUTER, BOTH, INNER, REPLIES, moved, OUTER, HELD, moved, BOTH, NOTRACK, OUTER]
        for spec in order:
            apply(recipe(spec), undo_file)
            assert missing(recipe(spec)) == []
            assert {a.key for a in installed(undo_file)} <= {a.key for a in recipe(spec)}, (
                "old things are gone"
            )
        undo(undo_file)
        assert snapshot() == before
        del devices

    fresh(body)


def test_what_others_made_is_neither_replaced_nor_removed(fresh: Fresh, undo_file: Path):
    def body() -> None:
        devices = machine()
        run("ip route add 203.0.113.0/24 dev up0 metric 64 table 17301")
        before = snapshot()
        with pytest.raises(NetError, match="not ours"):
            apply(recipe(OUTER), undo_file)
        assert snapshot() == before, "a refusal leaves nothing behind"
        run("ip route del 203.0.113.0/24 dev up0 metric 64 table 17301")
        run("ip address add 203.0.113.9/32 dev lo")
        before = snapshot()
        apply(recipe(HELD), undo_file)
        Path("/proc/sys/net/ipv4/conf/ips-in/rp_filter").write_text("2")
        Path("/proc/sys/net/ipv4/conf/ips-in/accept_local").write_text("0")
        report = undo(undo_file)
        assert "203.0.113.9/32" in run("ip address show dev lo"), "it was there before us"
        Path("/proc/sys/net/ipv4/conf/ips-in/rp_filter").write_text("0")
        assert snapshot() == before
        assert not report.left or all("rp_filter" in line for line in report.left)
        del devices

    fresh(body)


def test_missing_device_is_one_sentence_and_nothing_stays(fresh: Fresh, undo_file: Path):
    def body() -> None:
        run("ip link set lo up")
        before = snapshot()
        with pytest.raises(NetError) as refusal:
            apply(recipe(OUTER), undo_file)
        assert "ips-out" in refusal.value.message and refusal.value.hint
        assert snapshot() == before

    fresh(body)


def test_two_processes_do_not_change_routes_at_once(fresh: Fresh, undo_file: Path):
    def body() -> None:
        devices = machine()
        apply(recipe(OUTER), undo_file)
        held = os.open(undo_file, os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(NetError, match="in use"):
            apply(recipe(OUTER), undo_file)
        os.close(held)
        undo(undo_file)
        del devices

    fresh(body)


def test_a_journal_of_another_namespace_is_void(fresh: Fresh, undo_file: Path):
    def elsewhere() -> None:
        devices = machine()
        apply(recipe(OUTER), undo_file)
        del devices

    def body() -> None:
        devices = machine()
        before = snapshot()
        there = undo_file.read_bytes()
        assert not undo(undo_file).undone and not installed(undo_file)
        assert undo_file.read_bytes() == there, "that namespace may live, and need it"
        apply(recipe(OUTER), undo_file)
        undo(undo_file)
        assert snapshot() == before
        del devices

    fresh(elsewhere)
    fresh(body)


def send(device_fd: int, source: str, destination: str) -> None:
    """Writes a UDP packet to a TUN as the engine would (no virtio-net header here)."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 32, 1, 0, 64, 17, 0, *map(socket.inet_aton, (source, destination))
    )
    words = struct.unpack("!10H", header)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:]
    os.write(device_fd, header + struct.pack("!HHHH", 4000, 4001, 12, 0) + b"data")


def arrived(device_fd: int) -> list[bytes]:
    """What the kernel has sent into a TUN so far (multicast listener reports of IPv6 among it)."""
    os.set_blocking(device_fd, False)
    packets = []
    while True:
        try:
            packets.append(os.read(device_fd, 2000))
        except BlockingIOError:
            return packets


def test_no_loop_what_a_device_sends_never_enters_a_device(fresh: Fresh, undo_file: Path):
    """Both roles on one node; G and L routed into the devices, and a default route upstream."""

    def body() -> None:
        outer, inner = machine()
        run("ip route add default via 192.0.2.2 dev up0")
        run("ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev up0")
        apply(recipe(BOTH), undo_file)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
            wire.bind(("up1", 0))
            wire.settimeout(5)
            for fd in (outer, inner):
                for destination in ("203.0.113.5", "198.18.1.5"):
                    send(fd, "192.0.2.200", destination)
                    frame = wire.recv(2000)
                    assert socket.inet_ntoa(frame[30:34]) == destination, "it went out by the default route"
        assert [packet for fd in (outer, inner) for packet in arrived(fd) if packet[0] >> 4 == 4] == []
        undo(undo_file)

    fresh(body)


def test_kinds_of_actions_are_all_exercised():
    kinds = {type(a) for spec in SPECS.values() for a in recipe(spec)}
    assert kinds >= {RouteAdd, RuleAdd, SysctlSet, AddressAdd, NftTable}
