"""The door to one worker of the C core: what is asked leaves no trace, and its memory is where C thinks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ipshare.core import Worker
from ipshare.engine.desired import desired
from ipshare.engine.packet_words import packet
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables
from tests.agent_world import site

WORDS = "udp 198.51.100.1:1 > 203.0.113.5:2"


def test_a_question_is_not_counted_and_what_comes_after_it_is(tmp_path: Path) -> None:
    """Under AddressSanitizer (test_sanitized_core.py): the counters of a question live as long as it does."""
    with Worker(cells=1024) as worker:
        worker.load(diff(Tables(), desired(site(tmp_path))).image(0))
        for _ in range(3):
            assert worker.explain("outer", packet(WORDS)).verdict.name == "OK"
        assert worker.verdict_counts().sum() == worker.cell_counts()["packets"].sum() == 0
        assert worker.totals()["packets"] == len(worker.drop_counts()) == 0
        assert worker.process("outer", packet(WORDS)).verdict.name == "OK"
        assert worker.explain("outer", packet(WORDS + " ttl 1")).verdict.name == "TTL_EXPIRED"
        assert worker.verdict_counts().sum() == worker.cell_counts()["packets"].sum() == 1
        assert np.flatnonzero(worker.verdict_counts()[0]).tolist() == [0]
