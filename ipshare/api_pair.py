"""api_pair: the part of ipshare.api.Node that is about its half of a redundant pair (SYSTEMS.md S2).

Orders go through the agent where one runs, looking goes to the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ipshare.engine.failures import EngineSilent
from ipshare.engine.pair_following import PairFollowing
from ipshare.engine.pairing import Order, Pairing, PairState
from ipshare.errors import EngineError, NotRunning, Refused
from ipshare.model import Config

if TYPE_CHECKING:
    from ipshare.agent.client import AgentClient
    from ipshare.agent.store import Store
    from ipshare.engine.protocol import Engine

ORDER_S = 10.0
"""How long an order to a pair may take."""
LOOK_S = 0.5
"""Between two looks whether a pair is ready."""


class PairHalf:
    """What ipshare.api.Node inherits."""

    config: Config
    store: Store

    def pair(self) -> PairState:
        """Where this node's half of its pair is. Raises Refused (it is half of none), NotRunning."""
        state = self._pairing().pair_state()
        if state is None:
            raise Refused("the engine is half of no pair yet", hint="ipshare apply makes it one")
        return state

    def watch_pair(self) -> Iterator[PairState]:
        """The state, and each further one. Goes on as long as an agent would start the engine again."""
        following = self.following_pair()
        while True:
            yield following.next()

    def following_pair(self) -> PairFollowing:
        """What ``watch_pair`` does, one state at a time, to be interrupted by another thread."""
        return PairFollowing(self._pairing, self._is_kept)

    def pair_switchover(self, *, timeout_s: float = ORDER_S) -> PairState:
        """The active hands over to the standby; either may be asked. Returns when this node has changed its
        state. Raises Refused (why it cannot be now), EngineError (nothing came of it in time)."""
        was = self.pair().state
        done = (lambda state: state != "active") if was == "active" else (lambda state: state == "active")
        return self._order("switchover", done, timeout_s)

    def pair_force(self, *, timeout_s: float = ORDER_S) -> PairState:
        """This node becomes active although it did not hear its peer. The caller vouches that the peer
        forwards nothing. Raises as ``pair_switchover``."""
        return self._order("force", lambda state: state == "active", timeout_s)

    def pair_maintenance(self, on: bool, *, timeout_s: float = ORDER_S) -> PairState:
        """``on``: this node is inop (an active one hands over first) until ``pair_maintenance(False)``."""
        order: Order = "maintenance" if on else "service"
        return self._order(order, lambda state: (state == "inop") is on, timeout_s)

    def pair_ready(self, *, wait_s: float = 0.0) -> PairState:
        """The state as soon as a switchover would be taken (``is_ready``), or after ``wait_s`` as it is then.
        An engine that is not there yet is waited for, too. Raises Refused (half of no pair), NotRunning."""
        end, engine = time.monotonic() + wait_s, None
        while True:
            is_last = time.monotonic() >= end
            try:
                engine = engine or self._pairing()
                state = engine.pair_state()
                if is_last or state is not None and state.is_ready:
                    return state or self.pair()
            except NotRunning:  # that engine is gone, or none is there
                if is_last:
                    raise
                engine = None
            time.sleep(LOOK_S)  # nothing tells when a peer or a mirror has become ready

    def _order(self, order: Order, is_done: Callable[[str], bool], timeout_s: float) -> PairState:
        engine = self._pairing()
        with engine.watch_pair() as waiting:
            agent, state = self._agent(), self.pair()
            if agent is not None:
                with agent:
                    agent.call("pair", order=order)
            else:
                engine.pair_command(order)
            end = time.monotonic() + timeout_s
            while not is_done(state.state):
                try:
                    state = waiting.wait(state.changes, max(0.001, end - time.monotonic()))
                except EngineSilent:
                    raise EngineError(
                        f"{order} was ordered, and this node is still {state.state} after {timeout_s:g} s",
                        hint="see `ipshare pair status`",
                    ) from None
        return state

    def _pairing(self) -> Pairing:
        if (self.store.current() or self.config).pair is None:
            raise Refused("this node is half of no pair", hint="see [pair] in docs/configuration.md")
        engine = self.engine
        if not isinstance(engine, Pairing):
            raise Refused(f"engine {engine.info().kind} cannot be half of a pair")
        return engine

    if TYPE_CHECKING:

        @property
        def engine(self) -> Engine: ...
        def _agent(self) -> AgentClient | None: ...
        def _is_kept(self) -> bool: ...
