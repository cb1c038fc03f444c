"""restart: at the box: the machine is started again by an operator, and nobody should notice.

A node that is half of a pair leaves it first (inop, until its next engine): an active one hands over, and
only then. What cannot be handed over keeps the machine running.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from ipshare.api import Node
from ipshare.api_pair import ORDER_S
from ipshare.errors import EngineError, IpshareError, NotRunning, Refused

NODES = Path("/var/lib/ipshare")
ALL_THE_SAME = (
    "`ipshare pair ready --wait 10m` waits for it; `systemctl reboot` starts the machine all the same"
)


def leave(node: Node, say: Callable[[str], None], patience_s: float = ORDER_S) -> None:
    """``node`` is active no more, and does not become so, while its engine runs. Raises Refused (nothing was
    changed) where the other node is not ready, EngineError where it did not take over."""
    try:
        state = node.pair()
    except NotRunning:
        return
    if state.state == "active":
        try:
            node.pair_switchover(timeout_s=patience_s)
        except Refused as error:
            raise Refused(
                f"{node.config.node.name} is active, and cannot hand over: {error.message}", hint=ALL_THE_SAME
            ) from None
        state = node.pair_ready(wait_s=patience_s)
        if state.peer_state != "active":
            raise EngineError(f"{node.config.node.name} handed over, and its peer is {state.peer_state}")
        say(f"{node.config.node.name} handed over")
    if state.state != "inop":
        node.pair_maintenance(True, timeout_s=patience_s)


def again(say: Callable[[str], None], nodes: Path = NODES) -> None:
    """Leaves pairs, and starts the machine again."""
    for state in sorted(nodes.glob("*/state.json")):
        with Node.stored(state.parent) as node:
            if node.config.pair is not None:
                leave(node, say)
    now()


def now(*how: str) -> None:
    """Starts the machine again. Raises IpshareError where systemd does not."""
    if subprocess.run(["systemctl", "reboot", *how], check=False).returncode > 0:  # < 0: ended by the restart
        raise IpshareError("the machine does not start again by itself", hint="reset it")
