"""The web page in headless Chromium: a whole live migration, an evacuation, a failover's approval, a drain;
then how that looks on a desk and on a phone, light and dark.

The director, its nodes and their protocol are real, guests are words in files. Screenshots are in build/web.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.operations_world import OperationsWorld
from tests.web_browser import DESK, MARKS, PHONE, Browser, browser, one_browser, sign_in
from tests.web_world import serving

pytestmark = MARKS
__all__ = ["browser", "one_browser"]  # fixtures
CASE = {
    "unit": "db", "workloads": ["db"], "source": "a1", "target": "b1", "phase": "proposed",
    "why": "end point A is down: c1, d1", "time": "2026-11-29T01:00:00+00:00", "note": "waits for approval",
}  # fmt: skip
TARGETS = [
    {"name": name, "state": state, "why": why, "for_s": 74.2, "flaps": 0.0, "suppressed": False}
    for name, state, why in (
        ("end point A", "down", "down at c1, d1"), ("end point B", "up", "up at c1, d1"),
        ("workload db", "down", "down at c1, d1"), ("workload web", "unknown", "not heard lately: c1, d1"),
    )
]  # fmt: skip
LEASES = [
    {"name": "db", "node": "a1", "epoch": 3, "leaving": True, "freed": "", "state": "unknown", "why": ""},
    {"name": "web", "node": "a1", "epoch": 1, "leaving": False, "freed": "", "state": "running", "why": ""},
]

RENEW = """
document.querySelector("#leases").dataset.old = "yes"
htmx.ajax("GET", "/parts/health", {target: document.querySelector("[hx-get='/parts/health']")})
"""
"""What an event does."""


class Ill:
    """What a director with [health] and [failover] would say while end point A is down: verbs of its desk."""

    def __init__(self) -> None:
        self.case, self.approved, self.sure = dict(CASE), 0, 0
        self.verbs = {
            "health": self._health, "failover": self._failover, "failover_approve": self._approve,
            "failover_fenced": self._fenced,
        }  # fmt: skip

    async def _health(self, _caller: Any, _request: Any) -> dict[str, Any]:
        return {"targets": TARGETS, "nodes": [{"name": "c1", "state": "alive", "why": "", "paths": []}]}

    async def _failover(self, _caller: Any, _request: Any) -> dict[str, Any]:
        return {"mode": "propose", "wait_s": 40.0, "workloads": LEASES, "cases": [self.case]}

    async def _approve(self, _caller: Any, request: Any) -> dict[str, Any]:
        assert request["unit"] == "db" and request["who"] == "operator-1"
        self.approved += 1
        self.case = self.case | {"phase": "moving", "note": "waits until a1 has stopped it"}
        return self.case

    async def _fenced(self, _caller: Any, request: Any) -> dict[str, Any]:
        assert (request["workload"], request["epoch"]) == ("db", 3)
        self.sure += 1
        return {"workload": "db", "node": "a1", "epoch": 3}


def state(browser: Browser) -> str:
    return str(browser.find("[data-state]").get_attribute("data-state"))


def tabs_to(browser: Browser, css: str) -> None:
    """By keyboard alone."""
    wanted = browser.find(css)
    for _ in range(60):
        if browser.driver.switch_to.active_element == wanted:
            return
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    raise AssertionError(f"no way to {css} by keyboard")


def migrate(browser: Browser, world: OperationsWorld) -> None:
    """What the browser's thread does, while the director's loop goes on."""
    browser.click("a[href='/migrate']")
    browser.find("input[name=workload][value=web]").send_keys(Keys.SPACE)
    browser.find("input[name=to][value=b1]").send_keys(Keys.SPACE)
    browser.picture("migrate")
    world.guests.sync(False)
    browser.click("form[action='/migrate/plan'] button")
    browser.says("sync", "[role=alert]")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "form[action='/migrate/confirm'] button")
    browser.picture("migrate-refused")
    world.guests.sync(True)
    browser.driver.refresh()
    browser.says("passed")
    browser.says("~ workload web: node a1 -> b1")
    browser.says("~ binding 203.0.113.7/32: to A -> B")
    browser.find("#why").send_keys("new disks in Frankfurt")
    browser.picture("migrate-plan")
    assert world.director.number == 1, "a plan changes nothing"
    world.guests.gate("web", "")
    tabs_to(browser, "form[action='/migrate/confirm'] button")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.until(lambda: state(browser) == "migrating")
    browser.until(lambda: world.guests.where("web") == "moving")
    browser.says("expecting", ".timeline")
    browser.find("form[action$='/cancel'] button")
    browser.picture("migrating")
    before = browser.driver.execute_script("window.stayed = true; return location.href")
    world.guests.gate("web", "there")
    browser.until(lambda: state(browser) == "done")
    browser.says("web runs at b1", ".timeline")
    browser.says("web is redirected at a1", ".timeline")
    browser.says("12.5 ms", ".tiles")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "form[action$='/cancel']")
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".track .done")) == 6
    assert browser.driver.execute_script("return window.stayed && location.href") == before, "by events alone"
    browser.picture("migrated")
    browser.driver.get(world.server.url + "/")
    browser.says("Live migrations")
    browser.driver.get(world.server.url + "/audit")
    browser.says("web to b1: new disks in Frankfurt")


def evacuate(browser: Browser, world: OperationsWorld) -> None:
    browser.driver.get(world.server.url + "/evacuate")
    browser.find("input[value='site dallas']").send_keys(Keys.SPACE)
    browser.picture("evacuate")
    browser.click("form[action='/evacuate/plan'] button")
    browser.says("~ workload web: node b1 -> a1")
    browser.find("#why").send_keys("flood")
    browser.picture("evacuate-plan")
    browser.click("button[value=propose]")
    browser.until(lambda: state(browser) == "proposed")
    browser.picture("evacuation-proposed")
    browser.click("button[formaction$='/approve']")
    browser.until(lambda: state(browser) == "done")
    browser.says("1 of 1 have gone")
    browser.picture("evacuated")
    browser.driver.get(world.server.url + "/evacuate")
    browser.says("done")


def drain(browser: Browser, world: OperationsWorld) -> None:
    browser.driver.get(world.server.url + "/nodes/c1")
    browser.find("#why").send_keys("new kernel")
    browser.click("form[action$='/drain'] button")
    browser.says("by director", ".tiles")
    browser.picture("node-drained")
    browser.driver.get(world.server.url + "/nodes/d1")
    browser.click("form[action$='/drain'] button")
    browser.says("no other distribution point announces", "[role=alert]")
    browser.driver.get(world.server.url + "/nodes/c1")
    browser.click("form[action$='/drain'] button")
    browser.says("in service", ".tiles")


def heal(browser: Browser, world: OperationsWorld, ill: Ill) -> None:
    browser.driver.get(world.server.url + "/")
    browser.says("2 down", ".tiles")
    browser.says("waits for approval")
    browser.picture("overview-ill")
    browser.driver.get(world.server.url + "/health")
    browser.picture("health")
    browser.click("form[action='/failover/approve'] button")
    browser.says("moving")
    browser.find("input[name=sure]").send_keys(Keys.SPACE)
    browser.driver.execute_script(RENEW)
    browser.until(lambda: not browser.driver.find_elements(By.CSS_SELECTOR, "#leases[data-old]"))
    assert browser.find("input[name=sure]").is_selected(), "what is being filled in stays"
    browser.click("form[action='/failover/fenced'] button")
    browser.until(lambda: ill.sure == 1)
    assert ill.approved == 1


def everywhere(browser: Browser, world: OperationsWorld) -> None:
    listed = f"{world.server.url}/migrate"
    browser.driver.get(listed)
    migration = browser.find("td a[href^='/migrations/']").get_attribute("href")
    browser.driver.get(f"{world.server.url}/evacuate")
    evacuation = browser.find("td a[href^='/evacuations/']").get_attribute("href")
    for scheme, size in (("dark", DESK), ("light", PHONE), ("dark", PHONE)):
        browser.prefer(scheme)
        browser.size(size)
        for path, name in (
            ("/", "overview-ill"), ("/migrate", "migrate"), (migration, "migrated"),
            ("/evacuate", "evacuate"),
            ("/migrate/plan?workload=web&to=b1", "migrate-plan"), (evacuation, "evacuated"),
            ("/evacuate/plan?leave=site+frankfurt", "evacuate-plan"), ("/health", "health"),
            ("/nodes/c1", "node-in-service"),
        ):  # fmt: skip
            browser.driver.get(path if path.startswith("http") else world.server.url + path)
            browser.picture(f"{name}-{'phone' if size is PHONE else 'desk'}-{scheme}")
            unnamed = browser.driver.execute_script(
                "return [...document.querySelectorAll('input:not([type=hidden]), button, a')]"
                ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()).length"
            )
            assert unnamed == 0, name


def all_of_it(browser: Browser, world: OperationsWorld, add: Callable[[Ill], None]) -> None:
    sign_in(browser, world, "operator")
    migrate(browser, world)
    evacuate(browser, world)
    drain(browser, world)
    ill = Ill()
    add(ill)
    heal(browser, world, ill)
    everywhere(browser, world)
    loud = [one for one in browser.complaints() if not any(f" {n} " in one for n in ("409", "422"))]
    assert not loud, "nothing is refused by the page's own policy"


def test_a_migration_and_all_the_rest_in_the_browser(tmp_path: Path, browser: Browser) -> None:
    async def scenario(world: OperationsWorld) -> None:
        await world.settle()
        loop = asyncio.get_running_loop()

        def add(ill: Ill) -> None:
            loop.call_soon_threadsafe(world.server.hub.desk.add, ill.verbs, list)

        await asyncio.to_thread(all_of_it, browser, world, add)
        audit = await asyncio.to_thread(world.server.hub.trail.newest, 100)
        done = {one["verb"] for one in audit if one["outcome"] == "done"}
        assert {"migrate", "evacuate", "approve", "change", "failover_approve", "failover_fenced"} <= done

    serving(tmp_path, scenario, plain=True, most_s=800, kind=OperationsWorld)
