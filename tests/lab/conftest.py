"""Lab tests run as root or, where root is missing, in a user namespace: pytest starts itself again in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.lab import userns
from ipshare.lab.netns import LabError, inside_new

REFUSED = ""


def pytest_configure(config: pytest.Config) -> None:
    """Called for this file when it is loaded, before any test runs."""
    global REFUSED
    capture = config.pluginmanager.getplugin("capturemanager")
    hands_over = capture is not None and not userns.is_root()
    if hands_over:
        capture.stop_global_capturing()  # the process that takes over needs the real stdout
    try:
        userns.become_root()
    except LabError as error:
        REFUSED = f"{error.message} ({error.hint})"
        if hands_over:
            capture.start_global_capturing()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REFUSED:
        terminalreporter.write_line(f"LAB TESTS NOT RUN: {REFUSED}", red=True, bold=True)


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if REFUSED:
        pytest.skip(REFUSED)


@pytest.fixture
def undo_file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "undo.jsonl"
    assert not (tmp_path / "undo.jsonl").exists(), "the test left a journal, and with it changes, behind"


@pytest.fixture
def fresh() -> object:
    """Calls a function in a network namespace of its own and returns its result."""
    return inside_new
