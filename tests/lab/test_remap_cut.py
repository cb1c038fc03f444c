"""A channel between end points that is cut while connections drain over it: real agents and engines (S4).

Router r1 drops what A and B send each other: packets of the channel, and what the giver tells. Clients
and distribution points reach both. A cut that ends: what went over the channel goes on, the giver is heard
again, nothing breaks. One that does not: the drain ends at its deadline and names each connection that it
cost. Sessions live long here, so that a silence is no end.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from ipshare.lab.agents import start_agent
from ipshare.lab.internet import LabSpec, channel_addresses, kernel_address
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import serve
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from tests.pair_lab import until
from tests.remap_agents import PREFIXES, Talkers, halves, move, server_of, talkers

pytestmark = pytest.mark.lab
CLIENTS = ("c1", "c3")  # by distribution point C and by D
LONG = {'tcp_open = "8s"': 'tcp_open = "300s"', 'udp = "4s"': 'udp = "300s"'}
OBSERVED = ('track = "always"', 'track = "always"\nobserve = "both"')


class PatientLab(Lab):
    """Whose sessions end when they are closed, and whose giver sees both directions: it counts exactly."""

    def write_site(self, node: str, *, target: str) -> Path:
        path = super().write_site(node, target=target)
        text = path.read_text()
        for old, new in (*LONG.items(), OBSERVED):
            assert old in text, f"{node}'s file has no {old}"
            text = text.replace(old, new)
        path.write_text(text)
        return path


@contextlib.contextmanager
def patient_lab(spec: LabSpec) -> Iterator[Lab]:
    with PatientLab(spec, start=start_agent) as lab, serve(lab, "a1", "b1"):
        yield lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with patient_lab(LabSpec(channel="ipip", replies="tunnel")) as lab:
        yield lab


def cut(lab: Lab) -> None:
    """Both directions."""
    ends = {
        name: ", ".join(map(str, (*channel_addresses(lab.spec, name), kernel_address(lab.spec, name, 4))))
        for name in "AB"
    }
    rules = [f"ip saddr {{ {ends[a]} }} ip daddr {{ {ends[b]} }} counter drop" for a, b in ("AB", "BA")]
    text = "table inet cut {\n chain forward {\n  type filter hook forward priority 0;\n  "
    _nft(lab, text + "\n  ".join(rules) + "\n }\n}\n")


def heal(lab: Lab) -> None:
    _nft(lab, "table inet cut {}\ndelete table inet cut\n")


def _nft(lab: Lab, text: str) -> None:
    subprocess.run(lab.command("r1", ["nft", "-f", "-"]), input=text, text=True, check=True)


class Watch:
    """An onlooker of a remap: whether it drains, what its two nodes say of the channel."""

    def __init__(self, giver: str) -> None:
        self.giver, self.drains, self.view = giver, Event(), View()

    def __call__(self, progress: Progress, view: View) -> None:
        self.view = view
        if progress.step is Step.DRAINING:
            self.drains.set()

    @property
    def is_heard(self) -> bool:
        """The giver hears the taker, who has everything."""
        state = self.view.states[self.giver]
        return "heard" in state.notes and state.is_ready

    @property
    def resyncs(self) -> int:
        return self.view.states[self.giver].resyncs


def stands_still(made: Talkers) -> bool:
    """Connections wait for what they have said; asked some times in a row."""
    now = [talker.rounds for talker in made.each]
    return not any(Event().wait(0.1) or [talker.rounds for talker in made.each] != now for _ in range(5))


def speak_on(made: Talkers) -> None:
    now = [talker.rounds for talker in made.each]
    until(lambda: all(t.rounds > n + 1 or t.fault for t, n in zip(made.each, now, strict=True)))


def test_a_channel_that_is_cut_while_it_drains_and_comes_back_breaks_nothing(lab: Lab) -> None:
    watch, address = Watch("A"), PREFIXES[0].split("/")[0]
    with talkers(lab, CLIENTS, (4,), tcp=3, udp=0) as made, ThreadPoolExecutor(1) as pool:
        going = pool.submit(move, lab, PREFIXES[0], "A", "B", on_change=watch)
        assert watch.drains.wait(60)
        until(lambda: watch.is_heard)
        before = watch.resyncs
        cut(lab)
        until(lambda: not watch.is_heard and stands_still(made))
        assert {server_of(lab, client, address) for client in CLIENTS} == {"b1"}, "new ones need no channel"
        heal(lab)
        speak_on(made)
        until(lambda: watch.is_heard)
        assert watch.resyncs > before and not going.done()
        made.hush()
        done = going.result(120)
        assert (done.step, done.cut, done.reason) == (Step.DONE, None, ""), done
        assert made.faults == []
    assert halves(lab) == []


def test_a_channel_that_stays_cut_costs_the_connections_that_the_deadline_names(lab: Lab) -> None:
    watch, lost = Watch("A"), 0

    def look(progress: Progress, view: View) -> None:
        if progress.step is Step.DRAINING and not watch.drains.is_set():
            cut(lab)
        watch(progress, view)

    try:
        with talkers(lab, CLIENTS, (6,), tcp=3) as made:
            ends = {talker.client.getsockname()[1] for talker in made.each}
            done = move(lab, PREFIXES[1], "A", "B", deadline_s=3.0, on_change=look)
            assert watch.drains.is_set() and done.step is Step.DONE and done.cut is not None, done
            assert (done.cut.count, done.cut.is_exact) == (len(made.each), True), done.cut
            named = {int(words.split(" > ")[0].rsplit(":", 1)[1]) for words in done.cut.flows}
            assert named == ends and len(done.cut.flows) == len(ends), done.cut
            until(lambda: all(talker.fault for talker in made.each if talker.is_tcp))
            lost = len(made.faults)
        assert lost == sum(talker.is_tcp for talker in made.each), "what was named is what broke"
        assert made.servers == {"a1", "b1"}, "a flow of UDP goes on at the taker"
    finally:
        heal(lab)
    assert halves(lab) == []
