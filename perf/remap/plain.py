"""plain: the same lab without ipshare: rules of nftables rewrite the address, another rule is the remap.

They rewrite packet by packet, as replies do not come back by a distribution point: connection tracking would
see one direction alone.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from ipshare.lab.internet import LabSpec, global_ip, site_prefix
from ipshare.lab.lab import Lab


def _table(rules: dict[int, tuple[str, str]]) -> str:
    """By family: a destination, and what becomes of it."""
    lines = [f"    {_word(f)} daddr {old} {_word(f)} daddr set {new}" for f, (old, new) in rules.items()]
    chain = ["  chain rewrite {", "    type filter hook prerouting priority raw;", *lines, "  }"]
    return "\n".join(["table inet plain", "delete table inet plain", "table inet plain {", *chain, "}\n"])


def _word(family: int) -> str:
    return "ip" if family == 4 else "ip6"


def _local(place: str, family: int) -> str:
    number = int(global_ip("a1", family)) & 0xFF
    return str(site_prefix(place, family)[number])


class Move:
    """C flips at once, D so many seconds later."""

    def __init__(self, lab: Lab, to: str, late_s: float) -> None:
        self.flipped = threading.Event()
        flip(lab, "C", to)

        def later() -> None:
            flip(lab, "D", to)
            self.flipped.set()

        threading.Timer(late_s, later).start()

    def result(self) -> dict[str, Any]:
        return {}


def load_rules(lab: Lab, node: str, text: str) -> None:
    subprocess.run(lab.command(node, ["nft", "-f", "-"]), input=text, text=True, check=True)


def flip(lab: Lab, node: str, to: str) -> None:
    """A distribution point sends the address to this end point."""
    load_rules(lab, node, _table({f: (str(global_ip("a1", f)), _local(to, f)) for f in (4, 6)}))


class Plain:
    name = "nftables"

    def __init__(self, late_s: float) -> None:
        self.late_s = late_s

    @contextlib.contextmanager
    def up(self) -> Iterator[Lab]:
        with Lab(LabSpec()) as lab:
            for place in "AB":
                rules = {f: (_local(place, f), str(global_ip("a1", f))) for f in (4, 6)}
                load_rules(lab, place, _table(rules))
            for node in "CD":
                flip(lab, node, "A")
            yield lab

    def move(self, lab: Lab, origin: str, to: str) -> Move:
        return Move(lab, to, self.late_s)
