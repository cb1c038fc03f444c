"""hand_over: what the active node of a pair does before it is taken down."""

from __future__ import annotations

import contextlib
import time

from ipshare.engine.pairing import Pairing
from ipshare.errors import IpshareError

HAND_OVER_S = 2.0
"""How long a node that is taken down waits for its peer."""


def hand_over(engine: Pairing) -> None:
    """To the peer, if it can take over. Whatever hinders it: the engine ends now."""
    with contextlib.suppress(IpshareError), engine.watch_pair() as waiting:
        engine.pair_command("maintenance")
        state, end = engine.pair_state(), time.monotonic() + HAND_OVER_S
        while state is not None and state.state == "active":
            state = waiting.wait(state.changes, max(0.001, end - time.monotonic()))
