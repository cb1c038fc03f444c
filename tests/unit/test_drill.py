"""What a drill counts at a node as forwarded without the highest epoch; pure."""

from __future__ import annotations

import pytest

from ipshare.cli.drill import drill as verb
from ipshare.cli.output import UsageProblem
from ipshare.errors import NotRunning, Refused
from ipshare.pair import drill
from ipshare.pair.drill import Tally

ENDED = 0x3FFFFFFF
"""No process has this number."""


def tally(*looks: tuple[str, bool, int, bool]) -> tuple[int, int, int]:
    made = Tally()
    for look in looks:
        made.look(*look)
    return made.late, made.both, made.reigns


def test_a_standby_that_forwards_is_late_and_an_active_one_is_not() -> None:
    assert tally(("x", False, 5, False), ("x", False, 7, False), ("x", True, 90, False)) == (2, 0, 1)
    assert tally(("x", True, 5, False), ("x", True, 70, False), ("x", False, 90, False)) == (0, 0, 0)
    assert tally(("x", True, 5, False), ("x", False, 90, False), ("x", False, 91, False)) == (1, 0, 0)


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
