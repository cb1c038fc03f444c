"""remap: what VPP with our plugin does of ``ipshare.engine.remapping.Remapping``: the orders of
ips_control_remap.h, by the one message for orders on connections (decision 0041)."""

from __future__ import annotations

import numpy as np

from ipshare.core import lib
from ipshare.engine import remapping
from ipshare.engine.flows import SESSION, SessionDump
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.flows import FOUND, LONG_S, FlowsControl, FlowsRefused
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import Refused


class VppRemap:
    """The part of ``VppEngine`` that is half of remaps."""

    tracked: FlowsControl

    def configure(self) -> None: ...

    def set_remap(self, settings: remapping.RemapSettings) -> None:
        self.configure()
        try:
            self.tracked.order(lib.IPS_CTL_REMAP_SET, remapping.encode_remap(settings), timeout_s=LONG_S)
        except FlowsRefused as error:
            if error.status in (lib.IPS_CTL_REFUSED, lib.IPS_CTL_TOO_MANY):
                raise Refused(error.message, hint="see docs/remap.md") from error
            raise

    def clear_remap(self, remap: int) -> remapping.RemapState | None:
        return self._remap(lib.IPS_CTL_REMAP_CLEAR, remap)

    def remap_state(self, remap: int) -> remapping.RemapState | None:
        return self._remap(lib.IPS_CTL_REMAP_STATE, remap)

    def remaps(self) -> tuple[remapping.RemapState, ...]:
        try:
            reply = self.tracked.order(lib.IPS_CTL_REMAP_LIST)
        except ApiRefused as error:
            if error.retval == Retval.INIT_FAILED:
                return ()  # not set up yet
            raise
        return tuple(map(remapping.decode_remap, np.frombuffer(reply, remapping.REMAP_STATE)))

    def remap_flows(self, remap: int, limit: int = 0) -> SessionDump:
        wanted = remapping.encode_wanted(remap, limit)
        try:
            reply, records = self.tracked.records(lib.IPS_CTL_REMAP_FLOWS, SESSION, wanted)
        except FlowsRefused as error:
            if error.status == lib.IPS_CTL_BAD_ARGUMENT:
                raise Refused(error.message) from error
            raise
        except ApiRefused as error:
            if error.retval == Retval.INIT_FAILED:
                raise Refused(f"there is no remap {remap}") from error
            raise
        found = np.frombuffer(reply, FOUND, count=1)[0]
        return SessionDump(records, **{name: int(found[name]) for name in ("now_ns", "matched", "scanned")})

    def _remap(self, op: int, remap: int) -> remapping.RemapState | None:
        try:
            reply = self.tracked.order(op, remapping.encode_id(remap), timeout_s=LONG_S)
        except FlowsRefused as error:
            if error.status == lib.IPS_CTL_BAD_ARGUMENT:
                return None
            raise
        except ApiRefused as error:
            if error.retval == Retval.INIT_FAILED:
                return None
            raise
        return remapping.decode_remap(np.frombuffer(reply, remapping.REMAP_STATE, count=1)[0])
