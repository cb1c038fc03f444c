"""`ipshare remap` over four nodes in memory: what it says to people, to programs, and what it exits with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.cli import exits
from ipshare.cli import remap as verb
from ipshare.remap import executor, listed
from ipshare.remap import nodes as remap_nodes
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from tests.remap_world import RemapNodes
from tests.unit.test_cli_verbs import documented_keys
from tests.unit.test_cli_verbs import ipshare as ipshare
from tests.unit.test_remap_machine import FENCED, PLAN
from tests.unit.test_remap_run import FLOWS, at_step

Run = Callable[..., tuple[int, str, str]]
THERE = ("203.0.113.7", "--from", "A", "--to", "B", "--silence", "0s")


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemapNodes:
    """Named in a file; their agents' sockets are the nodes in memory."""
    nodes = RemapNodes(tmp_path)
    rows = [f'[[node]]\nname = "{name}"\nsocket = "{name}/run/agent.sock"\n' for name in nodes]
    (tmp_path / "nodes.toml").write_text("".join(rows))
    monkeypatch.setattr(remap_nodes, "AgentNode", lambda socket: nodes[Path(socket).parents[1].name])
    monkeypatch.setattr(executor, "SLOW_S", 0.001)
    monkeypatch.setattr(executor, "QUICK_S", 0.001)
    monkeypatch.setenv("IPSHARE_NODES", str(tmp_path / "nodes.toml"))
    monkeypatch.setenv("IPSHARE_REMAPS", str(tmp_path / "journal"))
    return nodes


def test_each_step_is_said_once(nodes: RemapNodes, ipshare: Run) -> None:
    code, out, err = ipshare("remap", *THERE)
    assert (code, err) == (0, "")
    said = out.splitlines()
    assert said[0] == "binding: b1 learns the address"
    assert "fencing: b1 gets the last of them" in said and "flipping: distribution points flip" in said
    assert said[-1] == "203.0.113.7/32 from A to B: done"
    assert nodes.serves("c1") == "B"


def test_json_has_the_documented_keys(nodes: RemapNodes, ipshare: Run) -> None:
    code, out, err = ipshare("remap", *THERE, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found) == documented_keys()["remap"]
    assert (found["step"], found["from"], found["to"], found["cut"]) == ("done", "A", "B", None)
    (row,) = json.loads(ipshare("remap", "list", "--json")[1])
    assert set(row) == documented_keys()["remap list"]
    shown = json.loads(ipshare("remap", "status", str(row["id"]), "--json")[1])
    assert set(shown) == documented_keys()["remap status"] and shown["step"] == "done"


def test_refusals_have_every_reason_and_their_code(nodes: RemapNodes, ipshare: Run) -> None:
    code, out, err = ipshare("remap", "203.0.113.7", "--from", "B", "--to", "A")
    assert (code, out) == (exits.REFUSED, "")
    assert "at b1 it is not bound to B but to A; at c1" in err and "hint: nothing was changed" in err
    code, _, err = ipshare("remap", *THERE, "--json", "--channel", "X")
    assert code == exits.REFUSED and "no channel X" in json.loads(err)["error"]["message"]


def test_what_is_undone_says_why(nodes: RemapNodes, ipshare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(progress: Progress, view: View) -> None:
        nodes.wire.cut.add(progress.plan.id)

    tell = executor.Executor._tell

    def telling(self: Any, progress: Progress) -> None:
        cut(progress, self.view)
        tell(self, progress)

    monkeypatch.setattr(executor.Executor, "_tell", telling)
    code, out, _ = ipshare("remap", *THERE, "--patience", "20ms")
    assert code == exits.REFUSED
    assert "203.0.113.7/32 from A to B was undone: A did not hear B in 0.02 s" in out
    assert out.splitlines()[-1] == "everything is at A, as before"
    code, out, _ = ipshare("remap", "list")
    assert code == 0 and re.search(r"203.0.113.7/32 from A to B +undone +A did not hear B", out)


def interrupted(nodes: RemapNodes, ipshare: Run, monkeypatch: pytest.MonkeyPatch, step: Step) -> int:
    """Ctrl-C at a step. The remap's id."""

    def stop(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        raise KeyboardInterrupt

    look, tell = at_step(step, stop), executor.Executor._tell

    def telling(self: Any, progress: Progress) -> None:
        tell(self, progress)
        look(progress, self.view)

    with monkeypatch.context() as patch:
        patch.setattr(executor.Executor, "_tell", telling)
        assert ipshare("remap", *THERE)[0] == exits.INTERRUPTED
    return listed(nodes.directory / "journal")[-1].id


def test_an_interrupted_one_is_shown_and_goes_on(
    nodes: RemapNodes, ipshare: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    remap = interrupted(nodes, ipshare, monkeypatch, Step.DRAINING)
    code, out, _ = ipshare("remap", "status")
    assert code == 0 and f"remap {remap}: 203.0.113.7/32 from A to B" in out
    assert "draining: a1 drains" in out and "2 connections (2 active in 60 s) left at A" in out
    with nodes.mute("a1"):
        assert "a1 does not answer: nobody is there" in ipshare("remap", "status")[1]
    code, _, err = ipshare("remap", "abort")
    assert code == exits.REFUSED and "it can only go on" in err and "--from B --to A" in err
    code, out, _ = ipshare("remap", "resume", str(remap), "--deadline", "0s")
    assert code == 0 and "the deadline cut 2 connections:" in out
    assert "  tcp 198.51.100.1:1000 > 203.0.113.7:80 open" in out
    assert ipshare("remap", "resume")[0] == exits.REFUSED


def test_an_interrupted_one_is_aborted(
    nodes: RemapNodes, ipshare: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(nodes, ipshare, monkeypatch, Step.SYNCING)
    code, out, _ = ipshare("remap", "abort", "--json")
    assert code == 0 and json.loads(out)["remap"]["step"] == "undone"
    assert set(json.loads(out)) == documented_keys()["remap abort"]
    assert nodes.serves("c1") == "A" and nodes.is_at_rest()
    assert ipshare("remap", "abort")[0] == exits.REFUSED


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nonsense", "--from", "A", "--to", "B"), "neither an address or prefix nor a verb"),
        (("203.0.113.7", "--from", "A", "--to", "B", "--node", "x"), "is not NAME=SOCKET"),
        (("203.0.113.7", "--from", "A"), "--to"),
        (("203.0.113.7", "--from", "A", "--to", "B", "--deadline", "soon"), "soon"),
    ],
)
def test_command_lines_that_cannot_be_meant(
    nodes: RemapNodes, ipshare: Run, words: tuple[str, ...], text: str
) -> None:
    code, _, err = ipshare("remap", *words)
    assert code == exits.USAGE and text in err


def test_without_nodes_it_says_how_to_name_them(
    nodes: RemapNodes, ipshare: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IPSHARE_NODES")
    code, _, err = ipshare("remap", *THERE)
    assert code == exits.USAGE and "no node was named" in err and "--node NAME=SOCKET" in err
    assert ipshare("remap", "list")[1] == "there was no remap\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x = 1\n", "unknown key 'x'"),
        ("[[node]]\nname = 'a1'\n", "where is a1?"),
        ("[[node]]\nname = 1\nsocket = 's'\n", "not a name: 1"),
        (
            "[[node]]\nname = 'a'\nsocket = 's'\n[[node]]\nname = 'a'\nsocket = 't'\n",
            "two nodes have the name 'a'",
        ),
        ("[[node\n", "not TOML"),
        ("[[node]]\nname = 'a'\naddress = '10.0.0.1:7443'\n", "an address needs [tls]"),
        ("[[node]]\nname = 'a'\naddress = '10.0.0.1'\n", "10.0.0.1"),
        ("[[node]]\nname = 'a'\nsocket = 's'\naddress = '10.0.0.1:1'\n", "where is a?"),
        ("", "there is no [[node]]"),
    ],
)
def test_a_bad_file_of_nodes(nodes: RemapNodes, ipshare: Run, content: str, text: str) -> None:
    (nodes.directory / "nodes.toml").write_text(content)
    code, _, err = ipshare("remap", *THERE)
    assert code == exits.USAGE and text in err


def test_the_live_view_draws_every_step() -> None:
    from rich.console import Console

    from ipshare.cli.remap_view import panel

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    view = View(states={"a1": FENCED}, silent={"d1": "rebooting"}, now_s=20.0, most=9)
    for step in Step:
        console.print(panel(Progress(PLAN, step, took_s=10.0, flipped=("c1",)), view))
    drawn = console.export_text()
    assert "remap 7: 203.0.113.7/32 from A to B" in drawn and "d1: rebooting" in drawn
    assert "d1 has not flipped yet" in drawn and "3 connections (1 active in 60 s) left at A" in drawn
    assert "cut in 90 s" in drawn


def test_counts_come_now_and_then_where_nobody_draws(capsys: pytest.CaptureFixture[str]) -> None:
    say, view = verb._LineByLine(), View(states={"a1": FENCED}, now_s=20.0)
    drains = Progress(PLAN, Step.DRAINING, took_s=10.0, flipped=PLAN.points)
    for seconds in (20.0, 21.0, 26.0, 26.5):
        view.now_s = seconds
        say(drains, view)
    say(Progress(PLAN, Step.DONE), view)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and "cut in 90 s" in out[1] and "cut in 84 s" in out[2]
