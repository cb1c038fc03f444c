"""A whole installation with two directors on etcd, under connections, while one thing breaks at a time:
clients are served again, and no connection is lost that the design says survives.

A few of the rows of tests/faults_table.py, all of them with IPSHARE_FAULTS=all. `make perf-faults` measures
too: here nothing is said of how long anything takes, and timers are such that a machine with much else to do
takes nobody for dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.bgp_lab import MISSING
from tests.faults_lab import SLOW, World, faults_lab
from tests.faults_table import FAULTS, FEW, Fault, run

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(MISSING), reason=f"FAULTS NOT TESTED: needs {MISSING}"),
]
ROWS = [fault for fault in FAULTS if fault.name in FEW or os.environ.get("IPSHARE_FAULTS")]
CONNECTIONS = 200


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with faults_lab(tmp_path_factory.mktemp("faults"), SLOW) as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ROWS, ids=[fault.name for fault in ROWS])
def test_a_fault(world: World, fault: Fault) -> None:
    row = run(world, fault, CONNECTIONS)
    assert row.wrongly_lost == {}, row
    assert row.kept + sum(n for why in row.lost.values() for n in why.values()) == CONNECTIONS
    if fault.bound_s:
        assert row.again_s or not row.lost, "nothing was noticed, but connections are lost"
