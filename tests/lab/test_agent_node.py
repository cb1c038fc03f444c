"""Agent and engine as processes, in the lab, under traffic: who may die, and what packets notice of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.client import AgentClient
from ipshare.agent.confirm import SystemClock, trial_of
from ipshare.agent.spawn import spawn
from ipshare.agent.store import Store
from ipshare.lab import Lab, LabSpec, traffic
from ipshare.lab.internet import global_ip
from ipshare.lab.netns import process_ids

ADDRESS = str(global_ip("a1", 4))
IPSHARE = [sys.executable, "-m", "ipshare"]
PATIENCE_S = 120.0
"""The agent looks after its node every ten seconds."""


class Nodes:
    """Agents of C and A in a lab whose other sites are bare."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.before = {name: kernel_state(lab, name) for name in ("C", "A")}
        for name in ("C", "A"):
            self.start(name)

    def start(self, name: str, *options: str) -> None:
        file = self.lab.site_file(name)
        log = file.parent / "agent.log"
        self.agents[name] = spawn(file, prefix=self.lab.command(name, []), log=log, options=options)

    def kill(self, name: str) -> None:
        self.agents[name].kill()
        self.agents[name].wait()

    def ask(self, name: str, verb: str = "status", **arguments: Any) -> dict[str, Any]:
        with AgentClient(self.lab.site_file(name).parent / "run") as agent:
            return agent.call(verb, **arguments)

    def cli(self, name: str, *words: str) -> str:
        return self.lab.run(name, [*IPSHARE, *words])

    def refused(self, name: str, *words: str) -> tuple[int, str]:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self.cli(name, *words)
        return caught.value.returncode, caught.value.stderr

    def rewrite(self, name: str, old: str, new: str) -> None:
        file = self.lab.site_file(name)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def stop(self) -> None:
        for agent in self.agents.values():
            agent.kill()
            agent.wait()


def kernel_state(lab: Lab, node: str) -> dict[str, str]:
    """What the node's kernel can be asked about its network, but for counters and times."""
    questions = {
        "links": ["ip", "-br", "link"],
        "addresses": ["ip", "-br", "addr"],
        "rules4": ["ip", "-4", "rule"],
        "rules6": ["ip", "-6", "rule"],
        "routes4": ["ip", "-4", "route", "show", "table", "all"],
        "sysctls": [
            "sh",
            "-c",
            "grep -rs . /proc/sys/net/ipv[46]/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter",
        ],
        "nft": ["nft", "list", "ruleset"],
    }
    return {name: lab.run(node, words) for name, words in questions.items()}


def wait_for(agent: Nodes, name: str, wanted: Any) -> dict[str, Any]:
    """The first status that ``wanted`` accepts. Asking blocks; there is no other event to wait for."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status = agent.ask(name)
        if wanted(status):
            return status
        select.select([], [], [], 0.02)
    raise AssertionError(f"the agent of {name} did not get there: {status}")


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Lab(LabSpec(families=(4,))) as lab:
        running = Nodes(lab)
        try:
            yield running
        finally:
            running.stop()


def flow(seconds: float) -> traffic.Udp:
    """Datagrams of five flows in turn, one every 10 ms."""
    return traffic.Udp(ADDRESS, flows=5, datagrams=int(seconds * 20), pause_s=0.01, expect=("a1",))


def test_killing_agents_under_traffic_loses_nothing(nodes: Nodes) -> None:
    engines = {name: nodes.ask(name)["engine_pid"] for name in ("C", "A")}
    with traffic.serve(nodes.lab, "a1"):
        running = traffic.start(nodes.lab, "c1", flow(12))
        running.wait_begun()
        for name in ("C", "A"):
            nodes.kill(name)
            nodes.start(name)
        report = running.result()
    assert report.is_clean, report
    assert {name: nodes.ask(name)["engine_pid"] for name in ("C", "A")} == engines


def test_an_engine_that_is_killed_comes_back_by_itself(nodes: Nodes) -> None:
    with traffic.serve(nodes.lab, "a1"):
        assert traffic.start(nodes.lab, "c1", flow(0.1)).result().is_clean
        for name in ("C", "A"):
            old = nodes.ask(name)["engine_pid"]
            os.kill(old, signal.SIGKILL)
            status = wait_for(nodes, name, lambda s, old=old: s["engine_pid"] not in (None, old))
            assert status["engine_restarts"] == 1
        assert traffic.start(nodes.lab, "c1", flow(0.5)).result().is_clean
    audit = [json.loads(line) for line in (nodes.lab.site_file("C").parent / "state/audit.log").open()]
    assert [entry["verb"] for entry in audit] == ["start", "restart"]
    log = (nodes.lab.site_file("C").parent / "agent.log").read_text()
    print(next(line for line in log.splitlines() if "the engine is back" in line))


def test_watching_goes_on_when_the_engine_is_killed(nodes: Nodes) -> None:
    words = [*IPSHARE, "counters", "--watch", "--interval", "200ms", "--json"]
    words += ["-c", str(nodes.lab.site_file("C"))]
    watch = nodes.lab.popen("C", words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(watch.stdout.readline())["restarted"] is False
    os.kill(nodes.ask("C")["engine_pid"], signal.SIGKILL)
    assert any(json.loads(line)["restarted"] for line in watch.stdout), watch.stderr.read()
    nodes.cli("C", "down", str(nodes.lab.site_file("C")))
    assert watch.wait(PATIENCE_S) == 4, "nobody would start another engine now"


def test_a_bad_file_at_reload_keeps_the_old_and_a_good_one_is_taken(nodes: Nodes) -> None:
    good = nodes.lab.site_file("C").read_text()
    nodes.lab.site_file("C").write_text(good + "\n[[endpoint]]\nname = 7\n[nonsense]\n")
    nodes.agents["C"].send_signal(signal.SIGHUP)
    status = wait_for(nodes, "C", lambda s: "reload" in s["notes"])
    assert status["generation"] == 1
    log = (nodes.lab.site_file("C").parent / "agent.log").read_text()
    assert "endpoint" in log and "nonsense" in log, "every mistake is said"
    with traffic.serve(nodes.lab, "a1"):
        assert traffic.start(nodes.lab, "c1", flow(0.2)).result().is_clean
    nodes.lab.site_file("C").write_text(good)
    nodes.rewrite("C", "icmp_rate = 100000", "icmp_rate = 99999")
    nodes.agents["C"].send_signal(signal.SIGHUP)
    status = wait_for(nodes, "C", lambda s: s["generation"] == 2)
    assert "reload" not in status["notes"]


def test_unconfirmed_goes_back_even_if_the_agent_died_meanwhile(nodes: Nodes) -> None:
    file = str(nodes.lab.site_file("C"))
    nodes.rewrite("C", "icmp_rate = 100000", "icmp_rate = 77")
    said = json.loads(nodes.cli("C", "apply", file, "--confirm-within", "1h", "--json"))
    assert (said["generation"], said["by"]) == (2, "agent")
    code, error = nodes.refused("C", "apply", file, "--confirm-within", "1h")
    assert code == 3 and "waiting for its confirmation" in error
    nodes.kill("C")
    nodes.start("C")
    assert nodes.ask("C")["confirm_within_s"] is not None
    nodes.kill("C")
    nearly_over(Store(nodes.lab.site_file("C").parent / "state"))
    nodes.start("C")
    wait_for(nodes, "C", lambda s: s["confirm_within_s"] is None)
    assert "100000" in nodes.cli("C", "show", "tables", "-c", file)
    assert nodes.refused("C", "confirm", "-c", file)[0] == 3


def nearly_over(store: Store) -> None:
    """An hour's trial, but for seconds: however long it took to get here, it was not over before."""
    state = store.state()
    assert state.trial is not None
    store.put(replace(state, trial=trial_of(3, SystemClock())))


def test_confirmed_stays(nodes: Nodes) -> None:
    file = str(nodes.lab.site_file("C"))
    nodes.rewrite("C", "icmp_rate = 100000", "icmp_rate = 77")
    nodes.cli("C", "apply", file, "--confirm-within", "5m")
    nodes.cli("C", "confirm", "-c", file)
    assert "77" in nodes.cli("C", "show", "tables", "-c", file)
    assert nodes.ask("C")["confirm_within_s"] is None


def test_down_leaves_nothing(nodes: Nodes) -> None:
    for name in ("C", "A"):
        file = nodes.lab.site_file(name)
        assert kernel_state(nodes.lab, name) != nodes.before[name]
        said = json.loads(nodes.cli(name, "down", str(file), "--json"))
        assert said["changed"] and "agent ended" in said["done"] and "engine ended" in said["done"]
        assert nodes.agents[name].wait(PATIENCE_S) == 0
        assert kernel_state(nodes.lab, name) == nodes.before[name]
        assert not (file.parent / "run").exists()
        assert process_ids(nodes.lab.namespace(name)) == []
        assert json.loads(nodes.cli(name, "down", str(file), "--json")) == {"changed": False, "done": []}


def test_routes_that_somebody_removes_are_mended(nodes: Nodes) -> None:
    nodes.lab.run("C", ["ip", "rule", "del", "priority", "4908"])
    nodes.ask("C", "reload")
    assert kernel_state(nodes.lab, "C")["rules4"].count("lookup 4900") == 1


def test_a_second_agent_is_refused_and_told_who_has_the_node(nodes: Nodes) -> None:
    code, error = nodes.refused("C", "agent", str(nodes.lab.site_file("C")))
    assert code == 3
    assert str(nodes.agents["C"].pid) in error


def test_the_last_good_configuration_serves_where_the_file_is_bad(nodes: Nodes, monkeypatch: Any) -> None:
    """--last-good looks where state is kept by default; a node that keeps it elsewhere ends with the
    mistakes."""
    nodes.agents["C"].terminate()
    assert nodes.agents["C"].wait(PATIENCE_S) == 0
    nodes.lab.site_file("C").write_text("[node]\nnam = 1\n")
    code, error = nodes.refused("C", "agent", str(nodes.lab.site_file("C")))
    assert code == 2 and "nam" in error


def test_a_capture_from_the_command_line(nodes: Nodes, tmp_path: Path) -> None:
    from scapy.layers.inet import IP
    from scapy.utils import PcapNgReader

    file, target = str(nodes.lab.site_file("C")), str(tmp_path / "out.pcapng")
    words = [*IPSHARE, "capture", "-c", file, "-w", target, "--binding", "203.0.113.0/24", "--count", "4"]
    capture = nodes.lab.popen("C", words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"capturing" in capture.stderr.readline()
    nodes.lab.run("c1", ["ping", "-c", "2", "-i", "0.01", ADDRESS])
    assert b"4 packets" in capture.communicate(timeout=PATIENCE_S)[0]
    destinations = [IP(bytes(packet)).dst for packet in PcapNgReader(target)]
    assert destinations.count(ADDRESS) == 2, "as they came"
    assert len(set(destinations)) == 2, "and as they went"


def test_a_capture_to_a_full_disk_says_so(nodes: Nodes) -> None:
    file = str(nodes.lab.site_file("C"))
    code, error = nodes.refused("C", "capture", "-c", file, "-w", "/dev/full", "--count", "1")
    assert code == 1 and "/dev/full did not take all of it: No space left on device" in error


def test_paths_are_probed_and_a_narrow_one_is_told_and_alarmed(nodes: Nodes) -> None:
    file = str(nodes.lab.site_file("C"))
    assert all(p["state"] == "ok" for p in nodes.ask("C", "probe")["paths"] if p["name"] == "A")
    nodes.lab.run("r2", ["ip", "link", "set", "A", "mtu", "1400"])
    path = next(p for p in nodes.ask("C", "probe")["paths"] if p["name"] == "A")
    assert (path["state"], path["measured"]) == ("narrow", 1400)
    assert "carries only 1400 bytes" in nodes.ask("C")["notes"]["path_mtu"]
    shown = json.loads(nodes.cli("C", "show", "endpoints", "-c", file, "--json"))
    assert next(row for row in shown if row["name"] == "A")["path_mtu_measured"] == 1400
    answer = json.loads(
        nodes.cli("C", "why", "-c", file, "--json", f"udp 192.0.2.1:1 > {ADDRESS}:2 len 1450 df")
    )
    assert answer["verdict"] == "TOO_BIG" and "mtu 1400" in answer["errors"][0]["text"]
    nodes.lab.run("r2", ["ip", "link", "set", "A", "mtu", "1500"])
    assert all(p["state"] == "ok" for p in nodes.ask("C", "probe")["paths"] if p["name"] == "A")
    answer = json.loads(
        nodes.cli("C", "why", "-c", file, "--json", f"udp 192.0.2.1:1 > {ADDRESS}:2 len 1450 df")
    )
    assert answer["verdict"] == "OK"
