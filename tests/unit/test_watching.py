"""Watching goes on over whatever becomes of tables and engine, and never compares what is not comparable."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from ipshare import api
from ipshare.cli import counters as verb
from ipshare.cli.app import run
from ipshare.engine.packet_words import packet
from ipshare.engine.watching import PATIENCE_S, Watch
from ipshare.errors import NotRunning
from tests.agent_world import Routes, World, site, site_text

PACKET = packet("udp 198.51.100.1:1 > 203.0.113.5:2")


@pytest.fixture
def world(tmp_path) -> World:
    world = World(tmp_path)
    world.agent().apply(site(tmp_path))
    return world


@pytest.fixture
def kept(world: World) -> Iterator[None]:
    """An agent is there: who asks at its socket is let in."""
    (world.directory / "run").mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(world.directory / "run" / "agent.sock"))
        agent.listen()
        yield


def node_of(world: World) -> api.Node:
    return api.Node(site(world.directory), data_path=world, routes=Routes(world), clock=world)


def send(world: World, packets: int) -> None:
    assert world.running is not None and world.running._worker is not None
    for _ in range(packets):
        world.running._worker.process("outer", PACKET)


def restart(world: World) -> None:
    world.kill_engine()
    world.agent().apply(site(world.directory))


def counted(watch: Watch) -> int | None:
    delta = watch.look()
    return None if delta is None else sum(row["packets"] for row in delta.verdicts())


def test_each_look_gives_what_came_since_the_last(world: World) -> None:
    watch = node_of(world).watching()
    send(world, 5)
    assert counted(watch) is None, "the first one has nothing to compare with"
    send(world, 2)
    assert [counted(watch), counted(watch)] == [2, 0]


@pytest.mark.usefixtures("kept")
def test_a_restarted_engine_is_another_beginning(world: World) -> None:
    watch = node_of(world).watching()
    send(world, 5)
    watch.look()
    first = watch.look()
    restart(world)
    send(world, 3)
    assert counted(watch) is None, "neither 3 - 5 nor 3"
    send(world, 4)
    second = watch.look()
    assert first is not None and second is not None
    assert second.boot_id != first.boot_id and second.verdicts()[0]["packets"] == 4


def test_an_engine_that_is_away_is_waited_for_only_where_somebody_starts_another(world: World) -> None:
    now = [0.0]
    is_kept = [True]
    node = node_of(world)
    watch = Watch(lambda: node.engine, node.tables, lambda: is_kept[0], lambda: now[0])
    watch.look()
    world.kill_engine()
    now[0] += PATIENCE_S
    assert counted(watch) is None
    is_kept[0] = False
    with pytest.raises(NotRunning):
        watch.look()
    is_kept[0] = True
    now[0] += 1
    with pytest.raises(NotRunning):
        watch.look()


@pytest.mark.usefixtures("kept")
def test_an_engine_that_was_never_there_is_not_waited_for(world: World) -> None:
    world.kill_engine()
    with pytest.raises(NotRunning):
        node_of(world).watching().look()


def test_tables_that_change_while_they_are_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the tables and the counters: names of one generation never go with numbers of the other."""
    node, other = node_of(world), site(world.directory, to="B")
    read = type(world.running).read

    def changed_meanwhile(self: object) -> object:
        tables = read(self)  # type: ignore[arg-type]
        monkeypatch.undo()
        world.agent().apply(other)
        return tables

    watch = node.watching()
    monkeypatch.setattr(type(world.running), "read", changed_meanwhile)
    watch.look()
    delta = watch.look()
    assert delta is not None and delta.generation == 2
    assert delta.tables.bindings["target"][0] == 1


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("as_json", [True, False])
def test_the_verb_says_that_counting_began_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], as_json: bool
) -> None:
    node = node_of(world)

    def three(_interval_s: float) -> Iterator[object]:
        watch = node.watching()
        watch.look()
        yield watch.look()
        yield watch.look()
        restart(world)
        watch.look()
        yield watch.look()

    monkeypatch.setattr(node, "watch", three)
    monkeypatch.setattr(verb, "node_of", lambda *_, **__: node)
    (world.directory / "site.toml").write_text(site_text(world.directory))
    assert run(["counters", "--watch", *(["--json"] if as_json else [])]) == 0
    out = capfd.readouterr().out
    if as_json:
        assert [json.loads(line)["restarted"] for line in out.splitlines()] == [False, False, True]
    else:
        assert out.count("restarted") == 1
