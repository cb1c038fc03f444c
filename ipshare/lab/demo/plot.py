"""The demo's plot: new connections over time, by the end point that served them, and above them how many are
left where the address was. SVG, no library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from xml.sax.saxutils import escape

from ipshare.lab.demo.story import Chapter, Move

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 300, 60, 20, 56, 46
BIN_S = 0.1
Scale = Callable[[float], float]
SERIES = (("a1", "served at A", "#2a7f62"), ("b1", "served at B", "#c8611f"), ("", "failed", "#b3123a"))
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c2733}.s{font-size:11px;fill:#5b6b7a}"
    ".grid{stroke:#d9e0e6}.flip{stroke:#1c2733;stroke-dasharray:4 3}.bg{fill:#fff}"
    ".left{fill:none;stroke:#2456a6;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#e8edf2}.s{fill:#9fb0bf}.bg{fill:#12181f}"
    ".grid{stroke:#2b3844}.flip{stroke:#e8edf2}}"
)


def svg(chapters: list[Chapter]) -> str:
    """One panel for each move of each chapter, one above the other."""
    moves = [(chapter.path, move) for chapter in chapters for move in chapter.moves]
    total = HEIGHT * len(moves)
    panels = "\n".join(_panel(path, move, index * HEIGHT) for index, (path, move) in enumerate(moves))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" '
        f'role="img" aria-label="New connections by end point"><style>{STYLE}</style>'
        f'<rect class="bg" width="{WIDTH}" height="{total}"/>\n{panels}\n</svg>\n'
    )


def _panel(path: str, move: Move, top: int) -> str:
    records = move.stream
    end = max(max((r.started for r in records), default=1.0), move.ended, move.drained or 0.0) + BIN_S
    bins = {key: Counter(int(r.started / BIN_S) for r in records if r.server == key) for key, _, _ in SERIES}
    highest = max((sum(bins[key][n] for key in bins) for n in range(int(end / BIN_S) + 1)), default=1) or 1
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bar = width * BIN_S / end - 1

    def x(seconds: float) -> float:
        return LEFT + width * seconds / end

    def y(count: float) -> float:
        return TOP + height * (1 - count / highest)

    parts = [
        f'<g transform="translate(0 {top})">',
        f'<text x="{LEFT}" y="22">{escape(_title(path, move))}</text>',
    ]
    parts += _axes(x, y, end, highest)
    for n in range(int(end / BIN_S) + 1):
        base = 0
        for key, _, colour in SERIES:
            count = bins[key][n]
            if count:
                parts.append(_bar(x(n * BIN_S), y(base + count), bar, y(base) - y(base + count), colour))
            base += count
    parts += _left(move, x, height)
    at = x(move.ended)
    parts.append(f'<line class="flip" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(
        f'<text class="s" x="{at:.1f}" y="{HEIGHT - BOTTOM + 30}" text-anchor="middle">'
        "every distribution point has flipped</text>"
    )
    return "\n".join([*parts, *_legend(), "</g>"])


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _left(move: Move, x: Scale, height: float) -> list[str]:
    """Connections at the old place as a line, as high as the panel where they are most."""
    most = max((count for _, count in move.left), default=0)
    if not most:
        return []
    points = " ".join(
        f"{x(at):.1f},{TOP + height * (1 - count / most):.1f}" for at, count in move.left if at >= 0
    )
    text = f"{most} connections at {move.origin}, followed until they ended: {move.broken} broken"
    label = f'<text class="s" x="{WIDTH - RIGHT}" y="{TOP - 8}" text-anchor="end">{escape(text)}</text>'
    return [f'<polyline class="left" points="{points}"/>', label]


def _title(path: str, move: Move) -> str:
    way = f"{move.origin} to {move.to}"
    return f"{path}, {way}: new connections per {BIN_S:g} s, by the end point that served them"


def _axes(x: Scale, y: Scale, end: float, highest: int) -> list[str]:
    parts = []
    for count in sorted({0, highest // 2, highest}):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(count):.1f}" y2="{y(count):.1f}"/>'
        )
        parts.append(
            f'<text class="s" x="{LEFT - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count}</text>'
        )
    step = 0.5 if end < 6 else 1.0
    for n in range(int(end / step) + 1):
        place = f'x="{x(n * step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
        parts.append(f'<text class="s" {place}>{n * step:g} s</text>')
    return parts


def _legend() -> list[str]:
    parts = []
    for n, (_, label, colour) in enumerate(SERIES):
        at = LEFT + 130 * n
        parts.append(f'<rect x="{at}" y="31" width="11" height="11" rx="2" fill="{colour}"/>')
        parts.append(f'<text class="s" x="{at + 17}" y="41">{label}</text>')
    return parts
