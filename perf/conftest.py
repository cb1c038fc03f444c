"""The performance suite: `make perf`, or `pytest perf`. A product of its own: run it on your machine, before
and after a change.

Nothing here asserts a time. A figure is held against its peer of the same run (limits.py), and its ratio
against the one that this class of machine had before (baselines/KEY.json, KEY = processor and cores; made and
renewed with --update-baselines). All figures of a run are written to --figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.bench import Result, machine, run
from ipshare.errors import IpshareError

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("perf")
    group.addoption(
        "--thorough", action="store_true", help="a million bindings, nine rounds: three minutes more"
    )
    group.addoption(
        "--update-baselines", action="store_true", help="this run is what later ones are held against"
    )
    group.addoption("--figures", type=Path, default=Path("build/perf.json"), help="where all figures go")


def baseline_file() -> Path:
    return HERE / "baselines" / f"{machine.this().key}.json"


class Figures:
    """Results by name; each part of the benchmark runs once, when first asked for."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.results: dict[str, Result] = {}
        self._refused: dict[str, str] = {}

    def part(self, name: str) -> dict[str, Result]:
        """The figures of "core", "tables" or "forwarding"; skips the test where they cannot be had."""
        if name not in self._refused:
            self._refused[name] = ""
            try:
                self.results |= {r.name: r for r in run([name], quick=self.quick)}
            except IpshareError as error:
                self._refused[name] = f"{name}: {error.message}"
        if self._refused[name]:
            pytest.skip(self._refused[name])
        return {n: r for n, r in self.results.items() if n.startswith(name)}


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    config = request.config
    found = Figures(quick=not config.getoption("--thorough"))
    yield found
    here = machine.this()
    file: Path = config.getoption("--figures")
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": here.describe(), "figures": [r.as_dict() for r in found.results.values()]}
    file.write_text(json.dumps(document, indent=1) + "\n")
    if config.getoption("--update-baselines"):
        ratios = {r.name: round(r.ratio, 3) for r in found.results.values() if r.ratio is not None}
        target = baseline_file()
        known = json.loads(target.read_text())["ratios"] if target.exists() else {}
        text = json.dumps({"machine": here.describe(), "ratios": known | ratios}, indent=1, sort_keys=True)
        target.write_text(text + "\n")


@pytest.fixture(scope="session")
def baseline() -> dict[str, float]:
    """Ratios of earlier runs on this class of machine; empty where there were none."""
    file = baseline_file()
    ratios: dict[str, float] = json.loads(file.read_text())["ratios"] if file.exists() else {}
    return ratios
