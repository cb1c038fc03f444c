"""Headless Chromium for tests of the web page: waits for what it looks for, keeps screenshots in build/web.

Where Chromium or its driver is not installed what is marked with MARKS does not run, and tests/conftest.py
says so in one loud line.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import SessionNotCreatedException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.web_world import WebWorld

PICTURES = Path(__file__).parents[1] / "build" / "web"
DESK, PHONE = (1366, 900), (390, 844)
PATIENCE_S = 90
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MARKS = [
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

    def click(self, css: str) -> None:
        """Again where an event has renewed that part of the page between a look and the click."""
        for left in reversed(range(20)):
            try:
                self.find(css).click()
                break
            except StaleElementReferenceException:
                if not left:
                    raise

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
