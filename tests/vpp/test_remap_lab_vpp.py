"""Remaps under load with VPP at both end points and both distribution points: tests/lab/test_remap_lab.py as
it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipshare.lab import userns
from ipshare.lab.agents import lab_with_agents
from ipshare.lab.internet import LabSpec
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import serve
from tests.lab import test_remap_lab as embedded

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_with_agents(LabSpec(channel="ipip", engine="vpp")) as lab, serve(lab, "a1", "a2", "b1"):
        yield lab


# In that order: the last one leaves an address at B.
test_there_with_one_distribution_point_late_and_back_and_nothing_breaks = (
    embedded.test_there_with_one_distribution_point_late_and_back_and_nothing_breaks
)
test_refusals_by_what_real_agents_say = embedded.test_refusals_by_what_real_agents_say
test_the_command_line_and_a_deadline_that_names_what_it_cuts = (
    embedded.test_the_command_line_and_a_deadline_that_names_what_it_cuts
)
