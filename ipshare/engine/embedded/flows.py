"""flows: what the embedded engine does of ``ipshare.engine.flows.Flowing``: operations of
ips_control_flows.h.

Bulk data comes as a sealed memfd, which is mapped: no session becomes a Python object, none is copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipshare.core import dtype, lib
from ipshare.engine import flows, natlog
from ipshare.engine.embedded.control import Control
from ipshare.engine.embedded.wire import ControlError, Reply, map_fd
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.tables import Records
from ipshare.errors import Refused
from ipshare.model import NatLog

FOUND = dtype("struct ips_ctl_sessions")
CLOSED = dtype("struct ips_ctl_closed")
LATER = "ipshare down, then start the agent again"


class EmbeddedFlows:
    """The part of ``EmbeddedEngine`` that tracks connections."""

    control: Control

    def set_flows(self, settings: flows.FlowsSettings) -> None:
        try:
            self.control.call(lib.IPS_CTL_FLOWS_SET, flows.encode_flows(settings))
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
        reply = self._ask(lib.IPS_CTL_SESSIONS_DUMP, wanted.encode())
        found = reply.one(FOUND)
        numbers = {name: int(found[name]) for name in ("now_ns", "matched", "scanned")}
        return flows.SessionDump(_records(reply, flows.SESSION), **numbers)

    def close_sessions(self, wanted: SessionFilter) -> int:
        return int(self._ask(lib.IPS_CTL_SESSIONS_CLOSE, wanted.encode()).one(CLOSED)["closed"])

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

    def _ask(self, op: int, payload: bytes = b"") -> Reply:
        try:
            return self.control.call(op, payload)
        except ControlError as error:
            if error.status == lib.IPS_CTL_REFUSED:
                raise Refused(
                    error.message, hint="see [sessions] and [mirror] in the configuration"
                ) from error
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
