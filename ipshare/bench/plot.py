"""plot: figures as an SVG, by hand: horizontal bars, a group for each prefix of the names and unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ipshare.bench.result import Result

ROW, LABEL, BAR, WIDTH, TOP = 18, 240, 420, 860, 52
COLOURS = {"plain": "#9aa5b1", "nft": "#c98a3b", "raw": "#d9b48a", "second": "#9aa5b1"} | dict.fromkeys(
    ("nat", "pnat", "npt", "cnat", "lb"), "#c98a3b"
)
OURS = "#2f6fab"
GROUPS = (
    ("core.v4", "ns/packet", "Core, IPv4: ns per packet"),
    ("core.v6", "ns/packet", "Core, IPv6: ns per packet"),
    ("forwarding.udp64", "pps", "64-byte UDP: packets per second"),
    ("forwarding.paced", "ns/packet", "64-byte UDP at 100,000 a second: processor time per packet, ns"),
    ("forwarding.tcp", "bit/s", "One TCP stream: bit/s"),
    ("tables", "s", "Tables: seconds"),
)


def svg(results: Sequence[Result], caption: str, groups: Sequence[tuple[str, str, str]] = GROUPS) -> str:
    """The groups that have figures, one below the other. ``caption``: what machine this was. A group: prefix
    of names, unit, title."""
    body: list[str] = []
    y = TOP
    for prefix, unit, title in groups:
        rows = [r for r in results if r.name.startswith(prefix + ".") and r.unit == unit]
        if rows:
            body += _group(rows, prefix, title, y)
            y += ROW * (len(rows) + 2)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        'font-family="sans-serif" font-size="12">'
    )
    title = f'<text x="10" y="24" font-size="13" fill="#333">{escape(caption)}</text>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', title, *body, "</svg>", ""])


def _group(rows: Sequence[Result], prefix: str, title: str, y: int) -> Iterator[str]:
    most = max(r.value for r in rows) or 1
    yield f'<text x="10" y="{y}" font-weight="bold">{escape(title)}</text>'
    for i, r in enumerate(rows, start=1):
        at, length = y + i * ROW, max(1.0, BAR * r.value / most)
        name = r.name.removeprefix(prefix + ".")
        colour = next((c for word, c in COLOURS.items() if f".{name}".find(f".{word}") >= 0), OURS)
        note = f"{r.value:,.4g}" + (f"  ({r.ratio:.2f} x)" if r.ratio is not None else "")
        yield f'<text x="{LABEL - 6}" y="{at}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{LABEL}" y="{at - 11}" width="{length:.1f}" height="13" fill="{colour}"/>'
        yield f'<text x="{LABEL + length + 5:.1f}" y="{at}">{escape(note)}</text>'
