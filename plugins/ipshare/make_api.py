"""make_api: ipshare.api from its template: VPP wants every error counter of a node listed in its API file,
and the verdicts have a list already. Usage: make_api.py TEMPLATE ips_verdict.def OUT. Run by CMake."""

from __future__ import annotations

import re
import sys
from pathlib import Path

VERDICT = re.compile(r'^V\((\w+),\s*(\w+),\s*"([^"]*)"\)', re.MULTILINE)
SEVERITY = {"SEND": "info", "CONSUMED": "info", "DROP": "error"}


def counters(definitions: str) -> str:
    """The `counters` block for the verdicts of ips_verdict.def, in their order: the number is the index."""
    entries = [
        f"  {name.lower()} {{\n    severity {SEVERITY[disposition]};\n    type counter64;\n"
        f'    units "packets";\n    description "{text}";\n  }};\n'
        for name, disposition, text in VERDICT.findall(definitions)
    ]
    return "counters ipshare {\n" + "".join(entries) + "};"


def main(template: str, verdicts: str, out: str) -> None:
    text = Path(template).read_text().replace("@VERDICTS@ is replaced", "The verdicts' counters are put in")
    made = text.replace("@VERDICTS@", counters(Path(verdicts).read_text()))
    target = Path(out)
    if not target.exists() or target.read_text() != made:
        target.write_text(made)


if __name__ == "__main__":
    main(*sys.argv[1:])
