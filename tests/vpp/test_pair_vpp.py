"""What is VPP's alone about a redundant pair: workers, interfaces, its own answers to neighbours, its API."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
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
from tests.pair_faults import hung
from tests.pair_lab import PATIENCE_S, VIPS, Half, PairLab, pair_lab, until
from tests.vpp.pair_vpp import VppHalf

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
NOT_ACTIVE = next(v.number for v in VERDICTS if v.name == "PAIR_NOT_ACTIVE")
BURST = 20


class Working(VppHalf):
    """Packets are the affair of a worker, which polls."""

    workers = 1

    def start(self) -> None:
        super().start()
        self.vppd.client.call("sw_interface_set_rx_mode", sw_if_index=self.lan, mode=1)


class TwoWorking(VppHalf):
    workers = 2


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PairLab]:
    with pair_lab(tmp_path, VppHalf) as made:
        yield made


def test_a_hung_worker_ends_the_reign(tmp_path: Path) -> None:
    """S2.6: nobody hands over for it, its main thread and the pair's go on; and it comes back."""
    with pair_lab(tmp_path, Working) as lab:
        active, standby = lab.start()
        until(lambda: verdict(active) == "OK")
        assert isinstance(active, Working)
        with hung(active.pid, "vpp_wk_0"):
            until(lambda: standby.is_in(ACTIVE) and active.is_in(INOP))
            assert verdict(active) == "PAIR_NOT_ACTIVE"
            assert active.state()["late"][lib.IPS_CTL_PAIR_LATE_WORKER - 1] > 0
        until(lambda: active.is_in(STANDBY))
        assert lab.one_active() == (standby, active)


@pytest.mark.parametrize("worker", ["vpp_wk_0", "vpp_wk_1"])
def test_a_hung_worker_of_two_ends_the_reign(tmp_path: Path, worker: str) -> None:
    """Whichever it is. VPP itself ends where its main thread waits for that worker in vain for a second."""
    with pair_lab(tmp_path, TwoWorking) as lab:
        active, standby = lab.start()
        until(lambda: verdict(active) == "OK")
        with hung(active.pid, worker):
            until(lambda: standby.is_in(ACTIVE))
            until(lambda: verdict(standby) == "OK")
            assert may_forward(active) is False
        active.kill()  # where it is about to end, it would not end in order


def may_forward(half: Half) -> bool:
    """Whether it is alive and would."""
    with contextlib.suppress(EngineGone):
        return verdict(half) == "OK"
    return False


def test_a_hung_thread_of_the_pair_ends_the_reign(lab: PairLab) -> None:
    """VPP itself goes on, and its main thread answers: the lease alone keeps it from translating."""
    active, standby = lab.start()
    until(lambda: verdict(active) == "OK")
    assert isinstance(active, VppHalf)
    with hung(active.pid, "ips-pair"):
        until(lambda: standby.is_in(ACTIVE))
        assert verdict(active) == "PAIR_NOT_ACTIVE"
    until(lambda: active.is_in(STANDBY))
    state = active.state()
    assert state["pauses"] > 0 and state["late"][lib.IPS_CTL_PAIR_LATE_MACHINE - 1] > 0


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
