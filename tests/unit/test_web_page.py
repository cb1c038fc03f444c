"""The web page as text: whole without JavaScript, nothing of a topology becomes markup; the map's picture."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from ipshare.web.hub import place
from ipshare.web.page import lasting
from ipshare.web.picture import picture
from tests.web_world import WebWorld, serving

PATHS = ("/", "/nodes", "/nodes/a1", "/move", "/history", "/operations/1", "/audit")
PARTS = ("/parts/overview", "/parts/nodes", "/parts/operations/1")


def site(name: str, latitude: float | None, longitude: float | None, count: int = 1) -> dict[str, Any]:
    return {
        "name": name, "latitude": latitude, "longitude": longitude, "prefixes": ["x"] * count, "tone": "good",
        "said": "all acked",
    }  # fmt: skip


def test_every_page_is_whole_without_scripts(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        operator = world.client("operator")
        operator.headers["Accept"] = "text/html"
        for path in PATHS + PARTS:
            page = await operator.get(path)
            assert page.status_code == 200, (path, page.text)
            assert page.headers["content-type"].startswith("text/html")
            assert ("<main" in page.text) == (path in PATHS)
            assert not re.search(r"style=|\son\w+=|https?://(?!www\.w3\.org)", page.text), path
        overview = (await operator.get("/")).text
        for word in ("frankfurt", "dallas", "203.0.113.7/32", "shop", "acked", "2 workloads"[2:-1]):
            assert word.lower() in overview.lower()
        plan = await operator.get("/move/plan?item=workload+shop&to=a1")
        assert "~ workload shop: node b1 -&gt; a1" in plan.text
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', plan.text))
        assert (fields["revision"], fields["to"], fields["csrf"]) == ("1", "a1", "")
        done = await operator.post("/move/confirm", data={**fields, "why": "<b>why</b>"})
        assert (done.status_code, done.headers["location"]) == (303, "/operations/2")
        again = await operator.post("/move/confirm", data={**fields, "why": "<b>why</b>"})
        assert (again.status_code, world.director.number) == (303, 2), "a form that is sent twice"
        stale = await operator.post("/move/confirm", data={**fields, "key": "other"})
        assert stale.status_code == 412 and "the revision is 2, not 1" in stale.text
        history = (await operator.get("/history")).text
        assert "&lt;b&gt;why&lt;/b&gt;" in history and "<b>why" not in history
        for path, status, word in (
            ("/move/plan?to=a1", 422, "choose what is moved"),
            ("/move/plan?item=workload+shop", 422, "choose where to"),
            ("/move/plan?item=workload+shop&item=binding+203.0.113.0/24&to=a1", 422, "two steps"),
            ("/move/plan?item=workload+%3Cscript%3E&to=a1", 422, "no workload"),
            ("/move/plan?item=binding+203.0.113.7/32&to=b1", 422, "shop"),
            ("/nodes/nobody", 404, "there is no node"),
            ("/operations/99", 404, "there is no revision"),
            ("/operations/99999999999999999999", 422, "number"),
            ("/nothing", 404, "nothing here"),
        ):
            page = await operator.get(path)
            assert page.status_code == status, path
            assert word in page.text and "<script>" not in page.text, path

    serving(tmp_path, scenario)


def test_a_site_in_danger_is_shown_where_the_director_looks_for_hazards(tmp_path: Path) -> None:
    danger = {"event": "Tornado Warning", "severity": "Extreme", "headline": "Run", "why": "polygon"}
    told = {
        "mode": "approve",
        "sites": [
            {"site": "dallas", "episode": None, "hazards": [danger]},
            {"site": "tokyo", "episode": None, "hazards": []},
        ],
    }
    one = {"id": "dallas-1", "site": "dallas", "node": "", "state": "proposed", "time": "2026", "why": ""}

    async def hazards(_caller: Any, _request: dict[str, Any]) -> dict[str, Any]:
        return told

    async def evacuations(_caller: Any, _request: dict[str, Any]) -> dict[str, Any]:
        return {"evacuations": [one | dict.fromkeys(("moved", "moving", "waiting"), 0)]}

    async def scenario(world: WebWorld) -> None:
        viewer = world.client("viewer")
        assert "Hazards" not in (await viewer.get("/")).text
        assert (await viewer.get("/api/v1/hazards")).status_code == 404
        world.server.hub.desk.add({"hazards": hazards, "evacuations": evacuations}, list)
        page = (await viewer.get("/")).text
        assert "Tornado Warning, Extreme: Run" in page and page.count('class="halo"') == 1
        assert "dallas-1" in page and "proposed" in page
        assert (await viewer.get("/api/v1/hazards")).json()["sites"][0]["site"] == "dallas"
        assert (await viewer.get("/api/v1/evacuations")).json()["items"][0]["id"] == "dallas-1"

    serving(tmp_path, scenario, nodes=False)


def test_static_files_are_for_everybody_and_nothing_else_is(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        nobody = world.client()
        for name in (
            "console.css",
            "htmx-2.0.11.min.js",
            "htmx-ext-sse-2.2.4.min.js",
            "land.svg",
            "icon.svg",
        ):
            answer = await nobody.get(f"/static/{name}")
            assert answer.status_code == 200 and answer.headers["cache-control"] == "max-age=3600"
        assert (await nobody.get("/static/../tokens.py")).status_code in (303, 404)
        assert (await nobody.get("/static/%2e%2e/tokens.py")).status_code in (303, 404)
        found = await asyncio.gather(*(nobody.get(path) for path in PATHS + PARTS))
        assert {one.headers.get("location") for one in found} == {"/login"}

    serving(tmp_path, scenario, nodes=False)


def test_the_map_holds_all_sites_and_keeps_labels_apart() -> None:
    some = [site("dallas", 32.8, -96.8), site("frankfurt", 50.1, 8.7, 2), site("nowhere", None, None)]
    found = picture(some)
    assert [one["name"] for one in found["sites"]] == ["dallas", "frankfurt"]
    assert all(0 < one["x"] < 100 and 0 < one["y"] < 100 for one in found["sites"])
    assert found["sites"][0]["y"] > found["sites"][1]["y"], "south is below"
    assert [one["sub"] for one in found["sites"]] == ["1 prefix", "2 prefixes"]
    near = picture(
        [site("a-long-name", 50.0, 8.0), site("another-name", 50.1, 8.3), site("third", 49.9, 8.1)]
    )
    assert len({(one["dx"], one["dy"]) for one in near["sites"]}) == 3
    for edge in ([site("x", 90, 180)], [site("x", -90, -180), site("y", 90, 180)], [site("x", 0, 0)] * 9):
        marks = picture(edge)["sites"]
        assert all(-1 <= one["y"] <= 101 for one in marks)
    assert picture([])["sites"] == []


def test_a_zip_code_is_a_place() -> None:
    latitude, longitude = place(None, None, "75201")
    assert latitude == pytest.approx(32.8, abs=0.3) and longitude == pytest.approx(-96.8, abs=0.3)
    assert place(1.0, 2.0, "75201") == (1.0, 2.0)
    assert place(None, None, "00000") == (None, None)


def test_ages_are_for_people() -> None:
    assert [lasting(s) for s in (3, 60, 7200, 200_000)] == ["3 s", "1 min", "2 h", "2 d"]
