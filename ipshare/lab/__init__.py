"""A small Internet in network namespaces, for the demo, for tests and for trying things out (docs/lab.md)."""

from ipshare.lab.impair import Impairment
from ipshare.lab.internet import LabSpec
from ipshare.lab.lab import Lab
from ipshare.lab.netns import LabError

__all__ = ["Impairment", "Lab", "LabError", "LabSpec"]
