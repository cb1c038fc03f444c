"""Remaps from one place: an address from end point A to B, while A's connections live on (SYSTEMS.md S4).

    from ipshare.remap import remap

    done = remap("203.0.113.7", origin="A", to="B", nodes={"a1": "/run/ipshare/a1", ...}, deadline_s=600)

wish (what is asked for -> a plan, or why not), machine (the plan's steps: pure), executor (does them),
journal (so that it may die), nodes (whom it talks to), text (what it says). docs/remap.md has it all.
"""

from ipshare.remap.run import abort, listed, remap, resume
from ipshare.remap.wish import NotPossible, Wish

__all__ = ["NotPossible", "Wish", "abort", "listed", "remap", "resume"]
