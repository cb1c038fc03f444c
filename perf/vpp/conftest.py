"""The performance suite on VPP: `make perf-vpp`. Needs an installed VPP and the plugin; about two minutes.

As in perf/: nothing asserts a time; a cost is held against ip-lookup + ip-rewrite of the same burst
(limits.py) and its ratio against what this class of machine had before (baselines/KEY.json, renewed with
--update-baselines). pytest-benchmark gets the same ratios, as passes of lookup + rewrite in the place of
seconds: its tables, --benchmark-save and --benchmark-compare work. Figures go to
build/perf-vpp.{json,txt,svg}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.bench import Result, machine
from ipshare.errors import IpshareError
from vpp import beside, growth, programming, report
from vpp.cases import ALONE
from vpp.ours import SIZES
from vpp.series import Series

HERE = Path(__file__).parent
OUT = Path("build")


class Figures:
    """All that was measured; each part once, when first asked for."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.results: dict[str, Result] = {}
        self.states: list[programming.Programming] = []
        self.crashed: dict[str, str] = {}
        self._parts: dict[str, str] = {}

    def part(self, name: str) -> dict[str, Result]:
        """The figures of "added", "growth" or "programming"; skips where there is no VPP or no plugin."""
        if name not in self._parts:
            self._parts[name] = ""
            try:
                for result in getattr(self, f"_{name}")():
                    self.results[result.name] = result
            except IpshareError as error:
                self._parts[name] = f"{error.message}"
        if self._parts[name]:
            pytest.skip(self._parts[name])
        return {n: r for n, r in self.results.items() if n.startswith(name)}

    def _added(self) -> Iterator[Result]:
        found = beside.together()
        for case in ALONE:
            series = beside.alone(case)
            if isinstance(series, str):
                self.crashed[f"added.v{case.family}.{case.name}"] = series
            else:
                found |= series
        self.series |= {f"added.{name}": s for name, s in found.items()}
        return report.added(found)

    def _growth(self) -> Iterator[Result]:
        found = growth.bindings(thorough=True) | growth.others()
        self.series |= {f"growth.{name}": s for name, s in found.items()}
        return report.growth(found)

    def _programming(self) -> Iterator[Result]:
        self.states = list(programming.states())
        yield from report.programming(self.states)
        for size in ("1k", "1m"):
            up_to_live, _ = programming.restart(SIZES[size])
            yield Result(f"programming.restart.{size}", up_to_live, "s")


def baseline_file() -> Path:
    return HERE / "baselines" / f"{machine.this().key}.json"


@pytest.fixture(scope="session")
def vpp_figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    found = Figures()
    yield found
    results = list(found.results.values())
    if not results:
        return
    OUT.mkdir(exist_ok=True)
    (OUT / "perf-vpp.json").write_text(report.document(results, found.series, found.crashed) + "\n")
    (OUT / "perf-vpp.txt").write_text(report.text(results, found.crashed))
    (OUT / "perf-vpp.svg").write_text(report.svg(results))
    if request.config.getoption("--update-baselines"):
        _update(results)


def _update(results: list[Result]) -> None:
    target, known = baseline_file(), {}
    if target.exists():
        known = json.loads(target.read_text())["ratios"]
    known |= {r.name: round(r.ratio, 3) for r in results if r.ratio is not None}
    target.parent.mkdir(exist_ok=True)
    document = {"machine": report.measured_on(), "ratios": known}
    target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="session")
def vpp_baseline() -> dict[str, float]:
    """Ratios of earlier runs on this class of machine; empty where there were none."""
    file = baseline_file()
    ratios: dict[str, float] = json.loads(file.read_text())["ratios"] if file.exists() else {}
    return ratios


def pytest_benchmark_scale_unit(unit: str, benchmarks: list[Any]) -> tuple[str, float] | None:
    """pytest-benchmark appends an s to the unit."""
    if not all("perf/vpp" in b["fullname"] for b in benchmarks):
        return None
    return ("added passe", 1.0) if unit == "seconds" else ("", 1.0)
