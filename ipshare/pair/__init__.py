"""Who is active: what stands around the machine of ``native/ips_pair.c``.

``timing``: do the times of a configuration fit together (pure; the claims are the core's). ``epoch``: the
file that holds the reserved epoch. ``hooks``: the user's script at each change of state. Sockets, threads
and the engine process are the host's.
"""

from ipshare.pair.epoch import BadEpochFile, EpochFile
from ipshare.pair.hooks import Change, Hooks
from ipshare.pair.timing import Timing, problems, suggest

__all__ = ["BadEpochFile", "Change", "EpochFile", "Hooks", "Timing", "problems", "suggest"]
