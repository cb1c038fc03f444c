"""Remaps on real engines and agents, under load: an address goes from A to B and back, nothing breaks (S4).

One lab for all of it: TCP in both families that stays open, UDP flows, new connections all the time. They go
there with one distribution point late, and back; then what is refused, and a deadline that names its cut.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ipshare.errors import NotRunning
from ipshare.lab.agents import lab_with_agents
from ipshare.lab.internet import CLIENTS, LabSpec, global_ip
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import Running, Tcp, TcpReport, Udp, UdpReport, serve, start
from ipshare.remap import NotPossible
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from ipshare.remap.nodes import AgentNode
from tests.pair_lab import until
from tests.remap_agents import PREFIXES, established, halves, move, sockets

pytestmark = pytest.mark.lab
HELD, FLOWS = 34, 4  # of each client and family
OPEN_S = 12.0
"""How long what is opened before a remap stays open: longer than it takes, on a busy machine too."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_with_agents(LabSpec(channel="ipip")) as lab, serve(lab, "a1", "a2", "b1"):
        yield lab


class Late(AgentNode):
    """A distribution point that does not answer its first requests to flip."""

    def __init__(self, socket: Path, times: int) -> None:
        super().__init__(socket)
        self.left = times

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if verb == "remap_bind" and self.left:
            self.left -= 1
            raise NotRunning("not yet")
        return super().ask(verb, **arguments)


@dataclass
class Load:
    """What is open when a remap begins, and what is opened while it runs."""

    held: list[Running[TcpReport]] = field(default_factory=list)
    udp: list[Running[UdpReport]] = field(default_factory=list)
    fresh: list[Running[TcpReport]] = field(default_factory=list)

    @classmethod
    def begin(cls, lab: Lab, server: str, other: str) -> Load:
        """Everything that is held is expected to stay at ``server``, to its last byte."""
        load, seed = cls(), itertools.count(1)
        for client, family in itertools.product(CLIENTS, (4, 6)):
            address, steps = str(global_ip("a1", family)), int(OPEN_S / 0.25)
            held = Tcp(
                address, HELD, 500 * steps, chunks=steps, pause_s=0.25, spread_s=1.0, timeout_s=120,
                expect=(server,), seed=next(seed),
            )  # fmt: skip
            flows = Udp(
                address, FLOWS, 10, (64, 700), OPEN_S / (FLOWS * 10), timeout_s=10,
                expect=(server,), seed=next(seed),
            )  # fmt: skip
            fresh = Tcp(
                address, 80, 2_000, spread_s=OPEN_S, timeout_s=60, expect=(server, other), seed=next(seed)
            )
            load.held.append(start(lab, client, held))
            load.udp.append(start(lab, client, flows))
            load.fresh.append(start(lab, client, fresh))
        for running in (*load.held, *load.udp, *load.fresh):
            running.wait_begun()
        return load


def both(lab: Lab, origin: str, to: str, **options: Any) -> tuple[list[Progress], dict[Step, float]]:
    """Both families at once; when each step of the first began."""
    times: dict[Step, float] = {}

    def look(progress: Progress, view: View) -> None:
        times.setdefault(progress.step, time.monotonic())

    with ThreadPoolExecutor(2) as pool:
        going = [pool.submit(move, lab, prefix, origin, to, on_change=look, **options) for prefix in PREFIXES]
        return [each.result() for each in going], times


def there(lab: Lab, origin: str, to: str, **options: Any) -> None:
    """Under load; nothing breaks, and what is opened after the flip is opened at ``to``."""
    server, other = f"{origin.lower()}1", f"{to.lower()}1"
    load = Load.begin(lab, server, other)
    until(lambda: established(lab, server) >= len(CLIENTS) * 2 * HELD)  # the load is at its height
    done, times = both(lab, origin, to, **options)
    assert [progress.step for progress in done] == [Step.DONE, Step.DONE], done
    assert not any(progress.cut for progress in done)
    held, udp, fresh = ([running.result() for running in each] for each in (load.held, load.udp, load.fresh))
    assert sum(report.connections for report in held) >= 200
    for report in (*held, *fresh):
        assert report.is_clean, report
    assert all(report.is_clean for report in udp), udp
    late = [r for report in fresh for r in report.records if r.started > times[Step.DRAINING]]
    assert {record.server for record in late} <= {other}  # none, where the machine is slow
    assert {r.server for report in fresh for r in report.records} <= {server, other}
    after = [start(lab, client, Tcp(str(global_ip("a1", f)), 3)) for client in CLIENTS for f in (4, 6)]
    assert {name for running in after for name in running.result().servers} == {other}


def test_there_with_one_distribution_point_late_and_back_and_nothing_breaks(lab: Lab) -> None:
    late = sockets(lab) | {"D": Late(lab.directory / "D" / "run", 4)}
    there(lab, "A", "B", nodes=late)
    assert halves(lab) == []
    there(lab, "B", "A")
    assert halves(lab) == []


def test_refusals_by_what_real_agents_say(lab: Lab) -> None:
    with pytest.raises(NotPossible, match="not bound to B but to A"):
        move(lab, PREFIXES[0], "B", "A")
    nodes = sockets(lab) | {"D": lab.directory / "nowhere"}
    with pytest.raises(NotPossible, match="node D does not answer"):
        move(lab, PREFIXES[0], "A", "B", nodes=nodes)


def test_the_command_line_and_a_deadline_that_names_what_it_cuts(lab: Lab) -> None:
    address = global_ip("a2", 4)  # another one than before: nothing of its was open
    held = start(lab, CLIENTS[0], Tcp(str(address), 5, 6000, chunks=60, pause_s=0.5, timeout_s=60))
    until(lambda: established(lab, "a2") == 5)
    named = [word for name, path in sockets(lab).items() for word in ("--node", f"{name}={path}")]
    command = [sys.executable, "-m", "ipshare", "remap", f"{address}/32", "--from", "A", "--to", "B"]
    options = ["--json", "--silence", "0s", "--deadline", "1s", "--journal", str(lab.directory / "remaps")]
    done = subprocess.run(
        [*command, *options, *named], capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(done.stdout)
    flows = found["cut"]["flows"]
    assert found["step"] == "done" and found["cut"]["count"] == len(flows) == 5, found
    assert all(f"> {address}:7007" in flow and flow.endswith(" open") for flow in flows), flows
    assert held.result().failed == 5
    assert halves(lab) == []
