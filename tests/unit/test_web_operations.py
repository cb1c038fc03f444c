"""What takes long, over HTTP: migrations, evacuations, drains: begun, followed by events, refused; with the
director's own desks and nodes that do it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2

from tests.operations_world import OperationsWorld
from tests.unit.test_web_api import match, problem
from tests.web_world import serving

TO_B = {"workload": "web", "to": "dallas"}


async def follow(client: httpx2.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Events until the stream ends."""
    found = []
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200, await answer.aread()
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                found.append(json.loads(line[6:]) | {"kind": kind})
    return found


def test_a_migration_from_plan_to_done(tmp_path: Path) -> None:
    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        viewer, operator, guests = world.client("viewer"), world.client("operator"), world.guests
        guests.sync(False)
        plan = (await viewer.post("/api/v1/plan/migration", json=TO_B)).json()
        assert (plan["source"], plan["target"], plan["resumes"]) == ("a1", "b1", None)
        assert "~ workload web: node a1 -> b1" in plan["changes"]
        assert "sync" in plan["against"], plan
        guests.sync(True)
        answer = await viewer.post("/api/v1/plan/migration", json=TO_B)
        assert answer.json()["against"] == "" and answer.headers["etag"] == '"1"'
        guests.gate("web", "")
        body = TO_B | {"why": "disks"}
        problem(await viewer.post("/api/v1/migrations", json=body, headers=match(1)), 403)
        problem(await operator.post("/api/v1/migrations", json=body), 428)
        stale = problem(await operator.post("/api/v1/migrations", json=body, headers=match(7)), 412)
        assert "the revision is 1" in stale["detail"]
        for wrong in (
            {"workload": "web"},
            body | {"fast": True},
            body | {"to": "mars"},
            body | {"workload": "x"},
        ):
            problem(await operator.post("/api/v1/migrations", json=wrong, headers=match(1)), 422)
        assert (await viewer.get("/api/v1/migrations")).json() == {"items": []}
        headers = match(1, **{"Idempotency-Key": "once"})
        done = await operator.post("/api/v1/migrations", json=body, headers=headers)
        assert done.status_code == 202, done.text
        id_, here = done.json()["id"], done.headers["location"]
        assert here == f"/api/v1/migrations/{id_}"
        again = await operator.post("/api/v1/migrations", json=body, headers=headers)
        assert again.json() == done.json() and again.headers["idempotency-replayed"] == "true"
        busy = problem(await operator.post("/api/v1/migrations", json=body, headers=match(1)), 409)
        assert id_ in busy["hint"]
        move = {"change": {"do": "move", "moves": {"web": "b1"}}}
        problem(await operator.post("/api/v1/changes", json=move, headers=match(1)), 409)
        events = asyncio.create_task(follow(viewer, f"{here}/events"))
        guests.gate("web", "there")
        seen = await events
        said = [
            one["what"].partition(":")[0] for one in seen if one["kind"] == "migration" and one.get("what")
        ]
        assert said == [
            "asked for", "expecting", "migrating", "web began to leave a1", "web runs at b1",
            "web is redirected at a1", "flipping", "settling", "clearing", "done",
        ]  # fmt: skip
        assert seen[-1] == {"kind": "over", "migration": id_}
        one = (await viewer.get(here)).json()
        assert (one["step"], one["who"], one["why"], one["revision"]) == ("done", "operator-1", "disks", 2)
        assert world.fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        assert world.director.revision is not None and world.director.revision.who == "operator-1"
        problem(await operator.post(f"{here}/cancel"), 409)
        problem(await viewer.get("/api/v1/migrations/nothing"), 404)
        assert (await follow(viewer, f"{here}/events"))[-1]["kind"] == "over", "one that is over ends at once"
        audit = (await operator.get("/api/v1/audit")).json()["items"]
        line = next(one for one in audit if one["verb"] == "migrate" and one["outcome"] == "done")
        assert (line["who"], line["what"]) == ("token operator-1", "web to dallas: disks")

    serving(tmp_path, scenario, kind=OperationsWorld)


def test_a_migration_is_cancelled_before_the_line(tmp_path: Path) -> None:
    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        operator, guests = world.client("operator"), world.guests
        guests.gate("web", "")
        done = await operator.post("/api/v1/migrations", json=TO_B, headers=match(1))
        here = done.headers["location"]
        events = asyncio.create_task(follow(operator, f"{here}/events"))
        while guests.where("web") != "moving":
            await asyncio.sleep(0.01)
        problem(await world.client("viewer").post(f"{here}/cancel"), 403)
        cancelled = await operator.post(f"{here}/cancel")
        assert cancelled.status_code == 200 and cancelled.json()["cancelling"]
        assert (await events)[-1]["kind"] == "over"
        assert (await operator.get(here)).json()["step"] == "cancelled"
        assert world.director.number == 1 and guests.where("web") == "here"

    serving(tmp_path, scenario, kind=OperationsWorld)


def test_an_evacuation_is_planned_confirmed_by_its_digest_and_followed(tmp_path: Path) -> None:
    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        viewer, operator, leave = world.client("viewer"), world.client("operator"), {"site": "frankfurt"}
        plan = (await viewer.post("/api/v1/plan/evacuation", json=leave)).json()
        assert plan["possible"] and [move["unit"] for move in plan["moves"]] == ["db", "web"]
        assert world.director.number == 1
        where = "/api/v1/evacuations"
        good = leave | {"digest": plan["digest"], "why": "flood"}
        problem(await viewer.post(where, json=good, headers=match(1)), 403)
        problem(await operator.post(where, json=good), 428)
        problem(await operator.post(where, json=leave, headers=match(1)), 422)
        other = problem(await operator.post(where, json=good | {"digest": "0" * 16}, headers=match(1)), 412)
        assert other["type"].endswith("stale-plan")
        problem(await operator.post(where, json=good, headers=match(9)), 412)
        for wrong in (
            {},
            {"site": "frankfurt", "node": "a1"},
            {"site": "mars"},
            {"node": "c9"},
            leave | {"x": 1},
        ):
            problem(await operator.post("/api/v1/plan/evacuation", json=wrong), 422)
        assert (await viewer.get(where)).json() == {"items": []}
        proposed = await operator.post(where, json=good | {"propose": True}, headers=match(1))
        assert (proposed.status_code, proposed.json()["state"]) == (202, "proposed")
        here = proposed.headers["location"]
        problem(await operator.post(where, json=good, headers=match(1)), 409)
        tag = (await viewer.get(here)).headers["etag"]
        problem(await operator.post(f"{here}/approve", json={}), 428)
        problem(await operator.post(f"{here}/approve", json={}, headers={"If-Match": f'"{"0" * 16}"'}), 412)
        problem(await viewer.post(f"{here}/approve", json={}, headers={"If-Match": tag}), 403)
        problem(await operator.post(f"{here}/continue", json={}, headers={"If-Match": tag}), 409)
        events = asyncio.create_task(follow(viewer, f"{here}/events"))
        done = await operator.post(f"{here}/approve", json={"why": "go"}, headers={"If-Match": tag})
        assert done.status_code == 200, done.text
        seen = await events
        assert seen[-1]["kind"] == "over" and seen[-2]["state"] == "done"
        one = (await viewer.get(here)).json()
        assert (one["state"], one["answered_by"], one["answer"]) == ("done", "operator-1", "go")
        assert {step["state"] for step in one["steps"]} == {"done"}
        assert world.fleet.agents["c1"].sends("203.0.113.8") == "10.2.0.8"
        problem(await operator.post(f"{here}/abort", json={}), 409)
        problem(await operator.post(f"{where}/nothing/abort", json={}), 404)

    serving(tmp_path, scenario, kind=OperationsWorld)


def test_a_distribution_point_is_drained_and_comes_back(tmp_path: Path) -> None:
    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        viewer, operator = world.client("viewer"), world.client("operator")

        async def drain(node: str, number: int, why: str = "works", **more: Any) -> httpx2.Response:
            body = {"change": {"do": "drain", "node": node, **more}, "why": why}
            return await operator.post("/api/v1/changes", json=body, headers=match(number))

        async def state(node: str) -> dict[str, Any]:
            found: dict[str, Any] = (await viewer.get(f"/api/v1/nodes/{node}")).json()
            return found

        async def until(node: str, by: list[str]) -> None:
            def is_so(one: dict[str, Any]) -> bool:
                return one["drained_by"] == by and one["announces"] is not bool(by)

            while not is_so(await state(node)):
                await world.director.judged()

        plan = await viewer.post("/api/v1/plan", json={"change": {"do": "drain", "node": "c1"}})
        assert plan.json()["changes"] == ["~ node c1: drained - -> True"]
        assert (await drain("c1", 1)).status_code == 202
        await until("c1", ["director"])
        assert (await state("c1"))["drained"]
        refused = problem(await drain("d1", 2), 409)
        assert "no other distribution point announces" in refused["detail"]
        assert refused["type"].endswith("last-announcer")
        assert "say why" in problem(await drain("d1", 2, "", force=True), 409)["hint"]
        assert (await drain("d1", 2, "all goes", force=True)).status_code == 202
        await until("d1", ["director"])
        problem(await drain("a1", 3), 422)
        problem(await drain("nobody", 3), 422)
        assert (await drain("c1", 3, drained=False)).status_code == 202
        await until("c1", [])
        assert (await drain("c1", 4, drained=False)).status_code == 200, "it was so before"

    serving(tmp_path, scenario, kind=OperationsWorld, interval="50ms")


def test_a_director_that_does_none_of_it_says_so(tmp_path: Path) -> None:
    async def scenario(world: Any) -> None:
        operator = world.client("operator")
        workload = {"workload": "shop", "to": "a1"}
        for path, body in (("plan/migration", workload), ("plan/evacuation", {"site": "dallas"})):
            problem(await operator.post(f"/api/v1/{path}", json=body), 404)
        problem(await operator.post("/api/v1/migrations", json=workload, headers=match(1)), 404)
        problem(await operator.get("/api/v1/failover"), 404)

    serving(tmp_path, scenario, nodes=False)
