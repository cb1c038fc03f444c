"""The Python API over a node in memory; the examples of docs/python-api.md run as they stand."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ipshare import aio, api
from ipshare.agent.datapath import node_lock
from ipshare.api_remap import RemapHalves
from ipshare.engine.aio import AsyncEngine
from ipshare.engine.embedded import AsyncControl, Control
from ipshare.engine.memory import MemoryEngine
from ipshare.engine.protocol import Engine
from ipshare.errors import ConfigError, EngineError, NotRunning, Refused
from tests.agent_world import Routes, World, site, site_text

DOCS = Path(__file__).parents[2] / "docs"
WORDS = "udp 198.51.100.1:1 > 203.0.113.5:2"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def node_of(world: World, **wanted: object) -> api.Node:
    config = site(world.directory, **wanted)  # type: ignore[arg-type]
    return api.Node(config, data_path=world, routes=Routes(world), clock=world)


def test_apply_diff_why_rollback(world: World) -> None:
    node = node_of(world)
    with pytest.raises(NotRunning):
        node.apply()
    assert world.launches == 0
    first = node.apply(start_engine=True)
    assert (first.generation, first.changed, first.by_agent) == (1, True, False)
    assert not node.apply().changed
    other = node_of(world, to="B")
    assert other.diff().lines() == ["~ binding 203.0.113.0/24: A 10.1.0.0/24 -> B 10.2.0.0/24"]
    assert node.why(WORDS).endpoint == "A"
    assert other.apply().changes == 1
    assert node.why(WORDS).endpoint == "B"
    assert node.rollback().changed
    assert node.why(WORDS).endpoint == "A"


def test_names_are_those_of_what_was_applied_not_of_the_file_in_hand(world: World) -> None:
    node_of(world).apply(start_engine=True)
    other = node_of(world, more='[[endpoint]]\nname = "Z"\nlocal = ["10.9.0.0/24"]\n')
    assert other.tables().endpoint_names == ("A", "B")


def test_a_stored_node_is_found_again(world: World) -> None:
    node_of(world).apply(start_engine=True)
    assert api.Node.stored(world.directory / "state").config == site(world.directory)
    with pytest.raises(NotRunning):
        api.Node.stored(world.directory / "nowhere")


def test_a_trial_needs_somebody_to_end_it(world: World) -> None:
    node_of(world).apply(start_engine=True)
    with pytest.raises(NotRunning, match="nobody else could roll back"):
        node_of(world, to="B").apply(confirm_within_s=60)
    assert node_of(world).why(WORDS).endpoint == "A"


def test_two_at_once_the_second_is_refused_and_told_who(world: World) -> None:
    node = node_of(world)
    with node_lock(node.config), pytest.raises(Refused, match=r"process \d+"):
        node.apply(start_engine=True)
    assert world.running is None


def test_offline_needs_nothing_and_keeps_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MemoryEngine] = []
    monkeypatch.setattr(api, "MemoryEngine", lambda: made.append(MemoryEngine()) or made[-1])
    answer = node_of(world, to="B").why(WORDS, offline=True)
    assert (answer.verdict, answer.endpoint) == ("OK", "B")
    with pytest.raises(NotRunning):
        made[0].info()  # its tables are C's memory: nobody else frees them
    assert world.launches == 0
    assert not (world.directory / "state").exists()


def test_watching_survives_a_change_of_tables(world: World) -> None:
    node = node_of(world)
    node.apply(start_engine=True)
    steps = node.watch(0.01)
    assert next(steps).generation == 1
    node_of(world, to="B").apply()
    delta = next(steps)
    assert delta.generation == 2
    assert delta.tables.bindings["target"][0] == 1, "the new tables, not those that watching began with"
    world.kill_engine()
    with pytest.raises(NotRunning):
        next(steps)


def test_down_and_down_again(world: World) -> None:
    node = node_of(world)
    node.apply(start_engine=True)
    assert node.down() == ["engine ended", "undone: route 203.0.113.0/24"]
    assert node.down() == []
    assert not (world.directory / "run").exists()


def test_asyncio_does_the_same(world: World) -> None:
    async def scenario() -> None:
        async with aio.Node(node_of(world)) as node:
            assert (await node.apply(start_engine=True)).generation == 1
            assert (await node.diff()).count == 0
            assert (await node.why(WORDS)).endpoint == "A"
            assert (await node.check()) == []
            assert len((await node.tables()).bindings) == (await node.info()).bindings == 2
            async for delta in node.watch(0.01):
                assert delta.verdicts() == []
                break
            with pytest.raises(Refused):
                await node.rollback()
            with pytest.raises(NotRunning):
                await node.confirm()
            assert await node.down()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("blocking", "awaited", "only"),
    [
        (api.Node, aio.Node, {"engine", "stored", "watching", "following_pair"}),
        (RemapHalves, aio.Node, set()),
        (Control, AsyncControl, set()),
        (Engine, AsyncEngine, set()),
    ],
)
def test_both_forms_have_the_same_names_and_arguments(blocking: type, awaited: type, only: set[str]) -> None:
    for name, call in vars(blocking).items():
        if inspect.isfunction(call) and not name.startswith("_") and name not in only:
            assert arguments(call) == arguments(getattr(awaited, name)), name


def arguments(call: Callable[..., object]) -> list[tuple[str, object, object]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(call).parameters.values()]


def test_the_examples_of_the_documentation_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.directory)
    monkeypatch.setattr(api, "Engines", lambda: world)
    monkeypatch.setattr(api, "EngineRoutes", lambda: Routes(world))
    Path("site.toml").write_text(site_text(world.directory))
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python-api.md", "exec"), names)


def test_a_bad_file_says_everything(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[node]\nnmae = 1\n[[network]]\nprefix = 3\n")
    with pytest.raises(ConfigError) as caught:
        api.Node(tmp_path / "site.toml")
    assert len(caught.value.problems) >= 3


def test_down_does_not_say_that_nothing_is_there_while_routes_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_of(world)
    node.apply(start_engine=True)
    world.kill_engine()
    monkeypatch.setattr(Routes, "undo", lambda *_: [])  # the journal is gone
    with pytest.raises(
        EngineError, match="routes and rules like its own are there: route 203.0.113.0/24"
    ) as caught:
        node.down()
    assert "ip link del ips-out" in caught.value.hint
