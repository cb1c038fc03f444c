"""VPP killed, restarted, stopped, replaced under the driver: it is told once, and then it goes on."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.engine.failures import EngineGone, EngineRestarted, EngineSilent
from ipshare.engine.plan import diff
from ipshare.engine.tables import BINDING, ENDPOINT, NETWORK, Tables
from ipshare.engine.vpp import Segment, control
from ipshare.engine.vpp import find as finding
from ipshare.engine.vpp.launch import start
from ipshare.engine.vpp.startup import Settings
from ipshare.errors import EngineError, IpshareError
from tests.engine_lab import OUTER
from tests.vpp.vpp_process import Running, vpp


@pytest.fixture
def node() -> Iterator[Running]:
    with vpp() as running:
        yield running


def many(count: int) -> Tables:
    """So many hosts of 20.0.0.0/12."""
    networks, endpoints, bindings = np.zeros(1, NETWORK), np.zeros(1, ENDPOINT), np.zeros(count, BINDING)
    networks["prefix"][:, 0], networks["family"], networks["prefix_len"] = 20, 4, 12
    endpoints["local"][:, 0], endpoints["family"], endpoints["prefix_len"] = 10, 4, 12
    number = np.arange(count, dtype=np.uint32)
    for name, first in (("global", 20 << 24), ("local", 0)):
        bindings[name][:, :4] = (number + first).astype(">u4").view(np.uint8).reshape(-1, 4)
    bindings["family"], bindings["prefix_len"], bindings["kind"] = 4, 32, lib.IPS_KIND_ENDPOINT
    return Tables(networks=networks, endpoints=endpoints, bindings=bindings, roles=lib.IPS_ROLE_OUTER)


def test_a_restart_is_told_once_and_then_reconciled(node: Running) -> None:
    engine = node.engine
    engine.apply(diff(engine.read(), OUTER))
    old, segment = engine.info(), engine.segment()
    node.kill()
    with pytest.raises(EngineGone) as gone:
        engine.info()
    assert not isinstance(gone.value, EngineRestarted)
    with pytest.raises(EngineGone, match="no VPP answers"):
        engine.apply(diff(Tables(), OUTER))
    node.restart()
    with pytest.raises(EngineRestarted):
        engine.read()
    info = engine.info()
    assert info.boot_id != old.boot_id and info.generation == 0
    assert engine.read() == Tables(), "nothing of what was loaded is taken for granted"
    engine.apply(diff(engine.read(), OUTER))
    assert engine.read() == OUTER and engine.segment() is not segment
    assert engine.counters().packets.sum() == 0


def test_tables_of_a_restarted_vpp_are_not_mistaken_for_ours(node: Running) -> None:
    """Tables that differ in a flag alone have the same digest of records; loaded by somebody else after a
    restart, they have our generation's number as well."""
    engine, flagged = node.engine, replace(OUTER, flags=lib.IPS_IMAGE_ANTISPOOF)
    engine.apply(diff(engine.read(), OUTER))
    node.restart()
    other = node.new_engine()
    other.apply(diff(other.read(), flagged))
    with pytest.raises(EngineGone):
        engine.read()
    with pytest.raises(EngineRestarted):
        engine.read()
    assert engine.read() == flagged


def test_killed_while_tables_load(node: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(tempfile.mkdtemp(prefix="ipshare-test-", dir=control.TMPFS))  # nobody else's images are there
    monkeypatch.setattr(control, "TMPFS", own)
    engine, large = node.engine, many(1 << 20)
    plan = diff(engine.read(), large)
    engine.configure()
    outcome: list[IpshareError] = []
    sent, prepare = threading.Event(), engine.control.prepare

    def watched(image: bytearray) -> tuple[int, int]:
        sent.set()
        return prepare(image)

    engine.control.prepare = watched  # type: ignore[method-assign]

    def load() -> None:
        try:
            engine.apply(plan)
        except IpshareError as error:
            outcome.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    assert sent.wait(60)
    node.kill()
    thread.join(60)
    assert [type(error) for error in outcome] == [EngineGone]
    node.restart()
    with pytest.raises(EngineRestarted):
        engine.info()
    assert engine.info().generation == 0
    engine.apply(diff(engine.read(), large))
    assert engine.read() == large
    engine.close()
    own.rmdir()


def test_silence(node: Running) -> None:
    engine = node.new_engine(timeout_s=0.3)
    info = engine.info()
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(EngineSilent, match="did not answer ipshare_hello"):
            engine.info()
        with pytest.raises(EngineSilent):
            engine.info()
        with pytest.raises(EngineSilent):
            Segment(node.settings.stats, timeout_s=0.1)
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    assert node.new_engine().info() == info


def test_a_late_answer_is_nobody_elses(node: Running) -> None:
    """What was asked before the silence is answered on a connection that is gone."""
    engine = node.new_engine(timeout_s=0.5)
    engine.apply(diff(engine.read(), OUTER))
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(EngineSilent):
            engine.control.info()
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    engine.client.timeout_s = 10
    assert engine.control.hello().pid == node.process.pid
    assert engine.read() == OUTER


def test_counters_of_a_dead_vpp_stand_still(node: Running) -> None:
    node.engine.apply(diff(node.engine.read(), OUTER))
    segment = node.stats
    node.kill()
    assert segment.combined("/ipshare/cells")[0].sum() == 0
    with pytest.raises(EngineGone):
        Segment(node.settings.stats)


# ---- starting ------------------------------------------------------------------


def test_workers_and_sizes(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a worker needs a processor of its own")
    with vpp(workers=1, counter_cells=1 << 18) as node:
        node.engine.apply(diff(Tables(), OUTER))
        assert node.engine.info().workers == 2
        packets, size = node.engine.cell_totals()
        assert len(packets) == len(size) == 1 << 18


def test_small_vpps_share_the_processors() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one processor")
    with vpp() as node:
        assert os.sched_getaffinity(node.process.pid) == os.sched_getaffinity(0)
    with vpp(is_pinned=True) as node:
        assert len(os.sched_getaffinity(node.process.pid)) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"extra": "nonsense { }"}, "nonsense"),
        ({"extra": "unix { nonsense }"}, "nonsense"),
        ({"workers": 60}, "no available cpus"),
        ({"heap_bytes": 1}, "VPP did not start"),
    ],
)
def test_why_vpp_did_not_start_is_said_in_its_words(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(EngineError, match=words), vpp(startup=str(wrong.pop("extra", "")), **wrong):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_ended_leaves_nothing(number: signal.Signals) -> None:
    """Of a VPP that was killed there is no shared memory either: nobody is left to remove it."""
    with tempfile.TemporaryDirectory(prefix="ipshare-leaves-") as name:
        running = start(Settings(Path(name)), wrap=("unshare", "--net"))
        assert running.is_alive()
        os.kill(running.pid, number)
        running.process.wait()
        assert not list(Path("/dev/shm").glob(f"{running.settings.prefix}-*"))
        assert running.terminate() == (0 if number == signal.SIGTERM else -number)
        assert {path.name for path in Path(name).iterdir()} == {"startup.conf", "vpp.log"}


def test_no_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(finding, "_our_dirs", lambda configured, own: iter([tmp_path]))
    with pytest.raises(EngineError, match=r"ipshare_plugin.so is nowhere") as refused:
        start(Settings(tmp_path))
    assert "IPSHARE_VPP_PLUGINS" in refused.value.hint
