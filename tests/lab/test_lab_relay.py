"""The relay between two ends of a link: each impairment seen by real traffic, changed while it flows."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.errors import IpshareError
from ipshare.lab import Impairment, Lab, LabSpec
from ipshare.lab.netns import process_ids
from ipshare.lab.traffic import Ping, Tcp, Udp, serve, start

LINK = "r1-r2"


def run(lab: Lab, node: str, request: Tcp | Udp | Ping) -> Any:
    return start(lab, node, request).result()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """c1 is on the near side of the impaired link, c3 and A on the far one; plain routing, no engine."""
    with Lab(LabSpec(impair={LINK: Impairment()})) as lab, serve(lab, "c3"):
        yield lab


@pytest.fixture(autouse=True)
def _clean(lab: Lab) -> None:
    lab.impair(
        LINK,
        loss=0,
        duplicate=0,
        reorder=0,
        corrupt=0,
        delay_s=0,
        jitter_s=0,
        seed=1,
    )


def counts(lab: Lab) -> dict[str, int]:
    """Both directions together."""
    both = lab.impair(LINK)["counts"]
    return {name: sum(c.get(name, 0) for c in both) for c in both for name in c}


def gained(lab: Lab, name: str, before: dict[str, int]) -> int:
    return counts(lab).get(name, 0) - before.get(name, 0)


def udp(lab: Lab, **fields: object) -> Udp:
    return Udp(str(lab.address("c3", 4)), flows=4, datagrams=100, expect=("c3",), timeout_s=1.0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [4, 6])
def test_clean_relay_passes_everything(lab: Lab, family: int):
    target = str(lab.address("c3", family))
    assert run(lab, "c1", Tcp(target, connections=20, bytes=200_000, expect=("c3",))).is_clean
    assert run(lab, "c1", Udp(target, datagrams=50, sizes=(10, 1400, 9000), expect=("c3",))).is_clean
    assert run(lab, "c1", Ping(target, count=5, bytes=1000)).is_clean


def test_loss(lab: Lab):
    before = counts(lab)
    lab.impair(LINK, loss=0.1)
    report = run(lab, "c1", udp(lab))
    assert 0 < report.lost <= gained(lab, "lost", before), "no frame is lost but by the seed"
    assert report.lost == report.sent - report.received
    assert report.corrupted == report.misdelivered == report.duplicated == 0


def test_tcp_mends_loss_duplication_reordering_and_corruption(lab: Lab):
    before = counts(lab)
    lab.impair(LINK, loss=0.02, duplicate=0.02, reorder=0.02, corrupt=0.02, delay_s=0.002, jitter_s=0.001)
    report = run(lab, "c1", Tcp(str(lab.address("c3", 4)), connections=20, bytes=100_000, expect=("c3",)))
    assert report.is_clean, report.errors
    for name in ("lost", "duplicated", "reordered", "corrupted"):
        assert gained(lab, name, before) > 0, name


def test_duplication(lab: Lab):
    before = counts(lab)
    lab.impair(LINK, duplicate=0.2)
    report = run(lab, "c1", udp(lab))
    assert report.is_clean and report.duplicated > 0
    assert gained(lab, "duplicated", before) >= report.duplicated // 2


def test_corrupted_packets_are_dropped_by_the_checksums_of_the_far_end(lab: Lab):
    before = counts(lab)
    lab.impair(LINK, corrupt=0.2)
    report = run(lab, "c1", udp(lab))
    assert gained(lab, "corrupted", before) > 0 and report.lost > 0
    assert report.corrupted == 0, "offloads are off: the sums are there, and are checked"


def test_delay(lab: Lab):
    lab.impair(LINK, delay_s=0.03)
    report = run(lab, "c1", Ping(str(lab.address("c3", 4)), count=3))
    assert report.is_clean and report.min_ms >= 60, "both ways"


def test_reordering_is_seen_on_the_far_side(lab: Lab):
    lab.impair(LINK, reorder=0.1, reorder_by=2)
    with lab.capture("c3", "r2") as capture:
        run(lab, "c1", udp(lab, sizes=(16,)))
    # the number of a request follows its digest: after IP (20), UDP (8) and 16 bytes of digest
    numbers = [
        int.from_bytes(p[44:48])
        for p in capture.packets(4)
        if p[9] == 17 and p[12:16] == lab.address("c1", 4).packed
    ]
    assert numbers != sorted(numbers)


def test_control_refuses_nonsense_and_goes_on(lab: Lab):
    with pytest.raises(IpshareError, match="refused"):
        lab.impair(LINK, loss=2)
    with pytest.raises(IpshareError, match="refused"):
        lab.impair(LINK, colour=1)
    with pytest.raises(KeyError):
        lab.impair("c1-c2")
    assert lab.impair(LINK)["settings"]["loss"] == 0


def test_a_link_without_relay_says_so():
    with Lab() as bare, pytest.raises(IpshareError, match="does not answer"):
        bare.impair(LINK, loss=0.1)


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_relay_keeps_up_with_20_000_packets_a_second(lab: Lab):
    """Not a time bar: as many frames as a second of that rate has, sent as fast as the relay takes them."""
    total, window = 20_000, 200
    target = (str(lab.address("c3", 4)), 9)
    receiver = lab.inside("c3", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = lab.inside("c1", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    receiver.settimeout(5)
    receiver.bind(target)
    credit = threading.Semaphore(window)

    def send() -> None:
        for _ in range(total):
            credit.acquire(timeout=5)
            sender.sendto(b"x" * 64, target)

    relay = process_ids(lab.namespace("relay"))[0]
    used_s = cpu_s(relay)
    thread = threading.Thread(target=send)
    started = time.monotonic()
    thread.start()
    for _ in range(total):
        receiver.recv(100)
        credit.release()
    thread.join()
    rate, cost_us = total / (time.monotonic() - started), (cpu_s(relay) - used_s) / total * 1e6
    print(f"{rate:.0f} packets/s end to end; the relay spent {cost_us:.1f} us of CPU on each")
    sender.close()
    receiver.close()
