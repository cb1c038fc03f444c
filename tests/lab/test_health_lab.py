"""Failover with real agents, engines and a director, of a service that opens a port: once because its end
point is cut off from the director alone, once because its agent and its engine are killed. Never two at once,
by what the start and stop commands wrote down on one clock."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.lab import Lab, LabSpec
from ipshare.lab.netns import NETNS_DIR
from tests.lab.test_director_lab import ADDRESS, NODES, World
from tests.pki import Pki

PORT = 7070
SERVER = """
import contextlib, socket, sys
with socket.create_server(("", {port})) as listening:
    open(sys.argv[2], "w").close()
    while True:
        plug, _ = listening.accept()
        with plug, contextlib.suppress(OSError):  # a probe resets it
            plug.sendall(sys.argv[1].encode())
"""
HOOK = """#!/bin/sh
# VERB NAME NAMESPACE FOLDER; a begin and an end in FOLDER/events for each time that it may have run
now() {{ cut -d' ' -f1 /proc/uptime; }}
cd "$4" || exit 1
runs() {{ test -e "$2.pid" && kill -0 "$(cat "$2.pid")" 2> /dev/null; }}
case "$1" in
start)
    runs "$@" && exit 0
    echo "begin $2 $(now)" >> events
    rm -f "$2.ready"
    nsenter --net="$3" {python} server.py "$2" "$2.ready" > /dev/null 2>&1 &
    echo $! > "$2.pid"
    while test ! -e "$2.ready"; do sleep 0.05; done ;;
stop)
    runs "$@" || exit 0
    kill "$(cat "$2.pid")"
    while runs "$@"; do sleep 0.05; done
    echo "end $2 $(now)" >> events ;;
status) runs "$@" ;;
esac
"""
WORKLOAD = """
[[workload]]
name = "shop"
start = ["{hook}", "start", "{server}", "{netns}", "{folder}"]
stop = ["{hook}", "stop", "{server}", "{netns}", "{folder}"]
status = ["{hook}", "status", "{server}", "{netns}", "{folder}"]
stop_time = "3s"
"""
ROOM = 'capacity = 1\nsite = "here"\n'
WARDEN = """
[[site]]
name = "here"
[health]
interval = "400ms"
stale = "4s"
[[health.probe]]
workload = "shop"
port = {port}
[failover]
mode = "automatic"
after = "2s"
lease = "6s"
stop_time = "3s"
[[workload]]
name = "shop"
node = "A"
addresses = ["{address}/32"]
[[binding]]
global = "{address}/32"
to = "A"
"""


class Shop(World):
    """The lab of a director, with a workload that a1 or b1 can be, and what happened to it."""

    def __init__(self, lab: Lab, pki: Pki, folder: Path) -> None:
        self.folder, self.hook = folder, folder / "hook"
        (folder / "server.py").write_text(SERVER.format(port=PORT))
        self.hook.write_text(HOOK.format(python=sys.executable))
        self.hook.chmod(0o755)
        super().__init__(lab, pki)

    def _strip(self, name: str) -> None:
        super()._strip(name)
        server = {"A": "a1", "B": "b1"}.get(name)
        if server is not None:
            netns = NETNS_DIR / self.lab.namespace(server)
            with self.lab.site_file(name).open("a") as file:
                file.write(WORKLOAD.format(hook=self.hook, server=server, netns=netns, folder=self.folder))

    def write(self, target: str) -> None:
        super().write(target)
        text = self.file.read_text()
        for name in "AB":
            text = text.replace(f'\nendpoint = "{name}"\n', f'\nendpoint = "{name}"\n{ROOM}')
        self.file.write_text(text + WARDEN.format(address=ADDRESS, port=PORT))

    def call(self, verb: str) -> dict[str, Any]:
        """The director, without a command line's start."""
        folder = self.file.parent / "director-run"
        with AgentClient(folder, path=folder / "director.sock") as director:
            return director.call(verb)

    def workload(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.call("failover")["workloads"]
        return found[0] if found else {}

    def who(self, client: str) -> str:
        """Who answers at the Global IP; "": nobody."""

        def ask() -> str:
            try:
                with socket.create_connection((ADDRESS, PORT), 1.0) as plug:
                    return plug.recv(100).decode()
            except OSError:
                return ""

        return self.lab.inside(client, ask)

    def runs(self) -> list[tuple[float, str, str]]:
        """(time, server, begin or end), in the order in which it was written."""
        lines = [line.split() for line in (self.folder / "events").read_text().splitlines()]
        return [(float(at), server, what) for what, server, at in lines]

    def cut_off(self, node: str, on: bool) -> None:
        rule = ["-p", "tcp", "--dport", "7443", "-j", "DROP"]
        self.lab.run(node, ["iptables", "-I" if on else "-D", "INPUT", *rule])


@contextmanager
def shop(folder: Path) -> Iterator[Shop]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(LabSpec(families=(4,))))
        made = Shop(lab, Pki(folder), folder)
        stack.callback(lambda: [made.kill(name) for name in made.processes])
        try:
            yield made
        except AssertionError:
            print(made.call("failover"), made.call("health"), made.runs())
            print(made.file.with_name("director.log").read_text()[-4000:])
            raise


def until(is_so: Callable[[], bool], within_s: float = 90.0) -> None:
    ends = time.monotonic() + within_s
    while not is_so():  # both ends of it are in other processes
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.2)


def one_at_a_time(runs: list[tuple[float, str, str]]) -> list[str]:
    """Who had it, one after the other."""
    order = []
    for before, (at, server, what) in zip([(0.0, "", "end"), *runs], runs, strict=False):
        assert (before[2], what) in (("end", "begin"), ("begin", "end")), runs
        assert what == "begin" or before[1] == server, runs
        assert at >= before[0], runs
        order += [server] if what == "begin" else []
    return order


def test_s1_10_an_exclusive_workload_fails_over_and_never_runs_twice(tmp_path: Path) -> None:
    with shop(tmp_path) as here:
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(here.start, NODES))
        here.direct()
        until(lambda: here.workload().get("state") == "running")
        until(lambda: here.who("c1") == here.who("c3") == "a1")
        up = {"workload shop": "up", "end point A": "up", "end point B": "up"}
        until(lambda: {row["name"]: row["state"] for row in here.call("health")["targets"]} == up)

        # cut off from the director alone: A lives, and forwards, and has to stop it by itself
        here.cut_off("A", True)
        until(lambda: here.who("c1") == here.who("c3") == "b1")
        assert one_at_a_time(here.runs()) == ["a1", "b1"]
        until(lambda: here.workload()["state"] == "running")
        found = here.workload()
        assert (found["node"], found["freed"]) == ("B", "expired"), found
        until(lambda: here.call("status")["who"] == "failover")
        assert "shop from A to B" in here.call("status")["why"]
        here.cut_off("A", False)
        until(lambda: all(node["state"] == "alive" for node in here.call("health")["nodes"]))

        # B's agent and engine are killed: nobody is left there but who keeps it to its lease
        engine = here.agent("B")["engine_pid"]
        here.kill("B")
        subprocess.run(["kill", "-9", str(engine)], check=True)
        until(lambda: here.who("c1") == here.who("c3") == "a1")
        assert one_at_a_time(here.runs()) == ["a1", "b1", "a1"]
        until(lambda: here.call("status")["revision"] == 3)
        why = here.call("status")["why"]
        assert "shop from B to A" in why, why
        assert "is down (C: does not answer; D: does not answer)" in why, why
        assert "shop expired" in why, why
        until(lambda: here.call("failover")["cases"] == [])
