"""report: the figures of all kinds of remap in one table, in Markdown. Pure."""

from __future__ import annotations

from typing import Any


def _row(f: dict[str, Any]) -> dict[str, str]:
    load = f["load"]
    found = {
        "ways, there or back": str(len(f["ways"])),
        "connections kept, in both families": f"{load['kept']:,}",
        "- broken: reset / silent": f"**{load['kept_reset']:,}** / **{load['kept_silent']:,}**",
        "UDP flows": f"{load['flows']:,}",
        "- moved to the other server": f"**{load['flows_moved']:,}**",
        "- datagrams without an answer": f"{load['datagrams'] - load['answers']:,} of {load['datagrams']:,}",
        "bytes that differ": f"{load['corrupted']:,}",
        "new connections established": f"{load['established']:,}",
        "- broken": f"**{load['broken']:,}**",
        "- never established: refused / silent": f"{load['refused']:,} / {load['unanswered']:,}",
        "slowest answer on a kept connection": f"{f['slowest_ms']:.0f} ms",
        "client's round trip, no load": f"{f['rtt_ms']:.2f} ms",
    }
    if "fence_ms" in f:
        found["opened at the giver after the freeze: by its count / by the clients"] = (
            f"{f['opened_after']} / {f['late_openings']}"
        )
        for name, what in (
            ("until_flipping_ms", "from the order to the first flip"),
            ("fence_ms", "of it, frozen until the taker takes"),
            ("draining_ms", "from the last flip to done"),
        ):
            found[f"{what}, median / max"] = f"{f[name][0]:.0f} / {f[name][1]:.0f} ms"
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    rows = {name: _row(f) for name, f in found.items()}
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for what in dict.fromkeys(what for row in rows.values() for what in row):
        lines.append(f"| {what} | " + " | ".join(row.get(what, "-") for row in rows.values()) + " |")
    return "\n".join(lines)
