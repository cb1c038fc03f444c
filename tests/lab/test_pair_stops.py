"""A pair of engines that are stopped, cut off, killed and healed in many ways, with probes through both
(DESIGN.md 9).

Promise (a) is counted at the receiver: a stopped engine forwards nothing that was sent after the other
one's reign had begun, however long it stood still, and whatever it finds when it goes on. A third host,
whose kernel follows neighbour discovery alone, has the survivor's MAC address for both VIPs after whatever
happened. All tests share one lab; tests/vpp/test_pair_stops_vpp.py runs them on VPP.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.core import lib
from ipshare.lab import userns
from tests.engine_lab import run
from tests.pair_lab import REFUSED, VIPS, Half, PairLab, pair_lab, until
from tests.pair_probes import Probes, now_ns, probes

ACTIVE, STANDBY = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY
MISSES, STEPS, TRIES, FLOODED = 4, 4, 5, 8
SEEDS = range(int(os.environ.get("IPSHARE_ORDERS", "4")))
"""Of orders of faults."""


class Engines:
    """The pair, and how its halves stand."""

    def __init__(self, lab: PairLab, seen: Probes, interval_ms: int) -> None:
        self.lab, self.seen = lab, seen
        self.times = {"interval_ns": interval_ms * 10**6, "misses": MISSES}
        self.dead_s = MISSES * interval_ms / 1000

    def start(self, half: Half) -> None:
        half.start()
        half.join(**self.times)
        half.deliver()

    def settled(self) -> tuple[Half, Half]:
        """(active, standby), once they hear each other on both paths and the active one forwards."""

        def found() -> tuple[Half, Half] | None:
            states = [half.state() for half in (self.lab.a, self.lab.b)]
            if any(int(one["paths_up"]) != 3 for one in states) or states[0]["epoch"] != states[1]["epoch"]:
                return None
            both = [int(one["state"]) for one in states]
            order = (self.lab.a, self.lab.b) if both[0] == ACTIVE else (self.lab.b, self.lab.a)
            return order if sorted(both) == [ACTIVE, STANDBY] else None

        while True:  # a busy machine may end a reign before it has forwarded anything
            active, standby = until(found)
            began = now_ns()
            until(
                lambda half=active, since=began: (  # type: ignore[misc]
                    self.seen.served(half.number, since) or not half.is_in(ACTIVE)
                )
            )
            if self.seen.served(active.number, began):
                return active, standby

    def turned_to(self, half: Half) -> bool:
        """Whether the client has its MAC address for both VIPs."""
        mac, client = self.lab.mac("a" if half is self.lab.a else "b"), self.lab.names["client"]
        return all(f"lladdr {mac}" in run(client, f"ip neighbor show to {vip}") for vip in VIPS)


@pytest.fixture(scope="module")
def kind() -> type[Half]:
    return Half


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, kind: type[Half]) -> Iterator[Engines]:
    if not userns.is_root():
        pytest.skip("no network namespaces without root")
    with pair_lab(tmp_path_factory.mktemp("stops"), kind) as lab, probes(lab) as seen:
        made = Engines(lab, seen, 50 if kind.owns_lan else 25)
        for half in (lab.a, lab.b):
            made.start(half)
        yield made


def taken_over(half: Half) -> int:
    """When its reign began."""
    until(lambda: half.is_in(ACTIVE))
    return int(half.state()["since_ns"])


@pytest.mark.parametrize("times", [1, 3, 10, 30, 100])
def test_a_stopped_engine_forwards_nothing_before_it_has_heard_its_peer(engines: Engines, times: int) -> None:
    for _ in range(TRIES):
        late = _stopped(engines, times)
        if late is not None:
            assert late == 0
            return
    pytest.fail("the machine is too busy for a pair: no reign lasted")


def _stop(half: Half) -> None:
    """Returns when it stands."""
    stat = Path(f"/proc/{half.pid}/stat")
    half.signal(signal.SIGSTOP)
    until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")


def _stop_within_a_frame(half: Half) -> None:
    """When its worker has packets in hand."""
    [worker] = half.control.counters().workers

    def is_caught() -> bool:
        _stop(half)
        if not worker["asleep"]:
            return True
        half.signal(signal.SIGCONT)
        return False

    until(is_caught)


def _stopped(engines: Engines, times: int, stop: Callable[[Half], None] = _stop) -> int | None:
    """What it forwarded too late; None: there was yet another reign, for which the machine is to blame."""
    active, standby = engines.settled()
    epoch, began = int(standby.state()["epoch"]), time.monotonic()
    stop(active)
    stands = now_ns()
    try:
        reign = taken_over(standby) if times > 1 else 0
        time.sleep(max(0.0, began + times * engines.dead_s - time.monotonic()))  # the fault itself
    finally:
        goes_on = now_ns()
        active.signal(signal.SIGCONT)
    now, _ = engines.settled()
    if not reign and now is active:  # away for too short a time: it goes on once it has heard that
        return 0 if int(active.state()["epoch"]) == epoch else None
    state = standby.state()
    reign, epoch = reign or int(state["since_ns"]), int(state["epoch"])
    engines.seen.more(round(engines.dead_s * 1000))
    # Who was away for too short a time may have gone on, and lost its role after that.
    late = engines.seen.by(active.number, stands if reign < goes_on else reign)
    epochs = {int(half.state()["epoch"]) for half in (active, standby)}
    return late if int(standby.state()["since_ns"]) == reign and epochs == {epoch} else None


def test_one_that_hears_nobody_when_it_goes_on_waits_for_a_dead_time(engines: Engines) -> None:
    for _ in range(TRIES):
        late = _alone(engines)
        if late is not None:
            assert late == 0
            return
    pytest.fail("the machine is too busy for a pair: no reign lasted")


def _alone(engines: Engines) -> int | None:
    """What it forwarded before its own new reign; None: there were more reigns than that one."""
    active, standby = engines.settled()
    changes = int(active.state()["changes"])
    active.signal(signal.SIGSTOP)
    try:
        reign = taken_over(standby)
        engines.lab.cut()
    finally:
        goes_on = now_ns()
        active.signal(signal.SIGCONT)
    until(lambda: not active.is_in(ACTIVE) or int(active.state()["since_ns"]) > goes_on)
    alone = taken_over(active)
    assert alone >= goes_on + engines.dead_s * 1e9
    more = int(active.state()["changes"]) - changes
    until(lambda: engines.seen.by(active.number, alone))
    queued_s = engines.dead_s / 2  # what was sent so long before its new reign may be forwarded under that
    late = engines.seen.by(active.number, reign, alone - int(queued_s * 1e9))
    engines.lab.cut(False)
    engines.settled()
    return late if more <= 2 else None


def switchover(half: Half) -> None:
    """Whether it is the moment for one or not."""
    try:
        half.order(lib.IPS_CTL_PAIR_SWITCHOVER)
    except REFUSED as error:
        assert error.message


@pytest.mark.parametrize("seed", SEEDS)
def test_a_third_hosts_neighbours_point_to_the_survivor_after_any_order_of_faults(
    engines: Engines, seed: int
) -> None:
    source, lab = random.Random(seed), engines.lab
    halves, undo = list(engines.settled()), dict[str, Callable[[], Any]]()
    done: list[str] = []

    def cable(half: Half, up: bool) -> None:
        run(lab.names["lan"], f"ip link set to-{'a' if half is lab.a else 'b'} {'up' if up else 'down'}")

    def kill(half: Half) -> None:
        half.kill()
        half.again()
        half.join(**engines.times)
        half.deliver()

    for _ in range(STEPS):
        half = source.choice(halves)
        fault = source.choice(("stop", "cut", "cable", "switchover", "heal", "kill"))
        stands = f"stop {half.number}" in undo
        if fault == "heal" and undo:
            undo.pop(source.choice(list(undo)))()
        elif fault == "stop" and not stands:
            half.signal(signal.SIGSTOP)
            undo[f"stop {half.number}"] = lambda half=half: half.signal(signal.SIGCONT)  # type: ignore[misc]
        elif fault == "cut":
            lab.cut()
            undo["cut"] = lambda: lab.cut(False)
        elif fault == "cable":
            cable(half, False)
            undo[f"cable {half.number}"] = lambda half=half: cable(half, True)  # type: ignore[misc]
        elif fault == "switchover" and not stands:
            switchover(half)
        elif fault == "kill" and not stands and "kill" not in done:
            kill(half)
        done.append(fault)
        time.sleep(source.uniform(0, 2.5) * engines.dead_s)  # how long it lasts is part of the order
    for heal in undo.values():
        heal()
    active, standby = engines.settled()
    until(lambda: engines.turned_to(active))
    engines.seen.more(round(engines.dead_s * 1000))
    assert engines.turned_to(active) and active.is_in(ACTIVE) and standby.is_in(STANDBY), done


def test_what_came_while_a_worker_was_stopped_within_a_frame_is_judged_by_now(tmp_path: Path) -> None:
    """One system call for each packet: a frame goes on as long as there are any. Stopped under a flood, again
    and again."""
    with pair_lab(tmp_path) as lab, probes(lab, burst=40) as seen:
        engines = Engines(lab, seen, 25)
        for half in (lab.a, lab.b):
            half.plain_io = True
            engines.start(half)
        late = [_stopped(engines, 3, _stop_within_a_frame) for _ in range(FLOODED)]
        assert not any(late) and 0 in late
