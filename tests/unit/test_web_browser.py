"""The web page in headless Chromium: signing in, a whole move, what everybody sees; on a desk and on a phone.

Screenshots are kept in build/web (tests/web_browser.py).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.director_world import ALL_A, SEVEN_B
from tests.web_browser import DESK, MARKS, PHONE, Browser, browser, one_browser, sign_in
from tests.web_world import SHOP, WebWorld, serving

pytestmark = MARKS
__all__ = ["browser", "one_browser"]  # fixtures
GROUP = (
    '[[workload]]\nname = "mail"\nnode = "a1"\naddresses = ["203.0.113.25/32"]\ngroup = "office"\n'
    '[[workload]]\nname = "files"\nnode = "a1"\ngroup = "office"\n'
    '[[binding]]\nglobal = "203.0.113.25/32"\nto = "A"\n'
)


def move(browser: Browser, world: WebWorld, loop: asyncio.AbstractEventLoop) -> None:
    """What the browser's thread does, while the director's loop goes on."""
    browser.driver.get(world.server.url + "/history")
    assert browser.driver.current_url.endswith("/login")
    browser.picture("login")
    browser.find("#token").send_keys("ips_guess", Keys.ENTER)
    browser.says("unknown, revoked or expired", "[role=alert]")
    sign_in(browser, world, "operator")
    browser.says("settled", ".tiles")
    browser.says("203.0.113.7/32")
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".map .site")) == 4
    browser.picture("overview")
    browser.click("a[href='/move']")
    browser.find("input[value='workload shop']").send_keys(Keys.SPACE)
    browser.find("input[name=to][value=a1]").send_keys(Keys.SPACE)
    browser.picture("move")
    browser.click("form[action='/move/plan'] button")
    browser.says("~ workload shop: node b1 -> a1")
    browser.says("Nothing stands in the way")
    assert world.director.number == 1, "a plan changes nothing"
    browser.find("#why").send_keys("the works in Dallas")
    browser.picture("plan")
    gate = world.fleet.agents["c1"].gate
    loop.call_soon_threadsafe(gate.clear)
    browser.click("form[action='/move/confirm'] button")
    browser.says("waits for c1", ".timeline")
    assert browser.find("[data-state]").get_attribute("data-state") == "running"
    browser.picture("rolling-out")
    before = browser.driver.execute_script("window.stayed = true; return location.href")
    loop.call_soon_threadsafe(gate.set)
    browser.until(lambda: browser.find("[data-state]").get_attribute("data-state") == "settled")
    browser.says("every node has it", ".timeline")
    assert browser.driver.execute_script("return window.stayed && location.href") == before, "by events alone"
    browser.picture("settled")
    for path, name, word in (
        ("/history", "history", "the works in Dallas"),
        ("/audit", "audit", "move shop to a1"),
        ("/nodes", "nodes", "distribution point C1"),
        ("/nodes/c1", "node", "[[binding]]"),
    ):
        browser.driver.get(world.server.url + path)
        browser.says(word)
        browser.picture(name)
    browser.driver.get(world.server.url + "/move/plan?item=workload+mail&to=b1")
    browser.says("files comes with it")
    browser.driver.get(world.server.url + "/move/plan?item=workload+mail&to=c1")
    browser.says("choose where to", "[role=alert]")
    browser.driver.get(world.server.url + "/nodes/nobody")
    browser.says("there is no node", "[role=alert]")
    loud = [one for one in browser.complaints() if not any(f" {n} " in one for n in ("401", "404", "422"))]
    assert not loud, "nothing is refused by the page's own policy"
    browser.click("button.link")
    browser.find("#token")


def everywhere(browser: Browser, world: WebWorld) -> None:
    sign_in(browser, world, "viewer")
    for scheme, size in (("dark", DESK), ("light", PHONE), ("dark", PHONE)):
        browser.prefer(scheme)
        browser.size(size)
        for path, name in (
            ("/", "overview"), ("/move", "move"), ("/move/plan?item=workload+shop&to=a1", "plan"),
            ("/operations/1", "settled"), ("/history", "history"), ("/nodes", "nodes"),
        ):  # fmt: skip
            browser.driver.get(world.server.url + path)
            browser.picture(f"{name}-{'phone' if size is PHONE else 'desk'}-{scheme}")
    browser.driver.get(world.server.url + "/move/plan?item=workload+shop&to=a1")
    browser.says("This is for operators")
    browser.driver.get(world.server.url + "/audit")
    browser.says("this is for operators", "[role=alert]")
    browser.driver.get(world.server.url + "/")
    seen = []
    for _ in range(4):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(browser.driver.switch_to.active_element.get_attribute("class") or "link")
    assert seen[0] == "skip" and "brand" in seen
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.driver.execute_script(outline) == "solid", "who uses the keyboard sees where they are"
    unnamed = browser.driver.execute_script(
        "return [...document.querySelectorAll('input:not([type=hidden]), button, a')]"
        ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()).length"
    )
    assert unnamed == 0


def test_a_move_in_the_browser(tmp_path: Path, browser: Browser) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        await asyncio.to_thread(move, browser, world, asyncio.get_running_loop())
        assert world.fleet.agents["c1"].sends("203.0.113.7") == "10.1.0.7"
        assert world.director.revision is not None
        assert world.director.revision.who == "operator-1"
        assert world.director.revision.why == "the works in Dallas"

    serving(tmp_path, scenario, plain=True, bindings=ALL_A + SEVEN_B + SHOP + GROUP, most_s=600)


def test_it_reads_well_everywhere(tmp_path: Path, browser: Browser) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        await asyncio.to_thread(everywhere, browser, world)

    serving(tmp_path, scenario, plain=True, bindings=ALL_A + SEVEN_B + SHOP + GROUP, most_s=600)
