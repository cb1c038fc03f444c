"""Remaps through VPPs: tests/lab/test_engine_remap.py as it is, with VPP at both end points and at the
distribution point, and with VPP as the giver alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipshare.lab import userns
from tests.lab.test_engine_remap import (
    none_is_left,
    test_a_channel_that_is_too_narrow_tells_the_sender,
    test_back_while_it_drains,
    test_there_and_back,
    test_what_is_odd_is_refused_and_changes_nothing,
)
from tests.remap_lab import Remaps, remap_lab
from tests.vpp.remap_vpp import ALL, VppRemaps

__all__ = [
    "none_is_left",
    "test_a_channel_that_is_too_narrow_tells_the_sender",
    "test_back_while_it_drains",
    "test_there_and_back",
    "test_what_is_odd_is_refused_and_changes_nothing",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module", params=[ALL, ("a",)], ids=["all", "giver"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remaps]:
    kind = type("Kind", (VppRemaps,), {"on_vpp": request.param})
    with remap_lab(tmp_path_factory.mktemp("remap"), kind) as made:
        yield made
