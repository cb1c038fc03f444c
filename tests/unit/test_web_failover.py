"""A failover that is proposed, over HTTP: seen, approved by its tag, followed; by the director's own warden,
which asks nodes that probe real ports."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.operations_world import OperationsWorld
from tests.remote_world import host
from tests.unit.test_health_director import TOPOLOGY
from tests.unit.test_web_api import problem
from tests.web_world import serving


def test_a_failover_is_approved_by_its_tag(tmp_path: Path) -> None:
    first = socket.create_server((host(1), 0))
    port = first.getsockname()[1]

    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        viewer, operator = world.client("viewer"), world.client("operator")
        where, approve = "/api/v1/failover", "/api/v1/failover/shop/approve"
        assert (await viewer.get(where)).json()["cases"] == []
        problem(await operator.post(approve, headers={"If-Match": f'"{"0" * 16}"'}), 404)
        async with viewer.stream("GET", "/api/v1/events") as events:
            lines = events.aiter_lines()

            async def until(kind: str, **said: str) -> dict[str, Any]:
                """The next event of that kind that says so."""
                async for line in lines:
                    if line == f"event: {kind}":
                        data: dict[str, Any] = json.loads((await anext(lines)).removeprefix("data: "))
                        if said.items() <= data.items():
                            return data
                raise AssertionError("the stream ended")

            first.close()
            down = {"health": "end point A", "state": "down"}
            await until("health", **down)
            found = await until("failover", failover="shop", phase="proposed")
            assert (found["source"], found["target"]) == ("a1", "b1")
            overview = (await viewer.get("/")).text
            assert "waits for approval" in overview and "end point A down" in overview
            (case,) = (await viewer.get(where)).json()["cases"]
            tag = {"If-Match": case["etag"]}
            problem(await viewer.post(approve, headers=tag), 403)
            problem(await operator.post(approve), 428)
            stale = problem(await operator.post(approve, headers={"If-Match": f'"{"0" * 16}"'}), 412)
            assert "not what was looked at" in stale["detail"]
            page = (await operator.get("/health")).text
            assert case["etag"].strip('"') in page
            done = await operator.post(approve, headers=tag)
            assert done.status_code == 200 and done.json()["phase"] == "moving", done.text
            await until("failover", failover="shop", gone=True)
        await world.settle()
        assert world.fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        problem(
            await operator.post("/api/v1/fenced", json={"workload": "shop", "node": "a1", "epoch": 1}), 404
        )
        audit = (await operator.get("/api/v1/audit")).json()["items"]
        assert ("failover_approve", "shop", "done") in [(a["verb"], a["what"], a["outcome"]) for a in audit]

    with first, socket.create_server((host(2), port)):
        text = TOPOLOGY.format(a=host(1), b=host(2), port=port, mode="propose", kind="shared")
        serving(tmp_path, scenario, kind=OperationsWorld, bindings=text, stale="3s")
