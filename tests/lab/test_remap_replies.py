"""Replies of a giver's connections go back through the channel: a provider drops what is not its own (S4.5).

A's provider lets out only sources of A. What A's server answers on followed connections comes to B through
the channel, and B sends it on to the client, in both families.
"""

from __future__ import annotations

import pytest

from ipshare.lab.agents import lab_with_agents
from ipshare.lab.internet import LabSpec
from ipshare.lab.traffic import serve
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from tests.remap_agents import PREFIXES, move, server_of, talkers

pytestmark = pytest.mark.lab


def test_replies_go_back_through_the_channel() -> None:
    spec = LabSpec(channel="ipip", replies="tunnel", source_filter=("A",))
    with lab_with_agents(spec) as lab, serve(lab, "a1", "b1"):
        for prefix in PREFIXES:
            counts: dict[str, int] = {}

            def look(progress: Progress, view: View, counts: dict[str, int] = counts) -> None:
                if progress.step is not Step.DRAINING:
                    return
                made.hush()
                for state in view.states.values():
                    for name in ("reply_out", "reply_in", "final_in", "followed"):
                        counts[name] = max(counts.get(name, 0), state.counters[name])

            with talkers(lab, ("c1", "c3")) as made:
                done = move(lab, prefix, "A", "B", replies="channel", on_change=look)
                assert done.step is Step.DONE and done.cut is None
            assert made.faults == []
            assert counts["reply_out"] > 0 and counts["reply_in"] > 0, counts
            assert server_of(lab, "c1", prefix.split("/")[0]) == "b1"
