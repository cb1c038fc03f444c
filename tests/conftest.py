"""What all tests share: which packages of tests can run here, and one loud line for each that cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipshare.engine.vpp.find import find
from ipshare.errors import NotRunning
from tests import examples

HERE = Path(__file__).parent
ABSENT: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    examples.register()
    try:
        if find().plugin is None:
            ABSENT["vpp"] = "VPP is installed, its ipshare plugin is not built"
    except NotRunning:
        ABSENT["vpp"] = "no VPP installed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests get the marker of their directory; those that cannot run here are skipped, and counted below.

    Where tests run side by side (make test), a module stays with one worker, so that its fixtures are made once,
    and all that need network namespaces of the machine are one worker's, one after the other.
    """
    for item in items:
        package = item.path.relative_to(HERE).parts[0]
        in_lab = package in ("lab", "vpp")
        if in_lab:
            item.add_marker(package)
        item.add_marker(pytest.mark.xdist_group("lab" if in_lab else item.path.stem))
        if package in ABSENT:
            item.add_marker(pytest.mark.skip(reason=ABSENT[package]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reporter = terminalreporter
    if "vpp" in ABSENT:
        reporter.write_line(f"VPP tests: not run, {ABSENT['vpp']}", yellow=True, bold=True)
    if os.environ.get("IPSHARE_LAB_USERNS"):
        reporter.write_line("lab tests: run in a user namespace (no root here)", yellow=True, bold=True)
