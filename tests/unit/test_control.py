"""The control client against a peer that is no good engine (silent, dead, foreign), and its encodings."""

from __future__ import annotations

import ipaddress
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ipshare.core import dtype, lib
from ipshare.engine import capture
from ipshare.engine.embedded import (
    Control,
    ControlError,
    EngineGone,
    EngineRestarted,
    EngineSilent,
    ImageRefused,
    Region,
    TapRule,
    ToCollector,
    ToFile,
    ToInterface,
    launch,
)
from ipshare.engine.embedded.control import HELLO
from ipshare.engine.embedded.counters import CELL, COUNTERS, REGION, WORKER
from ipshare.engine.embedded.wire import ERROR, REPLY, REQUEST, sealed_memfd
from ipshare.errors import EngineError, NotRunning

Answer = Callable[[socket.socket, np.void], None]


def reply(peer: socket.socket, request: np.void, payload: bytes = b"", status: int = 0, **other: int) -> None:
    head = np.zeros(1, REPLY)
    head[0]["magic"], head[0]["version"], head[0]["status"] = lib.IPS_CTL_MAGIC, lib.IPS_CTL_VERSION, status
    head[0]["op"], head[0]["seq"], head[0]["bytes"] = request["op"], request["seq"], len(payload)
    for name, value in other.items():
        head[0][name] = value
    peer.send(head.tobytes() + payload)


def hello(peer: socket.socket, request: np.void, boot: int = 1) -> None:
    record = np.zeros(1, HELLO)
    record[0]["boot_id"][:] = boot
    record[0]["pid"] = 42
    reply(peer, request, record.tobytes())


class FakeEngine:
    """Serves one connection after another; ``answers`` maps an operation to what happens."""

    def __init__(self, path: Path) -> None:
        self.answers: dict[int, Answer] = {lib.IPS_CTL_HELLO: hello}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                while message := peer.recv(1 << 17):
                    request = np.frombuffer(message, REQUEST, count=1)[0]
                    try:
                        self.answers[int(request["op"])](peer, request)
                    except (OSError, StopIteration):
                        break

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def fake(path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(path)
    yield fake
    fake.close()


def hang_up(_peer: socket.socket, _request: np.void) -> None:
    raise StopIteration


def test_nobody_there(path: Path) -> None:
    with pytest.raises(EngineGone, match="no engine answers"):
        Control(path).hello()


def test_silence_ends_the_connection(fake: FakeEngine, path: Path) -> None:
    """A late reply must not be taken for the next one's: the next call is on a new connection."""
    fake.answers[lib.IPS_CTL_INFO] = lambda peer, request: None
    with Control(path, timeout_s=0.05) as control:
        with pytest.raises(EngineSilent):
            control.info()
        assert control.hello().pid == 42


def test_death_in_the_middle(fake: FakeEngine, path: Path) -> None:
    fake.answers[lib.IPS_CTL_ABORT] = hang_up
    with Control(path) as control:
        with pytest.raises(EngineGone):
            control.abort()
        assert control.hello().pid == 42


def test_another_process_is_noticed_once(fake: FakeEngine, path: Path) -> None:
    fake.answers[lib.IPS_CTL_ABORT] = hang_up
    with Control(path) as control:
        control.hello()
        with pytest.raises(EngineGone):
            control.abort()
        fake.answers[lib.IPS_CTL_HELLO] = lambda peer, request: hello(peer, request, boot=2)
        with pytest.raises(EngineRestarted):
            control.hello()
        assert control.hello().boot_id == "02" * 16


@pytest.mark.parametrize("lie", [{"magic": 1}, {"seq": 99}])
def test_foreign_replies(fake: FakeEngine, path: Path, lie: dict[str, int]) -> None:
    fake.answers[lib.IPS_CTL_ABORT] = lambda peer, request: reply(peer, request, **lie)
    with Control(path) as control, pytest.raises(EngineGone, match="no ipshare-engine"):
        control.abort()


@pytest.mark.parametrize("size", [0, 1, HELLO.itemsize - 1, HELLO.itemsize + 1])
def test_replies_of_a_wrong_length(fake: FakeEngine, path: Path, size: int) -> None:
    fake.answers[lib.IPS_CTL_HELLO] = lambda peer, request: reply(peer, request, bytes(size))
    with Control(path) as control, pytest.raises(EngineError, match="bytes"):
        control.hello()


def refusal(status: int, **fields: int) -> Answer:
    error = np.zeros(1, ERROR)
    for name, value in fields.items():
        error[0][name] = value
    error[0]["text"][:6] = np.frombuffer(b"sorry\0", error[0]["text"].dtype)
    return lambda peer, request: reply(peer, request, error.tobytes(), status)


def test_refusals_become_exceptions(fake: FakeEngine, path: Path) -> None:
    fake.answers[lib.IPS_CTL_ABORT] = refusal(lib.IPS_CTL_SYSTEM, system_errno=12)
    fake.answers[lib.IPS_CTL_PREPARE] = refusal(lib.IPS_CTL_IMAGE_REFUSED, load_error=9, section=5, index=7)
    fake.answers[lib.IPS_CTL_ROLLBACK] = refusal(lib.IPS_CTL_FOREIGN_VERSION)
    with Control(path) as control:
        with pytest.raises(ControlError, match="sorry") as system:
            control.abort()
        assert (system.value.status, system.value.system_errno) == (lib.IPS_CTL_SYSTEM, 12)
        with pytest.raises(ImageRefused) as image:
            control.prepare(b"x")
        assert (image.value.load_error, image.value.section, image.value.index) == (9, 5, 7)
        with pytest.raises(ControlError) as foreign:
            control.rollback()
        assert "one version" in foreign.value.hint


def test_many_threads_share_one_connection(fake: FakeEngine, path: Path) -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(50):
                assert control.hello().pid == 42
        except BaseException as error:
            failures.append(error)

    with Control(path) as control:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_numbers_out_of_range_are_refused_here(path: Path) -> None:
    with pytest.raises(EngineError, match="out of range"):
        Control(path).commit(-1)
    with pytest.raises(EngineError, match="out of range"):
        Control(path).set_path_mtu(0, 1 << 40, 1)


def test_sealed_memfd_cannot_change() -> None:
    fd = sealed_memfd(b"content")
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        assert os.pread(fd, 100, 0) == b"content"
    finally:
        os.close(fd)


def test_tap_rules_as_the_engine_reads_them() -> None:
    rule = TapRule(
        ToCollector(ipaddress.ip_address("2001:db8::1"), 9999, vni=77),
        what="both",
        sides=frozenset({"inner"}),
        sample=10,
        snaplen=96,
        cells=(5, 6),
        verdicts=frozenset({"OK", "TOO_BIG"}),
        max_packets=1 << 40,
        max_s=1.5,
    )
    record = np.frombuffer(capture.encode(rule), capture.TAP)[0]
    assert record["collector"].tobytes() == ipaddress.ip_address("2001:db8::1").packed
    assert record["flags"] == lib.IPS_TAP_BEFORE | lib.IPS_TAP_AFTER | lib.IPS_TAP_OWNED
    expected = {
        "target": lib.IPS_TAP_COLLECTOR,
        "collector_family": 6,
        "collector_port": 9999,
        "vni": 77,
        "sides": 2,
        "sample": 10,
        "snaplen": 96,
        "cell_first": 5,
        "cell_count": 6,
        "max_packets": 1 << 40,
        "max_ms": 1500,
    }
    assert {name: int(record[name]) for name in expected} == expected
    assert bin(int(record["verdicts"])).count("1") == 2
    device = np.frombuffer(capture.encode(TapRule(ToInterface("ids0"), owned=False)), capture.TAP)[0]
    assert device["interface"].tobytes().rstrip(b"\0") == b"ids0"
    assert device["flags"] == lib.IPS_TAP_BEFORE


@pytest.mark.parametrize(
    "rule",
    [
        TapRule(ToFile(1), verdicts=frozenset({"NO_SUCH"})),
        TapRule(ToInterface("x" * 17)),
        TapRule(ToInterface("")),
        TapRule(ToFile(1), snaplen=-1),
        TapRule(ToFile(1), sample=1 << 33),
    ],
)
def test_impossible_tap_rules(rule: TapRule) -> None:
    with pytest.raises(EngineError):
        capture.encode(rule)


def region(n_workers: int = 2, n_cells: int = 4) -> bytearray:
    """A region as region.c lays it out, with numbers to find again."""
    strides = {"worker": (WORKER, 1), "counters": (COUNTERS, 1), "cells": (CELL, n_cells)}
    head, at = np.zeros(1, REGION), 4096
    head[0]["magic"], head[0]["version"] = lib.IPS_CTL_MAGIC, lib.IPS_CTL_VERSION
    head[0]["n_workers"], head[0]["n_cells"] = n_workers, n_cells
    for name, (layout, count) in strides.items():
        stride = -(-layout.itemsize * count // 4096) * 4096
        head[0][f"{name}_offset"], head[0][f"{name}_stride"] = at, stride
        at += stride * n_workers
    head[0]["total_bytes"] = at
    memory = bytearray(at)
    memory[: REGION.itemsize] = head.tobytes()
    for worker in range(n_workers):
        raw = np.frombuffer(
            memory, COUNTERS, 1, int(head[0]["counters_offset"] + worker * head[0]["counters_stride"])
        )
        raw[0]["verdicts"][1][3] = 10 + worker
        raw[0]["packets"] = 100
        raw[0]["drops"][worker * 5] = (2, 11, 4)
        raw[0]["drops"][7] = (1, 11, 1)
        cells = np.frombuffer(
            memory, CELL, n_cells, int(head[0]["cells_offset"] + worker * head[0]["cells_stride"])
        )
        cells[3] = (7, 700)
    return memory


def test_region_sums_over_workers() -> None:
    mapped = Region(bytes(region()))
    assert mapped.verdicts().shape == (2, lib.ips_verdict_count())
    assert mapped.verdicts()[1, 3] == 21
    packets, size = mapped.cell_totals()
    assert packets.tolist() == [0, 0, 0, 14] and size.tolist() == [0, 0, 0, 1400]
    assert [part.tolist() for part in mapped.cell_totals(3, 99)] == [[14], [1400]]
    assert mapped.drops().tolist() == [(1, 11, 2), (2, 11, 8)]
    assert mapped.totals().packets == 200


def test_region_views_are_live() -> None:
    memory = mmap.mmap(-1, len(region()))
    memory.write(bytes(region()))
    mapped = Region(memory)
    assert mapped.raw[0]["packets"] == 100
    at = (
        int(np.frombuffer(memory, REGION, 1)[0]["counters_offset"])
        + dtype("struct ips_counters").fields["packets"][1]
    )
    memory[at] = 101
    assert mapped.raw[0]["packets"] == 101


def test_foreign_regions_are_refused() -> None:
    whole = region()
    with pytest.raises(EngineError):
        Region(bytes(whole[:10]))
    with pytest.raises(EngineError, match="cut short"):
        Region(bytes(whole[:-1]))
    whole[4] ^= 0xFF
    with pytest.raises(EngineError, match="version"):
        Region(bytes(whole))


def test_missing_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPSHARE_ENGINE", str(tmp_path / "none"))
    with pytest.raises(NotRunning, match="does not exist"):
        launch.binary()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ('echo \'{"error": "no luck", "hint": "try", "exit": 7}\' >&2; exit 7', "no luck"),
        ("echo gibberish >&2; exit 9", "code 9"),
        ("kill -9 $$", "code -9"),
    ],
)
def test_a_start_that_fails_says_why(
    script: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    binary = tmp_path / "engine"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("IPSHARE_ENGINE", str(binary))
    log = tmp_path / "log"
    log.write_text('{"error": "an older failure", "hint": "", "exit": 1}\n')
    with pytest.raises(EngineError, match=sentence):
        launch.start(tmp_path / "s", log=log)


def test_a_start_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "engine"
    binary.write_text("#!/bin/sh\nexec sleep 1000\n")
    binary.chmod(0o755)
    monkeypatch.setenv("IPSHARE_ENGINE", str(binary))
    with pytest.raises(EngineError, match="in time"):
        launch.start(tmp_path / "s", timeout_s=0.2)
