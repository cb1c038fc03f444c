"""A QEMU guest is migrated alive between two end points, with real agents, engines and director, while
clients at both distribution points talk to it: refused, failed half way, and done, when its whole site is
evacuated; the director is killed meanwhile, and one distribution point is late, so that the redirect has to
carry its packets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.client import AgentClient
from ipshare.agent.spawn import spawn
from ipshare.director import render
from ipshare.lab import Lab, LabSpec
from ipshare.lab.internet import site_prefix
from tests import guest_vm
from tests.guest_vm import Guest
from tests.pki import Pki

ADDRESS, HOST, PORT, INCOMING = "203.0.113.77", 77, 7, 4444
NODES = ("A", "B", "C", "D")
VM = Path(guest_vm.__file__).parent / "guest" / "vm.py"
LONG_S = 240.0
NODE = """
[remote]
listen = "{host}:7443"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/node-{name}.pem"
"""
DIRECTOR = """
[director]
name = "d"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/director-d.pem"
state_dir = "{dir}/director"
runtime_dir = "{dir}/director-run"
interval = "100ms"
stale_after = "10s"
patience = "60s"
"""
WORKLOAD = """
[[workload]]
name = "guest"
node = "A"
addresses = ["{address}/32"]
"""


class World:
    """Node files, the director's file (it lives in C's namespace), and their processes."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.pki, self.folder = lab, Pki(folder / "pki"), folder
        self.file = folder / "director.toml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        rows = tomllib.loads(lab.site_file("C").read_text())
        text = DIRECTOR.format(pki=self.pki.folder, dir=folder) + WORKLOAD.format(address=ADDRESS)
        self.pki.file("director", "d")
        for name in NODES:
            self._write(name)
            role = "endpoint" if name in "AB" else "distribution"
            text += f'[[node]]\nname = "{name}"\naddress = "{lab.address(name, 4)}:7443"\n{role} = "{name}"\n'
            if role == "endpoint":  # a site each
                text += f'site = "{name}"\ncapacity = 1\n[[site]]\nname = "{name}"\n'
        tables = {
            kind: [_bare(row) for row in rows[kind]] for kind in ("network", "endpoint", "distribution")
        }
        tables["binding"] = [{"global": "203.0.113.0/24", "to": "A"}, {"global": f"{ADDRESS}/32", "to": "A"}]
        self.file.write_text(text + render.text(tables))

    def _write(self, name: str) -> None:
        self.pki.file("node", name)
        file = self.lab.site_file(name)
        own = file.read_text().partition("[[network]]")[0]
        own += NODE.format(host=self.lab.address(name, 4), pki=self.pki.folder, name=name)
        if name == "A":
            command = f'"{sys.executable}", "{VM}"'
            own += '[[migration]]\nworkload = "guest"\nanswer = "60s"\n'
            own += f'targets = {{B = "{self.lab.address("B", 4)}:{INCOMING}"}}\n'
            for verb in ("start", "state", "cancel"):
                own += f'{verb} = [{command}, "{verb}", "{self.folder}/A.qmp", "{{target}}"]\n'
            own += f'storage = ["/usr/bin/test", "-e", "{self.folder}/in-sync"]\n'
        file.write_text(own)

    def start(self, name: str) -> None:
        file = self.lab.site_file(name)
        prefix, log = self.lab.command(name, []), file.parent / "agent.log"
        self.processes[name] = spawn(file, prefix=prefix, log=log)

    def direct(self) -> None:
        log = self.folder / "director.log"
        prefix, verb = self.lab.command("C", []), ("director", "run", "-c")
        self.processes["director"] = spawn(self.file, prefix=prefix, log=log, verb=verb)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def command(self, *words: str) -> list[str]:
        return self.lab.command(
            "C", [sys.executable, "-m", "ipshare", *words, "-c", str(self.file), "--json"]
        )

    def ask(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=LONG_S, check=False
        )
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def at(self, step: str) -> dict[str, Any]:
        """Waits until the migration is at ``step`` or over."""
        ends = time.monotonic() + LONG_S
        while time.monotonic() < ends:
            found = self.ask("migrate", "guest", "--list")
            if found["step"] == step or found["over"]:
                return found
        raise AssertionError(f"not {step}: {found}")

    def agent(self, name: str) -> dict[str, Any]:
        with AgentClient(self.lab.site_file(name).parent / "run") as agent:
            return agent.call("status")


class Talk:
    """One TCP connection to the guest that never pauses: what is sent has to come back, byte by byte."""

    def __init__(self, lab: Lab, client: str) -> None:
        self.exchanged, self.failure = 0, ""
        self._news = threading.Condition()
        self._socket = lab.inside(client, lambda: socket.create_connection((ADDRESS, PORT), LONG_S))
        self._socket.settimeout(LONG_S)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=client, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                sent = os.urandom(1200)
                self._socket.sendall(sent)
                back = b""
                while len(back) < len(sent):
                    data = self._socket.recv(len(sent) - len(back))
                    if not data:
                        raise ConnectionError("the guest ended the connection")
                    back += data
                if back != sent:
                    raise ConnectionError("what came back is not what was sent")
                with self._news:
                    self.exchanged += 1
                    self._news.notify_all()
                self._over.wait(0.005)
        except OSError as error:
            with self._news:
                self.failure = str(error)
                self._news.notify_all()

    def goes_on(self, rounds: int = 5) -> None:
        """So many more exchanges come to their end from now on."""
        with self._news:
            wanted = self.exchanged + rounds
            self._news.wait_for(lambda: self.exchanged >= wanted or self.failure, LONG_S)
            assert self.exchanged >= wanted, self.failure or "it stands still"

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "self"}


@contextmanager
def world(folder: Path) -> Iterator[tuple[World, Guest, tuple[Path, Path]]]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(LabSpec(families=(4,))))
        here = World(lab, folder)
        stack.callback(lambda: [here.kill(name) for name in here.processes])
        for node in ("A", "B"):
            guest_vm.plug(lab, node, ADDRESS)
        image = guest_vm.unpacked(folder), guest_vm.initrd(folder)
        guest = Guest(lab, "A", ADDRESS, image)
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(here.start, NODES))
        here.direct()
        assert here.ask("director", "apply", "--wait", "120s")["settled"]
        guest.wait_ready()
        yield here, guest, image


@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(guest_vm.why_not()), reason=guest_vm.why_not())
def test_s1_11_a_guest_goes_and_its_connections_stay(tmp_path: Path) -> None:
    with world(tmp_path) as (here, guest, image), ExitStack() as stack:
        lab = here.lab
        talks = [Talk(lab, client) for client in ("c1", "c3")]  # by C, and by D
        for talk in talks:
            stack.callback(talk.close)
            talk.goes_on()

        # storage that is not in sync: refused before anything
        refused = here.ask("migrate", "guest", "--to", "B", "--watch")
        assert refused["step"] == "refused" and "storage is not in sync" in refused["reason"]
        (tmp_path / "in-sync").touch()

        # the target dies half way: it goes on where it was, and nothing was flipped
        target = Guest(lab, "B", ADDRESS, image, incoming=INCOMING)
        qmp = guest.qmp()
        qmp.do("migrate-set-parameters", **{"max-bandwidth": 1 << 20})
        qmp.close()
        assert here.ask("migrate", "guest", "--to", "B")["step"] == "checking"
        assert here.at("migrating")["step"] == "migrating"
        _wait_under_way(tmp_path)
        target.kill()
        failed = here.at("failed")
        assert (failed["step"], failed["there"]) == ("failed", []), failed
        assert here.ask("director", "status")["revision"] == 1
        for talk in talks:
            talk.goes_on()

        # D's agent hears nothing for a while: what comes by D has to follow the redirect
        target = Guest(lab, "B", ADDRESS, image, incoming=INCOMING)
        qmp = guest.qmp()
        qmp.do("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
        qmp.close()
        here.processes["D"].send_signal(signal.SIGSTOP)
        plan = here.ask("director", "evacuate", "A", "--yes", "--why", "storm")  # its whole site
        assert [(m["way"], m["bar"], m["target"]) for m in plan["moves"]] == [("live", "", "B")], plan
        assert here.at("settling")["step"] == "settling"
        here.kill("director")  # the next one goes on where this one was
        with lab.capture("A", "r2") as at_a:
            for talk in talks:
                talk.goes_on(20)
        assert _to_local(at_a.packets(4)), "D's packets came to A, and went on from there"
        here.direct()
        here.processes["D"].send_signal(signal.SIGCONT)
        done = here.ask("migrate", "guest", "--list")
        done = here.at("done")
        assert done["step"] == "done" and done["notes"] == [], done
        assert done["downtime_ms"] is not None and done["redirected_ms"] is not None
        assert done["order"] == plan["evacuation"]
        left = here.ask("director", "evacuations", plan["evacuation"], "--wait", "60s")
        assert (left["state"], [s["state"] for s in left["steps"]]) == ("done", ["done"]), left

        # and now nothing comes to A, where the guest's old process has gone
        guest.kill()
        with lab.capture("A", "r2") as at_a:
            for talk in talks:
                talk.goes_on(20)
        assert _to_local(at_a.packets(4)) == []
        assert [talk.failure for talk in talks] == ["", ""]
        assert here.agent("A")["assigned"]["has"][1] == 2
        assert target.process.poll() is None
        print(json.dumps(done["times"]), done["downtime_ms"], done["redirected_ms"])


def _wait_under_way(folder: Path) -> None:
    """Until QEMU itself says that memory is being sent."""
    words = [sys.executable, str(VM), "state", str(folder / "A.qmp"), ""]
    ends = time.monotonic() + LONG_S
    while time.monotonic() < ends:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONG_S, check=False)
        if done.stdout.strip() == "moving":
            return
    raise AssertionError("it does not begin")


def _to_local(packets: list[bytes]) -> list[bytes]:
    """Those to the guest's local address at A."""
    local = site_prefix("A", 4)[HOST].packed
    return [packet for packet in packets if packet[16:20] == local]
