"""The director's HTTP API over real sockets and TLS, with nodes that take what it sends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ipshare.director import config
from ipshare.web import changing
from tests.threads import loop_thread
from tests.web_world import WebWorld, serving

MOVE = {"change": {"do": "move", "moves": {"shop": "a1"}}, "why": "try"}
JSON = {"Content-Type": "application/json"}


def match(number: int, **more: str) -> dict[str, str]:
    return {"If-Match": f'"{number}"', **more}


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["hint"], found
    return found


def test_a_plan_is_judged_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer may ask for one, of any size: leases are renewed by the loop."""
    judged, compared = (
        loop_thread(monkeypatch, *one) for one in ((config, "topology"), (changing, "changes"))
    )

    async def scenario(world: WebWorld) -> None:
        await world.settle()
        viewer = world.client("viewer")
        for change in (MOVE["change"], {"do": "replace", "topology": {}}):
            await viewer.post("/api/v1/plan", json={"change": change})
        assert judged == [False] * 2 and compared[:1] == [False]

    serving(tmp_path, scenario)


def test_a_move_from_plan_to_every_node(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        agents = world.fleet.agents
        assert agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        viewer, operator = world.client("viewer"), world.client("operator")
        status = (await viewer.get("/api/v1/status")).json()
        assert (status["revision"], status["settled"], status["outcomes"]) == (1, True, {"acked": 3})
        plan = await operator.post("/api/v1/plan", json={"change": MOVE["change"]})
        assert plan.headers["etag"] == '"1"'
        changes = ["~ binding 203.0.113.7/32: to B -> A", "~ workload shop: node b1 -> a1"]
        assert plan.json()["changes"] == changes
        assert plan.json()["order"][0].startswith("a1, b1: what is new")
        assert [note[:42] for note in plan.json()["notes"]] == [
            "shop is exclusive: it has to end at b1 befo"[:42]
        ]
        assert world.director.number == 1, "a plan changes nothing"
        done = await operator.post("/api/v1/changes", json=MOVE, headers=match(1))
        assert (done.status_code, done.headers["location"]) == (202, "/api/v1/operations/2")
        assert done.headers["etag"] == '"2"'
        await world.settle()
        assert agents["c1"].sends("203.0.113.7") == "10.1.0.7"
        operation = (await viewer.get(done.headers["location"])).json()
        assert (operation["state"], operation["who"], operation["why"]) == ("settled", "operator-1", "try")
        acked = [one["node"] for one in operation["events"] if one["outcome"] == "acked"]
        assert sorted(acked) == ["a1", "b1", "c1"]
        assert (await viewer.get("/api/v1/workloads")).json()["items"][0]["node"] == "a1"
        again = await operator.post("/api/v1/changes", json=MOVE, headers=match(2))
        assert (again.status_code, world.director.number) == (200, 2), "it is so already"

    serving(tmp_path, scenario)


def test_a_change_names_the_revision_that_it_was_made_from(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        operator = world.client("operator")
        assert "GET answers" in problem(await operator.post("/api/v1/changes", json=MOVE), 428)["hint"]
        assert problem(await operator.post("/api/v1/changes", json=MOVE, headers={"If-Match": "*"}), 428)
        assert problem(await operator.post("/api/v1/changes", json=MOVE, headers={"If-Match": "12"}), 400)
        weak = {"If-Match": 'W/"1"'}
        assert problem(await operator.post("/api/v1/changes", json=MOVE, headers=weak), 412)
        stale = await operator.post("/api/v1/changes", json=MOVE, headers=match(7))
        assert "plan again" in problem(stale, 412)["hint"]
        assert stale.headers["etag"] == '"1"'
        assert world.director.number == 1
        either = {"If-Match": '"9", "1"'}
        assert (await operator.post("/api/v1/changes", json=MOVE, headers=either)).status_code == 202

    serving(tmp_path, scenario)


def test_the_same_request_is_carried_out_once(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        operator, admin = world.client("operator"), world.client("admin")
        headers = match(1, **{"Idempotency-Key": "k1"})
        first, second = await asyncio.gather(
            operator.post("/api/v1/changes", json=MOVE, headers=headers),
            operator.post("/api/v1/changes", json=MOVE, headers=headers),
        )
        assert sorted([first.status_code, second.status_code]) in ([202, 202], [202, 409])
        again = await operator.post("/api/v1/changes", json=MOVE, headers=headers)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
        assert again.headers["location"] == "/api/v1/operations/2"
        assert world.director.number == 2
        other = {"change": {"do": "move", "moves": {"shop": "b1"}}}
        reused = await operator.post("/api/v1/changes", json=other, headers=headers)
        assert problem(reused, 422)["type"] == "urn:ipshare:problem:key-reused"
        theirs = await admin.post("/api/v1/changes", json=MOVE, headers=headers)
        assert problem(theirs, 412), "a key is its sender's"
        headers = match(2, **{"Idempotency-Key": "a b"})
        bad = await operator.post("/api/v1/changes", json=MOVE, headers=headers)
        assert problem(bad, 400)

    serving(tmp_path, scenario)


def test_bindings_are_made_and_taken_away(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        operator = world.client("operator")
        put = await operator.put("/api/v1/bindings/203.0.113.9/32", json={"to": "B"}, headers=match(1))
        assert put.status_code == 202
        diff = (await operator.get("/api/v1/revisions/2/diff")).json()
        assert diff["changes"] == ["+ binding 203.0.113.9/32: to B"]
        gone = await operator.delete("/api/v1/bindings/203.0.113.9/32", headers=match(2))
        assert problem(gone, 409)["type"] == "urn:ipshare:problem:under-way" or gone.status_code == 202
        await world.settle()
        number = world.director.number
        gone = await operator.delete("/api/v1/bindings/203.0.113.9/32?why=enough", headers=match(number))
        assert gone.status_code == 202
        assert (await operator.get(f"/api/v1/revisions/{number + 1}")).json()["why"] == "enough"
        missing = await operator.delete("/api/v1/bindings/203.0.113.99/32", headers=match(number + 1))
        assert problem(missing, 404)
        number += 1
        for path, body in (
            ("203.0.113.7/99", {"to": "B"}),
            ("203.0.113.7/24", {"to": "B"}),
            ("nonsense/32", {"to": "B"}),
            ("203.0.113.9/32", {"to": "nobody"}),
            ("203.0.113.9/32", {}),
            ("203.0.113.9/32", {"to": "B", "colour": "red"}),
            ("192.0.2.1/32", {"to": "B"}),
            ("203.0.113.7/32", {"to": "A"}),  # the workload shop has it, and runs elsewhere
        ):
            answer = await operator.put(f"/api/v1/bindings/{path}", json=body, headers=match(number))
            assert problem(answer, 422), path
        assert world.director.number == number

    serving(tmp_path, scenario)


def test_all_of_it_is_for_admins(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        operator, admin = world.client("operator"), world.client("admin")
        found = await admin.get("/api/v1/topology")
        tables = found.json()
        same = await admin.put("/api/v1/topology", json=tables, headers=match(1))
        assert same.status_code == 200, same.text
        tables["binding"][0]["to"] = "B"
        assert problem(await operator.put("/api/v1/topology", json=tables, headers=match(1)), 403)
        done = await admin.put("/api/v1/topology?why=all+to+B", json=tables, headers=match(1))
        assert done.status_code == 202
        await world.settle()
        restore = {"change": {"do": "restore", "revision": 1}}
        assert problem(await operator.post("/api/v1/changes", json=restore, headers=match(2)), 403)
        assert (await admin.post("/api/v1/changes", json=restore, headers=match(2))).status_code == 202
        now, then = [(await admin.get(f"/api/v1/topology?revision={number}")).json() for number in (3, 1)]
        assert now == then
        unchanged = await admin.get("/api/v1/topology", headers={"If-None-Match": '"3"'})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        for broken in (
            {**tables, "binding": [{"global": "203.0.113.0/24", "to": None}]},
            {**tables, "binding": [{"global": "203.0.113.0/24", "to": "Z"}, {"global": 5}]},
            {**tables, "site": [{"name": "x", "deep": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}]},
            {**tables, "network": "web"},
            {**tables, "colour": []},
        ):
            answer = await admin.put("/api/v1/topology", json=broken, headers=match(3))
            assert problem(answer, 422), broken
        assert world.director.number == 3

    serving(tmp_path, scenario)


def test_what_is_under_way_is_not_changed_again_by_accident(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        operator = world.client("operator")
        world.fleet.agents["c1"].gate.clear()
        assert (await operator.post("/api/v1/changes", json=MOVE, headers=match(1))).status_code == 202
        back = {"change": {"do": "move", "moves": {"shop": "b1"}}}
        plan = (await operator.post("/api/v1/plan", json=back)).json()
        assert plan["conflicts"] == ["203.0.113.7/32"]
        answer = problem(await operator.post("/api/v1/changes", json=back, headers=match(2)), 409)
        assert "/api/v1/operations/2" in answer["hint"]
        other = await operator.put("/api/v1/bindings/203.0.113.9/32", json={"to": "B"}, headers=match(2))
        assert other.status_code == 202, "another address is no conflict"
        meant = await operator.post("/api/v1/changes", json={**back, "overlap": True}, headers=match(3))
        assert meant.status_code == 202
        world.fleet.agents["c1"].gate.set()
        await world.settle()
        assert world.fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status"),
    [
        ("GET", "/api/v1/nothing", b"", {}, 404),
        ("GET", "/api", b"", {}, 404),
        ("PATCH", "/api/v1/topology", b"", {}, 405),
        ("OPTIONS", "/api/v1/topology", b"", {}, 405),
        ("GET", "/api/v1/revisions?limit=0", b"", {}, 422),
        ("GET", "/api/v1/revisions?limit=2&limit=3", b"", {}, 422),
        ("GET", "/api/v1/revisions?colour=red", b"", {}, 422),
        ("GET", "/api/v1/revisions/99", b"", {}, 404),
        ("GET", "/api/v1/nodes/%00", b"", {}, 422),
        ("GET", "/api/v1/nodes/z1", b"", {}, 404),
        ("GET", "/api/v1/operations/0", b"", {}, 422),
        ("GET", "/api/v1/hazards", b"", {}, 404),
        ("POST", "/api/v1/plan", b"{", JSON, 400),
        ("POST", "/api/v1/plan", b'{"change": "\\ud800"}', JSON, 400),
        ("POST", "/api/v1/plan", b'{"change": NaN}', JSON, 400),
        ("POST", "/api/v1/plan", b"[" * 5000 + b"]" * 5000, JSON, 400),
        ("POST", "/api/v1/plan", b"\xff\xfe", JSON, 400),
        ("POST", "/api/v1/plan", b"change=1", {"Content-Type": "text/plain"}, 415),
        ("POST", "/api/v1/plan", b"", JSON, 422),
        ("POST", "/api/v1/plan", b"{}", JSON, 422),
        ("POST", "/api/v1/plan", b'{"change": {"do": "dance"}}', JSON, 422),
        ("POST", "/api/v1/plan", b'{"change": {"do": "bind"}}', JSON, 422),
        ("POST", "/api/v1/plan", b'{"change": {"do": "move", "moves": {"shop": "c1"}}}', JSON, 422),
        ("POST", "/api/v1/plan", b'{"change": {"do": "restore", "revision": 99}}', JSON, 404),
    ],
)
def test_every_error_is_a_problem_that_says_what_to_do(
    shared: Shared, method: str, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = shared.ask(method, path, content=content, headers=headers)
    problem(answer, status)
    if status == 405:
        assert answer.headers["allow"] == "GET, PUT"


class Shared:
    """One director for many questions that change nothing."""

    def __init__(self, world: WebWorld, loop: asyncio.AbstractEventLoop) -> None:
        self.world, self.loop = world, loop

    def ask(self, method: str, path: str, role: str | None = "admin", **more: Any) -> httpx2.Response:
        return self.loop.run_until_complete(self.world.client(role).request(method, path, **more))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    loop = asyncio.new_event_loop()
    world = WebWorld(tmp_path_factory.mktemp("web"))
    loop.run_until_complete(world.start(nodes=False))
    yield Shared(world, loop)
    loop.run_until_complete(world.stop())
    loop.close()


def test_what_is_no_http_gets_a_problem_too(shared: Shared) -> None:
    async def scenario() -> bytes:
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        port = shared.world.server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"NONSENSE\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return answer

    head, _, body = shared.loop.run_until_complete(scenario()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["status"] == 400


def test_too_much_is_refused(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipshare.web.gate.MAX_BODY", 1000)
    told = shared.ask("POST", "/api/v1/plan", content=b" " * 1001, headers=JSON)
    assert problem(told, 413)

    async def parts() -> Any:
        for _ in range(3):
            yield b" " * 400

    assert problem(shared.ask("POST", "/api/v1/plan", content=parts(), headers=JSON), 413)


def test_nothing_of_a_bug_gets_out(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(shared.world.server.hub, "status", broken)
    answer = shared.ask("GET", "/api/v1/status")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in problem(answer, 500)["detail"]


def test_answers_are_not_kept_and_not_framed(shared: Shared) -> None:
    headers = shared.ask("GET", "/api/v1/status").headers
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_events_tell_of_a_change_and_are_taken_up_again(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        viewer, operator = world.client("viewer"), world.client("operator")
        events: list[dict[str, str]] = []

        async def listen(path: str, until: str, **headers: str) -> None:
            async with viewer.stream("GET", path, headers=headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                ready.set()
                one: dict[str, str] = {}
                async for line in answer.aiter_lines():
                    key, _, value = line.partition(": ")
                    if line and key != "retry":
                        one[key] = value
                    elif "event" in one:
                        events.append(one)
                        if one["event"] == until:
                            return
                        one = {}

        ready = asyncio.Event()
        listening = asyncio.create_task(listen("/api/v1/events", "settled"))
        await ready.wait()
        await operator.post("/api/v1/changes", json=MOVE, headers=match(1))
        await listening
        kinds = [one["event"] for one in events]
        assert (kinds[0], kinds[-1]) == ("revision", "settled")
        assert json.loads(events[0]["data"])["who"] == "operator-1"
        acked = [json.loads(one["data"]) for one in events if one["event"] == "node"]
        assert {one["node"] for one in acked if one["outcome"] == "acked"} == {"a1", "b1", "c1"}
        half, whole = events[len(events) // 2]["id"], list(events)
        events.clear()
        await listen("/api/v1/events", "settled", **{"Last-Event-ID": half})
        assert events == whole[len(whole) // 2 + 1 :]
        events.clear()
        await listen("/api/v1/events", "reset", **{"Last-Event-ID": "999.5"})
        assert [one["event"] for one in events] == ["reset"], "of another term"
        events.clear()
        await listen("/api/v1/operations/2/events", "nothing ever")
        assert [one["event"] for one in events] == [*kinds, "over"], "it ends by itself"

    serving(tmp_path, scenario)


def test_who_stands_by_says_who_leads_and_a_migration_is_not_crossed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"id": "shop-1", "workloads": ["shop"], "source": "b1", "target": "a1", "step": "migrating"}

    async def migrations(_caller: Any, _request: dict[str, Any]) -> dict[str, Any]:
        return {"migrations": [one | {"over": False, "trouble": "", "reason": "", "times": []}]}

    async def scenario(world: WebWorld) -> None:
        operator = world.client("operator")
        monkeypatch.setattr(world.director, "bar", lambda: "director d2 leads")
        assert (await operator.get("/api/v1/status")).json()["leads"] is False
        assert "stands by" in (await operator.get("/")).text
        refused = problem(await operator.post("/api/v1/changes", json=MOVE, headers=match(1)), 409)
        assert "d2 leads" in refused["detail"]
        monkeypatch.undo()
        world.server.hub.desk.add({"migrations": migrations}, list)
        refused = problem(await operator.post("/api/v1/changes", json=MOVE, headers=match(1)), 409)
        assert refused["type"] == "urn:ipshare:problem:migrating"
        problem(await operator.get("/api/v1/health"), 404)

        async def health(_caller: Any, _request: dict[str, Any]) -> dict[str, Any]:
            return {"targets": [], "nodes": []}

        world.server.hub.desk.add({"health": health}, list)
        assert (await operator.get("/api/v1/health")).json() == {"targets": [], "nodes": [], "failover": None}
        assert (await operator.get("/api/v1/migrations")).json()["items"][0]["step"] == "migrating"
        assert "Live migrations" in (await operator.get("/")).text
        other = await operator.put("/api/v1/bindings/203.0.113.9/32", json={"to": "B"}, headers=match(1))
        assert other.status_code == 202

    serving(tmp_path, scenario, nodes=False)
