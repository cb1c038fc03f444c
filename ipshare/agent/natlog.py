"""natlog: the engine's NAT log brought in line with the configuration. Repeatable: the engine sees itself
that nothing changed."""

from __future__ import annotations

from ipshare.engine.natlog import NatLogging, NatLogState
from ipshare.engine.protocol import Engine
from ipshare.errors import Refused
from ipshare.model import Config


def align_nat_log(engine: Engine, config: Config) -> bool:
    """True: the number of collectors changed. Raises Refused: this engine has no NAT log."""
    wanted = config.nat_log
    state = engine.nat_log_state() if isinstance(engine, NatLogging) else None
    if state is None or not isinstance(engine, NatLogging):
        if wanted is None:
            return False
        raise Refused("the running engine has no NAT log", hint="leave [nat_log] out, or restart the engine")
    if wanted is not None or state.collectors:
        engine.set_nat_log(wanted, config.node.name)
    return _collectors(engine.nat_log_state()) != _collectors(state)


def _collectors(state: NatLogState | None) -> int:
    return len(state.collectors) if state is not None else 0
