"""A redundant pair as its operator has it: two agents from one site file, a client, a VIP (S2.2, S2.3, S2.6).

What the engines do in every case is in test_engine_pair.py; here: file -> agent -> engine -> client and hook.
Every wait is for an event, bounded by the lab's patience. tests/vpp/test_pair_lab_vpp.py runs all of it on
VPP as well.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine_lab import run
from tests.pair_lab import VIPS, Half, pair_lab, until
from tests.pair_nodes import IPSHARE, Node, Nodes
from tests.pair_probes import probes


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def nodes(tmp_path: Path, kind: type[Half]) -> Iterator[Nodes]:
    with pair_lab(tmp_path, kind) as lab:
        made = Nodes(lab)
        try:
            yield made
        finally:
            made.a.stop()
            made.b.stop()


def test_a_vip_goes_with_the_active_engine_and_back_by_order(nodes: Nodes) -> None:
    for node in (nodes.a, nodes.b):
        node.start()
    active, standby = nodes.active()
    for vip in VIPS:
        nodes.ask_for(vip)
        until(lambda vip=vip: nodes.neighbour(vip) == nodes.lab.mac(active.name))  # type: ignore[misc]
    active.kill_engine()
    until(lambda: standby.pair()["state"] == "active")
    for vip in VIPS:  # the client was told: it asks nobody
        until(lambda vip=vip: nodes.neighbour(vip) == nodes.lab.mac(standby.name))  # type: ignore[misc]
    assert nodes.active() == (standby, active), "the other comes back as standby"
    for taker, giver in ((active, standby), (standby, active)):
        asked = giver if taker is active else taker  # either node takes the order
        done = until(lambda asked=asked: _ordered(asked))  # type: ignore[misc]
        assert done["state"] == ("standby" if asked is giver else "active")
        assert nodes.active() == (taker, giver)
        until(lambda taker=taker: nodes.neighbour(VIPS[0]) == nodes.lab.mac(taker.name))  # type: ignore[misc]
    until(lambda: standby.told()[-1:] and standby.told()[-1].startswith("standby active"))
    until(lambda: active.told()[-1:] and active.told()[-1].startswith("active standby HANDED_OVER"))
    assert any(line.startswith("standby active PEER_SILENT") for line in standby.told())
    for node in (active, standby):  # nothing is left out: also not that an active engine died
        words = [line.split() for line in node.told()]
        assert [new for _, new, _ in words[:-1]] == [old for old, _, _ in words[1:]]


def _ordered(node: Node) -> dict[str, Any] | None:
    """What a switchover says that was taken; None: the peer was not ready yet."""
    done = node.cli("pair", "switchover", "--json")
    assert done.returncode in (0, 3), done.stderr
    state: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return state


def test_maintenance_hands_over_and_a_successor_of_the_agent_tells_the_hook(nodes: Nodes) -> None:
    for node in (nodes.a, nodes.b):
        node.start()
    active, standby = nodes.active()
    assert active.agent is not None
    active.agent.kill()
    active.agent.wait()
    active.start()
    done = active.cli("pair", "maintenance", "on")
    assert done.returncode == 0 and "inop: maintenance" in done.stdout, done.stderr
    until(lambda: standby.pair()["state"] == "active")
    until(lambda: active.told()[-1:] and active.told()[-1].endswith("inop MAINTENANCE"))
    assert active.cli("pair", "maintenance", "off").returncode == 0
    assert nodes.active() == (standby, active)


def test_a_wrong_key_is_named_at_both_nodes(nodes: Nodes) -> None:
    nodes.give_key("cd" * 32)
    for node in (nodes.a, nodes.b):
        node.start()
    for node in (nodes.a, nodes.b):
        until(lambda node=node: any("another key" in text for text in node.pair().get("troubles", ())))  # type: ignore[misc]
        shown = node.cli("pair", "status")
        assert "sealed with another key" in shown.stdout, shown.stderr


def test_both_nodes_say_which_keys_of_the_pair_differ(nodes: Nodes) -> None:
    text = nodes.b.file.read_text()
    assert text.count("hook = ") == 1 and VIPS[0] in text
    changed = text.replace("hook = ", "preempt = true\nhook = ").replace(VIPS[0], "10.0.0.101")
    nodes.b.file.write_text(changed)
    for node in (nodes.a, nodes.b):
        node.start()
    for node in (nodes.a, nodes.b):
        until(lambda node=node: node.pair().get("differs") == ["preempt", "vip"])  # type: ignore[misc]
        shown = node.cli("pair", "status")
        assert "has another [pair]: preempt, vip; apply the same file at both nodes" in shown.stdout


def test_a_pair_that_leaves_the_configuration_leaves_the_engine(nodes: Nodes) -> None:
    nodes.a.start()
    assert nodes.a.pair()["state"] == "initial", (
        "it has no epoch yet and hears nobody: only an operator knows"
    )
    assert nodes.a.cli("pair", "force").returncode == 2, "not without --yes"
    forced = nodes.a.cli("pair", "force", "--yes")
    assert forced.returncode == 0 and "this node is active" in forced.stdout, forced.stderr
    text = nodes.a.file.read_text()
    nodes.a.file.write_text(text[: text.index("[pair]")])
    assert nodes.a.cli("apply").returncode != 0, "apply takes its file as an argument"
    command = [*nodes.a.prefix, *IPSHARE, "apply", str(nodes.a.file)]
    subprocess.run(command, capture_output=True, check=True)
    assert nodes.a.status()["pair"] is None
    assert nodes.a.cli("pair", "status").returncode == 3
    nodes.a.file.write_text(text)


def test_this_machine_is_looked_at_before_anything_is_changed(nodes: Nodes) -> None:
    name = nodes.lab.names["a"]
    run(name, f"ip address add {VIPS[0]}/24 dev lan0")
    run(name, "ip address del 10.9.0.1/24 dev direct")
    command = [*nodes.a.prefix, *IPSHARE, "check", "--machine", str(nodes.a.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "VIP 10.0.0.100 is an address of lan0" in done.stderr and "ip addr del" in done.stderr
    assert "10.9.0.1, this node's end of a path to b, is no address of this machine" in done.stderr


def test_a_route_follows_the_active_node(nodes: Nodes) -> None:
    """Of another namespace of this machine, by `ip route replace` (S3.3). Query mode: the standby asks."""
    client = nodes.lab.names["client"]
    route = (
        f'[[pair.route]]\nkind = "linux"\nprefix = "0.0.0.0/0"\nvia = ["10.0.0.1", "10.0.0.2"]\n'
        f'namespace = "{client}"\n'
    )
    for node in (nodes.a, nodes.b):
        text = node.file.read_text().replace('key_file = "pair.key"', 'key_file = "pair.key"\nmode = "query"')
        node.file.write_text(text + route)
        node.start()
    via = {nodes.a: "10.0.0.1", nodes.b: "10.0.0.2"}

    def follows(node: Node) -> bool:
        return f"via {via[node]} " in run(client, "ip route show default")

    active, standby = nodes.active()
    until(lambda: follows(active))
    active.kill_engine()
    until(lambda: follows(standby))
    assert nodes.active() == (standby, active)
    until(lambda: _ordered(standby))
    until(lambda: follows(active))


def test_the_preferred_node_takes_over_again(nodes: Nodes) -> None:
    """preempt: the first node of the file comes back from maintenance, and is active again by itself."""
    for node in (nodes.a, nodes.b):
        text = node.file.read_text().replace('key_file = "pair.key"', 'key_file = "pair.key"\npreempt = true')
        node.file.write_text(text)
        node.start()
    until(lambda: nodes.active() == (nodes.a, nodes.b))
    nodes.a.kill_engine()
    until(lambda: nodes.b.pair()["state"] == "active")
    until(lambda: nodes.a.pair()["state"] == "active" and nodes.b.pair()["state"] == "standby")


DRILLED = ("--kill", "--pause", "--cut", "1", "--cut", "0")


def test_a_drill(tmp_path: Path, kind: type[Half]) -> None:
    """Every fault on purpose, under traffic: measured, counted at both nodes, undone; refused where nobody
    could take over."""
    with pair_lab(tmp_path, kind) as lab:
        nodes = Nodes(lab, times='interval = "50ms"\nmisses = 8', delivers=True)
        try:
            for node in (nodes.a, nodes.b):
                node.start()
            with probes(lab):
                _drill(nodes)
        finally:
            nodes.a.stop()
            nodes.b.stop()


def _drill(nodes: Nodes) -> None:
    active, standby = nodes.active()
    until(lambda: "2 of 2" in active.cli("pair", "status").stdout)
    command = [*standby.prefix, *IPSHARE, "pair", "drill", "--watch", "--json", "-c", str(standby.file)]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watch.stderr is not None
    assert "watching" in watch.stderr.readline()
    done = active.cli("pair", "drill", *DRILLED, "--yes", "--json")
    watch.send_signal(signal.SIGTERM)
    out, _ = watch.communicate()
    assert done.returncode == 0, done.stderr
    said, seen = json.loads(done.stdout), json.loads(out)
    killed, paused, cut, all_cut = said["rounds"]
    assert [one["fault"] for one in said["rounds"]] == ["kill", "pause", "cut 1", "cut 0"]
    assert killed["epoch"] > killed["epoch_before"]
    assert cut["takeover_s"] is None and cut["state"] == "active" and cut["epoch"] == cut["epoch_before"]
    assert all_cut["takeover_s"] > 0 and all_cut["both_packets"] > 0, "without a witness both forward then"
    assert said["late_packets"] == 0 and paused["state"] == "standby", paused
    assert paused["epoch"] > paused["epoch_before"], paused
    assert seen["late_packets"] == 0 and seen["reigns"] >= 2
    assert "ipshare_drill" not in run(nodes.lab.names[active.name], "nft list tables")
    standby.cli("pair", "maintenance", "on")
    until(lambda: active.pair()["peer_state"] == "inop")
    refused = active.cli("pair", "drill", "--kill", "--yes")
    assert refused.returncode == 3 and "not ready" in refused.stderr


def test_an_interrupted_drill_lets_the_engine_go_on(nodes: Nodes) -> None:
    for node in (nodes.a, nodes.b):
        text = node.file.read_text().replace('"pair.key"', '"pair.key"\ninterval = "2s"\nmisses = 100')
        node.file.write_text(text)
        node.start()
    active, _ = nodes.active()
    pid = active.status()["engine_pid"]

    def condition() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    command = [*active.prefix, *IPSHARE, "pair", "drill", "--pause", "--yes", "-c", str(active.file)]
    drill = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: condition() == "T")
    drill.send_signal(signal.SIGTERM)
    until(lambda: drill.poll() is not None)
    until(lambda: condition() != "T")
