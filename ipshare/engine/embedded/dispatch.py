"""dispatch: what the embedded engine does of ``ipshare.engine.dispatching.Dispatching``: operations of
ips_control_dispatch.h."""

from __future__ import annotations

from collections.abc import Sequence

from ipshare.core import lib
from ipshare.engine import dispatching
from ipshare.engine.embedded.control import Control
from ipshare.engine.embedded.wire import ControlError
from ipshare.errors import Refused


class EmbeddedDispatch:
    """The part of ``EmbeddedEngine`` that dispatches to servers."""

    control: Control

    def set_clusters(self, clusters: Sequence[dispatching.ClusterSetting]) -> None:
        try:
            self.control.call(lib.IPS_CTL_DISPATCH_SET, dispatching.encode_clusters(clusters))
        except ControlError as error:
            if error.status == lib.IPS_CTL_UNKNOWN_OP:
                text = "the running engine knows no clusters: it is of an earlier version"
                raise Refused(text, hint="ipshare down, then start the agent again") from error
            if error.status in (lib.IPS_CTL_REFUSED, lib.IPS_CTL_BAD_ARGUMENT):
                raise Refused(error.message, hint="see docs/clusters.md") from error
            raise

    def servers(self) -> tuple[dispatching.ServerReport, ...]:
        try:
            return dispatching.decode_servers(self.control.call(lib.IPS_CTL_DISPATCH_STATE).payload)
        except ControlError as error:
            if error.status == lib.IPS_CTL_UNKNOWN_OP:
                return ()
            raise
