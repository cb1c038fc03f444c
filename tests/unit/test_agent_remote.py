"""The agent's door to the network: who gets in, what he may say, and which assignment counts."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from ipshare import config as configuration
from ipshare.agent import remote as remote_module
from ipshare.agent.assignment import EARLIER, SEEN
from ipshare.agent.daemon import Daemon
from ipshare.certs.contexts import Contexts
from ipshare.certs.identity import identity
from ipshare.config.assigned import FILE
from ipshare.engine.packet_words import packet
from tests.agent_world import World
from tests.pki import Pki
from tests.remote_world import PORT, Caller, RemoteWorld, assigned, host, request
from tests.unit.test_agent_daemon import ask, audit, until


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def world(tmp_path: Path, pki: Pki) -> RemoteWorld:
    (tmp_path / "c1").mkdir()
    return RemoteWorld(tmp_path / "c1", pki, host(1))


def target(world: World) -> str:
    return world.target(packet("tcp 198.51.100.7:1234 > 203.0.113.5:80 syn"))


def kept(world: World) -> list[int]:
    """What director was heard last, as the disk says."""
    first = (world.directory / "state" / SEEN).read_text().partition("\n")[0].split()
    return [int(first[at]) for at in (3, 5, 7)]


def test_an_assignment_becomes_the_nodes_tables_and_outlives_its_agent(world: RemoteWorld) -> None:
    async def first(agent: Daemon) -> None:
        assert world.running is not None
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(verb="assigned"))["result"]["has"] == [0, 0, 0]
        done = (await director.ask(**request((1, 4, 1), assigned("A"))))["result"]
        assert (done["has"], done["changed"], done["distribution"]) == ([1, 4, 1], True, "C")
        assert target(world) == "10.1.0.5"
        assert kept(world) == [1, 4, 1]
        assert audit(world)[-1] == ("assign", "ok")
        await director.close()

    async def second(agent: Daemon) -> None:
        assert target(world) == "10.1.0.5"
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        again = (await director.ask(**request((1, 4, 1), assigned("A"))))["result"]
        assert (again["has"], again["changed"]) == ([1, 4, 1], False)
        assert (await director.ask(**request((1, 5, 1), assigned("B"))))["ok"]
        assert target(world) == "10.2.0.5"
        await director.close()

    world.serve(first)
    world.serve(second)
    assert "203.0.113.0/24" in str(configuration.load(world.directory / "site.toml").bindings)


STALE = [(1, 9, 1), (2, 3, 1), (2, 4, 0), (1, 999, 1)]


def test_a_stale_director_is_refused_and_counted_over_restarts(world: RemoteWorld) -> None:
    async def first(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d2")).meet()
        assert (await director.ask(**request((2, 4, 1), assigned("B"))))["ok"]
        await director.close()

    async def second(agent: Daemon) -> None:
        stale = await Caller(world.host, world.pki.files("director", "d1")).meet()
        for number in STALE:
            error = (await stale.ask(**request(number, assigned("A"))))["error"]
            assert error["message"].startswith("stale: term 2 revision 4 step 1"), number
            assert error["exit_code"] == 3
        assert target(world) == "10.2.0.5"
        status = await ask(world, "status")
        assert status["assigned"]["stale_refused"] == len(STALE)
        error = (await stale.ask(**request((2, 4, 1), assigned("A"))))["error"]
        assert "same number" in error["message"]
        await stale.close()

    world.serve(first)
    world.serve(second)


STRANGE = [
    (3, "node", '[node]\nname = "x"\n'),
    (4, "include", 'include = ["/etc/passwd"]\n'),
    (5, "remote", '[remote]\nlisten = "0.0.0.0:1"\n'),
    (6, "pair", '[pair]\nhook = "/bin/true"\n'),
    (7, "bindings_file", '[[bindings_file]]\npath = "/etc/passwd.csv"\nname = "x"\n'),
]


def test_what_a_node_refuses_leaves_what_it_had_and_the_number_counts(world: RemoteWorld) -> None:
    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(**request((1, 1, 1), assigned("A"))))["ok"]
        bad = assigned("A") + '[[binding]]\nglobal = "203.0.113.9"\nto = "Z"\n'
        error = (await director.ask(**request((1, 2, 1), bad)))["error"]
        assert error["exit_code"] == 2
        assert "'Z'" in error["problems"][0]["message"]
        assert error["problems"][0]["file"].endswith("director.toml")
        for revision, key, text in STRANGE:
            error = (await director.ask(**request((1, revision, 1), text + assigned("B"))))["error"]
            assert f"a director may not assign {key!r}" in [one["message"] for one in error["problems"]]
            assert target(world) == "10.1.0.5"
        assert (await director.ask(verb="assigned"))["result"]["has"] == [1, 1, 1]
        assert kept(world) == [1, 7, 1]
        assert not (await director.ask(**request((1, 1, 1), assigned("A"))))["ok"]
        world.faults.at = len(world.faults.steps)
        error = (await director.ask(**request((1, 8, 1), assigned("B"))))["error"]
        assert "failed" in error["message"]
        assert target(world) == "10.1.0.5"
        assert (await director.ask(**request((1, 8, 1), assigned("B"))))["ok"], (
            "the same again: it may work now"
        )
        assert target(world) == "10.2.0.5"
        await director.close()

    world.serve(scenario)


def test_an_agent_that_dies_in_between_has_the_old_and_takes_no_older_one(world: RemoteWorld) -> None:
    """Whatever step of applying it dies at; the director sends again."""

    async def first(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(**request((1, 1, 1), assigned("A"))))["ok"]
        await director.close()

    async def dies(agent: Daemon) -> None:
        agent.node.store.keep_as = die  # type: ignore[method-assign]
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert not (await director.ask(**request((1, 2, 1), assigned("B"))))["ok"]
        await director.close()

    async def second(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        now = (await director.ask(verb="assigned"))["result"]
        assert (now["has"], now["seen"]) == ([1, 1, 1], [1, 2, 1])
        assert not (await director.ask(**request((1, 1, 1), assigned("A"))))["ok"]
        assert (await director.ask(**request((1, 2, 1), assigned("B"))))["ok"]
        assert target(world) == "10.2.0.5"
        await director.close()

    def die(*_: Any) -> None:
        raise OSError("as if killed here")

    for scenario in (first, dies, second):
        world.serve(scenario)


def test_what_is_heard_is_on_the_disk_before_anything_is_done_about_it(world: RemoteWorld) -> None:
    state = world.directory / "state"

    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(**request((1, 1, 1), assigned("A"))))["ok"]
        apply, found = agent.node.apply, []

        def looking(*arguments: Any, **more: Any) -> Any:
            found.append((kept(world), (state / FILE).read_text().partition("\n")[0].split()[3:8:2]))
            return apply(*arguments, **more)

        agent.node.apply = looking  # type: ignore[method-assign]
        assert (await director.ask(**request((1, 2, 0), assigned("B"))))["ok"]
        assert found == [([1, 2, 0], ["1", "1", "1"])], "and what is in force is as it was until then"
        assert (state / FILE).read_text() == (state / SEEN).read_text()
        assert not (await director.ask(**request((1, 2, 1), 'binding = "no"')))["ok"]
        assert kept(world) == [1, 2, 1]
        assert (state / FILE).read_text().endswith(assigned("B"))
        await director.close()

    async def later(agent: Daemon) -> None:
        """What somebody did to the file of what was heard never gets in force."""
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(verb="assigned"))["result"]["seen"] == [1, 3, 1]
        first = (state / SEEN).read_text().partition("\n")[0]
        (state / SEEN).write_text(first + "\n" + assigned("B"))
        assert (await director.ask(**request((1, 3, 1), assigned("A"))))["ok"]
        assert (state / FILE).read_text().endswith(assigned("A"))
        await director.close()

    async def dies(agent: Daemon) -> None:
        agent.node.apply = die  # type: ignore[method-assign]
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert not (await director.ask(**request((1, 3, 1), assigned("A"))))["ok"]
        await director.close()

    def die(*_: Any, **_more: Any) -> None:
        raise OSError("as if killed here")

    for each in (scenario, dies, later):
        world.serve(each)


def test_what_an_earlier_version_heard_counts(world: RemoteWorld) -> None:
    (world.directory / "state").mkdir()
    record = {"version": 1, "content": {"number": [3, 2, 1], "digest": "0" * 64}}
    (world.directory / "state" / EARLIER).write_text(json.dumps(record))

    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert "stale" in (await director.ask(**request((3, 2, 0), assigned("A"))))["error"]["message"]
        assert "another" in (await director.ask(**request((3, 2, 1), assigned("A"))))["error"]["message"]
        assert (await director.ask(**request((3, 3, 1), assigned("A"))))["ok"]
        await director.close()

    world.serve(scenario)


@pytest.mark.parametrize("name", [SEEN, EARLIER])
def test_damaged_numbers_refuse_everything(world: RemoteWorld, name: str) -> None:
    (world.directory / "state").mkdir()
    (world.directory / "state" / name).write_text("{")

    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        error = (await director.ask(**request((9, 1, 1), assigned("A"))))["error"]
        assert "not readable" in error["message"]
        assert "not readable" in (await ask(world, "status"))["notes"]["assignment"]
        await director.close()

    world.serve(scenario)


def test_who_does_not_get_in(world: RemoteWorld) -> None:
    async def scenario(agent: Daemon) -> None:
        bad = {
            "forged": world.pki.forged, "expired": world.pki.expired,
            "early": world.pki.early, "revoked": world.pki.taken_back,
        }  # fmt: skip
        for number, (kind, files) in enumerate(bad.items(), 1):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                caller = await Caller(world.host, files("director", "d1")).meet()
                await caller.ask(verb="assigned")
            assert agent.remote.counters["refused_tls"] == number, kind
        for role in ("node", "operator"):
            caller = await Caller(world.host, world.pki.files(role, "x")).meet()
            answer = json.loads(await asyncio.wait_for(caller.reader.readline(), 30))
            assert "does not get in" in answer["error"]["message"]
            assert await caller.reader.read() == b""
        assert agent.remote.counters["refused_role"] == 2
        assert agent.remote.counters["requests"] == 0
        plain_reader, plain = await asyncio.open_connection(world.host, PORT)
        plain.write(b'{"verb": "assigned"}\n')
        assert b"result" not in await asyncio.wait_for(plain_reader.read(), 30)
        plain.close()
        await until(lambda: agent.remote.counters["refused_tls"] == 5)

    world.serve(scenario)


def test_what_a_role_may_say(world: RemoteWorld) -> None:
    world.write('roles = ["director", "operator"]\n')

    async def scenario(agent: Daemon) -> None:
        operator = await Caller(world.host, world.pki.files("operator", "o")).meet()
        assert (await operator.ask(verb="status"))["ok"]
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        for caller, verbs in (
            (operator, ("assign", "drain", "remap_set", "down")),
            (director, ("down", "apply", "pair")),
        ):
            for verb in verbs:
                error = (await caller.ask(verb=verb))["error"]
                assert error["exit_code"] == 5, verb
        assert agent.remote.counters["refused_verb"] == 7
        assert (await director.ask(verb="status"))["result"]["remote"]["counters"]["refused_verb"] == 7
        await operator.close(), await director.close()

    world.serve(scenario)


def test_a_revoked_certificate_ends_its_connection_with_the_next_answer(world: RemoteWorld) -> None:
    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(verb="assigned"))["ok"]
        world.pki.authority.revoke(who=identity("director", "d1"))
        await director.ask(verb="assigned")
        assert await asyncio.wait_for(director.reader.read(), 30) == b""
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await (await Caller(world.host, world.pki.files("director", "d1")).meet()).ask(verb="assigned")
        other = await Caller(world.host, world.pki.files("director", "d2")).meet()
        assert (await other.ask(verb="assigned"))["ok"]
        await other.close()

    world.serve(scenario)


HOSTILE = [b"\n", b"[]\n", b'{"verb": 1}\n', b'{"verb": "assign"}\n', b"\xff\n", b"[" * 5000 + b"\n"] + [
    json.dumps({"verb": "assign", "number": number, "digest": "", "text": ""}).encode() + b"\n"
    for number in ([0, 1, 1], [1, 2], [True, 1, 1], [1, -1, 1], [2**63, 1, 1], "1", [1.5, 1, 1], None)
]


def test_nonsense_is_answered_and_bounded(world: RemoteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "MAX_LINE", 1 << 16)

    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        for line in HOSTILE:
            assert not (await director.say(line))["ok"], line[:60]
        assert not (await director.ask(verb="assign", number=[1, 1, 1], text="x = 1", digest="0"))["ok"]
        answer = await director.say(b"x" * (1 << 18) + b"\n")
        assert "at most 65536 bytes" in answer["error"]["message"]
        assert not (world.directory / "state" / SEEN).exists()

    world.serve(scenario)


def test_who_does_not_finish_the_handshake_is_gone(
    world: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "HANDSHAKE_S", 3.0)
    monkeypatch.setattr(remote_module, "MAX_CLIENTS", 3)

    async def scenario(agent: Daemon) -> None:
        idle = [await asyncio.open_connection(world.host, PORT) for _ in range(5)]
        for reader, writer in idle:
            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()
        counters = agent.remote.counters
        await until(lambda: counters["refused_tls"] + counters["refused_too_many"] == 5)
        assert counters["refused_too_many"] > 0

    world.serve(scenario)


def test_a_door_that_cannot_be_is_noted_and_the_node_goes_on(world: RemoteWorld) -> None:
    (world.pki.folder / "node-c1.pem").chmod(0o644)

    async def scenario(agent: Daemon) -> None:
        assert "0644" in (await ask(world, "status"))["notes"]["remote"]
        (world.pki.folder / "node-c1.pem").chmod(0o600)
        await ask(world, "apply")
        await until(lambda: agent.remote.port == PORT)
        assert "remote" not in (await ask(world, "status"))["notes"]

    world.serve(scenario)


def test_a_rollback_does_not_undo_a_director_and_a_trial_keeps_it_away(world: RemoteWorld) -> None:
    async def scenario(agent: Daemon) -> None:
        director = await Caller(world.host, world.pki.files("director", "d1")).meet()
        assert (await director.ask(**request((1, 1, 1), assigned("A"))))["ok"]
        from ipshare.errors import Refused

        with pytest.raises(Refused, match="a director assigns"):
            await ask(world, "rollback")
        world.write("[probe]\nattempts = 4\n")
        await ask(world, "apply", confirm_within_s=300)
        error = (await director.ask(**request((1, 2, 1), assigned("B"))))["error"]
        assert "waiting for its confirmation" in error["message"]
        await ask(world, "rollback")
        assert target(world) == "10.1.0.5"
        assert (await director.ask(**request((1, 2, 1), assigned("B"))))["ok"]
        await director.close()

    world.serve(scenario)


def test_both_ends_name_themselves(pki: Pki) -> None:
    """Nobody sets a host name: the URI is what counts."""
    assert not Contexts(pki.files("node", "a1"), server=False).current().check_hostname
