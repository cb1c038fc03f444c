"""What a box's guard takes for a hang, and when it resets the machine; what its health gate waits for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ipshare.appliance import guard, health

C1 = Path("/run/ipshare/c1/engine.sock")


def test_only_what_hangs_all_the_time_is_a_reason() -> None:
    watch = guard.Guard(30)
    assert watch.judged({C1: "hangs"}, 100) == ""
    assert watch.judged({C1: "hangs"}, 129.9) == ""
    assert watch.judged({}, 129.95) == "", "it went on"
    assert watch.judged({C1: "hangs"}, 130) == ""
    assert watch.judged({C1: "hangs"}, 159) == ""
    assert watch.judged({C1: "does not answer"}, 161) == "the engine of c1 does not answer since 31 s"


def test_an_engine_that_is_not_there_does_not_hang_and_a_silent_one_does(tmp_path: Path) -> None:
    assert guard.hanging(tmp_path) == {}
    for name in ("gone", "silent"):
        (tmp_path / name).mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(str(tmp_path / "gone/engine.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(tmp_path / "silent/engine.sock"))
        silent.listen()
        found = guard.hanging(tmp_path, timeout_s=0.05)
    assert found == {tmp_path / "silent/engine.sock": "does not answer"}


def test_the_reset_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    trigger = tmp_path / "trigger"
    monkeypatch.setattr(guard, "hanging", lambda: {C1: "has 1 packet threads that hang"})
    guard.run(said.append, trigger, patience_s=0)
    assert said == ["the engine of c1 has 1 packet threads that hang since 0 s: this machine is reset"]
    assert trigger.read_text() == "b"


def test_health_waits_for_a_unit_that_fails_first_and_names_one_that_stays_away() -> None:
    answers = iter([False, False, True])
    assert health.missing(60, lambda unit: next(answers), lambda: [health.AGENT]) == []
    assert health.missing(0, lambda unit: False, lambda: [health.AGENT]) == [health.AGENT]
