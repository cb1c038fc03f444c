"""A redundant pair as an engine runs it: processes, links, disks (S2.2, S2.6, S3.2; LESSONS.md 22-29).

Of LESSONS.md 28 is here that who has taken the VIPs answers with its card's own MAC address and still hears
its peer on every path; 29 are the last two tests.

Faults are tests/lab/test_pair_faults.py's and test_pair_stops.py's. Tests for every engine are imported by
tests/vpp/test_engine_pair_vpp.py, whose halves are VPPs.

What the machine decides in each case is tested in tests/unit/test_pair*.py; here: that the thread around it
hears, speaks, holds the lease, writes the epoch, and that the workers obey.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.core import lib
from ipshare.engine.embedded import ControlError
from ipshare.engine.packet_words import packet
from ipshare.errors import EngineError
from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.pair_lab import PAIR, REFUSED, VIPS, Half, PairLab, pair_lab, until

DEAD_S = 0.2
"""Of the pairs of tests.pair_lab."""
WORDS = packet("udp 198.51.100.1:1 > 198.18.1.9:2")
ACTIVE, STANDBY, INOP, INITIAL = (
    lib.IPS_PAIR_ACTIVE,
    lib.IPS_PAIR_STANDBY,
    lib.IPS_PAIR_INOP,
    lib.IPS_PAIR_INITIAL,
)


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def lab(tmp_path: Path, kind: type[Half]) -> Iterator[PairLab]:
    with pair_lab(tmp_path, kind) as made:
        yield made


def verdict(half: Half) -> str:
    return half.verdict(WORDS)


def ordered(half: Half) -> None:
    """A switchover, as soon as the pair is ready for one."""

    def taken() -> bool:
        try:
            half.order(lib.IPS_CTL_PAIR_SWITCHOVER)
        except REFUSED as error:
            assert error.message
            return False
        return True

    until(taken)


def takes_over(half: Half) -> None:
    until(lambda: half.is_in(ACTIVE))
    until(lambda: verdict(half) == "OK")


def epoch_on_disk(half: Half) -> int:
    return int(half.epoch_file.read_text().split()[3])


def test_one_forwards_the_other_says_why_not(lab: PairLab) -> None:
    active, standby = lab.start()
    until(lambda: verdict(active) == "OK")
    assert verdict(standby) == "PAIR_NOT_ACTIVE"
    assert active.state()["epoch_node"] == active.number
    assert epoch_on_disk(active) >= active.state()["epoch"] > 0
    assert int(active.state()["paths_up"]) == 3


def test_a_killed_engine_is_replaced(lab: PairLab) -> None:
    """The epoch of each reign is on disk before it begins, and higher than any before."""
    active, standby = lab.start()
    epochs = [int(active.state()["epoch"])]
    for _ in range(3):
        active.kill()
        takes_over(standby)
        epochs.append(int(standby.state()["epoch"]))
        assert epoch_on_disk(standby) >= epochs[-1]
        active.again()
        active.join()
        active, standby = lab.one_active()
    assert epochs == sorted(set(epochs))


def test_a_stopped_engine_says_afterwards_that_it_was_late(lab: PairLab) -> None:
    active, standby = lab.start()
    until(lambda: verdict(active) == "OK")
    active.signal(signal.SIGSTOP)
    until(lambda: standby.is_in(ACTIVE))
    active.signal(signal.SIGCONT)
    assert verdict(active) == "PAIR_NOT_ACTIVE"
    until(lambda: active.is_in(STANDBY, INOP))
    assert lab.one_active() == (standby, active)
    state = active.state()
    assert state["pauses"] > 0 and state["late"][lib.IPS_CTL_PAIR_LATE_MACHINE - 1] > 0
    assert state["last_late_ns"] > 0 and 0 < state["last_late_at_ns"] <= state["now_ns"]


def test_orders(lab: PairLab) -> None:
    active, standby = lab.start()
    ordered(standby)
    until(lambda: standby.is_in(ACTIVE) and active.is_in(STANDBY))
    until(lambda: verdict(standby) == "OK")
    assert verdict(active) == "PAIR_NOT_ACTIVE"
    standby.order(lib.IPS_CTL_PAIR_MAINTENANCE, 1)
    until(lambda: standby.is_in(INOP) and active.is_in(ACTIVE))
    standby.order(lib.IPS_CTL_PAIR_MAINTENANCE, 0)
    until(lambda: standby.is_in(STANDBY))
    with pytest.raises(REFUSED, match="unknown order"):
        active.order(9)


def test_alone_without_an_epoch_it_waits_for_the_operator(lab: PairLab) -> None:
    lab.a.start()
    lab.a.join()
    until(lambda: not lab.a.is_in(INITIAL) or int(lab.a.state()["sent"]) > 200)
    assert not lab.a.is_in(ACTIVE) and verdict(lab.a) == "PAIR_NOT_ACTIVE"
    lab.a.order(lib.IPS_CTL_PAIR_FORCE)
    until(lambda: lab.a.is_in(ACTIVE))


def test_another_key(lab: PairLab) -> None:
    """Both say it, and neither hears the other."""
    for half, key in ((lab.a, b"a" * 32), (lab.b, b"b" * 32)):
        half.start()
        half.join(key=key)
    for half in (lab.a, lab.b):
        until(lambda half=half: int(half.state()["flags"]) & lib.IPS_CTL_PAIR_WRONG_KEY)
        assert half.state()["peer_heard_ns"] == 0 and not half.is_in(ACTIVE)


def test_another_configuration(lab: PairLab) -> None:
    """Both say that it differs, and what: bit 1 is the second item."""
    for half, digest in ((lab.a, 1), (lab.b, 2)):
        half.start()
        half.join(digest=digest, items={"interval": 7, "vip": digest})
    for half in (lab.a, lab.b):
        until(lambda half=half: int(half.state()["flags"]) & lib.IPS_CTL_PAIR_MISMATCH)
        assert int(half.state()["differs"]) == 0b10
    with pytest.raises(REFUSED, match="an item needs a name"):
        lab.a.set(lab.a.record(n_items=1))


def test_two_nodes_of_one_name_say_so(lab: PairLab) -> None:
    """And neither becomes active by what the other says."""
    for half in (lab.a, lab.b):
        half.start()
        half.join(node_id=1, peer_id=2)
    for half in (lab.a, lab.b):
        until(lambda half=half: int(half.state()["flags"]) & lib.IPS_CTL_PAIR_SAME_NODE)
        assert not int(half.state()["flags"]) & lib.IPS_CTL_PAIR_WRONG_KEY and not half.is_in(ACTIVE)


def test_a_damaged_epoch_file(lab: PairLab) -> None:
    """What it said is unknown, not zero: no pair, and nothing is forwarded."""
    lab.a.epoch_file.write_text("ipshare epoch 1 9 0000000000000000\n")
    lab.a.start()
    with pytest.raises(REFUSED, match="damaged"):
        lab.a.join()
    lab.a.load()
    assert verdict(lab.a) == "PAIR_NOT_ACTIVE"
    lab.a.clear()
    assert verdict(lab.a) == "OK"


def test_an_epoch_that_cannot_be_kept_is_not_used(lab: PairLab, tmp_path: Path) -> None:
    """The disk is full: ordered to, and alone, the node does not become active until there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], check=True)
    try:
        (disk / "filler").write_bytes(b"x" * 4096)
        lab.a.epoch_file = disk / "pair.epoch"
        lab.a.start()
        lab.a.join()
        lab.a.load()
        lab.a.order(lib.IPS_CTL_PAIR_FORCE)
        until(lambda: int(lab.a.state()["flags"]) & lib.IPS_CTL_PAIR_NO_EPOCH_FILE)
        assert not lab.a.is_in(ACTIVE) and verdict(lab.a) == "PAIR_NOT_ACTIVE"
        assert not lab.a.epoch_file.exists()
        (disk / "filler").unlink()
        lab.a.order(lib.IPS_CTL_PAIR_FORCE)
        takes_over(lab.a)
        assert epoch_on_disk(lab.a) == int(lab.a.state()["epoch"])
        lab.a.kill()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_rubbish_from_the_peers_address(lab: PairLab) -> None:
    """Counted, and nothing else happens (LESSONS.md 18)."""
    active, standby = lab.start()
    changes, node = int(active.state()["changes"]), "a" if active is lab.a else "b"
    before = int(active.state()["refused"])
    standby.kill()  # its port is free now
    source = random.Random(7)

    def shoot() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((f"10.9.0.{standby.number}", 6081))
            for length in [0, 1, 15, 16, 31, 32, 96, 97, 1400, 9000]:
                for first in (0, 1, 2, 255):
                    s.sendto(
                        bytes([first] * (length > 0)) + source.randbytes(max(0, length - 1)),
                        (f"10.9.0.{active.number}", 6081),
                    )

    inside(standby.name, shoot)
    until(lambda: int(active.state()["refused"]) >= before + 30)
    assert active.is_in(ACTIVE) and int(active.state()["changes"]) == changes, node


def test_who_waits_is_told(lab: PairLab) -> None:
    active, standby = lab.start()
    seen, told = int(standby.state()["changes"]), []

    def wait() -> None:
        told.append(standby.wait(seen))

    waiter = threading.Thread(target=wait)
    waiter.start()
    ordered(active)
    waiter.join(60)
    assert told and told[0] in ("active", "standby")
    standby.clear()
    with pytest.raises(EngineError, match="no half of a pair"):
        standby.wait(0)
    assert verdict(standby) == "OK"


NO_PAIR: list[tuple[dict[str, int], str]] = [
    ({"misses": 1}, "dead time >= losses x interval"),
    ({"interval_ns": 1000}, "the interval is 100 us to 2 s"),
    ({"interval_ns": 10**10}, "the interval is 100 us to 2 s"),
    ({"n_paths": 0}, "one to eight heartbeat paths"),
    ({"n_paths": 99}, "more paths or VIPs"),
    ({"n_vips": 99}, "more paths or VIPs"),
    ({"peer_id": 1}, "node ids differ"),
]


def test_what_no_pair_can_be(lab: PairLab) -> None:
    lab.a.start()
    for values, sentence in NO_PAIR:
        record = lab.a.record()
        for name, value in values.items():
            record[0][name] = value
        with pytest.raises(REFUSED, match=sentence):
            lab.a.set(record)


def test_a_record_of_another_length(lab: PairLab) -> None:
    lab.a.start()
    with pytest.raises(ControlError, match="takes"):
        lab.a.control._call(lib.IPS_CTL_PAIR_SET, bytes(PAIR.itemsize - 1))


def neighbour(lab: PairLab, vip: str) -> str:
    """The MAC address that the client's kernel has for it, after asking: "" while nobody answers."""
    run(lab.names["client"], f"ip neighbor flush to {vip}")
    inside(lab.names["client"], lambda: ask_for(vip))
    words = run(lab.names["client"], f"ip neighbor show to {vip}").split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def ask_for(vip: str) -> None:
    """Makes the kernel ask for the neighbour: a datagram to it."""
    with socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"", (vip, 9))


@pytest.mark.parametrize("vip", VIPS)
def test_only_the_active_one_answers_for_a_vip(lab: PairLab, vip: str) -> None:
    """S2.3: the holder alone; whoever takes over tells the neighbours, who then need not ask."""
    active, standby = lab.start()
    macs = {half.number: lab.mac("a" if half is lab.a else "b") for half in (active, standby)}
    until(lambda: neighbour(lab, vip) == macs[active.number])
    before = int(active.state()["vip_answers"])
    until(lambda: neighbour(lab, vip) == macs[active.number] and int(active.state()["vip_answers"]) > before)
    assert int(standby.state()["vip_answers"]) == 0
    active.kill()
    shown = lambda: run(lab.names["client"], f"ip neighbor show to {vip}")  # noqa: E731
    until(lambda: macs[standby.number] in shown())
    until(lambda: neighbour(lab, vip) == macs[standby.number])
    standby.order(lib.IPS_CTL_PAIR_MAINTENANCE, 1)
    until(lambda: standby.is_in(INOP))
    until(lambda: neighbour(lab, vip) == "")


FLAPS = 20


def test_paths_that_flap(lab: PairLab) -> None:
    """All of them, for 50 ms each time: at most one reign in a dead time, and one active node at the end."""
    active, standby = lab.start()
    epoch, begun = int(active.state()["epoch"]), time.monotonic()
    for _ in range(FLAPS):
        for on in (True, False):
            lab.cut(on)
            time.sleep(0.05)
    after, _ = lab.one_active()
    lasted_s = time.monotonic() - begun
    reigns = int(after.state()["epoch"]) - epoch
    assert reigns <= 1 + lasted_s / DEAD_S, f"{reigns} in {lasted_s:.1f} s"
    until(lambda: verdict(after) == "OK")


def refused(half: Half, on: bool = True) -> None:
    """Its firewall: sendto fails with EPERM."""
    if not on:
        run(half.name, "nft delete table inet refuse")
        return
    run(half.name, "nft add table inet refuse")
    run(half.name, "nft add chain inet refuse out { type filter hook output priority 0 ; }")
    run(half.name, "nft add rule inet refuse out udp dport 6081 drop")


def test_what_a_firewall_refuses_to_send_is_not_the_peers_death(lab: PairLab) -> None:
    """A standby that may not speak goes on to hear; an active one yields to the peer that cannot hear it."""
    active, standby = lab.start()
    before, heard = (
        [int(half.state()["changes"]) for half in (active, standby)],
        int(standby.state()["received"]),
    )
    refused(standby)
    until(lambda: int(active.state()["paths_up"]) == 0 and int(standby.state()["received"]) > heard + 20)
    assert active.is_in(ACTIVE) and standby.is_in(STANDBY)
    assert [int(half.state()["changes"]) for half in (active, standby)] == before
    refused(standby, False)
    until(lambda: int(active.state()["paths_up"]) == 3)
    refused(active)
    until(lambda: standby.is_in(ACTIVE) and active.is_in(STANDBY))
    refused(active, False)
    until(lambda: int(standby.state()["paths_up"]) == 3)
    assert lab.one_active() == (standby, active)
