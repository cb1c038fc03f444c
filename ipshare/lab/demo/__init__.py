"""``ipshare demo``: an address moves between two datacenters under real traffic, every byte checked."""

from ipshare.lab.demo.main import main

__all__ = ["main"]
