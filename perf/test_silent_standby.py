"""A minute at the standby's port of the switch: not a frame with a workload's MAC address (S3.4).

tests/lab/test_pair_ports.py with its whole length: announcements are repeated every 30 s, so two rounds of
the active node's are within it.
"""

from __future__ import annotations

from tests.lab.test_pair_ports import hands_over_and_is_silent, kind, lab
from tests.pair_lab import PairLab

__all__ = ["kind", "lab"]
SILENCE_S = 60.0


def test_a_minute_without_a_workloads_frame(lab: PairLab) -> None:
    hands_over_and_is_silent(lab, SILENCE_S)
