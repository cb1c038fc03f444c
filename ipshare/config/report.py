"""The door: a file -> Report or Config.

`check` reports and never raises for what a file says; `load` raises ConfigError with everything that is
wrong. Neither touches the network or the kernel, and neither changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ipshare.config import (
    check_bgp,
    check_bgp_vpp,
    check_bindings,
    check_channel,
    check_clusters,
    check_flows,
    check_groups,
    check_metal,
    check_migration,
    check_nat,
    check_natlog,
    check_pair,
    check_places,
    check_subnets,
    check_vpp,
    check_workload,
    checks,
)
from ipshare.config.assigned import include
from ipshare.config.build import build
from ipshare.config.read import Document, read, read_text
from ipshare.config.site import Site, sort_out
from ipshare.errors import ConfigError, Problem
from ipshare.model import BindingSet, Config

_BESIDE = (check_bgp, check_bgp_vpp, check_workload, check_migration)
_FLOWS = (check_flows, check_nat, check_natlog, check_channel, check_clusters, *_BESIDE)
_VPP = (check_vpp, check_metal, check_subnets)
_PARTS = (checks, check_places, check_bindings, *_VPP, check_pair, check_groups, *_FLOWS)
ALL_CHECKS: dict[str, list[checks.Check]] = {
    kind: [check for part in _PARTS for check in part.CHECKS.get(kind, [])]
    for kind in dict.fromkeys(kind for part in _PARTS for kind in part.CHECKS)
}


@dataclass(frozen=True, slots=True)
class Report:
    """What reading a configuration gave. `config` is None if there are problems; both lists go by file and
    line.
    """

    config: Config | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(path: Path | str, *, assigned: str | None = None) -> Config:
    """The configuration in the file at `path`, includes and bindings files and all. `assigned`: by a director
    (ipshare.config.assigned), in place of what it assigned before.

    Raises ConfigError with all mistakes.
    """
    return _config(check(path, assigned=assigned))


def load_text(text: str, name: Path | str = "site.toml") -> Config:
    """The same for a text in memory. `name` stands in messages; other files are looked up relative to it."""
    return _config(check_text(text, name))


def check(path: Path | str, *, assigned: str | None = None) -> Report:
    """All mistakes and warnings of the file at `path`; `assigned` as for load."""
    document = read(Path(path))
    include(document, assigned)
    return judged(document)


def check_text(text: str, name: Path | str = "site.toml") -> Report:
    """The same for a text in memory; `name` as for load_text."""
    document = read_text(text, Path(name))
    include(document)
    return judged(document)


def _config(report: Report) -> Config:
    if report.config is None:
        raise ConfigError(report.problems, report.warnings)
    return report.config


def judged(document: Document) -> Report:
    """What a document gives that was read."""
    if document.problems and not document.data:
        return _sorted(document, None)  # nothing could be read: what is missing in it is no news
    site = sort_out(document)
    _file(document, checks.run(site, ALL_CHECKS))
    bulk = _bulk(document, site)
    config = build(site, bulk) if not document.problems else None
    return _sorted(document, config)


def _bulk(document: Document, site: Site) -> BindingSet | None:
    """Checks of all bindings together, with NumPy where there are files of them, without where there are
    none.
    """
    if not site.bindings_file:
        _file(document, check_bindings.together(site))
        return None
    from ipshare.config.bulk_check import bindings_files

    rows, problems, warnings = bindings_files(site)
    document.problems += problems
    document.warnings += warnings
    return rows


def _file(document: Document, findings: Iterable[checks.Finding]) -> None:
    """Findings to the lists of problems and warnings, with their places."""
    for finding in findings:
        problem = document.problem(finding.path, finding.message, finding.hint)
        (document.warnings if finding.is_warning else document.problems).append(problem)


def _sorted(document: Document, config: Config | None) -> Report:
    order = {str(file): number for number, file in enumerate(document.files)}

    def key(problem: Problem) -> tuple[int, str, int, int]:
        return order.get(problem.file, len(order)), problem.file, problem.line, problem.column

    problems = tuple(sorted(dict.fromkeys(document.problems), key=key))
    return Report(config, problems, tuple(sorted(dict.fromkeys(document.warnings), key=key)))
