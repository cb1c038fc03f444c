"""Two directors on a real etcd, four agents, real engines: the leader is killed in the middle of a roll-out,
is paused and goes on, resigns; etcd stands still and is started again. Traffic goes on through all of it.

A slow machine may cost a leader its seat: either director may lead when the two have not been disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.assignment import digest_of
from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.certs.contexts import Contexts
from ipshare.director import config
from ipshare.director.link import Link
from ipshare.errors import IpshareError, NotRunning, Refused
from ipshare.lab import Lab, LabSpec, traffic
from tests.etcd_world import EtcdServer
from tests.lab.test_director_lab import ADDRESS, NODES, World
from tests.pki import Pki

AT = {"d1": "C", "d2": "D"}
STORE = """
[store]
kind = "etcd"
endpoints = ["{url}"]
lease = "5s"
timeout = "1s"
margin = "1s"
"""
PATIENCE_S = 60.0


def until(claim: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := claim()):
        assert time.monotonic() < end, claim
        time.sleep(0.05)
    return found


class Two(World):
    """Directors d1 at C and d2 at D, each with a file of its own that says the same."""

    def __init__(self, lab: Lab, pki: Pki, etcd: EtcdServer) -> None:
        self.etcd = etcd
        super().__init__(lab, pki)

    def write(self, target: str) -> None:
        super().write(target)
        text = self.file.read_text()
        for name, at in AT.items():
            self.pki.file("director", name)
            own = text.replace("director-d.pem", f"director-{name}.pem").replace(
                'name = "d"', f'name = "{name}"'
            )
            folder = self.lab.site_file(at).parent
            own = own.replace(f"{self.file.parent}/director", f"{folder}/{name}")
            head, rest = own.split("[[node]]", 1)
            self.path(name).write_text(f"{head}{STORE.format(url=self.etcd.url)}[[node]]{rest}")

    def path(self, name: str) -> Path:
        return self.lab.site_file(AT[name]).parent / f"{name}.toml"

    def begin(self, name: str) -> None:
        prefix, log = self.lab.command(AT[name], []), self.path(name).with_suffix(".log")
        self.processes[name] = spawn(self.path(name), prefix=prefix, log=log, verb=("director", "run", "-c"))

    def tell(self, name: str, verb: str, **words: Any) -> dict[str, Any]:
        socket = self.lab.site_file(AT[name]).parent / f"{name}-run" / "director.sock"
        with AgentClient(socket.parent, timeout_s=PATIENCE_S, path=socket) as director:
            return director.call(verb, **words)

    def status(self, name: str) -> dict[str, Any]:
        """{}: it is between two reigns."""
        with contextlib.suppress(NotRunning):
            return self.tell(name, "status")
        return {}

    def leader(self, *names: str) -> str:
        """Who leads, as soon as one of them says so."""
        return until(lambda: next((n for n in names if self.status(n).get("leads")), ""))  # type: ignore[no-any-return]

    def apply(self, target: str, *names: str) -> int:
        """At whoever leads then; the revision."""
        self.write(target)

        def once() -> int:
            with contextlib.suppress(IpshareError):
                return int(self.tell(self.leader(*names), "apply", why=f"to {target}")["revision"])
            return 0

        return until(once)  # type: ignore[no-any-return]

    def is_settled(self, revision: int, *names: str) -> bool:
        found = self.status(self.leader(*names))
        return bool(found) and found["settled"] and found["revision"] == revision

    def signal(self, name: str, number: int) -> None:
        os.kill(self.processes[name].pid, number)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Two]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(LabSpec(families=(4,))))
        etcd = EtcdServer(
            str(lab.address("C", 4)),
            prefix=lab.command("C", []),
            inside=lambda job: lab.inside("C", job),
        )
        stack.enter_context(traffic.serve(lab, "a1", "b1"))
        stack.callback(etcd.end)
        etcd.start()
        made = Two(lab, Pki(tmp_path), etcd)
        stack.callback(lambda: [made.kill(name) for name in made.processes])
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(made.start, NODES))
        made.begin("d1")
        made.leader("d1")
        made.begin("d2")
        yield made


def served_by(here: Two, server: str) -> None:
    """By both distribution points."""
    for client in ("c1", "c3"):
        report = traffic.start(
            here.lab, client, traffic.Tcp(ADDRESS, connections=2, expect=(server,))
        ).result()
        assert report.is_clean, (client, report)


def killed_in_a_rollout(here: Two) -> None:
    until(lambda: here.status("d2").get("leader", "").startswith("d1 at "))
    assert not here.status("d2")["leads"]
    with pytest.raises(Refused, match="d1 at .* leads"):
        here.tell("d2", "apply", why="at the wrong one")
    until(lambda: here.is_settled(1, "d1"))
    until(lambda: here.status("d2")["revision"] == 1)
    assert here.tell("d2", "history")["revisions"][0]["who"] == "start"
    assert 'to = "A"' in here.tell("d2", "show", node="C")["final"]
    here.signal("D", signal.SIGSTOP)  # it cannot be reached: the roll-out stays in the middle
    revision = here.apply("B", "d1")
    waits = until(lambda: {n["name"]: n for n in here.status("d1")["nodes"]}["C"]["outcome"] == "acked")
    assert waits and not here.status("d1")["settled"]
    here.kill("d1")
    here.signal("D", signal.SIGCONT)
    until(lambda: here.is_settled(revision, "d2"))
    assert here.status("d2")["term"] == 2
    served_by(here, "b1")


def paused_through_its_lease(here: Two, pki: Pki) -> None:
    here.begin("d1")
    paused, other = ("d2", "d1") if here.leader("d1", "d2") == "d2" else ("d1", "d2")
    old = here.status(paused)["term"]
    here.signal(paused, signal.SIGSTOP)
    revision = here.apply("A", other)
    until(lambda: here.is_settled(revision, other))
    assert here.status(other)["term"] > old
    here.signal(paused, signal.SIGCONT)
    until(lambda: here.status(paused).get("leader", "").startswith(f"{other} at "))
    assert not here.status(paused).get("leads"), "it stands by, of itself"
    # and what it would have sent is refused by each node, whoever sends it
    files, text = config.settings(here.path(paused)).files, here.tell(other, "show", node="A")["final"]
    words = {"number": [old, 99, 1], "digest": digest_of(text), "text": text}

    async def late(name: str) -> str:
        link = Link(name, f"{here.lab.address(name, 4)}:7443", Contexts(files, server=False))
        try:
            await link.ask("assign", PATIENCE_S, **words)
        except Refused as error:
            return error.message
        finally:
            link.close()
        return ""

    for name in NODES:
        before = here.agent(name)["assigned"]["stale_refused"]
        assert "term" in here.lab.inside("C", lambda n=name: asyncio.run(late(n)))  # type: ignore[misc]
        assert here.agent(name)["assigned"]["stale_refused"] == before + 1
    served_by(here, "a1")


def etcd_stands_still(here: Two) -> None:
    leads = here.leader("d1", "d2")
    revision, server = here.status(leads)["revision"], here.etcd.process
    assert server is not None
    os.kill(server.pid, signal.SIGSTOP)
    said = until(lambda: [text for text in here.status(leads).get("troubles", ()) if "etcd" in text])
    assert "etcd does not" in said[0]
    until(lambda: not here.status(leads).get("leads", True))
    with pytest.raises(Refused, match="etcd does not confirm that this director leads"):
        here.tell(leads, "apply", again=1, why="while etcd is away")
    assert {node["state"] for node in here.status(leads)["nodes"]} == {"alive"}, "it looks at them still"
    served_by(here, "a1")
    os.kill(server.pid, signal.SIGCONT)
    until(lambda: here.is_settled(revision, "d1", "d2"))


def etcd_is_started_again_and_the_leader_resigns(here: Two) -> None:
    leads = here.leader("d1", "d2")
    here.etcd.kill()
    until(lambda: any("etcd" in text for text in here.status(leads).get("troubles", ())))
    here.etcd.start()
    revision = here.apply("B", "d1", "d2")
    until(lambda: here.is_settled(revision, "d1", "d2"))
    leads = here.leader("d1", "d2")
    [other] = {"d1", "d2"} - {leads}
    here.signal(leads, signal.SIGTERM)
    assert here.processes[leads].wait(PATIENCE_S) == 0
    assert here.leader(other) == other
    until(lambda: here.is_settled(revision, other))
    assert here.status(other)["troubles"] == []


def test_two_directors_on_etcd(here: Two) -> None:
    flows = traffic.Udp(ADDRESS, flows=3, datagrams=200, pause_s=0.05, expect=("a1", "b1"))
    until(lambda: here.is_settled(1, "d1"))
    running = [traffic.start(here.lab, client, flows) for client in ("c1", "c3")]
    killed_in_a_rollout(here)
    paused_through_its_lease(here, here.pki)
    etcd_stands_still(here)
    etcd_is_started_again_and_the_leader_resigns(here)
    for one in running:
        report = one.result()
        assert report.is_clean, report
