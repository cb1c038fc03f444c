"""A director and four agents as processes, with real engines: from nothing to a Global Network, and a move
of it under traffic that comes by both distribution points."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.director import render
from ipshare.lab import Lab, LabSpec, traffic
from ipshare.lab.internet import global_ip
from tests.pki import Pki

ADDRESS = str(global_ip("a1", 4))
NODES = ("A", "B", "C", "D")
REMOTE = """
[remote]
listen = "{host}:7443"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/node-{name}.pem"
revoked = "{pki}/ca/revoked.pem"
"""
DIRECTOR = """
[director]
name = "d"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/director-d.pem"
revoked = "{pki}/ca/revoked.pem"
state_dir = "{dir}/director"
runtime_dir = "{dir}/director-run"
interval = "100ms"
stale_after = "3s"
"""


class World:
    """Node files with nothing that a director assigns, and the director's file, in its namespace of C."""

    def __init__(self, lab: Lab, pki: Pki) -> None:
        self.lab, self.pki = lab, pki
        self.file = lab.site_file("C").parent / "director.toml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.tables = {kind: self._found(kind) for kind in ("network", "endpoint", "distribution", "binding")}
        pki.file("director", "d")
        for name in NODES:
            self._strip(name)
        self.write("A")

    def _found(self, kind: str) -> list[dict[str, Any]]:
        rows = tomllib.loads(self.lab.site_file("C").read_text())[kind]
        return [{key: value for key, value in row.items() if key != "self"} for row in rows]

    def _strip(self, name: str) -> None:
        self.pki.file("node", name)
        file = self.lab.site_file(name)
        own = file.read_text().partition("[[network]]")[0]
        file.write_text(own + REMOTE.format(host=self.lab.address(name, 4), pki=self.pki.folder, name=name))

    def write(self, target: str) -> None:
        text = DIRECTOR.format(pki=self.pki.folder, dir=self.file.parent)
        for name in NODES:
            role = "endpoint" if name in "AB" else "distribution"
            host = self.lab.address(name, 4)
            text += f'[[node]]\nname = "{name}"\naddress = "{host}:7443"\n{role} = "{name}"\n'
        rows = [{**row, "to": target} for row in self.tables["binding"]]
        self.file.write_text(text + render.text(self.tables | {"binding": rows}))

    def start(self, name: str) -> None:
        file = self.lab.site_file(name)
        prefix, log = self.lab.command(name, []), file.parent / "agent.log"
        self.processes[name] = spawn(file, prefix=prefix, log=log)

    def direct(self) -> None:
        verb, log = ("director", "run", "-c"), self.file.with_name("director.log")
        self.processes["director"] = spawn(self.file, prefix=self.lab.command("C", []), log=log, verb=verb)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def ask(self, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "ipshare", "director", *words, "-c", str(self.file), "--json"]
        found: dict[str, Any] = json.loads(self.lab.run("C", command, timeout_s=120))
        return found

    def has_acked(self, name: str) -> bool:
        """What counts, as the director knows."""
        return any(n["name"] == name and n["outcome"] == "acked" for n in self.ask("status")["nodes"])

    def agent(self, name: str) -> dict[str, Any]:
        with AgentClient(self.lab.site_file(name).parent / "run") as agent:
            return agent.call("status")


@contextmanager
def world(folder: Path) -> Iterator[World]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(LabSpec(families=(4,))))
        made = World(lab, Pki(folder))
        stack.callback(lambda: [made.kill(name) for name in made.processes])
        yield made


def test_s1_9_from_nothing_and_a_move_under_traffic(tmp_path: Path) -> None:
    with world(tmp_path) as here, traffic.serve(here.lab, "a1", "b1"):
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(here.start, NODES))
        here.direct()
        assert here.ask("apply", "--wait", "60s")["settled"]
        flows = traffic.Udp(ADDRESS, flows=5, datagrams=250, pause_s=0.01, expect=("a1", "b1"))
        running = [traffic.start(here.lab, client, flows) for client in ("c1", "c3")]
        for one in running:
            one.wait_begun()
        here.write("B")
        assert here.ask("apply", "--why", "move it", "--wait", "60s")["settled"]
        for one in running:
            report = one.result()
            assert report.is_clean, report
        for client in ("c1", "c3"):
            tcp = traffic.Tcp(ADDRESS, connections=3, expect=("b1",))
            assert traffic.start(here.lab, client, tcp).result().is_clean, client

        # without a director, and without its agent, D goes on; both come back, and D is caught up
        here.kill("director")
        here.kill("D")
        here.direct()
        here.write("A")
        command = [sys.executable, "-m", "ipshare", "director", "apply", "--wait", "2s", "-c", str(here.file)]
        with_silent = subprocess.run(
            here.lab.command("C", command), capture_output=True, text=True, check=False
        )
        assert with_silent.returncode == 6, with_silent
        assert "silent" in with_silent.stdout
        while not here.has_acked("C"):
            pass  # each look is a command
        for client in ("c1", "c3"):  # by C from A, by D from B: each is served
            tcp = traffic.Tcp(ADDRESS, connections=3, expect=("a1" if client == "c1" else "b1",))
            assert traffic.start(here.lab, client, tcp).result().is_clean, client
        here.start("D")
        assert here.ask("apply", "--wait", "60s")["settled"]
        tcp = traffic.Tcp(ADDRESS, connections=3, expect=("a1",))
        assert traffic.start(here.lab, "c3", tcp).result().is_clean
        assert here.agent("D")["assigned"]["has"][1:] == [3, 1]
        assert here.agent("D")["remote"]["counters"]["requests"] > 0
