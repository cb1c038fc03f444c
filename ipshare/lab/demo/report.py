"""The demo's results for people (tables, a timeline) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ipshare.lab.demo.story import Chapter, Move

VERDICT_OK = "no byte corrupted, nothing misdelivered or lost, replies direct"
BINS = 40


def as_json(chapters: Sequence[Chapter]) -> dict[str, Any]:
    """Totals, and a chapter for each path. ``replies``: "direct" if no reply passed a distribution point."""
    tallies = [t for c in chapters for phase in (c.before, c.after) for t in phase.tallies.values()]
    moves = [move for chapter in chapters for move in chapter.moves]
    through = sum(chapter.replies.through_distribution_points for chapter in chapters)
    return {
        "ok": all(chapter.is_clean for chapter in chapters),
        "bytes_checked": sum(t.bytes_checked for t in tallies),
        "corrupted_bytes": sum(t.corrupted_bytes for t in tallies),
        "corrupted": sum(t.corrupted for t in tallies) + sum(m.stream_corrupted for m in moves),
        "misdelivered": sum(t.misdelivered for t in tallies) + sum(m.stream_misdelivered for m in moves),
        "lost": sum(t.failed for t in tallies),
        "new_connections_failed": sum(m.broken_new for m in moves),
        "open_connections_broken_by_the_move": sum(m.broken for m in moves),
        "open_connections_at_the_move": sum(m.open for m in moves),
        "replies": "direct" if through == 0 else f"{through} packets through distribution points",
        "families": [4, 6],
        "chapters": [asdict(chapter) | {"ok": chapter.is_clean} for chapter in chapters],
    }


def tables(chapters: Sequence[Chapter]) -> list[tuple[str, ...]]:
    """Rows: path, where, kind, tried, good, lost, corrupted, misdelivered."""
    rows = []
    for chapter in chapters:
        for phase in (chapter.before, chapter.after):
            for kind, t in phase.tallies.items():
                counts = (t.tried, t.good, t.failed, t.corrupted, t.misdelivered)
                rows.append((chapter.path, phase.name, kind, *(f"{n:,}" for n in counts)))
    return rows


def timeline(move: Move) -> list[str]:
    """The move in characters: one column a bin, A or B by who served most of it, x where something failed."""
    end = max(max((r.started for r in move.stream), default=1.0), move.ended) + 0.01
    cells: list[list[str]] = [[] for _ in range(BINS)]
    for record in move.stream:
        cells[max(0, min(BINS - 1, int(record.started / end * BINS)))].append(
            record.server[:1].upper() or "x"
        )
    row = "".join("x" if "x" in cell else max(set(cell), key=cell.count) if cell else "." for cell in cells)
    mark = min(BINS - 1, int(move.ended / end * BINS))
    return [
        f"0 s {row} {end:.1f} s",
        "    " + " " * mark + f"^ moved ({(move.ended - move.began) * 1000:.0f} ms)",
    ]


def cost(move: Move) -> list[str]:
    """What a move cost, honestly."""
    served = len([r for r in move.stream if r.server])
    lines = [
        f"{served:,} of {len(move.stream):,} connections opened around the move were served; "
        f"{move.broken_new} opened before or after it failed",
        f"{move.broken} of {move.open} connections broken that were open at {move.origin}",
    ]
    if move.left:
        most = max(count for _, count in move.left)
        after = f", the last {move.drained - move.ended:.1f} s after the flip" if move.drained else ""
        lines.append(f"up to {most:,} connections were at {move.origin} and ended there{after}")
    return lines


def sentences(chapter: Chapter) -> list[str]:
    """What is said of both ways together."""
    return [
        f"replies: {chapter.replies.from_end_points:,} packets left the end points for the clients, "
        f"{chapter.replies.through_distribution_points} of them through C or D",
    ]
