"""A channel that is cut while connections drain over it, with VPP at both end points and both distribution
points: tests/lab/test_remap_cut.py as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipshare.lab import userns
from ipshare.lab.agents import require_vpp
from ipshare.lab.internet import LabSpec
from ipshare.lab.lab import Lab
from tests.lab import test_remap_cut as embedded

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_vpp()
    with embedded.patient_lab(LabSpec(channel="ipip", replies="tunnel", engine="vpp")) as lab:
        yield lab


# In that order: the first one needs the address at A, and so does the second one of the other family.
test_a_channel_that_is_cut_while_it_drains_and_comes_back_breaks_nothing = (
    embedded.test_a_channel_that_is_cut_while_it_drains_and_comes_back_breaks_nothing
)
test_a_channel_that_stays_cut_costs_the_connections_that_the_deadline_names = (
    embedded.test_a_channel_that_stays_cut_costs_the_connections_that_the_deadline_names
)
