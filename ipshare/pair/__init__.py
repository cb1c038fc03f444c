"""Who is active: what stands around the machine of ``native/ips_pair.c``.

``timing``: do the times of a configuration fit together (pure; the claims are the core's). ``hooks``: the
user's script at each change of state. Sockets, thread and the epoch file are the engine's (native/rt/).
"""

from ipshare.pair.hooks import Change, Hooks
from ipshare.pair.timing import Timing, problems, suggest

__all__ = ["Change", "Hooks", "Timing", "problems", "suggest"]
