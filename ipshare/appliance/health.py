"""health: after a start: is this slot fit to stay? If it is on trial: it becomes the good one, or the machine
starts again.

Fit means: SSH answers, and the agent is ready if it was before the update (then its engine forwards with
complete tables). A slot on trial that never gets here (a panic, a hang that the watchdog ends, no power) is
counted by GRUB.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ipshare.appliance import room, slots
from ipshare.errors import IpshareError

READY = Path("/data/appliance/agent.ready")
"""There if the agent was ready in the good slot."""
AGENT = "ipshare-agent@site.service"
PATIENCE_S = 240


def _is_active(unit: str) -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def wanted() -> list[str]:
    return ["ssh.service", *([AGENT] if READY.exists() and Path("/etc/ipshare/site.toml").exists() else [])]


def missing(
    patience_s: float = PATIENCE_S,
    is_active: Callable[[str], bool] = _is_active,
    units: Callable[[], list[str]] = wanted,
) -> list[str]:
    """The units that are wanted and are not active, after waiting for them."""
    end = time.monotonic() + patience_s
    while left := [unit for unit in units() if not is_active(unit)]:
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    return left


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
    left = missing()
    with slots.environment() as path:
        boot, word = slots.look(path).judged(slot, not left)
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
    if word == "rolled-back":
        say(
            f"the update in slot {slots.other(slot)} did not come up and was given up; "
            "this is the version before it"
        )
    if not on_trial and not room.IN_MEMORY.exists():
        READY.parent.mkdir(parents=True, exist_ok=True)
        # Waited for: on a slow machine its first start may fail and the next one succeed.
        has_site = Path("/etc/ipshare/site.toml").exists()
        if has_site and not missing(units=lambda: [AGENT]):
            READY.touch()
        else:
            READY.unlink(missing_ok=True)
    return not (on_trial and left)


def again() -> None:
    """Starts the machine again: GRUB counts."""
    done = subprocess.run(["systemctl", "reboot", "--force"], check=False)
    if done.returncode:
        raise IpshareError(
            "the machine does not start again by itself", hint="reset it: the slot before is started"
        )
