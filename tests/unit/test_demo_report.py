"""What the demo says of its two moves, and of connections that broke."""

from __future__ import annotations

from dataclasses import replace

from ipshare.lab.demo import plot, report
from ipshare.lab.demo.story import Chapter, Move, Phase, Replies, Tally
from ipshare.lab.traffic import Record

GOOD = Tally(tried=3, good=3, bytes_checked=30)
STREAM = tuple(Record(n / 10, n / 10 + 0.05, "a1" if n < 20 else "b1", True) for n in range(40))
MOVE = Move(
    began=1.0, ended=2.0, commits={}, stream=STREAM, stream_corrupted=0, stream_misdelivered=0, broken_new=0,
    cut_by_flip=0, long_open=12, long_broken=0, old_server_after=0,
    left=((0.5, 4), (1.5, 12), (5.0, 0)), drained=5.0,
)  # fmt: skip
CHAPTER = Chapter(
    path="rewrite", seconds_to_build=1.0, before=Phase("at A", {"pings": GOOD}), move=MOVE,
    after=Phase("at B", {"pings": GOOD}), replies=Replies(9, 0), back=replace(MOVE, origin="B", to="A"),
)  # fmt: skip


def test_both_ways_are_counted() -> None:
    found = report.as_json([CHAPTER])
    assert found["ok"] and found["open_connections_at_the_move"] == 24
    assert found["open_connections_broken_by_the_move"] == 0
    said = report.cost(MOVE)
    assert "0 of 12 connections broken that were open at A" in said
    assert said[-1] == "up to 12 connections were at A and ended there, the last 3.0 s after the flip"


def test_one_that_broke_is_not_clean() -> None:
    broken = replace(MOVE, long_broken=1)
    assert not replace(CHAPTER, back=broken).is_clean
    assert "1 of 12 connections broken that were open at A" in report.cost(broken)


def test_the_plot_has_a_panel_for_each_way_and_what_is_left_in_it() -> None:
    drawn = plot.svg([CHAPTER])
    assert drawn.count("<polyline") == 2 and "rewrite, B to A" in drawn
    assert "12 connections at A, followed until they ended: 0 broken" in drawn
    nothing = replace(MOVE, left=())
    assert "<polyline" not in plot.svg([replace(CHAPTER, move=nothing, back=nothing)])
