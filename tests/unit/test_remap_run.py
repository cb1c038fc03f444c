"""Whole remaps over four nodes in memory: there, back, on to a third; refused, undone; killed everywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.engine.remapping import RemapRole
from ipshare.errors import NotRunning, Refused
from ipshare.remap import NotPossible, abort, executor, listed, remap, resume, text
from ipshare.remap import run as calls
from ipshare.remap.executor import View
from ipshare.remap.journal import Journal
from ipshare.remap.machine import Progress, Step
from tests.agent_world import Killed
from tests.flowing_memory import record
from tests.remap_world import ADDRESS, MemoryNode, RemapNodes, all_channels, channel, remap_site

FLOWS = np.concatenate(
    [
        record("198.51.100.1 1000", "203.0.113.7 80", kind="track", realm=0),
        record("198.51.100.2 1001", "203.0.113.7 80", kind="track", realm=0, proto=17),
    ]
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SLOW_S", 0.001)
    monkeypatch.setattr(executor, "QUICK_S", 0.001)
    monkeypatch.setattr("os.fsync", lambda fd: None)  # thousands of them; nothing here loses its disk


@pytest.fixture
def nodes(tmp_path: Path) -> RemapNodes:
    return RemapNodes(tmp_path)


def move(nodes: Any, to: str = "B", origin: str = "A", prefix: str = ADDRESS, **options: Any) -> Progress:
    said: dict[str, Any] = {"silence_s": 0.0, "patience_s": 20.0, "journal": nodes.directory / "journal"}
    return remap(prefix, origin=origin, to=to, nodes=nodes, **{**said, **options})


def again(nodes: Any, **options: Any) -> Progress:
    return resume(None, nodes=nodes, journal=nodes.directory / "journal", **options)


def at_step(step: Step, what: Callable[[Progress], None]) -> Callable[[Progress, View], None]:
    """Calls ``what`` once, when the remap is at ``step``."""
    done = []

    def look(progress: Progress, view: View) -> None:
        if progress.step is step and not done:
            done.append(step)
            what(progress)

    return look


def is_moved(nodes: RemapNodes, to: str) -> bool:
    return all(nodes.serves(name) == to for name in ("c1", "d1")) and nodes.is_at_rest()


# ---- there and back ----------------------------------------------------------------------


def test_an_address_goes_to_another_end_point_and_back_and_leaves_nothing(nodes: RemapNodes) -> None:
    done = move(nodes)
    assert done.step is Step.DONE and is_moved(nodes, "B")
    assert [nodes.bound(name) for name in ("a1", "b1", "c1", "d1")] == ["B"] * 4
    assert nodes.serves("c1", "203.0.113.8") == "A", "its neighbours stay"
    assert move(nodes, "A", "B").step is Step.DONE and is_moved(nodes, "A")
    assert not any(nodes[name].desk.remaps.moves for name in nodes), "files say it again"


def test_halves_are_told_in_order_and_are_each_others(nodes: RemapNodes) -> None:
    seen: dict[str, dict[str, Any]] = {}

    def look(progress: Progress, view: View) -> None:
        for name in ("a1", "b1"):
            for half in nodes.engine(name).remap_halves.values():
                seen.setdefault(f"{name} {half.role.value}", {"half": half, "step": progress.step})

    for name in ("a1", "b1"):  # else replies pass no engine, and are refused
        home = nodes[name].world.directory
        text = (home / "site.toml").read_text().replace("\nlocal = ", '\nreplies = "rewrite"\nlocal = ', 1)
        (home / "site.toml").write_text(text)
        nodes.kill_agent(name)
    move(nodes, replies="channel", quic=True, on_change=look)
    assert list(seen) == ["b1 ready", "a1 preparing", "a1 leaving", "b1 taking"]
    gives, takes = seen["a1 leaving"]["half"], seen["b1 taking"]["half"]
    assert gives.channel == takes.channel.turned() and gives.key == takes.key != b""
    assert (gives.node, gives.peer, takes.node, takes.peer) == ("A", "B", "B", "A")
    assert (gives.quic, takes.quic, takes.unknown_here) == (False, True, False)
    assert gives.replies_by_channel and takes.replies_by_channel
    assert [(str(p.local), str(p.remote)) for p in gives.paths] == [("192.0.2.1", "192.0.2.2")]


def test_it_drains_until_the_last_connection_and_zero_counts_only_after_a_while(nodes: RemapNodes) -> None:
    counts: list[int] = []

    def drain(progress: Progress, view: View) -> None:
        state = view.states.get("a1")
        if progress.step is not Step.DRAINING or state is None:
            return
        counts.append(state.flows)
        nodes.open_flows("a1", progress.plan.id, FLOWS[: max(0, 2 - len(counts))])

    begin = at_step(Step.SYNCING, lambda p: nodes.open_flows("a1", p.plan.id, FLOWS))

    def both(progress: Progress, view: View) -> None:
        begin(progress, view)
        drain(progress, view)

    done = move(nodes, on_change=both, silence_s=0.05)
    assert done.step is Step.DONE and done.cut is None
    assert counts[0] == 2 and counts[-1] == 0


def test_the_deadline_names_what_it_cuts(nodes: RemapNodes) -> None:
    begin = at_step(Step.SYNCING, lambda p: nodes.open_flows("a1", p.plan.id, FLOWS))
    done = move(nodes, on_change=begin, deadline_s=0.0)
    assert done.step is Step.DONE and nodes.is_at_rest() and done.cut is not None
    assert (done.cut.count, done.cut.is_exact) == (2, True)
    assert done.cut.flows[0] == "tcp 198.51.100.1:1000 > 203.0.113.7:80 open"


def test_a_channel_that_dies_while_it_drains_and_comes_back(nodes: RemapNodes) -> None:
    """The giver goes on counting: nothing ends before its connections do."""
    looks: list[int] = []

    def look(progress: Progress, view: View) -> None:
        if progress.step is Step.SYNCING:
            nodes.open_flows("a1", progress.plan.id, FLOWS)
        if progress.step is not Step.DRAINING:
            return
        looks.append(view.states["a1"].flows)
        if len(looks) == 1:
            nodes.wire.cut.add(progress.plan.id)
        elif len(looks) == 4:
            nodes.wire.cut.clear()
            nodes.open_flows("a1", progress.plan.id, FLOWS[:0])

    done = move(nodes, on_change=look)
    assert done.step is Step.DONE and done.cut is None and not done.reason and is_moved(nodes, "B")
    assert looks[1:4] == [2, 2, 2]


def test_a_channel_that_stays_dead_costs_an_exact_number(nodes: RemapNodes) -> None:
    def die(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        nodes.wire.cut.add(progress.plan.id)

    done = move(nodes, on_change=at_step(Step.DRAINING, die), deadline_s=0.0)
    assert done.step is Step.DONE and done.cut is not None
    assert (done.cut.count, done.cut.is_exact) == (2, True) and is_moved(nodes, "B")


def test_back_while_it_drains_and_what_was_first_at_home_is_known_there(nodes: RemapNodes) -> None:
    """The first remap still drains when the second begins: A's tables are not taken from it at the end."""
    first: list[Progress] = []

    def back(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        look = at_step(
            Step.TAKING, lambda p: first.append(replace(p, plan=replace(p.plan, id=progress.plan.id)))
        )
        second = move(nodes, "A", "B", on_change=look)
        assert second.step is Step.DONE and second.plan.unknown_here
        assert second.plan.id > progress.plan.id
        nodes.open_flows("a1", progress.plan.id, FLOWS[:0])

    assert move(nodes, on_change=at_step(Step.DRAINING, back)).step is Step.DONE
    assert first and is_moved(nodes, "A") and nodes.bound("a1") == "A"


def first_leg(nodes: RemapNodes, on: Callable[[Progress], None]) -> Progress:
    """A -> B; ``on`` is called while A's connections drain, which end when it has returned."""

    def meanwhile(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        on(progress)
        nodes.open_flows("a1", progress.plan.id, FLOWS[:0])

    return move(nodes, on_change=at_step(Step.DRAINING, meanwhile))


def test_on_to_a_third_while_the_first_drains_and_nobody_relays(nodes: RemapNodes) -> None:
    """A and B have a channel of their own to E each; both drain."""
    orders: list[str] = []
    left: list[str] = []

    def on(first: Progress) -> None:
        def look(progress: Progress, view: View) -> None:
            for name, halves in nodes.roles().items():
                orders.extend(
                    f"{name} {role.value}" for remap, role in halves.items() if remap != first.plan.id
                )
            if progress.step is Step.SYNCING:
                (earlier,) = progress.plan.earlier
                nodes.open_flows("a1", earlier.id, FLOWS)
                nodes.open_flows("b1", progress.plan.id, FLOWS[:1])
            if progress.step is Step.DRAINING and "a1" in view.states:
                left.append(text.count_line(progress, view))
                for name, remap in (("b1", progress.plan.id), ("a1", progress.plan.earlier[0].id)):
                    if len(nodes.engine(name).remap_rows[remap]):
                        nodes.open_flows(name, remap, FLOWS[:0])
                        break

        done = move(nodes, "E", "B", on_change=look)
        assert done.step is Step.DONE and done.cut is None
        assert [(part.origin, part.giver, part.channel) for part in done.plan.earlier] == [("A", "a1", "A-E")]
        assert first.plan.id < done.plan.earlier[0].id < done.plan.id
        assert all(nodes.serves(name) == "E" for name in ("c1", "d1"))

    assert first_leg(nodes, on).step is Step.DONE and is_moved(nodes, "E")
    begun = list(dict.fromkeys(orders))
    assert begun == ["e1 ready", "a1 preparing", "b1 preparing", "b1 leaving", "a1 leaving", "e1 taking"]
    assert "1 connection" in left[0] and "at B, 2 connections" in left[0] and "at A" in left[0]
    assert [nodes.bound(name) for name in ("a1", "b1", "e1")] == ["E"] * 3


def test_what_is_against_going_on_to_a_third(nodes: RemapNodes) -> None:
    def on(progress: Progress) -> None:
        number = progress.plan.id
        without = {name: node for name, node in nodes.items() if name != "a1"}
        named = _Some(nodes, without)
        assert f"connections of A drain at b1 (remap {number}), and its node is not" in against(
            named, origin="B", to="E"
        )
        home = nodes["e1"].world.directory
        channels = "".join(channel("B", "E") for _ in range(1))
        (home / "site.toml").write_text(remap_site(home, "e1", channels=channels))
        nodes.kill_agent("e1")
        text = against(nodes, origin="B", to="E")
        assert f"connections of A drain at b1 (remap {number}): channel A-E is not in the file of e1" in text

    assert first_leg(nodes, on).step is Step.DONE


class _Some(dict[str, Any]):
    """Not all nodes were named."""

    def __init__(self, nodes: RemapNodes, named: dict[str, Any]) -> None:
        super().__init__(named)
        self.directory = nodes.directory


@pytest.mark.parametrize("step", [step for step in Step if step.can_be_undone])
def test_on_to_a_third_is_undone_and_the_first_drains_on(nodes: RemapNodes, step: Step) -> None:
    def on(first: Progress) -> None:
        def ask(progress: Progress) -> None:
            assert abort(progress.plan.id, nodes=nodes, journal=nodes.directory / "journal") is None

        done = move(nodes, "E", "B", on_change=at_step(step, ask))
        if step is Step.TAKING:
            return
        assert (done.step, done.reason) == (Step.UNDONE, "aborted")
        assert nodes.roles()["e1"] == {} and nodes.bound("e1") == "A", "as its file says"
        assert nodes.roles()["a1"] == {first.plan.id: RemapRole.LEAVING}
        assert nodes.roles()["b1"] == {first.plan.id: RemapRole.TAKING}

    assert first_leg(nodes, on).step is Step.DONE
    assert step is Step.TAKING or is_moved(nodes, "B")


def test_on_to_a_third_and_back_to_the_first_while_all_drain(nodes: RemapNodes) -> None:
    def on(first: Progress) -> None:
        def home(second: Progress) -> None:
            nodes.open_flows("b1", second.plan.id, FLOWS)
            nodes.open_flows("a1", second.plan.earlier[0].id, FLOWS)
            third = move(nodes, "A", "E")
            assert third.step is Step.DONE and third.plan.unknown_here
            assert [part.origin for part in third.plan.earlier] == ["B"]
            nodes.open_flows("b1", second.plan.id, FLOWS[:0])
            nodes.open_flows("a1", second.plan.earlier[0].id, FLOWS[:0])

        assert move(nodes, "E", "B", on_change=at_step(Step.DRAINING, home)).step is Step.DONE

    assert first_leg(nodes, on).step is Step.DONE and is_moved(nodes, "A")


@pytest.mark.parametrize("kind", ["agent", "engine"])
@pytest.mark.parametrize("step", [Step.READYING, Step.LEAVING, Step.FENCING, Step.TAKING, Step.DRAINING])
def test_killed_on_the_way_to_a_third(nodes: RemapNodes, kind: str, step: Step) -> None:
    """All three nodes, and whoever works on it; another process goes on."""

    def on(first: Progress) -> None:
        def die(progress: Progress) -> None:
            for name in ("a1", "b1", "e1"):
                nodes.kill_agent(name) if kind == "agent" else nodes.kill_engine(name)
            raise Killed

        with suppress(Killed):
            move(nodes, "E", "B", on_change=at_step(step, die))
        for entry in calls.unfinished(Journal(nodes.directory / "journal")):
            if entry.id != first.plan.id:
                done = resume(entry.id, nodes=nodes, journal=nodes.directory / "journal")
                assert done.step is Step.DONE

    assert first_leg(nodes, on).step is Step.DONE and is_moved(nodes, "E")


def test_there_back_and_there_again_while_both_drain(nodes: RemapNodes) -> None:
    def back(first: Progress) -> None:
        nodes.open_flows("a1", first.plan.id, FLOWS)

        def again(second: Progress) -> None:
            nodes.open_flows("b1", second.plan.id, FLOWS)
            third = move(nodes)
            assert third.step is Step.DONE and third.plan.unknown_here
            nodes.open_flows("b1", second.plan.id, FLOWS[:0])

        assert move(nodes, "A", "B", on_change=at_step(Step.DRAINING, again)).step is Step.DONE
        nodes.open_flows("a1", first.plan.id, FLOWS[:0])

    assert move(nodes, on_change=at_step(Step.DRAINING, back)).step is Step.DONE
    assert is_moved(nodes, "B") and [nodes.bound(name) for name in ("a1", "b1")] == ["B", "B"]


def test_replies_go_back_only_where_they_pass_the_engine(nodes: RemapNodes) -> None:
    assert "pass no engine there" in against(nodes, replies="channel")


def test_one_address_then_the_rest_of_its_prefix(nodes: RemapNodes) -> None:
    move(nodes)
    whole = "203.0.113.0/24"
    assert move(nodes, prefix=whole).step is Step.DONE
    assert is_moved(nodes, "B") and nodes.serves("c1", "203.0.113.9") == "B"
    assert move(nodes, "A", "B").step is Step.DONE
    assert nodes.serves("c1") == "A" and nodes.serves("c1", "203.0.113.9") == "B"


def test_two_remaps_by_re_addressing_have_prefixes_of_their_own(tmp_path: Path) -> None:
    nodes = RemapNodes(tmp_path, channels=all_channels("rewrite"))
    used: list[str] = []

    def second(progress: Progress) -> None:
        used.append(str(nodes.engine("a1").remap_halves[progress.plan.id].channel.local_final))
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        look = at_step(
            Step.DRAINING,
            lambda p: used.append(str(nodes.engine("a1").remap_halves[p.plan.id].channel.local_final)),
        )
        assert move(nodes, prefix="203.0.113.8/32", on_change=look).plan.slot == 1
        nodes.open_flows("a1", progress.plan.id, FLOWS[:0])

    assert move(nodes, on_change=at_step(Step.DRAINING, second)).step is Step.DONE
    assert used == ["10.1.0.124", "10.1.0.125"]


def test_remaps_that_begin_at_once_have_parts_of_their_own(nodes: RemapNodes) -> None:
    prefixes = [f"203.0.113.{number}/32" for number in range(7, 12)]
    with ThreadPoolExecutor(len(prefixes)) as pool:
        plans = [done.plan for done in pool.map(lambda prefix: move(_Serial(nodes), prefix=prefix), prefixes)]
    assert len({plan.id for plan in plans}) == len(plans)
    assert sorted(plan.slot for plan in plans) != [0] * len(plans)
    assert all(nodes.serves("c1", prefix[:-3]) == "B" for prefix in prefixes) and nodes.is_at_rest()


class _Serial(dict[str, Any]):
    """The nodes for several threads: an agent does one thing at a time."""

    def __init__(self, nodes: RemapNodes) -> None:
        lock = nodes.__dict__.setdefault("lock", threading.Lock())
        self.directory = nodes.directory
        super().__init__({name: _One(node, lock) for name, node in nodes.items()})


class _One:
    def __init__(self, node: MemoryNode, lock: threading.Lock) -> None:
        self.node, self.lock = node, lock

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        with self.lock:
            return self.node.ask(verb, **arguments)


# ---- refused before anything changes ------------------------------------------------------


def against(nodes: RemapNodes, **wanted: Any) -> str:
    """Why not; and nothing was changed."""
    asked = {name: len(nodes[name].asked) for name in nodes}
    with pytest.raises(NotPossible) as caught:
        move(nodes, **wanted)
    for name, count in asked.items():
        assert {verb for verb, _ in nodes[name].asked[count:]} <= {"remap_look"}, name
    assert "nothing was changed" in caught.value.hint
    return caught.value.message


def test_to_itself_to_nobody_from_nobody(nodes: RemapNodes) -> None:
    assert "at A already" in against(nodes, to="A")
    assert "no node is end point 'X' (known: A, B, E)" in against(nodes, to="X")
    assert "no node is end point 'Y'" in against(nodes, origin="Y")


def test_what_is_not_bound_there(nodes: RemapNodes) -> None:
    text = against(nodes, origin="B", to="A")
    assert "at b1 it is not bound to B but to A" in text and "at c1 it is not bound" in text
    assert "not bound to A but to no end point" in against(nodes, prefix="198.51.100.0/24")


def test_a_node_that_does_not_answer_and_one_that_is_another(nodes: RemapNodes) -> None:
    with nodes.mute("d1"):
        assert "node d1 does not answer: nobody is there" in against(nodes)
    nodes["d2"] = nodes["d1"]
    assert "the node that was named d2 is d1" in against(nodes)


def test_a_distribution_point_that_was_not_named(nodes: RemapNodes) -> None:
    del nodes["d1"]
    assert "distribution point D is not among the nodes" in against(nodes)
    del nodes["c1"]
    assert "no distribution point is among the nodes" in against(nodes)


def test_an_end_point_that_is_not_ready(nodes: RemapNodes) -> None:
    nodes["b1"].world.kill_engine()
    assert "node b1 has no engine running" in against(nodes)


def test_a_channel_that_is_missing_or_does_not_carry_it(tmp_path: Path) -> None:
    nodes = RemapNodes(tmp_path)
    nodes.trouble = "the way to B carries 1400 bytes: mtu of A-B is 1500"
    assert "at a1: the way to B carries 1400 bytes" in against(nodes)
    nodes.trouble = ""
    assert "there is no channel X from A to B" in against(nodes, channel="X")
    other = RemapNodes(tmp_path / "none", channels="[sessions]\n[[channel]]\n".replace("[[channel]]\n", ""))
    assert "there is no channel from A to B" in against(other)
    short = RemapNodes(tmp_path / "short", channels=all_channels(mtu=590))
    assert "channel A-B carries 570 bytes: IPv4 needs 576" in against(short)
    other = RemapNodes(tmp_path / "rewrite", channels=all_channels("rewrite"))
    assert "replies cannot go back" in against(other, replies="channel")
    assert "has no prefixes for 203.0.113.0/24" in against(other, prefix="203.0.113.0/24")


def test_a_file_that_differs_at_the_other_end(nodes: RemapNodes) -> None:
    home = nodes["b1"].world.directory
    (home / "site.toml").write_text(remap_site(home, "b1", channels=all_channels(mtu=1400)))
    nodes.kill_agent("b1")
    assert "channel A-B is not the same at both ends" in against(nodes)


def test_an_address_in_another_running_remap(nodes: RemapNodes) -> None:
    def meanwhile(progress: Progress) -> None:
        for prefix in (ADDRESS, "203.0.113.0/24"):
            text = against(nodes, prefix=prefix, to="E")
            assert f"remap {progress.plan.id} of 203.0.113.7/32 from A to B runs (it is syncing)" in text
        with pytest.raises(NotPossible, match="which has not flipped"):  # whoever keeps another journal
            move(nodes, to="E", journal=nodes.directory / "another")

    assert move(nodes, on_change=at_step(Step.SYNCING, meanwhile)).step is Step.DONE


def test_a_binding_of_its_own_inside(nodes: RemapNodes) -> None:
    for name in ("a1", "c1", "d1", "b1"):
        home = nodes[name].world.directory
        own = '[[binding]]\nglobal = "203.0.113.9"\nto = "A"\n'
        (home / "site.toml").write_text(remap_site(home, name) + own)
        nodes.kill_agent(name)
    assert "203.0.113.9/32 in it has a binding of its own to A" in against(nodes, prefix="203.0.113.0/24")


# ---- undone -------------------------------------------------------------------------------


def is_as_before(nodes: RemapNodes) -> bool:
    moves = [nodes[name].desk.remaps.moves for name in nodes]
    return is_moved(nodes, "A") and not any(moves) and nodes.bound("b1") == "A"


def test_a_peer_that_is_not_reached_is_undone(nodes: RemapNodes) -> None:
    cut = at_step(Step.SYNCING, lambda p: nodes.wire.cut.add(p.plan.id))
    done = move(nodes, on_change=cut, patience_s=0.05)
    assert done.step is Step.UNDONE and "A did not hear B in 0.05 s" in done.reason
    assert is_as_before(nodes)


def test_a_fence_that_is_not_applied_in_time_is_undone(nodes: RemapNodes) -> None:
    late = at_step(Step.LEAVING, lambda p: nodes.wire.late.add(p.plan.id))
    done = move(nodes, on_change=late, patience_s=0.05)
    assert done.step is Step.UNDONE and "every connection" in done.reason and is_as_before(nodes)


def test_an_engine_that_says_no_is_undone(nodes: RemapNodes) -> None:
    def refuse(settings: Any) -> None:
        raise Refused("the session table is full")

    nodes.engine("a1").set_remap = refuse  # type: ignore[method-assign]
    done = move(nodes)
    assert (done.step, done.reason) == (Step.UNDONE, "a1: the session table is full")
    assert is_as_before(nodes)


@pytest.mark.parametrize("step", [step for step in Step if step.can_be_undone])
def test_aborted_at_each_step_before_the_flip(nodes: RemapNodes, step: Step) -> None:
    def ask(progress: Progress) -> None:
        assert abort(None, nodes=nodes, journal=nodes.directory / "journal") is None, "it is told"

    done = move(nodes, on_change=at_step(step, ask))
    assert step is Step.TAKING or (done.step, done.reason) == (Step.UNDONE, "aborted")
    assert step is Step.TAKING or is_as_before(nodes)


def test_too_late_to_abort(nodes: RemapNodes) -> None:
    def ask(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        with pytest.raises(Refused, match="it can only go on") as caught:
            abort(progress.plan.id, nodes=nodes, journal=nodes.directory / "journal")
        assert "--from B --to A" in caught.value.hint
        with pytest.raises(Refused, match="another process works on"):
            again(nodes)
        raise Killed

    with pytest.raises(Killed):
        move(nodes, on_change=at_step(Step.DRAINING, ask))
    assert again(nodes, deadline_s=0.0).cut.count == 2  # type: ignore[union-attr]
    with pytest.raises(Refused, match="no unfinished remap"):
        again(nodes)


def test_undoing_that_needs_a_silent_node_says_so_and_goes_on_later(
    nodes: RemapNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls.Executor.__init__, "__kwdefaults__", {**_defaults(), "undo_patience_s": 0.05})

    def silence(progress: Progress) -> None:
        nodes["a1"].mute = "gone"

    with pytest.raises(NotRunning, match="node a1 does not answer: gone"):
        move(nodes, on_change=at_step(Step.LEAVING, silence), patience_s=0.05)
    nodes["a1"].mute = ""
    assert again(nodes).step is Step.UNDONE and is_as_before(nodes)


def _defaults() -> dict[str, Any]:
    return dict(calls.Executor.__init__.__kwdefaults__ or {})


# ---- killed -------------------------------------------------------------------------------


class Mortal(dict[str, "_Asked"]):
    """The nodes as one orchestrator sees them: it dies before or after the n-th thing that it does."""

    def __init__(self, nodes: RemapNodes, dies_at: int) -> None:
        super().__init__({name: _Asked(self, node) for name, node in nodes.items()})
        self.directory, self.left, self._lock = nodes.directory, dies_at, threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.left -= 1
            if self.left < 0:
                raise Killed


class _Asked:
    def __init__(self, mortal: Mortal, node: MemoryNode) -> None:
        self.mortal, self.node = mortal, node

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if verb == "remap_look":
            return self.node.ask(verb, **arguments)
        self.mortal.step()
        answer = self.node.ask(verb, **arguments)
        self.mortal.step()
        return answer


def everywhere(
    nodes: RemapNodes, monkeypatch: pytest.MonkeyPatch, stride: int
) -> Iterator[Callable[[], Progress | None]]:
    """One remap there or back for each place where its orchestrator can die; journal writes are places."""
    write = calls.Executor._write
    for dies_at in range(0, 300, stride):
        mortal = Mortal(nodes, dies_at)

        def mortal_write(self: Any, progress: Progress, before: Any = None, m: Mortal = mortal) -> Progress:
            if progress != before:
                m.step()
            done = write(self, progress, before)
            if progress != before:
                m.step()
            return done

        def attempt(m: Mortal = mortal, n: int = dies_at) -> Progress | None:
            to, origin = ("B", "A") if nodes.serves("c1") == "A" else ("A", "B")
            with monkeypatch.context() as patch, suppress(Killed):
                patch.setattr(calls.Executor, "_write", mortal_write)
                return move(m, to, origin)
            return None

        yield attempt
        if mortal.left >= 0:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("with_it", ["nothing", "agents", "a1's engine", "b1's engine"])
def test_killed_anywhere_it_goes_on_to_its_end(
    nodes: RemapNodes, monkeypatch: pytest.MonkeyPatch, with_it: str
) -> None:
    """The orchestrator dies at every place in turn, with it agents or an engine; the next one finishes."""
    places = 0
    stride = 2 if with_it == "nothing" else 6  # an engine takes its time
    for attempt in everywhere(nodes, monkeypatch, stride):
        to = "B" if nodes.serves("c1") == "A" else "A"
        done = attempt()
        places += 1
        if with_it == "agents":
            for name in ("a1", "b1", "c1", "d1"):
                nodes.kill_agent(name)
        elif with_it != "nothing":
            nodes.kill_engine(with_it[:2])
        if done is None:
            open_ = calls.unfinished(Journal(nodes.directory / "journal"))
            if not open_:
                assert nodes.is_at_rest(), "it died before its first word, or after its last"
                continue
            done = again(nodes)
        assert done.step is Step.DONE, done
        assert is_moved(nodes, to), (places, done)
    assert places * stride > 50
    entries = listed(nodes.directory / "journal")
    assert all(entry.progress.step is Step.DONE for entry in entries) and len(entries) * stride > 30


@pytest.mark.parametrize("kind", ["agent", "engine"])
@pytest.mark.parametrize("step", [step for step in Step if step not in (Step.NAMING, Step.UNDOING)])
def test_an_agent_or_engine_killed_at_each_step_under_a_living_remap(
    nodes: RemapNodes, kind: str, step: Step
) -> None:
    def kill(progress: Progress) -> None:
        for name in ("a1", "b1", "c1"):
            nodes.kill_agent(name) if kind == "agent" else nodes.kill_engine(name)

    done = move(nodes, on_change=at_step(step, kill))
    assert done.step is Step.DONE and is_moved(nodes, "B")


def test_an_engine_that_comes_back_has_its_role_key_and_id_again(nodes: RemapNodes) -> None:
    kept: list[Any] = []

    def kill(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        before = {name: nodes.engine(name).remap_halves[progress.plan.id] for name in ("a1", "b1")}
        for name in before:
            nodes.kill_engine(name)
            nodes.kill_agent(name)
            kept.append(nodes.engine(name).remap_halves[progress.plan.id] == before[name])

    assert move(nodes, on_change=at_step(Step.DRAINING, kill)).step is Step.DONE
    assert kept == [True, True]


def test_a_distribution_point_that_is_late(nodes: RemapNodes) -> None:
    waits: list[tuple[str, ...]] = []

    def look(progress: Progress, view: View) -> None:
        if progress.step is Step.TAKING:
            nodes["d1"].mute = "rebooting"
        if progress.step is Step.FLIPPING and progress.flipped:
            assert nodes.serves("c1") == "B" and nodes.serves("d1") == "A"
            assert nodes.roles()["a1"] == {progress.plan.id: RemapRole.LEAVING}
            waits.append(progress.waits_for)
            assert view.silent == {"d1": "rebooting"}
            nodes["d1"].mute = ""

    assert move(nodes, on_change=look, deadline_s=0.0).step is Step.DONE
    assert waits == [("d1",)] and is_moved(nodes, "B")


def test_the_same_command_again_goes_on(nodes: RemapNodes) -> None:
    def die(progress: Progress) -> None:
        raise Killed

    with pytest.raises(Killed):
        move(nodes, on_change=at_step(Step.FLIPPING, die))
    (begun,) = listed(nodes.directory / "journal")
    assert move(nodes).plan.id == begun.id
    assert is_moved(nodes, "B") and len(listed(nodes.directory / "journal")) == 1


def test_a_journal_that_was_cut_off_counts_up_to_its_last_whole_line(nodes: RemapNodes) -> None:
    def die(progress: Progress) -> None:
        raise Killed

    with pytest.raises(Killed):
        move(nodes, on_change=at_step(Step.DRAINING, die))
    (file,) = (nodes.directory / "journal").glob("*.jsonl")
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("ab") as journal:
        journal.write(b'{"version": 1, "boot_id": "x", "progr')
    assert again(nodes).step is Step.DONE
    assert listed(nodes.directory / "journal")[0].progress.step is Step.DONE


def test_another_boot_begins_its_times_anew(nodes: RemapNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(progress: Progress) -> None:
        nodes.open_flows("a1", progress.plan.id, FLOWS)
        raise Killed

    with pytest.raises(Killed):
        move(nodes, on_change=at_step(Step.DRAINING, die), deadline_s=50.0)
    (file,) = (nodes.directory / "journal").glob("*.jsonl")
    here = listed(nodes.directory / "journal")[0].boot_id
    file.write_text(file.read_text().replace(here, "an earlier boot").replace('"took_s": ', '"took_s": -9'))
    seen: list[float | None] = []

    def look(progress: Progress, view: View) -> None:
        seen.append(progress.took_s)
        nodes.open_flows("a1", progress.plan.id, FLOWS[:0])

    assert again(nodes, on_change=look).cut is None
    assert seen[0] is not None and seen[0] > 0
