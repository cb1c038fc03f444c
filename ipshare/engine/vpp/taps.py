"""taps: captures and copies (S1.16) of the plugin, by its API; rules and states are ipshare.engine.capture's.

A rule travels as the C struct that it is on the embedded engine's socket as well. A file is lent by its
descriptor: VPP opens what /proc shows of it, so it has to see our process, and to be allowed to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ipshare.engine.capture import TAP_STATE, TapRule, TapState, ToFile, decode, encode
from ipshare.engine.vpp.client import FOR_EVER_S, ApiRefused, Client
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import EngineError

STOP_TIMEOUT_S = 30.0


class Taps:
    """The taps of the VPP behind ``client``. ``again`` makes another connection to it, to wait on."""

    def __init__(self, client: Client, again: Callable[[], Client]) -> None:
        self._client, self._again = client, again

    def start(self, rule: TapRule) -> TapState:
        """Raises ``EngineError``: too many, bad target, bad rule; with VPP's sentence."""
        path = ""
        if isinstance(rule.target, ToFile):
            path = f"/proc/{os.getpid()}/fd/{rule.target.fd}"
        raw = encode(rule)
        try:
            reply = self._client.call("ipshare_tap_start", path=path, bytes=len(raw), rule=raw)
        except ApiRefused as error:
            reason = os.strerror(error.reply.error) if error.reply.error else ""
            raise EngineError(
                f"no capture: {error.reply.sentence}" + (f" ({reason})" if reason else ""),
                hint="ipshare copy status shows what runs",
            ) from error
        return _state(reply.state)

    def stop(self, number: int) -> TapState:
        """Ends it and returns once every packet is delivered."""
        return self._end(number, True, STOP_TIMEOUT_S)

    def wait(self, number: int, timeout_s: float | None = None) -> TapState:
        """Returns when it has ended by itself; by default waits for ever."""
        return self._end(number, False, FOR_EVER_S if timeout_s is None else timeout_s)

    def all(self) -> list[TapState]:
        return [_state(row.state) for row in self._client.dump("ipshare_tap_dump")]

    def _end(self, number: int, stop: bool, timeout_s: float) -> TapState:
        waiting = self._again()  # the answer may take long, and others have questions meanwhile
        with waiting:
            try:
                reply = waiting.call("ipshare_tap_end", id=number, stop=stop, timeout_s=timeout_s)
            except ApiRefused as error:
                if error.retval != Retval.NO_SUCH_ENTRY:
                    raise
                raise EngineError(f"there is no capture {number}") from error
        return _state(reply.state)


def _state(raw: Any) -> TapState:
    return decode(np.frombuffer(bytes(raw), TAP_STATE, count=1)[0])
