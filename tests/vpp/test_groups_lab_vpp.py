"""S5 with VPP at both nodes: tests/lab/test_groups_lab.py as it is, with one table and with two.

What World tells a node's kernel goes into the node's file here. With two tables the members' interfaces are
in the delivery table, and every route is in both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipshare.engine.vpp.engine import VppEngine
from ipshare.lab import userns
from tests.engine_lab import run
from tests.lab.test_groups_lab import (
    World,
    bits,
    serving,
    test_an_application_keeps_its_database_through_two_moves,
)
from tests.vpp.agent_lab import MANAGED

__all__ = ["test_an_application_keeps_its_database_through_two_moves"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
UPLINKS = {"P": 2, "B": 3}


class VppWorld(World):
    """``delivery``: the number of that table."""

    delivery = 0

    def __init__(self, directory: Path) -> None:
        self.ports: dict[str, dict[int, list[str]]] = {node: {} for node in UPLINKS}
        self.routes: dict[str, dict[str, str]] = {node: {} for node in UPLINKS}
        self.mtus: dict[int, int] = {}
        self.plugged: tuple[str, int] | None = None
        super().__init__(directory)

    def cable(self, one: str, other: str, link: int, mtu: int) -> None:
        self.mtus[link] = mtu
        super().cable(one, other, link, mtu)

    def on(self, name: str, *commands: str) -> None:
        for command in commands:
            if name not in UPLINKS or not self._noted(name, command.split()):
                super().on(name, command)
            if name in UPLINKS and command.endswith(" up"):
                device = command.split()[3]
                run(self.names[name], f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1")

    def _noted(self, node: str, words: list[str]) -> bool:
        """What is VPP's business."""
        if words[1:3] == ["address", "add"]:
            self.ports[node].setdefault(int(words[words.index("dev") + 1][1:]), []).append(words[3])
        elif "route" in words:
            to, via = words[words.index("add") + 1], words[-1]
            everything = "0.0.0.0/0" if "." in via else "::/0"
            self.routes[node][everything if to == "default" else f"{to}/{bits(to)}"] = via
        else:
            return False
        return True

    def place(self, router: str, link: int, now: tuple[str, ...]) -> None:
        if self.plugged is not None and self.plugged[0] in UPLINKS:
            node, old = self.plugged
            del self.ports[node][old]
            self.routes[node] = {to: via for to, via in self.routes[node].items() if _link(via) != old}
        self.plugged = (router, link)
        super().place(router, link, now)

    def write(self, node: str, groups: str) -> Path:
        file = super().write(node, groups)
        file.write_text(file.read_text() + "\n".join(self._sections(node)) + "\n")
        return file

    def _sections(self, node: str) -> Iterator[str]:
        yield f'[engine]\nkind = "vpp"\ncounter_cells = 1024\n[vpp]\n{MANAGED}'
        if self.delivery:
            yield f"delivery_table = {self.delivery}"
        for link, addresses in self.ports[node].items():
            quoted = ", ".join(f'"{address}"' for address in addresses)
            yield f'[[interface]]\nname = "host-l{link}"\nhost = "l{link}"\naddresses = [{quoted}]'
            yield f"mtu = {self.mtus[link]}"
            if self.delivery and link != UPLINKS[node]:
                yield 'table = "delivery"'
        for to, via in self.routes[node].items():
            for table in ("service", "delivery") if self.delivery else ("service",):
                yield f'[[route]]\nprefix = "{to}"\nvia = "{via}"\ninterface = "host-l{_link(via)}"'
                yield f'table = "{table}"'

    def traces(self, node: str) -> tuple[str, ...]:
        run_dir = self.directory / f"run-{node}" / "vpp"
        engine = VppEngine(run_dir / "api.sock", run_dir / "stats.sock")
        with contextlib.closing(engine):
            shown = engine.client.cli("show ipshare prefixes")
            peers = [
                str(ip_address(bytes(peer[name])[: 4 if peer["family"] == 4 else 16]))
                for peer in engine.read().peers
                for name in ("address", "now")
            ]
        return (shown, *peers)


def _link(address: str) -> int:
    """10.9.LINK.END, fd00:9:LINK::END."""
    return int(address.split(".")[2] if "." in address else address.split(":")[2])


class TwoTables(VppWorld):
    delivery = 1


@pytest.fixture(params=[VppWorld, TwoTables], ids=["one-table", "two-tables"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with serving(request.param(tmp_path)) as made:
        yield made
