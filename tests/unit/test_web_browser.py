"""The web page in headless Chromium: signing in, a whole move, what everybody sees; on a desk and on a phone.

Screenshots are kept in build/web. Where Chromium or its driver is not installed nothing here runs, and
tests/conftest.py says so in one loud line.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import SessionNotCreatedException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.director_world import ALL_A, SEVEN_B
from tests.web_world import SHOP, WebWorld, serving

PICTURES = Path(__file__).parents[2] / "build" / "web"
DESK, PHONE = (1366, 900), (390, 844)
PATIENCE_S = 90
GROUP = (
    '[[workload]]\nname = "mail"\nnode = "a1"\naddresses = ["203.0.113.25/32"]\ngroup = "office"\n'
    '[[workload]]\nname = "files"\nnode = "a1"\ngroup = "office"\n'
    '[[binding]]\nglobal = "203.0.113.25/32"\nto = "A"\n'
)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium installed"),
    pytest.mark.timeout(900),
]


class Browser:
    """A browser with a profile of its own; waits for what it looks for."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (
            "headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
            "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars",
            f"user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        os.environ["SE_OFFLINE"] = "true"
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(executable_path=str(DRIVER)))
        self.driver.set_page_load_timeout(PATIENCE_S)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, size: tuple[int, int]) -> None:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size is PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def find(self, css: str) -> WebElement:
        return WebDriverWait(self.driver, PATIENCE_S).until(lambda d: d.find_element(By.CSS_SELECTOR, css))

    def text(self, css: str = "body") -> str:
        return self.find(css).text

    def says(self, word: str, css: str = "body") -> None:
        """Soon, for a page may be on its way."""
        self.until(lambda: word in self.text(css))

    def until(self, claim: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, PATIENCE_S, ignored_exceptions=(Exception,)).until(lambda _: claim())

    def picture(self, name: str) -> None:
        """All of the page, and that nothing of it is wider than the screen."""
        wide = self.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name}: {wide} pixels too wide"
        PICTURES.mkdir(parents=True, exist_ok=True)
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"}
        )
        import base64

        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        log = self.driver.get_log("browser")
        return [one["message"] for one in log if one["level"] in ("SEVERE", "WARNING")]


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its driver gives it a minute to begin, which on a machine with much else to do is not enough the first
    time; then another one begins, with what the first has read already in memory."""
    for left in (2, 1, 0):
        try:
            found = Browser(tmp_path_factory.mktemp("profile"))
            break
        except SessionNotCreatedException:
            if not left:
                raise
    yield found
    found.driver.quit()


@pytest.fixture
def browser(one_browser: Browser) -> Browser:
    one_browser.prefer("light")
    one_browser.size(DESK)
    return one_browser


def sign_in(browser: Browser, world: WebWorld, role: str) -> None:
    browser.driver.get(world.server.url + "/")
    browser.find("#token").send_keys(world.tokens[role], Keys.ENTER)
    browser.find(".tiles")


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
    browser.find("a[href='/move']").click()
    browser.find("input[value='workload shop']").send_keys(Keys.SPACE)
    browser.find("input[name=to][value=a1]").send_keys(Keys.SPACE)
    browser.picture("move")
    browser.find("form[action='/move/plan'] button").click()
    browser.says("~ workload shop: node b1 -> a1")
    browser.says("Nothing stands in the way")
    assert world.director.number == 1, "a plan changes nothing"
    browser.find("#why").send_keys("the works in Dallas")
    browser.picture("plan")
    gate = world.fleet.agents["c1"].gate
    loop.call_soon_threadsafe(gate.clear)
    browser.find("form[action='/move/confirm'] button").click()
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
    browser.find("button.link").click()
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
