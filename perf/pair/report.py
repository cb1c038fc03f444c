"""report: the figures of all pairs in one table, in Markdown; its rows are those of the first one.

Pure: what scenario.py found goes in, text comes out.
"""

from __future__ import annotations

from typing import Any


def _times(f: dict[str, Any] | None) -> str:
    return "-" if f is None else f"{f['p50']:.1f} / {f['p99']:.1f} / {f['max']:.1f} ms"


def _both(f: dict[str, Any]) -> str:
    if "switchover" not in f:
        return "-"
    load = f["switchover"]["load"]
    return str(load["stalled"] + load["reset"])


def _row(f: dict[str, Any]) -> dict[str, str]:
    load, cpu, kill = f["load"], f["cpu"], f["kill"]
    found = {
        "kills": str(f["kills"]),
        "traffic flows again after, p50 / p99 / max": _times(kill),
        "kills after which it did not within 1.5 s": str(kill["never"]),
        "kills with a second interruption; the longest": f"{kill['again']}; {kill['again_ms']:.1f} ms",
        "kept connections broken: reset / silent": f"{load['kept_reset']} / {load['kept_stalled']}",
        "young connections: established": f"{load['established']:,}",
        "- broken afterwards: reset / silent": f"{load['reset']} / {load['stalled']}",
        "- never established: refused / silent": f"{load['refused']} / {load['unanswered']}",
        "- established after 0.9 s or more (a SYN was lost)": f"{load['late_opens']:,}",
        "first packets: committed / not / of these in the 0.1 s before a kill": f["notes"].get("commit", "-"),
        "switchover: longest interruption, p50 / p99 / max": _times(f.get("switchover")),
        "- young connections broken, kills and switchovers": _both(f),
        "probe's own lateness at worst": f"{kill['probe_late_ms']:.1f} ms",
        "processors while steady: load / gateways / all": " / ".join(
            f"{share:.2f}" for share in cpu.values()
        ),
        "one kill with its recovery": f"{f['cycle_s']:.1f} s",
    }
    if f.get("handovers_ms"):
        took = sorted(f["handovers_ms"])
        middle = took[len(took) // 2]
        found["- from reign to reign, p50 / max"] = f"{middle:.2f} / {took[-1]:.2f} ms"
        found["- probes lost in all of them"] = str(f["switchover"]["probes_lost"])
    if "resync_s" in f:
        found["kill, restart, resync, a third of the mirror's datagrams lost"] = f"{f['resync_s']:.1f} s"
        found["tables equal afterwards"] = f"{'yes' if f['equal'] else 'NO'}, {f['compared']:,} sessions"
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    rows = {name: _row(f) for name, f in found.items()}
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for what in next(iter(rows.values()), {}):
        lines.append(f"| {what} | " + " | ".join(row.get(what, "-") for row in rows.values()) + " |")
    return "\n".join(lines)
