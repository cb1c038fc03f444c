"""What a box's guard takes for a hang, and when it resets the machine; what its health gate waits for."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.confirm import SystemClock
from ipshare.appliance import guard, guard_leases, health, overlay
from ipshare.appliance.guard_signs import Sign, Signs
from tests.unit.test_vpp_stats import SCALAR, Written, served

C1 = Sign("the engine of c1")
NOWHERE = Path("/nowhere")


def test_only_what_hangs_all_the_time_is_a_reason() -> None:
    watch = guard.Guard(30)
    assert watch.judged({C1: "hangs"}, 100) == ""
    assert watch.judged({C1: "hangs"}, 129.9) == ""
    assert watch.judged({}, 129.95) == "", "it went on"
    assert watch.judged({C1: "hangs"}, 130) == ""
    assert watch.judged({C1: "hangs"}, 159) == ""
    assert watch.judged({C1: "does not answer"}, 161) == "the engine of c1 does not answer since 31 s"


def test_a_counter_that_goes_on_is_no_reason_and_one_that_stands_still_is() -> None:
    watch = guard.Guard(30)
    at = {now: {Sign("thread 1", now): "stands", Sign("thread 2", now // 50): "stands"} for now in range(100)}
    said = {now: watch.judged(at[now], now) for now in range(0, 100, 10)}
    assert {now: text for now, text in said.items() if text} == {
        30: "thread 2 stands since 30 s",
        40: "thread 2 stands since 40 s",
        80: "thread 2 stands since 30 s",
        90: "thread 2 stands since 40 s",
    }


def test_an_engine_that_is_not_there_does_not_hang_and_a_silent_one_does(tmp_path: Path) -> None:
    assert Signs(tmp_path, NOWHERE).found() == {}
    for name in ("gone", "silent"):
        (tmp_path / name).mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(str(tmp_path / "gone/engine.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(tmp_path / "silent/engine.sock"))
        silent.listen()
        found = Signs(tmp_path, NOWHERE, timeout_s=0.05).found()
    assert found == {Sign("the engine of silent"): "does not answer"}


def vpp_of_c1(tmp_path: Path) -> Path:
    (tmp_path / "c1/vpp").mkdir(parents=True)
    return tmp_path / "c1/vpp/stats.sock"


def test_of_vpp_the_main_thread_the_workers_and_the_pairs_thread_are_looked_at(tmp_path: Path) -> None:
    written = Written()
    written.entries += [(SCALAR, 42, "/sys/heartbeat"), (SCALAR, 77, "/ipshare/pair-turn")]
    written.simple("/ipshare/turns", [1000], [5])
    written.done()
    signs = Signs(tmp_path, NOWHERE)
    with served(vpp_of_c1(tmp_path), written.fd):
        first = signs.found()
    assert set(first) == {
        Sign("the main thread of the VPP of c1", 42),
        Sign("thread 0 of the VPP of c1", 1000),
        Sign("thread 1 of the VPP of c1", 5),
        Sign("the pair's thread in the VPP of c1", 77),
    }
    assert signs.found() == first, "the socket is not asked again"


def test_of_a_vpp_without_our_plugin_the_heartbeat_is_looked_at(tmp_path: Path) -> None:
    written = Written()
    written.entries.append((SCALAR, 42, "/sys/heartbeat"))
    written.done()
    with served(vpp_of_c1(tmp_path), written.fd):
        assert set(Signs(tmp_path, NOWHERE).found()) == {Sign("the main thread of the VPP of c1", 42)}


def test_a_vpp_that_hands_out_nothing_is_silent_also_when_many_wait(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as vpp:
        vpp.bind(str(vpp_of_c1(tmp_path)))
        vpp.listen(0)
        signs = Signs(tmp_path, NOWHERE, timeout_s=0.05)
        for _ in range(4):
            assert signs.found() == {Sign("the VPP of c1"): "does not answer"}


def test_the_reset_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    trigger, kmsg = tmp_path / "trigger", tmp_path / "kmsg"
    monkeypatch.setattr(Signs, "found", lambda signs: {C1: "has 1 packet threads that hang"})
    guard.run(said.append, trigger, patience_s=0, kmsg=kmsg, place=tmp_path)
    sentence = "the engine of c1 has 1 packet threads that hang since 0 s: this machine is reset"
    assert said == [sentence]
    assert kmsg.read_text() == f"<2>ipshare: {sentence}\n"
    assert trigger.read_text() == "b"


def test_nothing_that_hangs_stops_the_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who hears it, nor a disk; the kernel was told to write before."""
    monkeypatch.setattr(guard, "SYNC_S", 0.01)
    trigger, for_ever = tmp_path / "trigger", threading.Event()
    order: list[str] = []
    real = Path.write_text

    def noted(path: Path, text: str, **more: Any) -> int:
        order.append(text)
        return real(path, text, **more)

    monkeypatch.setattr(Path, "write_text", noted)
    guard.reset("x: this machine is reset", lambda text: bool(for_ever.wait()), trigger, tmp_path / "no/kmsg")
    for_ever.set()
    assert order == ["<2>ipshare: x: this machine is reset\n", "s", "b"]


def keeper(tmp_path: Path, **row: Any) -> str:
    """What the guard says of a record with one workload, whose lease ended 3 s ago."""
    clock = SystemClock()
    end = clock.boottime_ns() - 3 * 10**9
    record = {"word": "running", "over_ns": end, "stop_ns": 4 * 10**9} | row
    (tmp_path / "a1").mkdir(exist_ok=True)
    text = json.dumps({"boot": row.pop("boot", clock.boot_id()), "leases": {"shop": record}})
    (tmp_path / "a1/leases.json").write_text(text)
    return guard_leases.overdue(tmp_path, clock)


def test_a_workload_that_may_run_beyond_its_lease_is_a_reason_at_once(tmp_path: Path) -> None:
    assert keeper(tmp_path).startswith("workload shop of a1 is running 3.0 s after the end of its lease")
    assert "is stuck" in keeper(tmp_path, word="stuck")
    assert keeper(tmp_path, word="stopped") == ""
    assert keeper(tmp_path, over_ns=0) == "", "it never had one"
    assert keeper(tmp_path, stop_ns=10**11) == "", "nobody else may begin it yet"
    assert keeper(tmp_path, boot="another") == "", "of a run of the machine that is over"
    (tmp_path / "a1/leases.json").write_text('{"boot": 1, "leases": []}')
    assert guard_leases.overdue(tmp_path) == ""


def test_a_lease_that_is_over_resets_beside_an_engine_that_keeps_the_guard_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper(tmp_path)
    asked, said = threading.Event(), list[str]()

    def slow(signs: Signs) -> dict[Sign, str]:
        asked.set()
        return {}

    monkeypatch.setattr(Signs, "found", slow)
    guard.run(said.append, tmp_path / "trigger", kmsg=tmp_path / "kmsg", place=tmp_path)
    assert "after the end of its lease: this machine is reset" in said[0]


def test_a_guard_that_hangs_resets_the_machine_and_one_that_fails_is_started_again() -> None:
    unit = dict(line.split("=", 1) for line in overlay.GUARD.splitlines() if "=" in line and line[0] != "#")
    assert unit["WatchdogSec"] and unit["Restart"] == "always"
    assert unit["RestartPreventExitStatus"] == "SIGABRT", "what systemd's watchdog ends it with"
    assert unit["FailureAction"] == "reboot-immediate"


def test_health_waits_for_a_unit_that_fails_first_and_names_one_that_stays_away() -> None:
    answers = iter([False, False, True])
    assert health.missing(60, lambda unit: next(answers), lambda: [health.AGENT]) == []
    assert health.missing(0, lambda unit: False, lambda: [health.AGENT]) == [health.AGENT]
