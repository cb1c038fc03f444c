"""VPP with the ipshare plugin, seen from Python.

``VppEngine`` is the data path that the agent uses; ``Control`` every message of the plugin, ``Client``
VPP's binary API as a whole, ``Segment`` its counters; ``find`` and ``launch`` locate and start a VPP. The
plugin itself: plugins/ipshare.
"""

from __future__ import annotations

from ipshare.engine.vpp.client import ApiRefused, Client
from ipshare.engine.vpp.control import Control, Hello
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.find import Install
from ipshare.engine.vpp.retval import Retval
from ipshare.engine.vpp.startup import Settings
from ipshare.engine.vpp.stats import Segment

__all__ = [
    "ApiRefused",
    "Client",
    "Control",
    "Hello",
    "Install",
    "Retval",
    "Segment",
    "Settings",
    "VppEngine",
]
