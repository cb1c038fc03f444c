"""A pair with a witness: at most one node forwards, counted where packets arrive (decisions 0013, 0027).

Real engines, real witnesses: of kind "node" on the LAN, and on a real etcd where one is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipshare.core import lib
from ipshare.engine.embedded import ControlError
from ipshare.lab.netns import NETNS_DIR, inside
from ipshare.pair.witness import Judge, Witness
from ipshare.pair.witness_etcd import EtcdJudge
from ipshare.pair.witness_node import NodeJudge
from tests.pair_lab import LAN, WITNESS_KEY, Asked, Half, PairLab, pair_lab, until
from tests.pair_probes import probes

ACTIVE, STANDBY, INOP = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY, lib.IPS_PAIR_INOP
PORT = 6082
LOCAL, ETCD = "127.0.0.1", f"http://{LAN}:2379"


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def lab(tmp_path: Path, kind: type[Half]) -> Iterator[PairLab]:
    with pair_lab(tmp_path, kind) as made:
        yield made


@contextlib.contextmanager
def served(name: str, address: str, judge: Judge) -> Iterator[Callable[[], None]]:
    """A witness in a namespace; what it yields ends it before."""
    ended = threading.Event()
    witness = inside(name, lambda: Witness((ip_address(address), PORT), WITNESS_KEY, judge))
    thread = threading.Thread(target=witness.run, args=(ended.is_set,))
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()

    try:
        yield end
    finally:
        end()


def grants(half: Half) -> bool:
    state = half.state()
    return int(state["granted_until_ns"]) > int(state["now_ns"])


def forwards(half: Half) -> bool:
    state = half.state()
    return int(state["forward_until_ns"]) > int(state["now_ns"])


def settled(lab: PairLab, asked: Asked) -> tuple[Half, Half]:
    active, standby = lab.start(witness=asked)
    for half in (active, standby):
        half.deliver()
    until(lambda: grants(active) and forwards(active))
    return active, standby


def one_forwards_while_all_is_cut(lab: PairLab, asked: Asked) -> tuple[Half, Half]:
    """The active one goes on; the other, which hears nobody but the witness, forwards not a single packet
    until the first one is dead."""
    active, standby = settled(lab, asked)
    with probes(lab) as seen:
        until(lambda: seen.by(active.number) > 50)
        lab.cut()
        silent_ns = 3 * asked.ttl_s * 1e9
        until(lambda: int(standby.state()["now_ns"]) - int(standby.state()["peer_heard_ns"]) > silent_ns)
        before = seen.by(active.number)
        until(lambda: seen.by(active.number) > before + 50)
        assert seen.by(standby.number) == 0 < seen.sent[standby.number]
        assert active.is_in(ACTIVE) and not standby.is_in(ACTIVE)
        active.kill()
        until(lambda: seen.by(standby.number) > 50)
    assert standby.is_in(ACTIVE) and grants(standby)
    return active, standby


def test_both_paths_cut_one_forwards(lab: PairLab) -> None:
    asked = Asked(LAN, PORT, 0.5)
    with served(lab.names["lan"], LAN, NodeJudge(lab.directory / "promise", longest_s=1)):
        one_forwards_while_all_is_cut(lab, asked)


def takes(half: Half) -> bool:
    """A switchover, as soon as the pair is ready for it."""
    try:
        half.order(lib.IPS_CTL_PAIR_SWITCHOVER)
    except ControlError as error:
        assert error.message
        return False
    return True


def test_without_peer_and_witness_nobody_forwards(lab: PairLab) -> None:
    """And with the peer alone the pair goes on as if there were no witness: it switches over, too."""
    asked = Asked(LAN, PORT, 0.5)
    with served(lab.names["lan"], LAN, NodeJudge(lab.directory / "promise", longest_s=1)) as end:
        active, standby = settled(lab, asked)
        end()
        until(lambda: int(active.state()["flags"]) & lib.IPS_CTL_PAIR_NO_WITNESS and not grants(active))
        assert active.is_in(ACTIVE) and forwards(active)
        until(lambda: takes(standby))
        until(lambda: standby.is_in(ACTIVE) and forwards(standby) and active.is_in(STANDBY))
        lab.cut()
        until(lambda: standby.is_in(STANDBY) and active.is_in(STANDBY))
        with probes(lab) as seen:
            seen.more(200)
        assert not seen.arrivals
        lab.cut(False)
        lab.one_active()


@contextlib.contextmanager
def etcd(lab: PairLab) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which("etcd")
    if program is None:
        pytest.skip("ETCD NOT TESTED: there is no etcd (Debian: etcd-server)")
    words = [
        "nsenter", f"--net={NETNS_DIR / lab.names['lan']}", program,
        "--data-dir", str(lab.directory / "etcd"),
        "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
        "--listen-peer-urls", "http://127.0.0.1:2380",
    ]  # fmt: skip
    with (lab.directory / "etcd.log").open("wb") as log:
        server = subprocess.Popen(
            words, stdout=log, stderr=log, env=os.environ | {"ETCD_UNSUPPORTED_ARCH": "arm64"}
        )
    try:
        inside(lab.names["lan"], lambda: until(lambda: is_healthy(server)))
        yield server
    finally:
        server.kill()
        server.wait()


def is_healthy(server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "etcd ended"
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{ETCD}/health", timeout=5) as reply:
        return b"true" in reply.read()
    return False


class InNamespace:
    """A judge whose requests leave from a namespace: its process would run there."""

    def __init__(self, name: str, judge: Judge) -> None:
        self.name, self.judge = name, judge

    def ask(self, node: int, question: object) -> object:
        return inside(self.name, lambda: self.judge.ask(node, question))  # type: ignore[arg-type]

    def release(self, node: int, question: object) -> None:
        inside(self.name, lambda: self.judge.release(node, question))  # type: ignore[arg-type]


def test_a_witness_in_etcd(lab: PairLab) -> None:
    """Each node's own process asks it. With etcd gone the pair goes on."""
    asked = Asked(LOCAL, PORT, 6.0)  # longer than a busy machine keeps etcd waiting
    with etcd(lab) as server, contextlib.ExitStack() as stack:
        for node in ("a", "b"):
            judge = EtcdJudge([ETCD], "/ipshare/pair", timeout_s=1.5)
            stack.enter_context(served(lab.names[node], LOCAL, InNamespace(lab.names[node], judge)))  # type: ignore[arg-type]
        active, standby = one_forwards_while_all_is_cut(lab, asked)
        lab.cut(False)
        active.control.close()
        active.control = type(active.control)(active.socket)
        active.start()
        active.join(witness=asked)
        active.deliver()
        assert lab.one_active() == (standby, active)
        server.kill()
        until(lambda: not grants(standby))
        assert standby.is_in(ACTIVE) and forwards(standby)
