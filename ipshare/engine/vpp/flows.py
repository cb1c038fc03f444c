"""flows: what VPP with our plugin does of ``Flowing``, ``Fed`` and ``NatLogging``, by the plugin's API.

Orders and answers are the C structs that go over the embedded engine's socket as well (ipshare.engine.flows).
Bulk data is in files on tmpfs, as tables are: no session becomes a Python object.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ipshare.core import dtype, lib
from ipshare.engine import flows, natlog
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.tables import Records
from ipshare.engine.vpp.client import ApiRefused, Client
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import EngineError, Refused
from ipshare.model import NatLog

T = TypeVar("T")
FOUND = dtype("struct ips_ctl_sessions")
CLOSED = dtype("struct ips_ctl_closed")
LONG_S = 120.0
"""Memory for ten million sessions, or all of them: seconds."""
FEED_TIMEOUT_S = 30.0
FEED_RECORDS = 65536
"""Of one file."""
BUSY_S = 0.005
TMPFS = Path("/dev/shm")
LATER = "restart VPP, or leave the sizes in [sessions] as they were"


class FlowsRefused(EngineError):
    """VPP's plugin said no, and why. ``status``: enum ips_ctl_status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, hint="see [sessions] and [mirror] in the configuration")
        self.status = status


class FlowsControl:
    """Orders to the VPP behind ``client``. ``scratch``: directory for bulk files; None: on tmpfs."""

    def __init__(self, client: Client, scratch: Path | None = None) -> None:
        self.client = client
        self._scratch = scratch or (TMPFS if os.access(TMPFS, os.W_OK) else None)

    def order(
        self, op: int, payload: bytes = b"", *, path: str = "", timeout_s: float | None = None
    ) -> bytes:
        """The reply's bytes. Raises ``FlowsRefused``, ``EngineError``."""
        limit = timeout_s or self.client.timeout_s
        fields = {"op": op, "path": path, "bytes": len(payload), "payload": payload}
        deadline = time.monotonic() + limit
        while True:
            try:
                return bytes(self.client.call("ipshare_flows", timeout_s=limit, **fields).reply)
            except ApiRefused as error:
                if error.retval == Retval.INVALID_VALUE:
                    raise _why(error) from error
                if error.retval != Retval.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(BUSY_S)  # another order is under way, and VPP tells nobody that it is done

    def records(self, op: int, layout: np.dtype[Any], payload: bytes = b"") -> tuple[bytes, Records]:
        """(reply, records that came in a file: private memory, read-only)."""
        with tempfile.TemporaryDirectory(prefix="ipshare-", dir=self._scratch) as name:
            path = Path(name) / "records"
            reply = self.order(op, payload, path=str(path), timeout_s=LONG_S)
            size = path.stat().st_size
            if not size:
                return reply, np.zeros(0, layout)
            return reply, np.memmap(path, layout, mode="r").view(np.ndarray)

    def with_records(self, op: int, payload: bytes, records: Records) -> None:
        with tempfile.TemporaryDirectory(prefix="ipshare-", dir=self._scratch) as name:
            path = Path(name) / "records"
            path.write_bytes(np.ascontiguousarray(records).view(np.uint8).data)
            self.order(op, payload, path=str(path))


class VppFlows:
    """The part of ``VppEngine`` that tracks connections."""

    tracked: FlowsControl
    _again: Callable[[], Client]

    def configure(self) -> None: ...

    def set_flows(self, settings: flows.FlowsSettings) -> None:
        self.configure()
        try:
            self.tracked.order(lib.IPS_CTL_FLOWS_SET, flows.encode_flows(settings), timeout_s=LONG_S)
        except FlowsRefused as error:
            if error.status != lib.IPS_CTL_REFUSED:
                raise
            raise Refused(
                error.message, hint=f"the sizes in [sessions] are those that VPP began with: {LATER}"
            ) from error

    def flows_state(self) -> flows.FlowsState | None:
        try:
            raw = self.tracked.order(lib.IPS_CTL_FLOWS_STATE)
        except ApiRefused as error:
            if error.retval != Retval.INIT_FAILED:
                raise
            raw = bytes(flows.FLOWS_STATE.itemsize)  # not set up yet: it tracks nothing
        return flows.decode_state(np.frombuffer(raw, flows.FLOWS_STATE, count=1)[0])

    def sessions(self, wanted: SessionFilter) -> flows.SessionDump:
        reply, records = _asked(
            lambda: self.tracked.records(lib.IPS_CTL_SESSIONS_DUMP, flows.SESSION, wanted.encode())
        )
        found = np.frombuffer(reply, FOUND, count=1)[0]
        numbers = {name: int(found[name]) for name in ("now_ns", "matched", "scanned")}
        return flows.SessionDump(records, **numbers)

    def close_sessions(self, wanted: SessionFilter) -> int:
        reply = self._order(lib.IPS_CTL_SESSIONS_CLOSE, wanted.encode(), LONG_S)
        return int(np.frombuffer(reply, CLOSED, count=1)[0]["closed"])

    def nat_addresses(self) -> Records:
        return _asked(lambda: self.tracked.records(lib.IPS_CTL_NAT_ADDRESSES, flows.NAT_ADDRESS))[1]

    def set_mirror(self, settings: flows.MirrorSettings) -> None:
        self._order(lib.IPS_CTL_MIRROR_SET, flows.encode_mirror(settings))

    def clear_mirror(self) -> None:
        self._order(lib.IPS_CTL_MIRROR_CLEAR)

    def set_nat_log(self, log: NatLog | None, host: str) -> None:
        self.configure()
        self._order(lib.IPS_CTL_NATLOG_SET, natlog.encode_nat_log(log, host))

    def nat_log_state(self) -> natlog.NatLogState | None:
        try:
            raw = self.tracked.order(lib.IPS_CTL_NATLOG_STATE)
        except ApiRefused as error:
            if error.retval != Retval.INIT_FAILED:
                raise
            raw = bytes(natlog.NAT_LOG_STATE.itemsize)
        return natlog.decode_nat_log_state(np.frombuffer(raw, natlog.NAT_LOG_STATE, count=1)[0])

    def feed_sessions(self) -> VppFeed:
        return VppFeed(self._again())

    def _order(self, op: int, payload: bytes = b"", timeout_s: float | None = None) -> bytes:
        return _asked(lambda: self.tracked.order(op, payload, timeout_s=timeout_s))


class VppFeed:
    """See ``SessionFeed``."""

    def __init__(self, client: Client) -> None:
        client.timeout_s = FEED_TIMEOUT_S
        self._client, self._flows, self._epoch = client, FlowsControl(client), 0

    def begin(self, epoch: int, *, is_new_origin: bool) -> None:
        self._tell(epoch, lib.IPS_CTL_FEED_BEGIN | (lib.IPS_CTL_FEED_NEW_ORIGIN if is_new_origin else 0))

    def records(self, epoch: int, records: Records) -> None:
        for at in range(0, len(records), FEED_RECORDS):
            self._tell(epoch, 0, records[at : at + FEED_RECORDS])

    def end(self, epoch: int) -> None:
        self._tell(epoch, lib.IPS_CTL_FEED_END)

    def lost(self) -> None:
        self._tell(self._epoch, lib.IPS_CTL_FEED_LOST)

    def close(self) -> None:
        self._client.close()

    def _tell(self, epoch: int, flags: int, some: Records | None = None) -> None:
        self._epoch = max(epoch, self._epoch)
        op, count = lib.IPS_CTL_SESSIONS_FEED, 0 if some is None else len(some)
        payload = flows.encode_feed(epoch, flags, count)
        if some is None:
            _asked(lambda: self._flows.order(op, payload))
        else:
            _asked(lambda: self._flows.with_records(op, payload, some))


def _asked(ask: Callable[[], T]) -> T:
    """What an operator's wish meets is no fault of the engine's."""
    try:
        return ask()
    except FlowsRefused as error:
        if error.status == lib.IPS_CTL_REFUSED:
            raise Refused(error.message, hint=error.hint) from error
        raise
    except ApiRefused as error:
        if error.retval == Retval.INIT_FAILED:
            raise Refused("no connections are tracked on this node") from error
        raise


def _why(error: ApiRefused) -> FlowsRefused:
    reply = error.reply
    reason = f": {os.strerror(reply.error)}" if reply.error else ""
    return FlowsRefused(f"{reply.sentence}{reason}", reply.status)
