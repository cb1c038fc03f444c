"""api_remap: the part of ipshare.api.Node that is about this node's halves of remaps (SYSTEMS.md S4).

For whoever does a remap's steps himself, or looks at one node; ipshare.remap does them all, at all nodes.
Everything goes through the agent, which keeps halves over restarts: without one NotRunning is raised.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, Literal

from ipshare.agent.client import AgentClient
from ipshare.engine.remap_text import state_of
from ipshare.engine.remapping import RemapState
from ipshare.model import Config


class RemapHalves:
    """What ipshare.api.Node inherits."""

    config: Config

    def remaps(self) -> dict[str, Any]:
        """``halves``: this node's, each with the engine's ``state``; ``moves``: addresses that remaps have
        bound elsewhere than the file says."""
        return self._ask("remap_list")

    def remap_state(self, remap: int) -> RemapState | None:
        """None: the engine knows none of that id."""
        state = self._ask("remap_state", id=remap)["state"]
        return state_of(state) if state is not None else None

    def remap_flows(self, remap: int, *, limit: int = 10_000) -> list[dict[str, Any]]:
        """The giver's connections, as this node knows them: words of ipshare.engine.session_text. Raises
        Refused: there is none of that id."""
        rows: list[dict[str, Any]] = self._ask("remap_flows", id=remap, limit=limit)["flows"]
        return rows

    def remap_prepare(
        self, remap: int, prefix: str, *, side: Literal["giver", "taker"], channel: str, slot: int = 0,
        replies: Literal["direct", "channel"] = "direct", quic: bool = False, unknown_here: bool = False,
    ) -> RemapState:  # fmt: skip
        """This node's half: it prepares to leave (giver), or is ready to take (taker). The other node has the
        other side, by the same id and channel. Raises Refused, with the reason."""
        role = "preparing" if side == "giver" else "ready"
        options = {"replies_by_channel": replies == "channel", "quic": quic, "unknown_here": unknown_here}
        where = {"prefix": str(ip_network(prefix)), "channel": channel, "slot": slot}
        return self._state("remap_set", id=remap, role=role, **where, **options)

    def remap_leave(self, remap: int) -> RemapState:
        """The giver opens no connection any more. Raises Refused."""
        return self._state("remap_set", id=remap, role="leaving")

    def remap_take(self, remap: int) -> RemapState:
        """The taker opens all from now on. Only once the giver's ``fence_applied`` is so. Raises Refused."""
        return self._state("remap_set", id=remap, role="taking")

    def remap_bind(self, remap: int, prefix: str, to: str | None) -> bool:
        """This node's tables have ``prefix`` at end point ``to`` (None: where the file has it), until the
        file says so; True: that was a change. Raises Refused: also where a later remap has bound it."""
        net = str(ip_network(prefix))
        return bool(self._ask("remap_bind", id=remap, prefix=net, to=to)["changed"])

    def remap_clear(self, remap: int) -> RemapState | None:
        """Ends this node's half, and returns its last state; None: there was none."""
        state = self._ask("remap_clear", id=remap)["state"]
        return state_of(state) if state is not None else None

    def _state(self, verb: str, **arguments: Any) -> RemapState:
        return state_of(self._ask(verb, **arguments)["state"])

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        with AgentClient(self.config.node.runtime_dir) as agent:
            return agent.call(verb, **arguments)
