"""A small Internet in network namespaces, for the demo, for tests and for trying things out (docs/lab.md).

Names are loaded when they are used: the lab's own processes (relay, servers, clients) start without netlink.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipshare.lab.impair import Impairment
    from ipshare.lab.internet import LabSpec
    from ipshare.lab.lab import Lab
    from ipshare.lab.netns import LabError

__all__ = ["Impairment", "Lab", "LabError", "LabSpec"]
_HOMES = {"Impairment": "impair", "LabSpec": "internet", "Lab": "lab", "LabError": "netns"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"ipshare.lab.{_HOMES[name]}"), name)
