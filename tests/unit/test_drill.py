"""What a drill counts at a node as forwarded without the highest epoch; when a pause begins."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.cli.drill import drill as verb
from ipshare.cli.output import UsageProblem
from ipshare.errors import NotRunning, Refused
from ipshare.pair import drill
from ipshare.pair.drill import Tally

ENDED = 0x3FFFFFFF
"""No process has this number."""


def tally(*looks: tuple[str, bool, int, bool] | tuple[str, bool, int, bool, int]) -> tuple[int, int, int]:
    made = Tally()
    for look in looks:
        made.look(*look)
    return made.late, made.both, made.reigns


def test_a_standby_that_forwards_is_late_and_an_active_one_is_not() -> None:
    assert tally(("x", False, 5, False), ("x", False, 7, False), ("x", True, 90, False)) == (2, 0, 1)
    assert tally(("x", True, 5, False), ("x", True, 70, False), ("x", False, 90, False)) == (0, 0, 0)
    assert tally(("x", True, 5, False), ("x", False, 90, False), ("x", False, 91, False)) == (1, 0, 0)


def test_a_reign_between_two_looks_is_not_late() -> None:
    looks = ("x", False, 5, False, 1), ("x", False, 90, False, 3)
    assert tally(*looks) == (0, 0, 0)
    assert tally(*looks, ("x", False, 92, False, 3)) == (2, 0, 0)


def test_an_active_one_that_heard_another_reign_announced_shares_the_address() -> None:
    looks = (("x", True, 5, False), ("x", True, 9, True), ("x", True, 20, False), ("x", False, 25, False))
    assert tally(*looks) == (0, 16, 0)
    assert tally(*looks, ("x", True, 25, False), ("x", True, 99, False)) == (0, 16, 1), (
        "a reign of its own since"
    )


def test_counters_of_another_run_begin_at_nothing() -> None:
    assert tally(("x", True, 500, False), ("y", False, 3, False)) == (3, 0, 0)
    assert tally(("x", True, 500, False), ("y", True, 3, False)) == (0, 0, 1)


def test_what_a_drill_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with pytest.raises(NotRunning, match="has just ended"), drill.killed(ENDED):
        pass
    with pytest.raises(NotRunning, match="has just ended"), drill.paused(ENDED):
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="there is no nft"), drill.cut(()):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kill",), "a drill interrupts"),
        (("--yes",), "which fault?"),
        (("--watch", "--kill", "--yes"), "--watch makes no faults"),
    ],
)
def test_a_command_line_that_cannot_be_meant(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageProblem, match=said):
        verb.main(list(words), standalone_mode=False)


@pytest.fixture
def child() -> Iterator[int]:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def stands(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_pause_begins_when_nothing_is_in_hand(child: int) -> None:
    asked = []

    def is_idle() -> bool:
        os.waitid(os.P_PID, child, os.WSTOPPED)  # of a stop that was not told yet
        asked.append(stands(child))
        return len(asked) == 3

    with drill.paused(child, is_idle):
        assert stands(child) and asked == [True, True, True]
    os.waitid(os.P_PID, child, os.WCONTINUED)


def test_one_that_is_never_idle_is_paused_all_the_same(child: int) -> None:
    with drill.paused(child, lambda: False):
        os.waitid(os.P_PID, child, os.WSTOPPED)
        assert stands(child)
    os.waitid(os.P_PID, child, os.WCONTINUED)
