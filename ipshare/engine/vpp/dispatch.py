"""dispatch: what VPP with our plugin does of ``ipshare.engine.dispatching.Dispatching``: the orders of
ips_control_dispatch.h, by the one message for orders on connections (decision 0041). An interface that is not
there yet is none of its objections: servers' adjacencies are made when it comes (decision 0069)."""

from __future__ import annotations

from collections.abc import Sequence

from ipshare.core import lib
from ipshare.engine import dispatching
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.flows import FlowsControl, FlowsRefused
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import Refused

EARLIER = (Retval.UNIMPLEMENTED, Retval.INIT_FAILED)
"""Of the plugin of an earlier version, and of one that is not set up: it has no clusters."""


class VppDispatch:
    """The part of ``VppEngine`` that dispatches to servers."""

    tracked: FlowsControl

    def configure(self) -> None: ...

    def set_clusters(self, clusters: Sequence[dispatching.ClusterSetting]) -> None:
        self.configure()
        try:
            self.tracked.order(lib.IPS_CTL_DISPATCH_SET, dispatching.encode_clusters(clusters))
        except FlowsRefused as error:
            if error.status in (lib.IPS_CTL_REFUSED, lib.IPS_CTL_BAD_ARGUMENT):
                raise Refused(error.message, hint="see docs/clusters.md") from error
            raise
        except ApiRefused as error:
            if error.retval == Retval.UNIMPLEMENTED:
                text = "VPP's plugin knows no clusters: it is of an earlier version"
                raise Refused(text, hint="restart VPP with the plugin of this version") from error
            raise

    def servers(self) -> tuple[dispatching.ServerReport, ...]:
        try:
            return dispatching.decode_servers(self.tracked.order(lib.IPS_CTL_DISPATCH_STATE))
        except ApiRefused as error:
            if error.retval in EARLIER:
                return ()
            raise
