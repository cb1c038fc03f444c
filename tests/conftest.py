"""What all tests share: which packages of tests can run here, and one loud line for each that cannot."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.engine.vpp.find import find
from ipshare.errors import NotRunning
from tests import examples, guest_vm, libvirt_world

HERE = Path(__file__).parent
LANES = {
    "sanitized": ("sanitized",),
    "clocks": ("_pair", "witness", "mirror"),
    "engines": ("engine", "counter", "_net_", "_lab_", "paths"),
}
"""Of modules that want network namespaces, by what is in their names: sanitizers; nodes that watch each
other's clocks; packets, engines, devices and rules. All others are in the lane of agents."""
PRECEDENCE = {"clocks": 0, "agents": 5, "engines": 5, "sanitized": 10}
VHOST = Path("/dev/vhost-net")
ABSENT: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    examples.register()
    try:
        if find().plugin is None:
            ABSENT["vpp"] = "VPP is installed, its ipshare plugin is not built"
    except NotRunning:
        ABSENT["vpp"] = "no VPP installed"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run side by side (JOBS in the Makefile): a module is one worker's, its fixtures made once,
    and those that want network namespaces are in lanes, each one worker's, one after the other. Lanes, which
    take longest, begin first, as they are collected: unit tests are between them and after them."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = Path(nodeid.split("::", 1)[0])
            return str(module) if module.is_relative_to("tests/unit") else lane_of(module)

    config.option.loadscopereorder = False  # by how many tests there are: says nothing of how long they take
    return ByPlace(config, log)


def lane_of(module: Path) -> str:
    """Of a module that wants network namespaces."""
    return next((lane for lane, words in LANES.items() if any(w in module.stem for w in words)), "agents")


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """What a command that was run here installed for its own life ends with the test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="module", autouse=True)
def _precedence(request: pytest.FixtureRequest) -> Iterator[None]:
    """Side by side, what has clocks goes before what has not: unit tests wait for labs, not labs for them."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.geteuid() == 0:
        module = request.path.relative_to(HERE)
        is_unit = module.parts[0] == "unit"
        with contextlib.suppress(PermissionError):  # a pytest within a test, without the rights
            os.setpriority(os.PRIO_PROCESS, 0, 15 if is_unit else PRECEDENCE[lane_of(module)])
    yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests get the marker of their directory; those that cannot run here are skipped, and counted below."""
    for item in items:
        package = item.path.relative_to(HERE).parts[0]
        if package in ("lab", "vpp"):
            item.add_marker(package)
        if package in ABSENT:
            item.add_marker(pytest.mark.skip(reason=ABSENT[package]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reporter = terminalreporter
    if "vpp" in ABSENT:
        reporter.write_line(f"VPP tests: not run, {ABSENT['vpp']}", yellow=True, bold=True)
    elif not VHOST.exists():
        text = f"BGP ON VPP (linux-cp): NOT RUN, this kernel has no {VHOST}; tests/vpp/in_guest.py runs it"
        reporter.write_line(text, red=True, bold=True)
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        text = "browser tests: not run, no Chromium installed (chromium, chromium-driver)"
        reporter.write_line(text, yellow=True, bold=True)
    if why := guest_vm.why_not():
        reporter.write_line(f"LIVE MIGRATION OF A GUEST: NOT RUN, {why}", red=True, bold=True)
    elif why := libvirt_world.why_not():
        reporter.write_line(f"migration by libvirt: not run, {why}", yellow=True, bold=True)
    if os.environ.get("IPSHARE_LAB_USERNS"):
        reporter.write_line("lab tests: run in a user namespace (no root here)", yellow=True, bold=True)
