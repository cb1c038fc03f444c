"""What all tests share: which packages of tests can run here, and one loud line for each that cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ipshare.engine.vpp.find import find
from ipshare.errors import NotRunning
from tests import examples, guest_vm

HERE = Path(__file__).parent
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
    """Where tests run side by side (make test JOBS=2): a module is one worker's, its fixtures are made
    once, and all that want network namespaces are one worker's too, one after the other."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.split("::", 1)[0]
            return module if Path(module).is_relative_to("tests/unit") else "in namespaces"

    return ByPlace(config, log)


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
    if why := guest_vm.why_not():
        reporter.write_line(f"LIVE MIGRATION OF A GUEST: NOT RUN, {why}", red=True, bold=True)
    if os.environ.get("IPSHARE_LAB_USERNS"):
        reporter.write_line("lab tests: run in a user namespace (no root here)", yellow=True, bold=True)
