"""What is VPP's alone about a redundant pair: workers, interfaces, its own answers to neighbours, its API."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipshare.core import VERDICTS, lib
from ipshare.engine.failures import EngineGone
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.pair import PairRefused
from ipshare.engine.vpp.retval import Retval
from ipshare.lab import userns
from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.lab.test_engine_pair import ACTIVE, INOP, STANDBY, ask_for, neighbour, ordered, verdict
from tests.pair_lab import PATIENCE_S, VIPS, PairLab, pair_lab, until
from tests.vpp.pair_vpp import VppHalf

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
NOT_ACTIVE = next(v.number for v in VERDICTS if v.name == "PAIR_NOT_ACTIVE")
BURST = 20
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


class Working(VppHalf):
    """Packets are the affair of a worker, which polls."""

    workers = 1

    def start(self) -> None:
        super().start()
        self.vppd.client.call("sw_interface_set_rx_mode", sw_if_index=self.port, mode=1)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PairLab]:
    with pair_lab(tmp_path, VppHalf) as made:
        yield made


@contextlib.contextmanager
def hung(half: VppHalf, thread: str) -> Iterator[None]:
    """One thread of VPP stands still, as a debugger would have it; the others go on."""
    assert half.vpp is not None
    tasks = Path(f"/proc/{half.vpp.pid}/task")
    tid = next(int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == thread)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_ATTACH, tid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        assert libc.ptrace(PTRACE_DETACH, tid, None, None) == 0


def test_a_hung_worker_ends_the_reign(tmp_path: Path) -> None:
    """S2.6: nobody hands over for it, its main thread and the pair's go on; and it comes back."""
    with pair_lab(tmp_path, Working) as lab:
        active, standby = lab.start()
        until(lambda: verdict(active) == "OK")
        assert isinstance(active, Working)
        with hung(active, "vpp_wk_0"):
            until(lambda: standby.is_in(ACTIVE) and active.is_in(INOP))
            assert verdict(active) == "PAIR_NOT_ACTIVE"
            assert active.state()["late"][lib.IPS_CTL_PAIR_LATE_WORKER - 1] > 0
        until(lambda: active.is_in(STANDBY))
        assert lab.one_active() == (standby, active)


def test_a_hung_thread_of_the_pair_ends_the_reign(lab: PairLab) -> None:
    """VPP itself goes on, and its main thread answers: the lease alone keeps it from translating."""
    active, standby = lab.start()
    until(lambda: verdict(active) == "OK")
    assert isinstance(active, VppHalf)
    with hung(active, "ips-pair"):
        until(lambda: standby.is_in(ACTIVE))
        assert verdict(active) == "PAIR_NOT_ACTIVE"
    until(lambda: active.is_in(STANDBY))
    state = active.state()
    assert state["pauses"] > 0 and state["late"][lib.IPS_CTL_PAIR_LATE_MACHINE - 1] > 0


def test_a_stopped_vpp_forwards_nothing_of_what_waited(lab: PairLab) -> None:
    """What came while it was stopped for several dead times is dropped by name: counted at the receiver."""
    client = lab.names["client"]
    active, standby = lab.start()
    run(client, "ip address add 203.0.113.9/32 dev lo")
    for key, value in (("accept_local", 1), ("rp_filter", 0)):
        run(client, f"sysctl -qw net.ipv4.conf.all.{key}={value} net.ipv4.conf.lan0.{key}={value}")
    for half in (active, standby):
        assert isinstance(half, VppHalf)
        half.vppd.client.cli("ip route add 203.0.113.0/24 via 10.0.0.9 host-lan0")
        run(
            client,
            f"ip neigh replace 10.0.0.{half.number} lladdr {lab.mac(half.node)} dev lan0 nud permanent",
        )
    with _receiver(client) as receive:
        _route_by(client, active.number)
        until(lambda: _sent(client, 1) and receive())
        before = _not_active(active)
        active.signal(signal.SIGSTOP)
        until(lambda: standby.is_in(ACTIVE))
        while receive():
            pass
        _sent(client, BURST)
        active.signal(signal.SIGCONT)
        until(lambda: _not_active(active) >= before + BURST)
        assert not receive(), "what waited in its ring was forwarded"
        _route_by(client, standby.number)
        until(lambda: _sent(client, 1) and receive())


def _not_active(half: VppHalf) -> int:
    return int(half.vppd.counters().verdicts[1, NOT_ACTIVE])


def _route_by(client: str, host: int) -> None:
    run(client, f"ip route replace 198.18.1.0/24 via 10.0.0.{host} dev lan0")


def _sent(client: str, count: int) -> bool:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind(("10.0.0.9", 0))
            for _ in range(count):
                out.sendto(b"x", ("198.18.1.9", 7000))

    inside(client, send)
    return True


@contextlib.contextmanager
def _receiver(client: str) -> Iterator[Callable[[], bool]]:
    """Whether a datagram to the Global IP comes within a moment."""

    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("203.0.113.9", 7000))
        made.settimeout(0.2)
        return made

    with inside(client, bound) as here:

        def receive() -> bool:
            with contextlib.suppress(TimeoutError):
                return bool(here.recv(64))
            return False

        yield receive


def test_an_interface_that_goes_and_comes_back(lab: PairLab) -> None:
    """Under another number of VPP's, with the same name: the VIPs are on it again."""
    active, standby = lab.start()
    assert isinstance(active, VppHalf)
    client = active.vppd.client
    client.call("create_loopback")  # takes the number of the one that goes
    client.call("af_packet_delete", host_if_name="lan0")
    until(lambda: standby.is_in(ACTIVE) and active.is_in(INOP))
    client.call("create_loopback")
    active._wire(client)
    until(lambda: active.is_in(STANDBY))
    ordered(active)
    until(lambda: active.is_in(ACTIVE))
    for vip in VIPS:
        until(lambda vip=vip: neighbour(lab, vip) == lab.mac(active.node))  # type: ignore[misc]


def test_vpp_itself_answers_for_no_vip(lab: PairLab) -> None:
    """Not even where it answers for the whole subnet: the standby's proxy ARP would poison the client."""
    half = lab.a
    half.start()
    assert isinstance(half, VppHalf)
    half.vppd.client.cli("set arp proxy start 10.0.0.90 end 10.0.0.110")
    half.vppd.client.cli("set interface proxy-arp host-lan0 enable")
    until(lambda: neighbour(lab, VIPS[0]) == lab.mac("a"))
    half.join()
    run(lab.names["client"], f"ip neighbor flush to {VIPS[0]}")
    inside(lab.names["client"], lambda: ask_for(VIPS[0]))
    until(lambda: "FAILED" in run(lab.names["client"], f"ip neighbor show to {VIPS[0]}"))
    assert "questions about a VIP" in half.vppd.client.cli("show errors")
    assert not half.is_in(ACTIVE)
    half.clear()
    until(lambda: neighbour(lab, VIPS[0]) == lab.mac("a"))


def test_a_record_of_another_length_and_orders_without_a_pair(lab: PairLab) -> None:
    half = lab.a
    half.start()
    assert isinstance(half, VppHalf)
    with pytest.raises(ApiRefused) as refused:
        half.vppd.client.call("ipshare_pair_set", bytes=7, pair=b"1234567")
    assert refused.value.retval == Retval.INVALID_VALUE_2
    assert half.vppd.pair_state() is None
    with pytest.raises(PairRefused, match="no half of a pair"):
        half.order(lib.IPS_CTL_PAIR_SWITCHOVER)


def test_who_waits_may_be_interrupted(lab: PairLab) -> None:
    active, standby = lab.start()
    assert isinstance(active, VppHalf)
    seen, said = int(active.state()["changes"]), []

    def wait() -> None:
        try:
            waiting.wait(seen)
        except EngineGone as error:
            said.append(error)

    with active.vppd.watch_pair() as waiting:
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.interrupt()
        thread.join(PATIENCE_S)
        assert said, "whoever waits hears of it"
        with pytest.raises(EngineGone):
            waiting.wait(seen)
    ordered(standby)
    assert active.wait(seen) in ("active", "standby")
