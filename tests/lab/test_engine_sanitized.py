"""The engine under sanitizers passes the tests of real traffic and of the packet cases, without a finding."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests import sanitized

HERE = Path(__file__).parent
FILES = ("test_cases_engine.py", "test_engine_traffic.py")
CALM = {"HYPOTHESIS_PROFILE": "quick"}


@pytest.mark.parametrize("sanitizer", [sanitized.MEMORY, sanitized.THREADS])
def test_traffic_and_cases(sanitizer: str, tmp_path: Path) -> None:
    """Each engine that one of the tests ends in order has to end with 0; a finding of a sanitizer is 99."""
    try:
        engine = sanitized.build("engine", sanitizer=sanitizer) / "ipshare-engine"
        sanitized.run(engine, "--help")
    except sanitized.Missing as why:
        pytest.skip(f"ENGINE NOT RUN UNDER {sanitizer}: {why}")
    logs = {name: f"{options}:log_path={tmp_path}/report" for name, options in sanitized.ENVIRONMENT.items()}
    settings = logs | CALM | {"IPSHARE_ENGINE": str(engine), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = sanitized.run(
        *("env", *(f"{name}={value}" for name, value in settings.items())),
        *(sys.executable, "-m", "pytest", "-q", *(HERE / name for name in FILES)),
        cwd=sanitized.ROOT,
        timeout_s=280,
    )
    reports = "".join(file.read_text(errors="replace") for file in tmp_path.glob("report*"))
    assert not reports, reports[:6000]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 400, done.stdout[-1000:]
