"""report: the figures of all pairs in one table, in Markdown."""

from __future__ import annotations

from typing import Any


def _times(f: dict[str, Any] | None) -> str:
    return "-" if f is None else f"{f['p50']:.1f} / {f['p99']:.1f} / {f['max']:.1f} ms"


def _row(f: dict[str, Any]) -> dict[str, str]:
    load, cpu, notes = f["load"], f["cpu"], f["notes"]
    commit = notes.get("commit")
    return {
        "kills": str(f["kills"]),
        "traffic flows again, p50 / p99 / max": _times(f["kill"]),
        "faults after which it did not within 1.5 s": str(f["kill"]["never"]),
        "kept connections broken: reset / silent": f"{load['kept_reset']} / {load['kept_stalled']}",
        "young connections: established": f"{load['established']:,}",
        "- broken afterwards: reset / silent": f"{load['reset']} / {load['stalled']}",
        "- never established: refused / silent": f"{load['refused']} / {load['unanswered']}",
        "- established after 0.9 s or more (SYN lost)": f"{load['late_opens']:,}",
        "committed / uncommitted / of these within 0.1 s of a kill": commit or "-",
        "switchover: outage, p50 / p99 / max": _times(f.get("switchover")),
        "switchover: probes lost": str(f["switchover"]["probes_lost"]) if "switchover" in f else "-",
        "resync with 30 % loss under load": f"{f['resync_s']:.1f} s" if "resync_s" in f else "-",
        "tables equal afterwards": f"{f['equal']} ({f['compared']:,} sessions)" if "equal" in f else "-",
        "probe's own lateness at worst": f"{f['kill']['probe_late_ms']:.1f} ms",
        "processors while steady: load / gateways / all": f"{cpu['load']:.2f} / {cpu['gateways']:.2f} / {cpu['machine']:.2f}",
        "one kill with its recovery": f"{f['cycle_s']:.1f} s",
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    rows = {name: _row(f) for name, f in found.items()}
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for what in next(iter(rows.values()), {}):
        lines.append(f"| {what} | " + " | ".join(row[what] for row in rows.values()) + " |")
    return "\n".join(lines)
