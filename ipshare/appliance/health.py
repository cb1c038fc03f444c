"""health: after a start: is this slot fit to stay? If it is on trial: it becomes the good one, or the machine
starts again.

Fit means: SSH answers, and the agent is ready if it was before the update (then its engine forwards with
complete tables). A slot on trial has /data, too, and all of it stays so for STEADY_S, with the same engines:
an agent, or an engine, that ends and is started again and again is there now and then. A slot that never gets
here (a panic, a hang that the watchdog ends, no power) is counted by GRUB.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ipshare.api import Node
from ipshare.appliance import overlay, restart, room, slots
from ipshare.errors import IpshareError

SITE = Path(overlay.SITE)
READY = Path("/data/appliance/agent.ready")
"""There if the agent was ready in the good slot: after its start, or when an update was installed (note)."""
AGENT = "ipshare-agent@site.service"
PATIENCE_S = 240
STEADY_S = 10
LOOK_S = 0.5


def _is_active(unit: str) -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def wanted() -> list[str]:
    return ["ssh.service", *([AGENT] if READY.exists() else [])]


def note(
    say: Callable[[str], None], is_active: Callable[[str], bool] = lambda unit: _is_active(unit)
) -> None:
    """Before a trial: an agent that is ready now has to be ready in it, also if it began after the last start
    was judged; a box without a site file has none."""
    is_ready = is_active(AGENT)
    if is_ready or not SITE.exists():
        _remember(is_ready, say)


def _remember(is_ready: bool, say: Callable[[str], None]) -> None:
    if room.IN_MEMORY.exists():
        return
    try:
        if is_ready:
            READY.parent.mkdir(parents=True, exist_ok=True)
            READY.touch()
        else:
            READY.unlink(missing_ok=True)
    except OSError as error:
        say(f"/data does not take whether the agent is ready: {error.strerror}; an update does without")


def engines(nodes: Path = restart.NODES) -> dict[str, int]:
    """The process of each engine whose agent answers; 0: it has none now."""
    found = {}
    for state in sorted(nodes.glob("*/state.json")):
        # An agent that does not answer is its unit's matter; so is one of a node that is no more.
        with contextlib.suppress(IpshareError, OSError, ValueError), Node.stored(state.parent) as node:
            found[state.parent.name] = int(node.status()["engine_pid"] or 0)
    return found


def missing(
    patience_s: float = PATIENCE_S,
    is_active: Callable[[str], bool] = lambda unit: _is_active(unit),
    units: Callable[[], list[str]] = wanted,
    steady_s: float = 0,
) -> list[str]:
    """The units that are wanted and are not active, after waiting for them to be so; with ``steady_s``, for
    so long on end, and with the same engines."""
    end, since, last = time.monotonic() + patience_s, None, list[str]()
    before: dict[str, int] | None = None
    while True:
        left = [unit for unit in units() if not is_active(unit)]
        if steady_s and not left:
            now = engines()
            was = now if before is None else before
            left = [f"the engine of {name}" for name in sorted(was | now) if was.get(name) != now.get(name)]
            before = now
        if left:
            since, last = None, left
        elif since is None:
            since = time.monotonic()
        if since is not None and time.monotonic() - since >= steady_s:
            return []
        if time.monotonic() > end:
            return left or last
        time.sleep(LOOK_S)


def judge(say: Callable[[str], None]) -> bool:
    """Judges the running slot; true if it may go on running."""
    if slots.is_live():
        left = missing()
        state = f"not healthy: {', '.join(left)}" if left else "healthy"
        say(f"live system ({slots.release().get('version')}): {state}")
        return True
    slot = slots.running()
    with slots.environment() as path:
        on_trial = slots.look(path).trial == slot
    left = missing(steady_s=STEADY_S if on_trial else 0)
    if on_trial and room.IN_MEMORY.exists():
        left.append("/data")  # the version before may be able to mount it
    with slots.environment() as path:
        boot, word = slots.look(path).judged(slot, not left, slots.is_instead())
        if boot != slots.look(path):
            slots.store(path, boot)
    version = slots.release().get("version")
    if left:
        say(f"slot {slot} ({version}): not healthy: {', '.join(left)}")
    elif word == "good":
        say(f"slot {slot} ({version}): healthy, kept from now on")
    else:
        say(f"slot {slot} ({version}): healthy")
    if why := room.degraded():
        say(f"degraded: {why}")
    if word == "instead":
        say(f"slot {slots.other(slot)} cannot be read: {slot} is the good one now; an update mends the other")
    if word == "rolled-back":
        say(
            f"the update in slot {slots.other(slot)} did not come up and was given up; "
            "this is the version before it"
        )
    if not on_trial:
        # Waited for: on a slow machine its first start may fail and the next one succeed.
        _remember(SITE.exists() and not missing(units=lambda: [AGENT]), say)
    return not (on_trial and left)


def again() -> None:
    """Starts the machine again: GRUB counts. Raises IpshareError."""
    restart.now("--force")
