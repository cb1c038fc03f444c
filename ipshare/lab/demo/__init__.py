"""``ipshare demo``: an address moves between two datacenters while real traffic flows, and every byte is checked."""

from ipshare.lab.demo.main import main

__all__ = ["main"]
