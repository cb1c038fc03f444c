"""The engine under sanitizers passes tests of traffic, cases, NAT and mirror without a finding."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sanitized
from tests.ahead import AHEAD_S, Ahead, ahead

HERE = Path(__file__).parent
FILES = {
    ("test_cases_engine.py", "test_engine_traffic.py"): 400,
    ("test_engine_flows.py", "test_engine_mirror.py", "test_engine_hostile.py"): 32,
}
"""And how many tests there are at least."""
CALM = {"HYPOTHESIS_PROFILE": "quick"}


Run = tuple[sanitized.OUTCOME, str]
"""How pytest ended, and what the sanitizer reported."""


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ahead[Run]]:
    def run(sanitizer: str, files: tuple[str, ...]) -> Run:
        engine = sanitized.build("engine", sanitizer=sanitizer) / "ipshare-engine"
        sanitized.run(engine, "--help")
        at = tmp_path_factory.mktemp("reports")
        logs = {name: f"{options}:log_path={at}/report" for name, options in sanitized.ENVIRONMENT.items()}
        settings = logs | CALM | {"IPSHARE_ENGINE": str(engine), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = sanitized.run(
            *("env", *(f"{name}={value}" for name, value in settings.items())),
            *(sys.executable, "-m", "pytest", "-q", *(HERE / name for name in files)),
            cwd=sanitized.ROOT,
            timeout_s=AHEAD_S,
        )
        return done, "".join(file.read_text(errors="replace") for file in at.glob("report*"))

    with ahead(request, "test_without_a_finding", run) as found:
        yield found


@pytest.mark.timeout(AHEAD_S)
@pytest.mark.parametrize("files", FILES, ids=["traffic", "flows"])
@pytest.mark.parametrize("sanitizer", [sanitized.MEMORY, sanitized.THREADS])
def test_without_a_finding(
    sanitizer: str, files: tuple[str, ...], runs: Ahead[Run], request: pytest.FixtureRequest
) -> None:
    """Each engine that one of the tests ends in order has to end with 0; a finding of a sanitizer is 99."""
    try:
        done, reports = runs[request]
    except sanitized.Missing as why:
        pytest.skip(f"ENGINE NOT RUN UNDER {sanitizer}: {why}")
    assert not reports, reports[:6000]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= FILES[files], done.stdout[-1000:]
