"""Nodes that answer nonsense, or should not be there any more: the director, and all others, go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipshare.agent import rounds
from ipshare.certs import terms
from ipshare.certs.contexts import Contexts
from ipshare.certs.identity import identity
from ipshare.director import answers, desk, migrations, warden
from ipshare.director.desk import Desk
from ipshare.director.link import Link, Silent
from ipshare.errors import IpshareError
from ipshare.migration.machine import Migration, Moment, Step
from tests.director_world import ALL_A, SEVEN_B, Fleet
from tests.pki import Pki
from tests.threads import loop_thread
from tests.unit.test_agent_daemon import until
from tests.unit.test_director import Root, node, run, settle

ASSIGNED: dict[str, Any] = {
    "has": [1, 2, 1], "seen": [1, 2, 1], "digest": "x", "proof": None, "announces": None, "drained_by": None,
}  # fmt: skip
SHOP = {
    "name": "shop", "epoch": 1, "released": 0, "state": "running", "why": "", "can_fence": False,
}  # fmt: skip
PROBE = {"name": "x", "up": True, "age_s": 0.5, "for_s": 2}
NEWS: dict[str, Any] = {"read": ["x", 1], "version": 7, "probes": [PROBE]}
SEEN: dict[str, Any] = {
    **NEWS, "clock": {"boot": "x", "ns": 1}, "workloads": [SHOP], "paths": [],
    "announces": True, "withdraw_after_s": 3.0, "may_withdraw": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("has", [1, 2]), ("has", [1, 2, "x"]), ("has", [1, -2, 1]), ("has", None), ("seen", [1.5, 2, 1]),
        ("seen", [2**63, 2, 1]), ("proof", 7),
        ("digest", None), ("announces", "no"),
    ],
)  # fmt: skip
def test_an_answer_to_assigned_is_looked_at(key: str, bad: Any) -> None:
    assert answers.assigned(ASSIGNED) == ASSIGNED
    with pytest.raises(IpshareError, match=f"no {key} that can be understood"):
        answers.assigned({**ASSIGNED, key: bad})


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("clock", {"boot": "x"}), ("clock", None), ("probes", [{**PROBE, "age_s": -1}]),
        ("probes", [{**PROBE, "age_s": float("nan")}]), ("probes", {}), ("probes", ["x"]),
        ("workloads", [{**SHOP, "epoch": "1"}]),
        ("workloads", [{**SHOP, "epoch": 2**63}]), ("workloads", [{"name": "shop"}]), ("paths", [1]),
        ("announces", 1), ("withdraw_after_s", float("inf")), ("may_withdraw", 1),
    ],
)  # fmt: skip
def test_an_answer_to_watch_is_looked_at(key: str, bad: Any) -> None:
    assert answers.seen(SEEN) == SEEN
    with pytest.raises(IpshareError, match=f"no {key} that can be understood"):
        answers.seen({**SEEN, key: bad})


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("read", ["x"]), ("read", ["x", -1]), ("read", None), ("version", "7"), ("probes", None),
        ("probes", [{**PROBE, "for_s": None}]), ("probes", [{**PROBE, "for_s": -1}]),
    ],
)  # fmt: skip
def test_an_answer_to_news_is_looked_at(key: str, bad: Any) -> None:
    assert answers.news(NEWS) == NEWS
    with pytest.raises(IpshareError, match=f"no {key} that can be understood"):
        answers.news({**NEWS, key: bad})


def test_what_an_answer_may_leave_out_is_none() -> None:
    optional = {"announces", "withdraw_after_s", "may_withdraw"}
    left = {key: value for key, value in SEEN.items() if key not in optional}
    assert answers.seen(left) == left | dict.fromkeys(optional)


def test_who_stays_is_whoever_says_that_it_took_the_word(tmp_path: Path) -> None:
    """One that is cut off takes none of a director whose newest revision it has not."""

    async def scenario(fleet: Fleet) -> None:
        answer, took = fleet.agents["d1"].handle, [True]

        async def cut_off(caller: Any, request: dict[str, Any]) -> dict[str, Any]:
            said = await answer(caller, request)
            return said | {"may_withdraw": took[0]} if request["verb"] == "watch" else said

        fleet.agents["d1"].handle = cut_off  # type: ignore[method-assign]
        await fleet.start()
        await fleet.direct(ALL_A + '[health]\ninterval = "100ms"\n')
        assert fleet.warden is not None
        attended = fleet.warden.nodes
        await until(
            lambda: {"c1", "d1"} <= attended.keys() and attended["d1"].withdraws and attended["c1"].stays
        )
        assert not attended["d1"].stays, "it was told to stay, and did not take it"
        took[0] = False
        await until(lambda: attended["d1"].stays)
        assert not attended["d1"].withdraws

    run(tmp_path, scenario)


def test_a_node_that_answers_nonsense_is_nobody_elses_trouble(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        said: dict[str, Any] = {"has": [10**6, 2, "x"], "seen": [1, 1, 1], "digest": "", "announces": 0}

        async def nonsense(_caller: Any, _request: dict[str, Any]) -> dict[str, Any]:
            return said

        fleet.agents["d1"].handle = nonsense  # type: ignore[method-assign]
        await fleet.start()
        director = await fleet.direct(ALL_A + '[health]\ninterval = "100ms"\n')
        assert fleet.warden is not None
        others = ("a1", "b1", "c1")
        await until(lambda: all(node(director, one)["outcome"] == "acked" for one in others))
        assert "no has that can be understood" in node(director, "d1")["why"]
        attended = fleet.warden.nodes
        await until(lambda: "clock" in attended["d1"].trouble)
        was = {one: attended[one].heard_s for one in others}
        await until(lambda: all(attended[one].heard_s > was[one] for one in others))
        said.clear()
        await until(lambda: "has" in director.nodes["d1"].trouble)
        task = director.nodes["d1"].task
        assert task is not None and not task.done(), "it may come to its senses"

    run(tmp_path, scenario)


def test_a_node_that_claims_a_later_term_halts_nobody(tmp_path: Path) -> None:
    """Neither by its word nor with what it can sign itself."""

    async def scenario(fleet: Fleet) -> None:
        own = terms.Signer(fleet.agents["d1"].world.pki.files("node", "d1")).proof(2**40)
        answer = fleet.agents["d1"].handle
        claim = {"seen": [2**40, 1, 1], "proof": own}

        async def boastful(caller: Any, request: dict[str, Any]) -> dict[str, Any]:
            said = await answer(caller, request)
            return said | claim if request["verb"] in ("assign", "assigned") else said

        fleet.agents["d1"].handle = boastful  # type: ignore[method-assign]
        await fleet.start()
        director = await fleet.direct(ALL_A)
        await until(lambda: f"term {2**40}, which no director has signed" in node(director, "d1")["why"])
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")
        await until(lambda: fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7")
        assert not director.bar()
        signer = terms.Signer(director.settings.files)  # a true one is believed from whoever shows it
        claim["proof"] = signer.proof(2**40)
        await until(lambda: f"term {2**40}" in director.bar())

    run(tmp_path, scenario)


def test_a_signature_under_a_term_is_of_a_director_of_this_authority_for_that_term(tmp_path: Path) -> None:
    pki, other = Pki(tmp_path / "one"), Pki(tmp_path / "other")
    files, good = pki.files("director", "d1"), terms.Signer(pki.files("director", "d1")).proof(7)
    assert terms.is_proven(7, good, files)
    assert not terms.is_proven(8, good, files)
    of_others = [
        terms.Signer(pki.files("node", "a1")).proof(7),
        terms.Signer(pki.files("operator", "o1")).proof(7),
        terms.Signer(other.files("director", "d1")).proof(7),
    ]
    first, second = good.split(".")
    mixed = first + "." + of_others[0].split(".")[1]
    nonsense = ["", ".", "x.y", first, f"{second}.{first}", f"{good}.{second}", "A" * 10**5, "ü.ü", mixed]
    for said in (*of_others, *nonsense, *(good[:end] for end in range(0, len(good), 7))):
        assert not terms.is_proven(7, said, files), said[:60]
    pki.authority.revoke(who=identity("director", "d1"))
    assert not terms.is_proven(7, good, files)


def test_an_epoch_that_no_workload_reaches_is_not_counted_on_from() -> None:
    assert answers.highest([57, 2**63 - 1, 3]) == 57
    assert answers.highest([2**48 + 1]) == answers.highest([]) == 0


def test_a_connection_ends_with_the_certificate_at_its_other_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the node itself would go on: its key is what was stolen."""
    pki = Pki(tmp_path)

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                writer.write(b'{"ok": true, "result": {}}\n')
            writer.close()

        context = Contexts(pki.files("node", "a1"), server=True).current()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        link = Link("a1", f"127.0.0.1:{port}", Contexts(pki.files("director", "d1"), server=False))
        assert await link.ask("assigned", 30) == {}
        before = link._streams
        assert await link.ask("assigned", 30) == {} and link._streams is before
        monkeypatch.setattr(link, "_ends_s", 0.0)
        assert await link.ask("assigned", 30) == {} and link._streams is not before
        pki.authority.revoke(who=identity("node", "a1"))
        with pytest.raises(Silent, match="revoked"):
            await link.ask("assigned", 30)
        link.close()
        server.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "reply", [b"{}", b'{"ok": false}', b'{"ok": false, "error": {}}', b"[1]", b'{"ok": 1}']
)
def test_an_answer_that_is_none_is_silence(tmp_path: Path, reply: bytes) -> None:
    pki = Pki(tmp_path)

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(reply + b"\n")
            await reader.read()
            writer.close()

        context = Contexts(pki.files("node", "a1"), server=True).current()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        link = Link("a1", f"127.0.0.1:{port}", Contexts(pki.files("director", "d1"), server=False))
        with pytest.raises(Silent):
            await link.ask("assigned", 30)
        link.close()
        server.close()

    asyncio.run(scenario())


def test_a_job_that_a_mistake_ends_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "AGAIN_S", 0.0)
    errors: list[Exception] = [OSError(5, "foreseen by nobody"), IpshareError("the store cannot be read")]

    async def job() -> None:
        if errors:
            raise errors.pop()

    asyncio.run(asyncio.wait_for(rounds.for_ever(job), 30))
    assert not errors


def test_what_takes_long_is_done_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases are renewed by the loop: nobody's question about a large installation holds it up."""
    seen = loop_thread(monkeypatch, desk, "changes")

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director = await fleet.direct(ALL_A)
        await settle(director)
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "7")
        asked = Desk(director, tmp_path / "director.toml")
        history = await asked.handle(Root(), {"verb": "history", "limit": 1})
        assert [one["changes"] for one in history["revisions"]] == [1]
        await asked.handle(Root(), {"verb": "show", "revision": 2})
        await asked.handle(Root(), {"verb": "diff", "again": 1})
        assert seen == [False] * 3, "in the loop's thread"

    run(tmp_path, scenario)


def test_migrations_that_are_over_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "MOST_OVER", 3)
    kept: dict[str, str] = {}

    def put_note(_term: int, key: str, text: str) -> None:
        kept[key] = text
        if not text:
            del kept[key]

    async def work(job: Any, *words: Any) -> Any:
        return job(*words)

    director: Any = SimpleNamespace(
        store=SimpleNamespace(put_note=put_note), work=work, term=1, tell=lambda: None
    )

    async def scenario() -> list[str]:
        all_of_it = migrations.Migrations(director)
        for number in range(5):
            times = (Moment(float(number), "asked for"),)
            over = Migration(f"m{number}", ("shop",), "a1", "b1", "me", "", Step.DONE, times=times)
            one = all_of_it._all[over.id] = migrations.Carried(over)
            await all_of_it._put(one, over)
        return [state.id for state, _ in all_of_it.all()]

    assert asyncio.run(scenario()) == ["m4", "m3", "m2"]
    assert sorted(kept) == [f"{migrations.NOTE}m{number}" for number in (2, 3, 4)]


def test_nobody_looks_for_a_place_while_nothing_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes milliseconds for each workload, at each look of each node, in the loop that renews leases."""
    asked: list[str] = []
    monkeypatch.setattr(warden.elsewhere, "targets", lambda *words: asked.append(words[1]))
    workload = '[[workload]]\nname = "shop"\nnode = "a1"\naddresses = ["203.0.113.0/24"]\n'

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        await fleet.direct(ALL_A + workload + "[health]\n[failover]\n")
        assert fleet.warden is not None
        looks = 0
        judge = fleet.warden._judge

        async def counted() -> None:
            nonlocal looks
            looks += 1
            await judge()

        fleet.warden._judge = counted  # type: ignore[method-assign]
        await until(lambda: looks > 5)
        assert asked == []

    run(tmp_path, scenario)
