"""A policy changes its weights and loses a member while connections of both families send: none breaks; with
nothing kept of what was before, some do (DESIGN.md 4).

One lab: two distribution points, two end points behind GUE, clients with several addresses each, so that
shares mean something. Files are written and applied node by node, as people do it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipshare.api import Node
from ipshare.lab.agents import lab_with_agents
from ipshare.lab.internet import CLIENTS, LabSpec, global_ip
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import Running, Tcp, TcpReport, serve, start
from tests.pair_lab import until
from tests.remap_agents import established

pytestmark = pytest.mark.lab
HELD, STEPS = 20, 32  # connections of each client and family; what each sends, a quarter of a second apart
ENDS = {4: 5, 6: 12}  # addresses of each client


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_with_agents(LabSpec(path="gue", channel="gue")) as lab, serve(lab, "a1", "b1"):
        texts = {name: lab.site_file(name).read_text() for name in "ABCD"}
        lab.texts = texts  # type: ignore[attr-defined]
        for client in CLIENTS:
            device = "r2" if client == "c3" else "r1"
            for family, bits in ((4, 29), (6, 64)):
                for address in sources(lab, client, family)[1:]:
                    words = ["nodad"] if family == 6 else []
                    lab.run(client, ["ip", "addr", "add", f"{address}/{bits}", "dev", device, *words])
        yield lab


def sources(lab: Lab, client: str, family: int) -> tuple[str, ...]:
    first = lab.address(client, family)
    return tuple(str(first + n) for n in range(ENDS[family]))


def change(lab: Lab, drain: str = "15m", **weights: int) -> None:
    """At the end points first: who is sent what it does not know has to know what to do with it."""
    members = ", ".join(f'{{ endpoint = "{name}", weight = {weight} }}' for name, weight in weights.items())
    policy = f'[[policy]]\nname = "both"\nmembers = [{members}]\ndrain = "{drain}"\n'
    policy += "client_bits = { v4 = 32, v6 = 128 }\n"
    for name in "BACD":
        text = lab.texts[name]  # type: ignore[attr-defined]
        text = text.replace('to = "A"', 'policy = "both"').replace('track = "always"\n', "") + policy
        lab.site_file(name).write_text(text)
        with Node(lab.site_file(name)) as node:
            node.apply()


def begin(lab: Lab, connections: int, steps: int = 1) -> list[Running[TcpReport]]:
    running = []
    for number, (client, family) in enumerate(itertools.product(CLIENTS, (4, 6))):
        tcp = Tcp(
            str(global_ip("a1", family)),
            connections or ENDS[family],
            500 * steps,
            chunks=steps,
            pause_s=0.25,
            spread_s=1.0,
            timeout_s=90,
            seed=number,
            sources=sources(lab, client, family),
        )
        running.append(start(lab, client, tcp))
    for each in running:
        each.wait_begun()
    return running


def all_open(lab: Lab) -> None:
    """The load is at its height: what is held is open, at either server."""
    until(lambda: sum(established(lab, server) for server in ("a1", "b1")) >= len(CLIENTS) * 2 * HELD)


def results(running: list[Running[TcpReport]]) -> list[TcpReport]:
    with ThreadPoolExecutor(len(running)) as pool:
        return list(pool.map(lambda each: each.result(), running))


def where(lab: Lab) -> list[str]:
    """Who serves what is opened now, by client, family and address."""
    found = results(begin(lab, 0))
    assert all(report.is_clean for report in found), found
    return [record.server for report in found for record in report.records]


def servers(reports: list[TcpReport]) -> list[str]:
    return [record.server for report in reports for record in report.records]


def test_weights_change_and_a_member_goes_and_nothing_breaks(lab: Lab) -> None:
    change(lab, A=1, B=1)
    before = where(lab)
    held = begin(lab, HELD, STEPS)
    all_open(lab)
    change(lab, A=1, B=3)
    after = where(lab)
    assert {(was, now) for was, now in zip(before, after, strict=True) if was != now} == {("a1", "b1")}
    reports = results(held)
    assert len(servers(reports)) == 120 and all(report.is_clean for report in reports), reports
    assert servers(reports).count("a1") > servers(results(begin(lab, HELD))).count("a1")

    held = begin(lab, HELD, STEPS)
    all_open(lab)
    change(lab, B=3)
    assert set(where(lab)) == {"b1"}
    reports = results(held)
    assert all(report.is_clean for report in reports), reports
    assert set(servers(reports)) == {"a1", "b1"}


def test_with_nothing_kept_what_moves_breaks(lab: Lab) -> None:
    change(lab, "0s", A=1, B=1)
    held = begin(lab, HELD, STEPS)
    all_open(lab)
    change(lab, "0s", A=1, B=3)
    reports = results(held)
    assert 0 < sum(report.failed for report in reports) < 120, reports
