"""flows: what the embedded engine does of ``ipshare.engine.flows.Flowing``: operations of
ips_control_flows.h.

Bulk data comes as a sealed memfd, which is mapped: no session becomes a Python object, none is copied.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ipshare.core import dtype, lib
from ipshare.engine import flows, natlog
from ipshare.engine.embedded.control import Control
from ipshare.engine.embedded.wire import ControlError, Reply, map_fd, sealed_memfd
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.tables import Records
from ipshare.errors import Refused
from ipshare.model import NatLog

FOUND = dtype("struct ips_ctl_sessions")
CLOSED = dtype("struct ips_ctl_closed")
LONG_S = 120.0
"""Memory for ten million sessions, or all of them: seconds."""
FEED_TIMEOUT_S = 30.0
FEED_RECORDS = 4096
"""Of one message: the engine applies them under a lock."""
LATER = "ipshare down, then start the agent again"


class EmbeddedFlows:
    """The part of ``EmbeddedEngine`` that tracks connections."""

    control: Control

    def set_flows(self, settings: flows.FlowsSettings) -> None:
        try:
            self.control.call(lib.IPS_CTL_FLOWS_SET, flows.encode_flows(settings), timeout_s=LONG_S)
        except ControlError as error:
            raise _refused(error) from error

    def flows_state(self) -> flows.FlowsState | None:
        try:
            return flows.decode_state(self.control.call(lib.IPS_CTL_FLOWS_STATE).one(flows.FLOWS_STATE))
        except ControlError as error:
            if error.status == lib.IPS_CTL_UNKNOWN_OP:
                return None
            raise

    def sessions(self, wanted: SessionFilter) -> flows.SessionDump:
        reply = self._ask(lib.IPS_CTL_SESSIONS_DUMP, wanted.encode(), LONG_S)
        found = reply.one(FOUND)
        numbers = {name: int(found[name]) for name in ("now_ns", "matched", "scanned")}
        return flows.SessionDump(_records(reply, flows.SESSION), **numbers)

    def close_sessions(self, wanted: SessionFilter) -> int:
        return int(self._ask(lib.IPS_CTL_SESSIONS_CLOSE, wanted.encode(), LONG_S).one(CLOSED)["closed"])

    def nat_addresses(self) -> Records:
        return _records(self._ask(lib.IPS_CTL_NAT_ADDRESSES), flows.NAT_ADDRESS)

    def set_mirror(self, settings: flows.MirrorSettings) -> None:
        self._ask(lib.IPS_CTL_MIRROR_SET, flows.encode_mirror(settings))

    def clear_mirror(self) -> None:
        self._ask(lib.IPS_CTL_MIRROR_CLEAR)

    def set_nat_log(self, log: NatLog | None, host: str) -> None:
        self._ask(lib.IPS_CTL_NATLOG_SET, natlog.encode_nat_log(log, host))

    def nat_log_state(self) -> natlog.NatLogState | None:
        try:
            reply = self.control.call(lib.IPS_CTL_NATLOG_STATE)
        except ControlError as error:
            if error.status == lib.IPS_CTL_UNKNOWN_OP:
                return None
            raise
        return natlog.decode_nat_log_state(reply.one(natlog.NAT_LOG_STATE))

    def feed_sessions(self) -> EmbeddedFeed:
        return EmbeddedFeed(Control(self.control.path, timeout_s=FEED_TIMEOUT_S))

    def _ask(self, op: int, payload: bytes = b"", timeout_s: float | None = None) -> Reply:
        try:
            return self.control.call(op, payload, timeout_s=timeout_s)
        except ControlError as error:
            if error.status == lib.IPS_CTL_REFUSED:
                raise Refused(
                    error.message, hint="see [sessions] and [mirror] in the configuration"
                ) from error
            raise


class EmbeddedFeed:
    """See ``SessionFeed``."""

    def __init__(self, control: Control) -> None:
        self._control, self._epoch = control, 0

    def begin(self, epoch: int, *, is_new_origin: bool) -> None:
        flags = lib.IPS_CTL_FEED_BEGIN | (lib.IPS_CTL_FEED_NEW_ORIGIN if is_new_origin else 0)
        self._tell(epoch, flags)

    def records(self, epoch: int, records: Records) -> None:
        for at in range(0, len(records), FEED_RECORDS):
            some = np.ascontiguousarray(records[at : at + FEED_RECORDS])
            fd = sealed_memfd(some.view(np.uint8).data)
            try:
                self._tell(epoch, 0, len(some), fd)
            finally:
                os.close(fd)

    def end(self, epoch: int) -> None:
        self._tell(epoch, lib.IPS_CTL_FEED_END)

    def lost(self) -> None:
        self._tell(self._epoch, lib.IPS_CTL_FEED_LOST)

    def close(self) -> None:
        self._control.close()

    def _tell(self, epoch: int, flags: int, count: int = 0, fd: int = -1) -> None:
        self._epoch = max(epoch, self._epoch)
        try:
            self._control.call(lib.IPS_CTL_SESSIONS_FEED, flows.encode_feed(epoch, flags, count), fd=fd)
        except ControlError as error:
            if error.status == lib.IPS_CTL_REFUSED:
                raise Refused(error.message) from error
            raise


def _refused(error: ControlError) -> Exception:
    if error.status == lib.IPS_CTL_UNKNOWN_OP:
        return Refused("the running engine tracks no connections: it is of an earlier version", hint=LATER)
    if error.status == lib.IPS_CTL_REFUSED:
        return Refused(
            error.message, hint=f"the sizes in [sessions] are those that an engine began with: {LATER}"
        )
    return error


def _records(reply: Reply, layout: np.dtype[Any]) -> Records:
    """The array behind the descriptor, read-only."""
    content = map_fd(reply.fd)
    return np.frombuffer(content, layout) if len(content) else np.zeros(0, layout)
