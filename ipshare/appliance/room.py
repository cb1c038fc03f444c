"""room: at the box: is /data there, and has it room? A box where it is not, or has none, runs and says so."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path("/data")
IN_MEMORY = Path("/run/ipshare-degraded")
"""There, with the reason, if the initrd put memory in place of the data partition."""
ETC_IN_MEMORY = Path("/run/ipshare-etc")
"""There if the initrd laid the changes of /etc in memory, because /data had less than LEAST."""
LEAST = 2 << 20
"""Octets. Epochs, states and configurations take less; nothing else is kept from filling the rest."""


def free(data: Path = DATA) -> int:
    """Octets that are left; 0 where nobody can say."""
    try:
        found = os.statvfs(data)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def degraded(data: Path = DATA, in_memory: Path = IN_MEMORY, etc: Path = ETC_IN_MEMORY) -> str:
    """Why this box cannot keep what it should; "": it can."""
    if in_memory.exists():
        return in_memory.read_text().strip()
    if free(data) < LEAST:
        return "/data is full: nothing new is kept, no new epoch is used"
    if etc.exists():
        return "/data was full when this start began: changes in /etc are lost with the next one"
    return ""
