"""remap: what the embedded engine does of ``ipshare.engine.remapping.Remapping``: operations of
ips_control_remap.h."""

from __future__ import annotations

import numpy as np

from ipshare.core import dtype, lib
from ipshare.engine import remapping
from ipshare.engine.embedded.control import Control
from ipshare.engine.embedded.wire import ControlError, map_fd
from ipshare.engine.flows import SESSION, SessionDump
from ipshare.errors import Refused

FOUND = dtype("struct ips_ctl_sessions")
LONG_S = 120.0
"""Memory for the giver's flows, or all of them: seconds."""


class EmbeddedRemap:
    """The part of ``EmbeddedEngine`` that is half of remaps."""

    control: Control

    def set_remap(self, settings: remapping.RemapSettings) -> None:
        try:
            self.control.call(lib.IPS_CTL_REMAP_SET, remapping.encode_remap(settings), timeout_s=LONG_S)
        except ControlError as error:
            if error.status in (lib.IPS_CTL_REFUSED, lib.IPS_CTL_TOO_MANY):
                raise Refused(error.message, hint="see docs/remap.md") from error
            raise

    def clear_remap(self, remap: int) -> remapping.RemapState | None:
        return self._state(lib.IPS_CTL_REMAP_CLEAR, remap)

    def remap_state(self, remap: int) -> remapping.RemapState | None:
        return self._state(lib.IPS_CTL_REMAP_STATE, remap)

    def remaps(self) -> tuple[remapping.RemapState, ...]:
        try:
            reply = self.control.call(lib.IPS_CTL_REMAP_LIST)
        except ControlError as error:
            if error.status == lib.IPS_CTL_UNKNOWN_OP:
                return ()
            raise
        records = np.frombuffer(reply.payload, remapping.REMAP_STATE)
        return tuple(remapping.decode_remap(record) for record in records)

    def remap_flows(self, remap: int, limit: int = 0) -> SessionDump:
        try:
            reply = self.control.call(
                lib.IPS_CTL_REMAP_FLOWS, remapping.encode_wanted(remap, limit), timeout_s=LONG_S
            )
        except ControlError as error:
            if error.status in (lib.IPS_CTL_BAD_ARGUMENT, lib.IPS_CTL_TOO_MANY):
                raise Refused(error.message) from error
            raise
        found, content = reply.one(FOUND), map_fd(reply.fd)
        records = np.frombuffer(content, SESSION) if len(content) else np.zeros(0, SESSION)
        return SessionDump(records, **{name: int(found[name]) for name in ("now_ns", "matched", "scanned")})

    def _state(self, op: int, remap: int) -> remapping.RemapState | None:
        try:
            reply = self.control.call(op, remapping.encode_id(remap))
        except ControlError as error:
            if error.status in (lib.IPS_CTL_BAD_ARGUMENT, lib.IPS_CTL_UNKNOWN_OP):
                return None
            raise
        return remapping.decode_remap(reply.one(remapping.REMAP_STATE))
