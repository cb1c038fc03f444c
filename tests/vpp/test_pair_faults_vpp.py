"""The fault matrix of a redundant pair on VPP: tests/lab/test_pair_faults.py as it is.

A VPP without workers: the thread that moves packets is its main thread, and is the one that hangs.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_faults import test_fault, world
from tests.pair_faults import ACTIVE, World
from tests.pair_lab import Half, until
from tests.vpp.pair_vpp import VppHalf

__all__ = ["test_fault", "world"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def kind() -> type[Half]:
    return VppHalf


def test_down_ends_a_node_whose_engine_is_stopped(world: World) -> None:
    """The last one: it answers nothing, and is killed; nothing of the node is left (decision 0030)."""
    node, other = world.settled()
    pid = node.status()["engine_pid"]
    os.kill(pid, signal.SIGSTOP)
    done = node.cli("down", "--json")
    assert done.returncode == 0, done.stderr
    assert any(
        f"{pid} did not end in" in line and "killed" in line for line in json.loads(done.stdout)["done"]
    )
    assert not Path(f"/proc/{pid}").exists()
    until(lambda: world.is_in(other, ACTIVE))
