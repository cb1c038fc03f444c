"""pair: the plugin's half of a redundant pair, by its API; records and states are ipshare.engine.pairing's.

A pair travels as the C struct that it is on the embedded engine's socket as well, orders and states too. Who
waits for the next change does so on a connection of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ipshare.core import lib
from ipshare.engine import pairing
from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.engine.vpp.client import FOR_EVER_S, ApiRefused, Client
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import EngineError, IpshareError, Refused

BUSY_S = 0.005
NO_PAIR = "this node is no half of a pair"


class PairRefused(EngineError):
    """VPP's plugin said no, and why. ``status``: enum ips_ctl_status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, hint="see docs/pair.md")
        self.status = status


class PairControl:
    """The pair of the VPP behind ``client``. ``again`` makes another connection to it, to wait on."""

    def __init__(self, client: Client, again: Callable[[], Client]) -> None:
        self._client, self._again = client, again

    def set(self, record: bytes) -> None:
        """``struct ips_ctl_pair``. Raises ``PairRefused``."""
        self._order("ipshare_pair_set", bytes=len(record), pair=record)

    def clear(self) -> None:
        self._order("ipshare_pair_clear")

    def command(self, order: int, argument: int) -> None:
        """Raises ``PairRefused``: why it cannot be now."""
        self._order("ipshare_pair_command", order=order, argument=argument)

    def state(self) -> pairing.PairState | None:
        raw = self.raw_state()
        return None if raw is None else _state(raw)

    def raw_state(self) -> bytes | None:
        """``struct ips_ctl_pair_state``; None: no pair is set."""
        try:
            return bytes(self._patient("ipshare_pair_state").state)
        except ApiRefused as error:
            if error.retval != Retval.NO_SUCH_ENTRY:
                raise
            return None

    def watch(self) -> PairWait:
        return PairWait(self._again())

    def _order(self, name: str, **fields: Any) -> None:
        try:
            self._patient(name, **fields)
        except ApiRefused as error:
            reply = error.reply
            if error.retval == Retval.INIT_FAILED:
                raise PairRefused(NO_PAIR, lib.IPS_CTL_NO_PAIR) from error
            if error.retval == Retval.INVALID_VALUE and reply.sentence:
                raise PairRefused(reply.sentence, reply.status) from error
            raise

    def _patient(self, name: str, **fields: Any) -> Any:
        """Another order may be under way: it takes as long as a thread's end and a disk."""
        deadline = time.monotonic() + self._client.timeout_s
        while True:
            try:
                return self._client.call(name, **fields)
            except ApiRefused as error:
                if error.retval != Retval.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(BUSY_S)


class PairWait:
    """See ``ipshare.engine.pairing.PairWaiter``. One thread waits; any may interrupt."""

    def __init__(self, client: Client) -> None:
        """Raises ``EngineGone`` if no VPP answers."""
        self._client = client
        self._ended = False
        client.connect()

    def wait(self, seen: int, timeout_s: float | None = None) -> pairing.PairState:
        if self._ended or not self._client.is_connected:  # another connection may be another VPP
            raise EngineGone("VPP went away, or the wait was ended", hint="see its log")
        try:
            limit = FOR_EVER_S if timeout_s is None else timeout_s
            return _state(self._client.call("ipshare_pair_wait", changes=seen, timeout_s=limit).state)
        except ApiRefused as error:
            if error.retval != Retval.NO_SUCH_ENTRY:
                raise
            raise EngineError(NO_PAIR) from error
        except EngineSilent:
            if self._ended:
                raise EngineGone("the wait was ended") from None
            raise

    def interrupt(self) -> None:
        self._ended = True
        self._client.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def refused(error: PairRefused) -> IpshareError:
    """What an operator's order meets is no fault of the engine's."""
    if error.status in (lib.IPS_CTL_NO_PAIR, lib.IPS_CTL_REFUSED):
        return Refused(error.message, hint="see `ipshare pair status`")
    return error


def _state(raw: Any) -> pairing.PairState:
    return pairing.decode(np.frombuffer(bytes(raw), pairing.PAIR_STATE, count=1)[0])
