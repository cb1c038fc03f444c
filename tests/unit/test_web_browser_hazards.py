"""A hazard on the web page, in headless Chromium: an alert of a weather feed over HTTP becomes a proposal, an
operator approves it on the page, and the workloads move. Screenshots are in build/web."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from tests.evacuation_world import hazards, quakes
from tests.hazard_feeds import Server, nws, nws_feature
from tests.hazard_feeds import serving as serving_feeds
from tests.migration_world import BINDINGS, WORKLOADS
from tests.operations_world import OperationsWorld
from tests.web_browser import DESK, MARKS, PHONE, Browser, browser, one_browser, sign_in
from tests.web_world import SITES, serving

pytestmark = MARKS
__all__ = ["browser", "one_browser"]  # fixtures
AT_B = (BINDINGS + WORKLOADS.format(web="", db="")).replace('"A"', '"B"').replace('"a1"', '"b1"')
HEADLINE = "Tornado Warning issued by NWS Fort Worth TX"


@pytest.fixture
def feeds() -> Iterator[Server]:
    with serving_feeds() as server:
        server.documents = {"/nws": nws(now=time.time()), "/usgs": quakes()}
        yield server


def tornado() -> bytes:
    """One alert, whose polygon has Dallas in it and nothing else of ours."""
    now, (_, y, x) = time.time(), SITES["b"]
    ring = [[x + dx, y + dy] for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    return nws(nws_feature(rings=(ring,), now=now, headline=HEADLINE), now=now)


def at(world: OperationsWorld) -> dict[str, str]:
    return {row["name"]: row["node"] for row in world.director.topology.rows("workload")}


def sent(world: OperationsWorld) -> set[str]:
    """Where the distribution points send what comes for web: 10.1 is at a1, 10.2 at b1."""
    return {world.fleet.agents[name].sends("203.0.113.7") for name in ("c1", "d1")}


def approve(browser: Browser, world: OperationsWorld, feeds: Server) -> None:
    """What the browser's thread does, while the director's loop goes on."""
    sign_in(browser, world, "operator")
    browser.says("no site in danger", ".tiles")
    feeds.documents["/nws"] = tornado()
    browser.says(HEADLINE, "main")  # by events alone
    browser.says("dallas", "section[aria-labelledby=evacuations]")
    browser.picture("hazard-overview")
    assert at(world) == {"web": "b1", "db": "b1"} and world.director.number == 1, "nothing moves by itself"
    browser.click("section[aria-labelledby=evacuations] a[href^='/evacuations/']")
    browser.says("Tornado Warning (Extreme)")
    browser.picture("hazard-proposed")
    browser.find("#why").send_keys("the tornado comes our way")
    browser.click("button[formaction$='/approve']")
    browser.until(lambda: browser.find("[data-state]").get_attribute("data-state") == "done")
    browser.says("2 of 2 have gone")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "button[formaction$='/approve']")
    browser.picture("hazard-evacuated")
    browser.size(PHONE)
    browser.picture("hazard-evacuated-phone")
    browser.size(DESK)
    browser.driver.get(world.server.url + "/audit")
    browser.says("the tornado comes our way")


def test_an_alert_is_approved_on_the_page_and_the_workloads_move(
    tmp_path: Path, browser: Browser, feeds: Server
) -> None:
    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        assert sent(world) == {"10.2.0.7"}
        await to_thread(approve, browser, world, feeds)
        await world.settle()
        assert at(world) == {"web": "a1", "db": "a1"}
        assert sent(world) == {"10.1.0.7"}

    serving(
        tmp_path, scenario, plain=True, most_s=300, kind=OperationsWorld,
        bindings=AT_B + hazards(feeds.url, 'evacuate = "approve"'),
    )  # fmt: skip
