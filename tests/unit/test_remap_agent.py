"""A node's half of a remap in its agent: verbs, what is refused, what is on disk, routes, notes, Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ipshare import config as configuration
from ipshare.agent import remaps
from ipshare.agent.confirm import State
from ipshare.agent.daemon import Daemon
from ipshare.agent.netspec import Facts, netspec
from ipshare.agent.remap_desk import channel_trouble, way_mtu
from ipshare.agent.remaps import Remaps
from ipshare.agent.store import Store
from ipshare.aio import Node as Awaited
from ipshare.api import Node
from ipshare.cli import exits
from ipshare.engine import rebound
from ipshare.engine.remap_text import count_words, lines, state_json, state_of
from ipshare.engine.remapping import RemapRole
from ipshare.errors import EngineError, IpshareError, NotRunning, Refused
from ipshare.model import Channel, Config, Move, PairPath
from tests.agent_world import Killed, Routes, World
from tests.remap_world import ADDRESS, RemapNodes, all_channels, remap_site
from tests.unit.test_agent_daemon import ask, audit, serve
from tests.unit.test_cli_verbs import documented_keys
from tests.unit.test_cli_verbs import ipshare as ipshare
from tests.unit.test_remap_machine import DRAINED, FENCED, half
from tests.unit.test_remap_run import FLOWS

Run = Callable[..., tuple[int, str, str]]
GIVES = {"id": 5, "prefix": ADDRESS, "role": "preparing", "channel": "A-B"}


@pytest.fixture
def nodes(tmp_path: Path) -> RemapNodes:
    return RemapNodes(tmp_path)


# ---- verbs ----------------------------------------------------------------------------------


def test_the_agent_answers_and_writes_down_what_it_changed(tmp_path: Path) -> None:
    """Over the control socket, with a real daemon."""
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
    key = tmp_path / "channel.key"
    key.write_text("cd" * 32)
    key.chmod(0o600)
    (tmp_path / "site.toml").write_text(remap_site(tmp_path, "a1"))
    world = World(tmp_path)

    async def scenario(agent: Daemon) -> None:
        looked = await ask(world, "remap_look", prefix=ADDRESS)
        assert (looked["bound_to"], looked["not_ready"]) == ("A", "")
        assert (await ask(world, "remap_set", **GIVES))["changed"]
        assert not (await ask(world, "remap_set", **GIVES))["changed"]
        assert (await ask(world, "remap_set", id=5, role="leaving"))["state"]["role"] == "leaving"
        assert len((await ask(world, "remap_list"))["halves"]) == 1
        with pytest.raises(Refused, match="another one here"):
            await ask(world, "remap_set", **(GIVES | {"role": "ready"}))
        node = Awaited(Node(tmp_path / "site.toml", data_path=world, routes=Routes(world), clock=world))
        state = await node.remap_state(5)
        assert state is not None and state.role is RemapRole.LEAVING
        assert await node.remap_flows(5) == []
        assert (await node.remaps())["halves"][0]["state"]["role"] == "leaving"
        assert await node.remap_bind(5, ADDRESS, "B") is True
        assert (await ask(world, "status"))["generation"] == 2
        cleared = await node.remap_clear(5)
        assert cleared is not None and await node.remap_clear(5) is None
        prepared = await node.remap_prepare(6, "203.0.113.8", side="taker", channel="A-B")
        assert prepared.role is RemapRole.READY
        assert (await node.remap_take(6)).role is RemapRole.TAKING
        with pytest.raises(Refused, match="another one here"):
            await node.remap_leave(6)
        with pytest.raises(IpshareError, match="prefix is an address"):
            await ask(world, "remap_look", prefix="everything")

    serve(world, scenario)
    done = [verb for verb, outcome in audit(world) if verb.startswith("remap_") and outcome == "ok"]
    assert done[:4] == ["remap_set", "remap_set", "remap_set", "remap_bind"]
    text = (tmp_path / "state" / "remaps.json").read_text()
    assert "cdcd" not in text and "cdcd" not in (tmp_path / "state" / "audit.log").read_text()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"channel": "X"}, "there is no channel 'X' here"),
        ({"prefix": "10.0.0.0/8"}, "not bound to A but to no end point"),
        ({"slot": 64}, "has no part 64"),
        ({"slot": "one"}, "slot is a number"),
        ({"role": "resting"}, "role is one of preparing, leaving"),
        ({"id": 0}, "id is the number of a remap"),
        ({"id": 1 << 56}, "id is the number of a remap"),
    ],
    ids=str,
)
def test_what_a_half_cannot_be(nodes: RemapNodes, change: dict[str, Any], text: str) -> None:
    with pytest.raises(IpshareError, match=text):
        nodes["a1"].ask("remap_set", **(GIVES | change))
    assert nodes.is_at_rest()


def test_roles_of_what_is_not_there_and_another_remap_of_the_same_address(nodes: RemapNodes) -> None:
    with pytest.raises(Refused, match="there is no remap 5"):
        nodes["a1"].ask("remap_set", id=5, role="leaving")
    nodes["a1"].ask("remap_set", **GIVES)
    with pytest.raises(Refused, match="remap 5, which has not flipped"):
        nodes["a1"].ask("remap_set", **(GIVES | {"id": 6, "prefix": "203.0.113.0/24"}))
    with pytest.raises(Refused, match="remap 5 of 203.0.113.7/32 is later than remap 4"):
        nodes["a1"].ask("remap_set", **(GIVES | {"id": 4}))
    with pytest.raises(Refused, match="remap 5 has part 0 of channel A-B"):
        nodes["a1"].ask("remap_set", **(GIVES | {"id": 6, "prefix": "203.0.113.8"}))
    with pytest.raises(Refused, match="node c1 is no end point|there is no channel"):
        nodes["c1"].ask("remap_set", **GIVES)


def test_an_engine_that_says_no_leaves_nothing_behind(nodes: RemapNodes) -> None:
    def refuse(settings: Any) -> None:
        raise Refused("no")

    nodes.engine("a1").set_remap = refuse  # type: ignore[method-assign]
    with pytest.raises(Refused):
        nodes["a1"].ask("remap_set", **GIVES)
    assert nodes["a1"].desk.remaps == Remaps()


def test_a_binding_that_the_engine_refuses_leaves_nothing_behind(nodes: RemapNodes) -> None:
    nodes["c1"].world.faults.at = len(nodes["c1"].world.faults.steps) + 1
    with pytest.raises(EngineError):
        nodes["c1"].ask("remap_bind", id=5, prefix=ADDRESS, to="B")
    assert nodes["c1"].desk.remaps == Remaps() and nodes.serves("c1") == "A"
    assert nodes["c1"].ask("remap_bind", id=5, prefix=ADDRESS, to="B")["changed"]
    assert nodes.serves("c1") == "B"


def test_killed_while_it_binds_it_is_bound_by_the_next(nodes: RemapNodes) -> None:
    world = nodes["c1"].world
    world.faults.at, world.faults.kill = len(world.faults.steps) + 1, True
    with pytest.raises(Killed):
        nodes["c1"].ask("remap_bind", id=5, prefix=ADDRESS, to="B")
    nodes.kill_agent("c1")
    assert nodes.serves("c1") == nodes.bound("c1")


def test_an_earlier_remap_binds_nothing_after_a_later_one(nodes: RemapNodes) -> None:
    nodes["c1"].ask("remap_bind", id=7, prefix="203.0.113.0/24", to="B")
    with pytest.raises(Refused, match="remap 7 has bound 203.0.113.7/32 after remap 6"):
        nodes["c1"].ask("remap_bind", id=6, prefix=ADDRESS, to="A")
    assert not nodes["c1"].ask("remap_bind", id=6, prefix=ADDRESS, to="A", or_leave=True)["changed"]
    nodes.kill_agent("c1")
    with pytest.raises(Refused):
        nodes["c1"].ask("remap_bind", id=6, prefix=ADDRESS, to="A")


def test_names_and_places_that_do_not_fit_are_refused(nodes: RemapNodes) -> None:
    for to, text in (("X", "no end point 'X'"), (7, "to is the name")):
        with pytest.raises(Refused, match=text):
            nodes["c1"].ask("remap_bind", id=5, prefix=ADDRESS, to=to)
    with pytest.raises(Refused, match="in no Global Network"):
        nodes["c1"].ask("remap_bind", id=5, prefix="198.51.100.1", to="B")


# ---- kept -------------------------------------------------------------------------------------


def test_an_engine_that_refuses_a_half_keeps_no_packet_of_the_others(nodes: RemapNodes) -> None:
    nodes["a1"].ask("remap_set", **GIVES)
    (nodes.directory / "a1" / "channel.key").unlink()
    nodes.kill_engine("a1")
    desk = nodes["a1"].desk
    assert "channel's key file" in desk.node.remap_trouble and desk.node.remap_trouble in desk.troubles()
    assert nodes.engine("a1").info().generation, "tables are there"
    assert any("remap 5" in line for line in desk.node.drift())


def test_what_the_engine_has_beyond_the_disk_goes(nodes: RemapNodes) -> None:
    nodes["a1"].ask("remap_set", **GIVES)
    remaps.save(nodes["a1"].desk.node.store, Remaps())
    assert any("remap 5" in line for line in nodes["a1"].desk.node.drift())
    assert nodes["a1"].desk.node.reconcile().remaps
    assert nodes.is_at_rest() and nodes["a1"].desk.node.drift() == []


def test_a_channel_in_use_can_neither_go_nor_change(nodes: RemapNodes) -> None:
    nodes["a1"].ask("remap_set", **GIVES)
    for channels, text in (("", "is in use by remap 5"), (all_channels(mtu=1400), "remap 5 uses it")):
        other = configuration.load_text(
            remap_site(nodes.directory / "a1", "a1", channels=channels), nodes.directory / "a1" / "site.toml"
        )
        with pytest.raises(Refused, match=text):
            nodes["a1"].desk.node.apply(other)


def test_a_damaged_file_is_said_and_taken_for_none(nodes: RemapNodes, tmp_path: Path) -> None:
    nodes["a1"].ask("remap_set", **GIVES)
    file = nodes.directory / "a1" / "state" / "remaps.json"
    record = json.loads(file.read_text())
    assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0
    for broken in ("{", '{"version": 1}', json.dumps(record).replace('"preparing"', '"resting"')):
        file.write_text(broken)
        assert nodes["a1"].desk.remaps == Remaps()


def test_keys_are_of_one_remap_each_and_the_same_at_both_ends(tmp_path: Path) -> None:
    file = tmp_path / "channel.key"
    file.write_text("cd" * 32)
    file.chmod(0o600)
    keys = {remaps.key_of(file, number) for number in range(1, 50)}
    assert len(keys) == 49 and {len(key) for key in keys} == {32}
    file.chmod(0o644)
    with pytest.raises(Refused, match="channel's key file"):
        remaps.key_of(file, 1)


# ---- the file and what was moved --------------------------------------------------------------


def site_of(nodes: RemapNodes, more: str = "", to: str = "A") -> Config:
    return configuration.load_text(remap_site(nodes.directory, "c1", to=to) + more)


def test_a_move_holds_until_the_file_says_something_else(nodes: RemapNodes) -> None:
    move = Move(ip_network(ADDRESS), "A", "B")
    assert rebound.target(rebound.with_moves(site_of(nodes), [move]), move.prefix) == "B"
    for to in ("B", "E"):
        assert not rebound.holds(site_of(nodes, to=to), move), "the file is right"
    gone = replace(site_of(nodes), endpoints=site_of(nodes).endpoints[:1])
    assert not rebound.holds(gone, move)


def test_moves_nest_and_the_longest_prefix_holds(nodes: RemapNodes) -> None:
    config, whole, one = site_of(nodes), ip_network("203.0.113.0/24"), ip_network(ADDRESS)
    moves = rebound.moved(config, (), whole, "B")
    moves = rebound.moved(config, moves, one, "A")
    now = rebound.with_moves(config, moves)
    assert (rebound.target(now, one), rebound.target(now, ip_network("203.0.113.8/32"))) == ("A", "B")
    assert rebound.inside(now, whole, "A") == [one]
    moves = rebound.moved(config, moves, one, "B")
    assert [move.prefix for move in moves] == [whole], "the wider one says so already"
    assert rebound.moved(config, moves, whole, "A") == ()


def test_a_local_address_of_its_own_is_kept_at_its_end_point(nodes: RemapNodes) -> None:
    own = '[[binding]]\nglobal = "203.0.113.7"\nto = "A"\nlocal = "10.1.0.199"\n'
    text = remap_site(nodes.directory, "c1").replace('global = "203.0.113.0/24"', 'global = "203.0.113.0/25"')
    config = configuration.load_text(text + own)
    one = ip_network(ADDRESS)
    away = rebound.with_moves(config, rebound.moved(config, (), one, "B"))
    assert str(rebound.covering(away, one).local) == "10.2.0.7/32"  # type: ignore[union-attr]
    moves = rebound.moved(config, (Move(one, "A", "E"),), one, "A")
    assert moves == ()
    moves = rebound.moved(config, (), ip_network("203.0.113.6/31"), "B")
    assert rebound.inside(config, ip_network("203.0.113.6/31"), "A") == [one]
    back = rebound.with_moves(config, moves)
    assert str(rebound.covering(back, one).local) == "10.1.0.199/32"  # type: ignore[union-attr]


def test_rows_of_bindings_files_are_moved_too(tmp_path: Path, nodes: RemapNodes) -> None:
    (tmp_path / "b.csv").write_text("global,to\n203.0.113.7,A\n203.0.113.8,E\n203.0.113.9,A\n")
    text = remap_site(tmp_path, "c1") + '[[bindings_file]]\nname = "b"\npath = "b.csv"\n'
    config, one = configuration.load_text(text, tmp_path / "site.toml"), ip_network(ADDRESS)
    assert rebound.target(config, one) == "A" and len(config.bulk or ()) == 3
    assert [str(p) for p in rebound.inside(config, ip_network("203.0.113.0/24"), "A")] == [
        "203.0.113.7/32",
        "203.0.113.9/32",
    ]
    now = rebound.with_moves(config, rebound.moved(config, (), one, "B"))
    assert rebound.target(now, one) == "B" and len(now.bulk or ()) == 2
    assert rebound.target(now, ip_network("203.0.113.8/32")) == "E"


def test_a_stale_move_is_a_note(nodes: RemapNodes) -> None:
    nodes["c1"].ask("remap_bind", id=5, prefix=ADDRESS, to="B")
    assert nodes["c1"].desk.troubles() == ""
    home = nodes["c1"].world.directory
    (home / "site.toml").write_text(remap_site(home, "c1", to="E"))
    nodes.kill_agent("c1")
    assert nodes.serves("c1") == "E"
    assert "was remapped to B, the file says otherwise" in nodes["c1"].desk.troubles()
    assert nodes["c1"].ask("remap_list")["moves"] == [
        {"prefix": ADDRESS, "was": "A", "to": "B", "holds": False}
    ]


def test_a_rollback_keeps_what_was_moved(nodes: RemapNodes) -> None:
    agent, home = nodes["c1"].desk.node, nodes["c1"].world.directory
    more = '[probe]\ninterval = "70s"\n'
    agent.apply(configuration.load_text(remap_site(home, "c1") + more, home / "site.toml"))
    nodes["c1"].ask("remap_bind", id=5, prefix=ADDRESS, to="B")
    agent.rollback()
    assert nodes.serves("c1") == "B" and agent.store.state() != State()


# ---- kernel -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tunnels", "local"),
    [
        ("ipip", ["10.1.0.54", "10.1.0.64", "10.1.0.56", "10.1.0.66"], ["10.1.0.0/24"]),
        ("gue", ["10.1.0.74", "10.1.0.76"], ["10.1.0.0/24"]),
        ("rewrite", [], ["10.1.0.0/24"]),
    ],
)
def test_channel_addresses_are_routed_to_the_engine(
    tmp_path: Path, kind: str, tunnels: list[str], local: list[str]
) -> None:
    config = configuration.load_text(remap_site(tmp_path, "a1", channels=all_channels(kind)))
    spec = netspec(config, Facts())
    assert ([str(t) for t in spec.tunnels], [str(p) for p in spec.local_networks]) == (tunnels, local)
    point = configuration.load_text(remap_site(tmp_path, "c1", channels=all_channels(kind)))
    assert point.channels == () and netspec(point, Facts()).tunnels == ()


def test_prefixes_outside_of_the_local_network_have_routes_of_their_own(tmp_path: Path) -> None:
    text = all_channels("rewrite").replace('"10.1.0.', '"10.7.0.')
    config = configuration.load_text(remap_site(tmp_path, "a1", channels=text))
    spec = netspec(config, Facts())
    assert [str(p) for p in spec.local_networks][1:] == [
        "10.7.0.124/31",
        "10.7.0.144/31",
        "10.7.0.126/31",
        "10.7.0.146/31",
    ]


def test_what_a_machine_has_against_a_channel(tmp_path: Path) -> None:
    key = tmp_path / "channel.key"
    here, far = ip_network("127.0.0.1/32"), ip_network("127.0.0.2/32")
    path = PairPath(here.network_address, 6090, far.network_address, 6090)
    good = Channel("A-B", "B", "gue", (here,), (far,), 6080, 1500, (path,), key)
    assert "channel's key file" in channel_trouble(good)
    key.write_text("cd" * 32)
    key.chmod(0o600)
    assert channel_trouble(good) == "" and (way_mtu(good) or 0) > 1500
    assert "carries" in channel_trouble(replace(good, mtu=1 << 17))
    away = replace(path, local=ip_network("198.51.100.1/32").network_address)
    assert "is no address of this machine" in channel_trouble(replace(good, paths=(away,)))


# ---- words ------------------------------------------------------------------------------------


def test_a_state_survives_json_and_counts_are_never_bare() -> None:
    assert state_of(json.loads(json.dumps(state_json(FENCED)))) == FENCED
    assert count_words(FENCED) == "3 connections (1 active in 60 s)"
    assert count_words(replace(FENCED, is_exact=False)) == "at most 3 connections (1 active in 60 s)"
    assert count_words(replace(DRAINED, counted_ns=0)) == "not counted yet"
    assert count_words(half(RemapRole.TAKING, flows=1)) == "1 connection of the giver known"
    said = "\n".join(lines(replace(FENCED, notes=("wrong_key",))))
    assert "leaves for B" in said and "B is not heard" in said and "another key" in said
    assert "opened 2, opened_asked 3" in said


def test_halves_on_the_command_line(nodes: RemapNodes, ipshare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipshare.api_remap.RemapHalves._ask", lambda _, verb, **a: nodes["a1"].ask(verb, **a))
    monkeypatch.setenv("IPSHARE_CONFIG", str(nodes.directory / "a1" / "site.toml"))
    assert ipshare("remap", "half", "list")[1] == "this node is half of no remap\n"
    code, out, _ = ipshare("remap", "half", "prepare", "5", ADDRESS, "--side", "giver", "--channel", "A-B")
    assert code == 0 and "remap 5  203.0.113.7/32  prepares to leave for B" in out
    assert "leaves for B" in ipshare("remap", "half", "leave", "5")[1]
    nodes.open_flows("a1", 5, FLOWS)
    assert "2 connections" in ipshare("remap", "half", "list")[1]
    listed = json.loads(ipshare("remap", "half", "list", "--json")[1])
    assert set(listed) == documented_keys()["remap half list"]
    shown = json.loads(ipshare("remap", "half", "state", "5", "--json")[1])
    assert set(shown) == documented_keys()["remap half state"] and shown["state"]["flows"] == 2
    code, _, err = ipshare("remap", "half", "take", "5")
    assert code == exits.REFUSED and "another one here" in err and "only its role" in err
    assert ipshare("remap", "half", "clear", "5")[0] == 0
    assert "nothing to do" in ipshare("remap", "half", "clear", "5")[1]


def test_without_an_agent_halves_are_not_to_be_had(nodes: RemapNodes) -> None:
    with pytest.raises(NotRunning):
        Node(nodes.directory / "a1" / "site.toml").remaps()


def test_it_is_kept_on_disk_as_it_was(nodes: RemapNodes) -> None:
    nodes["a1"].ask("remap_set", **GIVES)
    nodes["a1"].ask("remap_bind", id=5, prefix="203.0.113.9", to="B")
    kept = remaps.load(Store(nodes.directory / "a1" / "state"))
    assert kept.halves[0].settings.key == b"" and kept.halves[0].to_engine().key
    assert kept.moves == (Move(ip_network("203.0.113.9/32"), "A", "B"),)
    assert kept.last == ((ip_network("203.0.113.9/32"), 5),)
